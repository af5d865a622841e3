"""A kernel that stores the numbers which those of ``agents.ops.triton_ops`` only compute with; needs Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from agents.ops.triton_ops import _rank, _stratum, _uniform, _words


@triton.jit
def _store(seed, cells, image, group, out, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.arange(0, SIZE)
    zero = tl.zeros((SIZE,), dtype=tl.int32)
    w0, w1, w2, w3 = _words(
        tl.load(seed), tl.load(cells + place), (zero + image).to(tl.uint32), (zero + group).to(tl.uint32)
    )
    tl.store(out + place, _uniform(w0))
    tl.store(out + SIZE + place, _uniform(w1))
    tl.store(out + 2 * SIZE + place, _uniform(w2))
    tl.store(out + 3 * SIZE + place, _uniform(w3))


def group_uniforms(seed: torch.Tensor, cells: torch.Tensor, image: int, group: int) -> torch.Tensor:
    """float32 (4, M): the four samples of a group in these cells, int64 (M,), M a power of two."""
    out = torch.empty((4, len(cells)), dtype=torch.float32, device=cells.device)
    _store[(1,)](seed, cells, image, group, out, SIZE=len(cells))
    return out


@triton.jit
def _store_strata(words, out, samples):  # type: ignore[no-untyped-def]
    k = tl.arange(0, 4)
    own = tl.load(words + k)
    w0, w1, w2, w3 = tl.load(words), tl.load(words + 1), tl.load(words + 2), tl.load(words + 3)
    tl.store(out + k, _stratum(own, _rank(own, k, w0, w1, w2, w3, 0, samples), samples))


def strata(words: torch.Tensor, samples: int) -> torch.Tensor:
    """float32 (4,): the stratified numbers of up to four samples whose words, for both, are these, uint32 (4,)."""
    out = torch.empty(4, dtype=torch.float32, device=words.device)
    _store_strata[(1,)](words, out, samples)
    return out
