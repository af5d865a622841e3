"""The operations of ``agents.ops`` against batched torch, torch.compile and the memory's speed.

    python -m benchmarks.kernels
    python -m benchmarks.kernels --device cuda --sizes 16x32x21x512x512 4x16x150x512x512 --out kernels_cuda.csv

For every operation and size B×K×C×H×W: milliseconds, the bytes that no implementation can leave out (inputs read once,
outputs written once), those bytes per second as a share of the device's measured copy bandwidth, the peak of the memory
allocated in addition to inputs and outputs, and how many times faster it is than batched torch
(``benchmarks/speed/batched_torch.py``), both as it is written and as torch.compile makes it, all in one run. The last
line of a size is what a policy-gradient step needs in addition to the network, and its share of the network's forward
and backward pass. Results are compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from agents import ops
from agents.networks.unet import UNet
from agents.ops import torch_ops
from agents.ops.dispatch import backend
from agents.training.arguments import check_numbers, choose_device
from agents.training.command import run_command
from benchmarks.results_file import RESULTS, Table, add_rows, check_writable, provenance, read_last_device
from benchmarks.speed import batched_torch
from benchmarks.speed.timing import median_seconds
from rss_env.errors import OptionError
from rss_env.rewards import count_labels
from rss_env.rewards.counting import torch as count_torch

KEY = ("size", "operation", "backend", "device")


@dataclass
class KernelArguments:
    """Measure the operations of the agent's hot path."""

    sizes: tuple[str, ...] = ("8x32x5x48x48", "8x32x11x72x96", "8x128x11x72x96")
    """B×K×C×H×W, written with x"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where it runs"""
    repeats: int = 15
    """runs of each operation; the median counts"""
    compiled: bool = True
    """measure torch.compile of the reference as well"""
    out: str = str(RESULTS / "kernels.csv")
    """results file"""


def copy_bandwidth(device: torch.device, repeats: int) -> float:
    """Bytes a second that a copy reads and writes, larger than any cache."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**25, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_seconds(lambda: target.copy_(source), repeats, device)


def extra_peak_bytes(function: Callable[[], Any], device: torch.device) -> int | None:
    """Peak of the bytes allocated in addition to inputs and outputs; None where torch does not count them."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = function()
    outputs = sum(part.nbytes for part in (result if isinstance(result, tuple) else (result,)))
    return torch.cuda.max_memory_allocated() - before - outputs


@dataclass
class Case:
    """An operation at one size.

    Attributes:
        run: the implementation that is chosen on the device.
        reference: what its result must equal, up to rounding.
        batched: a plain batched-torch baseline.
        moved: bytes that no implementation can leave out.
    """

    run: Callable[[], Any]
    reference: Callable[[], Any]
    batched: Callable[[], Any]
    moved: int


STEP = ("draw", "count", "policy_gradient")  # what a policy-gradient step needs in addition to the network


def cases(size: tuple[int, ...], device: torch.device) -> dict[str, Case]:
    """By operation."""
    batch, samples, classes, height, width = size
    generator = torch.Generator(device).manual_seed(0)
    logits = torch.randn((batch, classes, height, width), generator=generator, device=device).mul(2).requires_grad_()
    given = logits.detach()
    p = given.softmax(dim=1)
    seed, offset = torch.tensor([0], device=device), torch.tensor([0, 0], device=device)
    label_maps = torch_ops.sample_label_maps(given, samples, seed, 1.0, 1, offset)
    maps, owner = label_maps.flatten(0, 1), torch.arange(batch, device=device).repeat_interleave(samples)
    weights = torch.randn((batch * samples, classes), generator=generator, device=device)
    advantages = torch.randn((batch, samples, 1, 1), generator=generator, device=device)
    targets = label_maps[:, 0].clone()
    flat, truth = label_maps.flatten(2), targets.flatten(1)
    kernels = backend(p)

    def both(function: Callable[..., tuple[torch.Tensor, ...]]) -> Callable[[], tuple[torch.Tensor, ...]]:
        """The loss with an entropy bonus, and its gradient."""

        def forward_and_backward() -> tuple[torch.Tensor, ...]:
            loss, entropy = function(logits, label_maps, advantages)
            return loss.detach(), *torch.autograd.grad(loss - 0.01 * entropy, logits)

        return forward_and_backward

    return {
        "draw": Case(
            lambda: kernels.sample_label_maps(given, samples, seed, 1.0, 1, offset),
            lambda: torch_ops.sample_label_maps(given, samples, seed, 1.0, 1, offset),
            lambda: batched_torch.sample_label_maps(given, samples),
            given.nbytes + label_maps.nbytes,
        ),
        "count": Case(
            lambda: count_labels(label_maps, targets, classes)[:2],
            lambda: count_torch.count_labels(flat, truth, classes),
            lambda: count_torch.count_labels(flat, truth, classes),
            label_maps.nbytes + targets.nbytes + 16 * batch * samples * classes,
        ),
        "policy_gradient": Case(
            both(ops.policy_gradient),
            both(batched_torch.policy_gradient),
            both(batched_torch.policy_gradient),
            2 * given.nbytes + label_maps.nbytes,  # logits and gradient: the credit need not exist
        ),
        "soft_counts": Case(
            lambda: kernels.soft_counts(p, maps, owner),
            lambda: torch_ops.soft_counts(p, maps, owner),
            lambda: batched_torch.soft_counts(p, label_maps),
            p.nbytes + maps.nbytes + 2 * weights.nbytes,
        ),
        "class_credit": Case(
            lambda: kernels.class_credit(maps, owner, weights, batch),
            lambda: torch_ops.class_credit(maps, owner, weights, batch),
            lambda: batched_torch.class_credit(label_maps, weights.unflatten(0, (batch, samples))),
            p.nbytes + maps.nbytes + weights.nbytes,
        ),
    }


