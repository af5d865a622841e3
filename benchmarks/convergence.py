"""How close learning from scores comes to cross-entropy: same network, images and steps.

    python -m benchmarks.convergence --suite headline --camvid ../shared/data/camvid
    python -m benchmarks.convergence --suite ablation --camvid ../shared/data/camvid
    python -m benchmarks.convergence --suite ablation --quick --camvid ../shared/data/camvid

Trains every run of a suite (``benchmarks.suites``) that the results file does not hold yet, a few at once, each in its
own process and run folder; an interrupted one is resumed. Its learning curve goes into the results file, one row an
evaluation: mIoU on the validation split, reward queries and training seconds so far. At the end come the plots.
CamVid is a folder in the layout of ``RSS-Folder`` (images/, masks/, splits/, classes.json).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from agents.arguments import check_numbers, run_command
from agents.run_folder import RunFolder
from benchmarks import convergence_plot, tables
from benchmarks.results_file import RESULTS, check_writable, device_name, provenance, read_rows, write_rows
from benchmarks.suites import SUITES, Spec, ablation
from rss_env.errors import OptionError

RUNNING: set[subprocess.Popen[str]] = set()  # the processes of the runs going on


@dataclass
class ConvergenceArguments:
    """Compare learning from scores with cross-entropy."""

    suite: Literal["headline", "ablation", "queries", "feedback"] = "headline"
    """which runs"""
    camvid: str | None = None
    """folder of CamVid, with images/, masks/, splits/ and classes.json"""
    datasets: tuple[str, ...] = ("shapes", "camvid")
    """data sets to run on"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """seeds to run"""
    quick: bool = False
    """ablation only: small images, few steps, one seed; shows in minutes that all of it works"""
    parallel: int = 2
    """runs at once, one thread each"""
    run_dir: str = "runs/convergence"
    """folder for the run folders"""
    out: str | None = None
    """results file; default: benchmarks/results/SUITE.csv, with --quick one in the run folder"""


def run_one(args: ConvergenceArguments, spec: Spec, measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Trains one run in a process of its own and returns the rows of its learning curve, ``measured`` included."""
    folder = Path(args.run_dir) / spec.name
    module, *words = spec.command(args.camvid)
    command = [sys.executable, "-m", module, "--run-dir", str(folder), "--no-progress"]
    command += [*words, "--resume"] if (folder / "config.json").exists() else words  # which refuses other arguments
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C reaches the runs once, from here
    ) as run:
        RUNNING.add(run)
        _, said = run.communicate()
        RUNNING.discard(run)
    if run.returncode != 0:
        reason = said.split("error: ", 1)[-1].strip() or f"stopped with exit code {run.returncode}"
        raise OptionError(f"{spec.name}: {reason}")
    return [spec.columns | point | dict(measured) for point in read_curve(folder)]


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The evaluations of a run, oldest first: step, reward queries, seconds, mIoU and pixel accuracy."""
    curve: dict[int, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for row in RunFolder(folder).read_metrics():
        last |= row
        if "val/miou" in row:
            curve[last["step"]] = {
                "step": last["step"],
                "reward_queries": int(last["time/reward_queries"]),
                "seconds": round(last["time/seconds"], 1),
                "val_miou": round(last["val/miou"], 5),
                "val_pixel_accuracy": round(last["val/pixel_accuracy"], 5),
            }
    return list(curve.values())


def wanted(args: ConvergenceArguments) -> list[Spec]:
    """The runs of the suite.

    Raises:
        OptionError: ``--quick`` with another suite than the ablation, or no run is left.
    """
    if args.quick:
        if args.suite != "ablation":
            raise OptionError("--quick is for --suite ablation.")
        specs = ablation(args.seeds[:1], quick=True)
    else:
        specs = SUITES[args.suite](args.seeds)
    chosen = [spec for spec in specs if spec.dataset in args.datasets]
    if not chosen:
        raise OptionError(f"--suite {args.suite} has no runs on {', '.join(args.datasets)}.")
    return chosen


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(ConvergenceArguments, prog="python -m benchmarks.convergence")
    check_numbers(args, {"seeds": 0, "parallel": 1})
    specs = wanted(args)
    for spec in specs:
        spec.command(args.camvid)  # a missing data set is reported before the first run
    default = Path(args.run_dir) / "quick.csv" if args.quick else RESULTS / f"{args.suite}.csv"
    out = Path(args.out) if args.out else default
    check_writable(out)
    rows: list[Mapping[str, Any]] = list(read_rows(out, (*specs[0].columns, "step")))
    held = {tuple(row[name] for name in specs[0].columns) for row in rows if row["step"] == row["steps"]}
    missing = [spec for spec in specs if spec.key not in held]
    measured = provenance() | {"device": device_name(threads=1)}  # the code as it is when the runs start
    total = sum(spec.cost for spec in missing)
    with (
        ThreadPoolExecutor(args.parallel) as pool,
        tqdm(total=100.0, unit="%", bar_format="{n:.0f}% |{bar}| {elapsed}, {remaining} left {postfix}") as bar,
    ):
        jobs = {pool.submit(run_one, args, spec, measured): spec for spec in missing}
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                rows += job.result()
                write_rows(out, rows)
                bar.update(100 * jobs[job].cost / total)
                bar.set_postfix_str(f"run {done} of {len(missing)}")
        except BaseException:  # Ctrl-C or a failed run: start no other, and let those that run write a checkpoint
            pool.shutdown(wait=False, cancel_futures=True)
            for run in tuple(RUNNING):
                run.send_signal(signal.SIGINT)
            raise
    for lines in tables.convergence(out).values():
        print()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    pictures: list[Path | None] = [*convergence_plot.plot(out)]
    pictures.append(convergence_plot.picture_grid(specs, Path(args.run_dir), out.with_suffix(".label_maps.png")))
    print(*[picture for picture in pictures if picture], sep="\n")


if __name__ == "__main__":
    run_command(main)
