"""How close learning from scores comes to cross-entropy: same network, images and steps.

    python -m benchmarks.convergence --suite headline --camvid ../shared/data/camvid
    python -m benchmarks.convergence --suite ablation --camvid ../shared/data/camvid
    python -m benchmarks.convergence --suite ablation --quick --camvid ../shared/data/camvid

Trains every run of a suite (``benchmarks.convergence.suites``) that the results file does not hold yet, a few at once;
an interrupted run is resumed. A suite may be started several times at once, on machines that share the results file and
the run folders: a run that another process is doing is left to it. A run's learning curve goes into the results file,
one row an evaluation: mIoU on the validation split, reward queries and training seconds so far. Tables and plots follow
at the end. What a run prints is in the folder ``logs`` next to the run folders. CamVid is a folder in the layout of
``RSS-Folder`` (images/, masks/, splits/, classes.json).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from agents.training.arguments import JsonObject, check_numbers, check_object
from agents.training.command import run_command
from benchmarks.convergence import plots, results
from benchmarks.convergence.suites import METHODS, SUITES, Spec, ablation
from benchmarks.executors import Engine, make_executor
from benchmarks.processes import Processes
from benchmarks.results_file import add_rows, check_writable, device_name, locked, provenance, read_rows
from benchmarks.training_runs import RunFailed, read_curve, run_all, train
from rss_env.errors import OptionError

Rows = list[dict[str, Any]]


@dataclass
class ConvergenceArguments:
    """Compare learning from scores with cross-entropy."""

    suite: Literal["headline", "ablation", "queries", "feedback"] = "headline"
    """which runs"""
    camvid: str | None = None
    """folder of CamVid, with images/, masks/, splits/ and classes.json"""
    datasets: tuple[str, ...] = ("shapes", "camvid")
    """data sets to run on"""
    methods: tuple[str, ...] = ()
    """methods to run, keys of METHODS in benchmarks/convergence/suites.py; default: all of the suite"""
    samples_per_image: tuple[int, ...] = ()
    """label maps an image (K) to run; default: all of the suite"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """seeds to run"""
    quick: bool = False
    """ablation only: small images, few steps, one seed; shows in minutes that all of it works"""
    parallel: int = 2
    """runs at once, one thread each"""
    engine: Engine = "local"
    """where the runs are done: processes of this machine, a Ray cluster, or jobs of a SLURM array"""
    engine_options: JsonObject = field(default_factory=dict)
    """ray: of its tasks, such as '{"memory": 2e9}'; slurm: of submitit, such as '{"slurm_partition": "long"}'"""
    run_dir: str = "runs/convergence"
    """folder for the run folders"""
    out: str | None = None
    """results file; default: SUITE.csv in the folder of the run folders, with --quick quick.csv"""


def runs_of(args: ConvergenceArguments) -> list[Spec]:
    """The runs of the suite.

    Raises:
        OptionError: ``--quick`` with a suite other than the ablation, an unknown method, or no run is left.
    """
    if args.quick:
        if args.suite != "ablation":
            raise OptionError("--quick is for --suite ablation.")
        specs = ablation(args.seeds[:1], quick=True)
    else:
        specs = SUITES[args.suite](args.seeds)
    for method in args.methods:
        if method not in METHODS:
            raise OptionError(f"Unknown method {method!r}; valid: {', '.join(METHODS)}.")
    chosen = [
        spec
        for spec in specs
        if spec.dataset in args.datasets
        and spec.method in (args.methods or METHODS)
        and spec.samples in (args.samples_per_image or (spec.samples,))
    ]
    if not chosen:
        of = f" of {', '.join(args.methods)}" if args.methods else ""
        samples = f" with K = {', '.join(map(str, args.samples_per_image))}" if args.samples_per_image else ""
        raise OptionError(f"--suite {args.suite} has no runs{of}{samples} on {', '.join(args.datasets)}.")
    return chosen


@dataclass(frozen=True)
class Training:
    """How the runs of a suite are done, here or on another machine.

    Attributes:
        camvid: folder of CamVid.
        run_dir: folder of the run folders.
        out: results file.
        measured: columns that tell with what the runs were done.
    """

    camvid: str | None
    run_dir: Path
    out: Path
    measured: dict[str, Any]

    def folder(self, spec: Spec) -> Path:
        """The run folder of a run."""
        return self.run_dir / spec.name

    def is_done(self, spec: Spec) -> bool:
        """Whether the results file holds the whole curve of a run."""
        return spec.key in complete(self.out, list(spec.columns))

    def work(self, spec: Spec, processes: Processes) -> Rows:
        """Trains a run to its end; gives its rows."""
        folder = self.folder(spec)
        try:
            train(spec.command(self.camvid), folder, processes)
        except RunFailed as failure:
            raise OptionError(f"{spec.name} {failure}") from failure
        measured = self.measured | {"device": device_name(threads=1)}
        if spec.method == "cross_entropy":  # which learns from none, and has one an image scored to log it
            measured["reward_queries"] = 0
        return [spec.columns | point | measured for point in read_curve(folder)]


def complete(out: Path, key: list[str]) -> set[tuple[str, ...]]:
    """The keys of the runs whose whole curve is in the results file."""
    rows = read_rows(out, (*key, "step"))
    return {tuple(row[name] for name in key) for row in rows if row["step"] == row["steps"]}


def run_missing(args: ConvergenceArguments, specs: list[Spec], out: Path) -> None:
    """Trains the runs that the results file does not hold to their end, and adds their rows as they finish."""
    how = Training(args.camvid, Path(args.run_dir), out, provenance())  # of the code as it is when the runs start
    held = complete(out, list(specs[0].columns))
    missing = [spec for spec in specs if spec.key not in held]
    total = sum(spec.cost for spec in missing)
    executor = make_executor(args.engine, args.parallel, args.engine_options, Path(args.run_dir)) if missing else None

    with tqdm(total=100.0, unit="%", bar_format="{n:.0f}% |{bar}| {elapsed}, {remaining} left {postfix}") as bar:
        done = 0

        def finished(spec: Spec, curve: Rows | None) -> None:
            nonlocal done
            done += 1
            if curve is not None:
                add_rows(out, curve, list(spec.columns))
            bar.update(100 * spec.cost / total)
            bar.set_postfix_str(f"run {done} of {len(missing)}")

        run_all(missing, how.folder, how.is_done, how.work, finished, args.parallel, executor)


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(ConvergenceArguments, prog="python -m benchmarks.convergence")
    check_numbers(args, {"seeds": 0, "parallel": 1})
    check_object("engine_options", args.engine_options)
    specs = runs_of(args)
    for spec in specs:
        spec.command(args.camvid)  # a missing data set is reported before the first run
    out = Path(args.out or Path(args.run_dir) / ("quick.csv" if args.quick else f"{args.suite}.csv"))
    for path in (out, Path(args.run_dir) / "logs"):
        check_writable(path)
    run_missing(args, specs, out)
    for lines in results.final_tables(out).values():
        print()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    label_maps = out.with_suffix(".label_maps.png")
    with locked(out):  # the last to draw has read all rows
        pictures = [*plots.plot(out), plots.draw_label_maps(specs, Path(args.run_dir), label_maps)]
    print(*filter(None, pictures), sep="\n")


if __name__ == "__main__":
    run_command(main)
