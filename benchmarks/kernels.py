"""The operations of ``agents.ops`` against plain torch, torch.compile and the memory's speed.

    python -m benchmarks.kernels
    python -m benchmarks.kernels --device cuda --sizes 16x64x21x512x512 16x64x150x512x512

For every operation and size B×K×C×H×W: milliseconds, the bytes that no implementation can leave out (inputs read once,
outputs written once), those bytes per second as a share of the device's measured copy bandwidth, the peak of the memory
allocated beside inputs and outputs, and how many times faster it is than the torch reference as it stands and as
torch.compile makes it, all in one run. Results are compared before anything is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from agents.arguments import choose_device, run_command
from agents.ops import torch_ops
from agents.ops.dispatch import backend
from benchmarks.results_file import RESULTS, provenance, write_rows
from rss_env.errors import OptionError


@dataclass
class KernelArguments:
    """Measure the operations of the agent's hot path."""

    sizes: tuple[str, ...] = ("8x32x5x48x48", "8x32x11x72x96", "8x128x11x72x96")
    """B×K×C×H×W, written with x"""
    device: str = "cpu"
    """cpu or cuda"""
    repeats: int = 15
    """runs of each operation; the median counts"""
    compiled: bool = True
    """measure torch.compile of the reference as well"""
    out: str = str(RESULTS / "kernels.csv")
    """results file"""


def median_seconds(function: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median time of a call, after two to warm up."""
    times = []
    for repeat in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if repeat >= 2:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def copy_bandwidth(device: torch.device, repeats: int) -> float:
    """Bytes a second that a copy reads and writes, larger than any cache."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**25, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_seconds(lambda: target.copy_(source), device, repeats)


def peak_beside_outputs(function: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes allocated at most beside inputs and outputs; None where torch does not count them."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = function()
    outputs = sum(part.nbytes for part in (result if isinstance(result, tuple) else (result,)))
    return torch.cuda.max_memory_allocated() - before - outputs


def cases(size: tuple[int, ...], device: torch.device) -> dict[str, tuple[Callable[..., Any], Callable[..., Any], int]]:
    """By operation: the dispatched one, the torch reference, and the bytes that must move."""
    batch, samples, classes, height, width = size
    generator = torch.Generator(device).manual_seed(0)
    logits = torch.randn((batch, classes, height, width), generator=generator, device=device).mul(2)
    p = logits.softmax(dim=1)
    seed, offset = torch.tensor([0], device=device), torch.tensor([0, 0], device=device)
    label_maps = torch_ops.sample_label_maps(logits, samples, seed, 1.0, 1, offset)
    maps, owner = label_maps.flatten(0, 1), torch.arange(batch, device=device).repeat_interleave(samples)
    weights = torch.randn((batch * samples, classes), generator=generator, device=device)
    advantages = torch.randn((batch, samples, 1, 1), generator=generator, device=device)
    kernels = backend(p)
    return {
        "draw": (
            lambda: kernels.sample_label_maps(logits, samples, seed, 1.0, 1, offset),
            lambda: torch_ops.sample_label_maps(logits, samples, seed, 1.0, 1, offset),
            logits.nbytes + label_maps.nbytes,
        ),
        "soft_counts": (
            lambda: kernels.soft_counts(p, maps, owner),
            lambda: torch_ops.soft_counts(p, maps, owner),
            p.nbytes + maps.nbytes + 2 * weights.nbytes,
        ),
        "class_credit": (
            lambda: kernels.class_credit(maps, owner, weights, batch),
            lambda: torch_ops.class_credit(maps, owner, weights, batch),
            p.nbytes + maps.nbytes + weights.nbytes,
        ),
        "credit": (
            lambda: kernels.credit(label_maps, advantages, classes),
            lambda: torch_ops.credit(label_maps, advantages, classes),
            p.nbytes + label_maps.nbytes + advantages.nbytes,
        ),
    }


def compare(result: Any, expected: Any) -> None:
    """Raises ``AssertionError`` if results differ; one label in ten thousand may, where its draw is on a boundary."""
    if isinstance(result, torch.Tensor) and result.dtype == torch.uint8:
        share = (result != expected).float().mean().item()
        assert share <= 1e-4, f"{share:.2%} of the labels differ"
    else:
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-4)


def parse_size(text: str) -> tuple[int, ...]:
    """``"8x32x5x48x48"`` -> (8, 32, 5, 48, 48).

    Raises:
        OptionError: it is not five positive integers.
    """
    parts = text.split("x")
    if len(parts) != 5 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise OptionError(f"A size is B×K×C×H×W, such as 8x32x5x48x48, got {text!r}.")
    return tuple(map(int, parts))


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(KernelArguments, prog="python -m benchmarks.kernels")
    device = choose_device(args.device)
    sizes = [parse_size(text) for text in args.sizes]
    bandwidth = copy_bandwidth(device, args.repeats)
    print(f"copy bandwidth {bandwidth / 1e9:.1f} GB/s")
    print(f"{'size':<18}{'operation':<14}{'ms':>9}{'MB':>9}{'of copy':>9}{'× torch':>9}{'× compiled':>12}")
    rows = []
    for size in sizes:
        for name, (dispatched, reference, moved) in cases(size, device).items():
            compare(dispatched(), reference())
            seconds = median_seconds(dispatched, device, args.repeats)
            plain = median_seconds(reference, device, max(3, args.repeats // 3))
            compiled = None
            if args.compiled:
                torch.compiler.reset()
                compiled = median_seconds(torch.compile(reference), device, max(3, args.repeats // 3))
            share = moved / seconds / bandwidth
            against = "" if compiled is None else f"{compiled / seconds:.1f}"
            label = "×".join(map(str, size))
            print(
                f"{label:<18}{name:<14}{1e3 * seconds:>9.3f}{moved / 1e6:>9.1f}{share:>9.0%}{plain / seconds:>9.1f}"
                f"{against:>12}",
                flush=True,
            )
            rows.append(
                {
                    "size": label,
                    "operation": name,
                    "backend": backend(torch.zeros(1, device=device)).__name__.rsplit(".", 1)[-1],
                    "ms": round(1e3 * seconds, 4),
                    "bytes": moved,
                    "share_of_copy_bandwidth": round(share, 4),
                    "copy_gb_per_s": round(bandwidth / 1e9, 2),
                    "peak_bytes": peak_beside_outputs(dispatched, device),
                    "torch_ms": round(1e3 * plain, 4),
                    "compiled_ms": "" if compiled is None else round(1e3 * compiled, 4),
                    **provenance(),
                }
            )
    write_rows(Path(args.out), rows)


if __name__ == "__main__":
    run_command(main)
