"""Where the time of one step of the RSS agent goes, and what a cross-entropy step of the same network takes.

    python -m benchmarks.agent_step
    python -m benchmarks.agent_step --compile False True
    python -m benchmarks.agent_step --device cuda --image-size 512 512 --num-classes 21 --batch-size 16

Prints the share of a step spent on drawing and scoring label maps (with the environment's step and the replay of
earlier visits), on the algorithm's loss, and on the network's forward and backward pass with the optimiser; the
peak memory of the process; and the step's time against a cross-entropy step of the same network in the same run.
As in training, policy, environment and replay memory are on the device, and on CUDA devices the policy runs in
bfloat16. Medians over steps, one process a row. The replay memory is full, and every image has been visited 25 times:
the more visits of an image are known, the fewer of them count again.
"""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import torch
import tyro
from torch.nn import functional as F

import rss_env  # noqa: F401  (registers the ids)
from agents.likelihood import ImageLevel, Likelihood
from agents.networks.unet import UNet
from agents.rss import RSS
from agents.training.arguments import check_numbers, choose_device
from agents.training.command import run_command
from agents.training.feedback import as_action, read_feedback
from benchmarks.results_file import RESULTS, Table, add_rows, check_writable, provenance, read_last_device
from benchmarks.speed.timing import wait_for

IMAGES = 8  # of the data set: few, so that the replay memory is full after a few steps
VISITED = 25  # visits of an image before the first step that is measured, where any is remembered
KEY = ("objective", "samples_per_image", "compiled", "batch_size", "image_size", "num_classes", "device")


@dataclass
class AgentStepArguments:
    """Measure the parts of one step of an agent."""

    image_size: tuple[int, int] = (72, 96)
    """height and width of the images in pixels"""
    num_classes: int = 5
    """classes of the Shapes data set"""
    batch_size: int = 8
    """images a step"""
    samples_per_image: tuple[int, ...] = (8, 32, 128)
    """label maps an image (K), one row each"""
    objectives: tuple[Literal["reinforce", "likelihood", "regions"], ...] = ("reinforce", "likelihood", "regions")
    """agents.rss, agents.likelihood --regions --replay 256, and agents.likelihood as it is, one row each"""
    compile: tuple[bool, ...] = (False,)
    """whether the policy is compiled, one row each"""
    steps: int = 20
    """steps measured, after the memory has filled"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where it runs"""
    out: str = str(RESULTS / "agent_step.csv")
    """results file"""


