"""A kernel that stores the numbers which those of ``agents.ops.triton_ops`` only compute with; needs Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from agents.ops.triton_ops import _uniform, _words


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
