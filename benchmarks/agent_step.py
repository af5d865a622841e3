"""Where the time of one step of the RSS agent goes, and what a cross-entropy step of the same network takes.

    python -m benchmarks.agent_step

Prints the share of a step spent on drawing and scoring label maps (with the environment's step and the replay of
earlier visits), on the algorithm's loss, and on the network's forward and backward pass with the optimiser; the
peak memory of the process; and the step's time against a cross-entropy step of the same network in the same run.
Medians over steps, one process a row. The replay memory is full: every image has been visited often enough.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import torch
import tyro
from torch.nn import functional as F

import rss_env  # noqa: F401  (registers the ids)
from agents.arguments import choose_device, run_command
from agents.policy import UNet
from agents.rss import RSS, RSSArguments
from benchmarks.results_file import RESULTS, provenance, write_rows

IMAGES = 8  # of the data set: few, so that the memory is full after a few steps


@dataclass
class AgentStepArguments:
    """Measure the parts of one step of the RSS agent."""

    image_size: tuple[int, int] = (72, 96)
    """height and width of the images in pixels"""
    num_classes: int = 5
    """classes of the Shapes data set"""
    batch_size: int = 8
    """images a step"""
    samples_per_image: tuple[int, ...] = (8, 32, 128)
    """label maps an image (K), one row each"""
    objectives: tuple[str, ...] = ("reinforce", "likelihood")
    """objectives, one row each"""
    steps: int = 20
    """steps measured, after the memory has filled"""
    device: str = "cpu"
    """cpu or cuda"""
    out: str = str(RESULTS / "agent_step.csv")
    """results file"""


def measure(args: AgentStepArguments, objective: str, samples: int) -> dict[str, float]:
    """Median seconds of each part of a step, and the process's peak memory in MiB."""
    device = choose_device(args.device)
    torch.manual_seed(0)
    envs = gym.make_vec(
        "RSS-Shapes-ImageReward-v0",
        args.batch_size,
        image_size=args.image_size,
        num_classes=args.num_classes,
        num_images=IMAGES,
        samples_per_image=samples,
        expose_target=True,
    )
    policy = UNet(args.num_classes).to(device)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    generator = torch.Generator(device).manual_seed(0)
    algorithm = RSS(RSSArguments(objective=objective, samples_per_image=samples))  # type: ignore[arg-type]
    images, infos = envs.reset(seed=0)
    parts: dict[str, list[float]] = defaultdict(list)
    mark = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal mark
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        parts[name].append(now - mark)
        mark = time.perf_counter()

    visits = algorithm.visits.visits if objective == "likelihood" else 0
    warm_up = 3 + 2 * IMAGES * visits // args.batch_size
    for _ in range(warm_up + args.steps):
        target = torch.from_numpy(infos["target"]).to(device).long()
        mark = time.perf_counter()
        logits = policy(torch.from_numpy(images).to(device))
        lap("forward")
        collected = algorithm.collect(logits.detach(), envs, infos, 0.5, generator)
        lap("collect")
        algorithm.prepare([collected.feedback])
        loss, _ = algorithm.loss(logits, collected.feedback, 0.5)
        lap("loss")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        lap("backward")

        F.cross_entropy(policy(torch.from_numpy(images).to(device)), target).backward()
        optimiser.step()
        lap("cross_entropy_step")
        images, infos = collected.images, collected.infos
    median = {name: statistics.median(values[warm_up:]) for name, values in parts.items()}
    return median | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(AgentStepArguments, prog="python -m benchmarks.agent_step")
    rows = []
    print(f"{args.batch_size} images of {args.image_size[0]}×{args.image_size[1]}, {args.num_classes} classes; ms\n")
    names = ("forward", "collect", "loss", "backward")
    head = "".join(f"{name:>11}" for name in (*names, "step"))
    print(f"{'objective':<12}{'K':>4}{head}{'share':>8}{'of CE step':>12}{'peak MiB':>10}")
    for objective in args.objectives:
        for samples in args.samples_per_image:
            with multiprocessing.get_context("spawn").Pool(1) as pool:  # whose peak memory is this row's alone
                parts = pool.apply(measure, (args, objective, samples))
            step = sum(parts[name] for name in names)
            share = (parts["collect"] + parts["loss"]) / step
            ratio = step / parts["cross_entropy_step"]
            times = "".join(f"{1e3 * value:>11.2f}" for value in (*(parts[name] for name in names), step))
            print(f"{objective:<12}{samples:>4}{times}{share:>8.0%}{ratio:>11.2f}×{parts['peak_mib']:>10.0f}")
            rows.append(
                {
                    "objective": objective,
                    "samples_per_image": samples,
                    "batch_size": args.batch_size,
                    "image_size": "x".join(map(str, args.image_size)),
                    "num_classes": args.num_classes,
                    **{f"{name}_ms": round(1e3 * parts[name], 3) for name in (*names, "cross_entropy_step")},
                    "step_ms": round(1e3 * step, 3),
                    "share_collect_loss": round(share, 3),
                    "times_cross_entropy_step": round(ratio, 3),
                    "peak_mib": round(parts["peak_mib"]),
                    **provenance(),
                }
            )
    print("\nshare: collect + loss of the whole step")
    write_rows(Path(args.out), rows)


if __name__ == "__main__":
    run_command(main)
