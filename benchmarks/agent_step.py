"""Where the time of one step of the RSS agent goes, and what a cross-entropy step of the same network takes.

    python -m benchmarks.agent_step

Prints the share of a step spent on sampling, scoring (the environment's step) and advantage with credit, and on the
network's forward and backward pass with the optimiser. Medians over the steps of one run.
"""

from __future__ import annotations

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
from agents.ops import credit, sample_label_maps
from agents.policy import UNet
from agents.rss import leave_one_out, normalise, read_rewards
from benchmarks.results_file import RESULTS, provenance, write_rows


@dataclass
class AgentStepArguments:
    """Measure the parts of one step of the RSS agent."""

    image_size: tuple[int, int] = (48, 48)
    """height and width of the images in pixels"""
    num_classes: int = 5
    """classes of the Shapes data set"""
    batch_size: int = 16
    """images a step"""
    samples_per_image: tuple[int, ...] = (8, 32, 128)
    """label maps an image (K), one row each"""
    steps: int = 20
    """steps measured"""
    device: str = "cpu"
    """cpu or cuda"""
    out: str = str(RESULTS / "agent_step.csv")
    """results file"""


def measure(args: AgentStepArguments, samples: int) -> dict[str, float]:
    """Median seconds of each part of a step at K = ``samples``."""
    device = choose_device(args.device)
    envs = gym.make_vec(
        "RSS-Shapes-ImageReward-v0",
        args.batch_size,
        image_size=args.image_size,
        num_classes=args.num_classes,
        samples_per_image=samples,
        expose_target=True,
    )
    policy = UNet(args.num_classes).to(device)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    generator = torch.Generator(device).manual_seed(0)
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

    for _ in range(args.steps + 3):
        target = torch.from_numpy(infos["target"]).to(device).long()
        mark = time.perf_counter()
        logits = policy(torch.from_numpy(images).to(device))
        log_probabilities = logits.log_softmax(dim=1)
        lap("forward")
        with torch.no_grad():
            label_maps = sample_label_maps(log_probabilities.exp(), samples, generator)
        lap("sampling")
        images, _, _, _, infos = envs.step(label_maps.cpu().numpy())
        lap("scoring")
        weights = credit(
            label_maps, normalise(leave_one_out(read_rewards(infos["final_info"], device))), args.num_classes
        )
        lap("advantage")
        optimiser.zero_grad(set_to_none=True)
        (-(weights * log_probabilities).sum(dim=1).mean()).backward()
        optimiser.step()
        lap("backward")

        F.cross_entropy(policy(torch.from_numpy(images).to(device)), target).backward()
        optimiser.step()
        lap("cross_entropy_step")
    return {name: statistics.median(values[3:]) for name, values in parts.items()}


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(AgentStepArguments, prog="python -m benchmarks.agent_step")
    rows = []
    print(f"{args.batch_size} images of {args.image_size[0]}×{args.image_size[1]}, {args.num_classes} classes; ms\n")
    names = ("forward", "sampling", "scoring", "advantage", "backward")
    print(f"{'K':>4}" + "".join(f"{name:>11}" for name in (*names, "step")) + f"{'share':>8}{'of CE step':>12}")
    for samples in args.samples_per_image:
        parts = measure(args, samples)
        step = sum(parts[name] for name in names)
        share = (parts["sampling"] + parts["scoring"] + parts["advantage"]) / step
        ratio = step / parts["cross_entropy_step"]
        print(
            f"{samples:>4}"
            + "".join(f"{1e3 * value:>11.2f}" for value in (*(parts[name] for name in names), step))
            + f"{share:>8.0%}{ratio:>11.2f}×"
        )
        rows.append(
            {
                "samples_per_image": samples,
                "batch_size": args.batch_size,
                "image_size": "x".join(map(str, args.image_size)),
                "num_classes": args.num_classes,
                **{f"{name}_ms": round(1e3 * value, 3) for name, value in parts.items()},
                "step_ms": round(1e3 * step, 3),
                "share_sampling_scoring_advantage": round(share, 3),
                "times_cross_entropy_step": round(ratio, 3),
                **provenance(),
            }
        )
    print("\nshare: sampling + scoring + advantage of the whole step")
    write_rows(Path(args.out), rows)


if __name__ == "__main__":
    run_command(main)