def measure(args: AgentStepArguments, objective: str, samples: int, compiled: bool) -> dict[str, float]:
    """Median seconds of each part of a step, and the process's peak memory in MiB."""
    device = choose_device(args.device)
    torch.manual_seed(0)
    on_device: dict[str, Any] = {} if device.type == "cpu" else {"device": str(device)}
    envs = gym.make_vec(
        "RSS-Shapes-ImageReward-v0",
        args.batch_size,
        image_size=args.image_size,
        num_classes=args.num_classes,
        num_images=IMAGES,
        samples_per_image=samples,
        expose_target=True,
        **on_device,
    )
    policy = UNet(args.num_classes).to(device)
    if compiled:
        policy.compile()
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    generator = torch.Generator(device).manual_seed(0)
    algorithm: RSS | Likelihood
    if objective == "reinforce":
        algorithm = RSS(samples_per_image=samples)
    elif objective == "likelihood":
        algorithm = Likelihood(samples_per_image=samples, regions=(), replay=256)
    else:
        algorithm = Likelihood(samples_per_image=samples)
    algorithm.start(envs.metadata, args.num_classes)
    images, infos = envs.reset(seed=0)
    parts: dict[str, list[float]] = defaultdict(list)
    mark = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal mark
        wait_for(device)
        now = time.perf_counter()
        parts[name].append(now - mark)
        mark = time.perf_counter()

    visits = 0
    if isinstance(algorithm, Likelihood):
        assert isinstance(algorithm.level, ImageLevel)
        visits = algorithm.level.memory.visits
    warm_up = 3 + IMAGES * max(2 * visits, VISITED if visits else 0) // args.batch_size

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits: torch.Tensor = policy(torch.as_tensor(images).to(device))
        return logits.float()

    for _ in range(warm_up + args.steps):
        target = torch.as_tensor(infos["target"]).to(device).long()
        mark = time.perf_counter()
        logits = forward()
        lap("forward")
        label_maps = algorithm.act(logits.detach(), 0.5, generator)
        next_images, _, _, _, next_infos = envs.step(as_action(label_maps, images))
        lesson = algorithm.observe(logits.detach(), read_feedback(label_maps, infos, next_infos, images))
        lap("collect")
        algorithm.synchronise([lesson])
        loss, _ = algorithm.loss(logits, lesson, 0.5)
        lap("loss")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        lap("backward")

        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(forward(), target).backward()
        optimiser.step()
        lap("cross_entropy_step")
        images, infos = next_images, next_infos
    median = {name: statistics.median(values[warm_up:]) for name, values in parts.items()}
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return median | {"peak_mib": (peak or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 2**20}


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(AgentStepArguments, prog="python -m benchmarks.agent_step")
    check_numbers(args, {"image_size": 1, "num_classes": 2, "batch_size": 1, "samples_per_image": 2, "steps": 1})
    device = choose_device(args.device)
    check_writable(Path(args.out))
    rows = []
    print(f"{args.batch_size} images of {args.image_size[0]}×{args.image_size[1]}, {args.num_classes} classes; ms\n")
    names = ("forward", "collect", "loss", "backward")
    head = "".join(f"{name:>11}" for name in (*names, "step"))
    print(
        f"{'objective':<12}{'K':>4}{'compiled':>10}{head}{'images/s':>10}{'share':>8}{'of CE step':>12}{'peak MiB':>10}"
    )
    for objective, samples, compiled in itertools.product(args.objectives, args.samples_per_image, args.compile):
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # whose peak memory is only this row's
            parts = pool.apply(measure, (args, objective, samples, compiled))
        step = sum(parts[name] for name in names)
        share = (parts["collect"] + parts["loss"]) / step
        ratio = step / parts["cross_entropy_step"]
        times = "".join(f"{1e3 * value:>11.2f}" for value in (*(parts[name] for name in names), step))
        print(
            f"{objective:<12}{samples:>4}{'yes' if compiled else 'no':>10}{times}{args.batch_size / step:>10.1f}"
            f"{share:>8.0%}{ratio:>11.2f}×{parts['peak_mib']:>10.0f}",
            flush=True,
        )
        rows.append(
            {
                "objective": objective,
                "samples_per_image": samples,
                "compiled": compiled,
                "batch_size": args.batch_size,
                "image_size": "x".join(map(str, args.image_size)),
                "num_classes": args.num_classes,
                **{f"{name}_ms": round(1e3 * parts[name], 3) for name in (*names, "cross_entropy_step")},
                "step_ms": round(1e3 * step, 3),
                "images_per_s": round(args.batch_size / step, 2),
                "cross_entropy_images_per_s": round(args.batch_size / parts["cross_entropy_step"], 2),
                "share_collect_loss": round(share, 3),
                "times_cross_entropy_step": round(ratio, 3),
                "peak_mib": round(parts["peak_mib"]),
                **provenance(device),
            }
        )
    print("\nshare: collect + loss of the whole step; of CE step: times a cross-entropy step of the same network")
    add_rows(Path(args.out), rows, KEY)


def step_table(file: str = "agent_step.csv") -> Table:
    """Time and memory of a step, by objective and K."""
    head = ["objective", "K", "compiled", "ms a step", "images/s", "collect + loss", "times a cross-entropy step"]
    lines = [[*head, "peak memory, MiB"]]
    for row in read_last_device(RESULTS / file):
        share = f"{float(row['share_collect_loss']):.0%}"
        compiled = "yes" if row["compiled"] == "True" else "no"
        speed = [f"{float(row['step_ms']):.0f}", f"{float(row['images_per_s']):.1f}"]
        ratio = f"{float(row['times_cross_entropy_step']):.2f}"
        about = [row["objective"], row["samples_per_image"], compiled]
        lines.append([*about, *speed, share, ratio, f"{int(row['peak_mib']):,}"])
    return lines


if __name__ == "__main__":
    run_command(main)