def network_seconds(size: tuple[int, ...], device: torch.device, repeats: int) -> float:
    """Median time of the default policy's forward and backward pass at this size, in bfloat16 on CUDA devices."""
    batch, _, classes, height, width = size
    policy = UNet(classes).to(device)
    images = torch.zeros((batch, height, width, 3), dtype=torch.uint8, device=device)

    def forward_and_backward() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = policy(images)
        logits.float().square().mean().backward()

    return median_seconds(forward_and_backward, repeats, device)


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


def row_of(
    size: str, name: str, device: torch.device, times: dict[str, float], moved: int, bandwidth: float, peak: int | None
) -> dict[str, Any]:
    """A row of the results file."""
    return {
        "size": size,
        "operation": name,
        "backend": backend(torch.zeros(1, device=device)).__name__.rsplit(".", 1)[-1],
        "ms": round(1e3 * times["run"], 4),
        "bytes": moved,
        "share_of_copy_bandwidth": round(moved / times["run"] / bandwidth, 4),
        "copy_gb_per_s": round(bandwidth / 1e9, 2),
        "peak_bytes": peak,
        "torch_ms": round(1e3 * times["torch"], 4),
        "compiled_ms": round(1e3 * times["compiled"], 4) if "compiled" in times else "",
        "network_ms": "",
        **provenance(device),
    }


def print_row(row: dict[str, Any]) -> None:
    """One line of the printed table."""
    ms = row["ms"]
    compiled = f"{row['compiled_ms'] / ms:.1f}" if row["compiled_ms"] else ""
    network = f"{ms / row['network_ms']:.0%}" if row["network_ms"] else ""
    print(
        f"{row['size']:<18}{row['operation']:<32}{ms:>9.3f}{row['bytes'] / 1e6:>9.1f}"
        f"{row['share_of_copy_bandwidth']:>9.0%}{row['torch_ms'] / ms:>9.1f}{compiled:>12}{network:>12}",
        flush=True,
    )


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(KernelArguments, prog="python -m benchmarks.kernels")
    check_numbers(args, {"repeats": 1})
    device = choose_device(args.device)
    check_writable(Path(args.out))
    sizes = [parse_size(text) for text in args.sizes]
    bandwidth = copy_bandwidth(device, args.repeats)
    print(f"copy bandwidth {bandwidth / 1e9:.1f} GB/s")
    print(f"{'size':<18}{'operation':<32}{'ms':>9}{'MB':>9}{'of copy':>9}{'× torch':>9}", end="")
    print(f"{'× compiled':>12}{'of network':>12}")
    rows = []
    few = max(3, args.repeats // 3)
    for size in sizes:
        label = "×".join(map(str, size))
        step = dict.fromkeys(("run", "torch", "compiled"), 0.0)
        moved = 0
        for name, case in cases(size, device).items():
            compare(case.run(), case.reference())
            times = {
                "run": median_seconds(case.run, args.repeats, device),
                "torch": median_seconds(case.batched, few, device),
            }
            if args.compiled:
                torch.compiler.reset()
                times["compiled"] = median_seconds(torch.compile(case.batched), few, device)
            if name in STEP:
                step = {key: step[key] + seconds for key, seconds in times.items()}
                moved += case.moved
            peak = extra_peak_bytes(case.run, device)
            rows.append(row_of(label, name, device, times, case.moved, bandwidth, peak))
            print_row(rows[-1])
        rows.append(row_of(label, " + ".join(STEP), device, step, moved, bandwidth, None))
        rows[-1]["network_ms"] = round(1e3 * network_seconds(size, device, args.repeats), 4)
        print_row(rows[-1])
    add_rows(Path(args.out), rows, KEY)


def kernels_table(file: str = "kernels.csv") -> Table:
    """Every operation against the copy bandwidth, torch and torch.compile; together against the network."""
    head = ["B×K×C×H×W", "operation", "kernel", "ms", "of copy", "faster than torch", "than torch.compile"]
    lines = [[*head, "of the network"]]
    for row in read_last_device(RESULTS / file):
        ms = float(row["ms"])
        against = f"{float(row['compiled_ms']) / ms:.1f}×" if row["compiled_ms"] else ""
        share = f"{float(row['share_of_copy_bandwidth']):.0%}"
        plain = f"{float(row['torch_ms']) / ms:.1f}×"
        name = row["operation"].replace("_", " ")
        network = f"{ms / float(row['network_ms']):.0%}" if row["network_ms"] else ""
        kernel = row["backend"].removesuffix("_ops")
        lines.append([row["size"], name, kernel, f"{ms:.2f}", share, plain, against, network])
    return lines


if __name__ == "__main__":
    run_command(main)
