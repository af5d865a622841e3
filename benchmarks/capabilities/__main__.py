"""What an agent can do: ten experiments that each test one ability at growing difficulty.

    python -m benchmarks.capabilities                                     # likelihood and rss, full size
    python -m benchmarks.capabilities --quick                             # likelihood, minutes: shows that all works
    python -m benchmarks.capabilities --agents "mine=my_package.my_agent --my-flag 3"

In the manner of bsuite (Osband et al., 2020), on procedural images only. An agent is one of this project's or any
training command that has the same flags, such as one of your own algorithm (docs/your_algorithm.md). Cross-entropy is
run as the yardstick. Every run that the results file does not hold yet is run, a few at once; an interrupted one is
resumed, and a suite that is started several times at once shares its runs. Plots and a page for each agent follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from agents.training.arguments import JsonObject, check_numbers, check_object
from agents.training.command import run_command
from benchmarks.capabilities import report
from benchmarks.capabilities.experiments import settings, suite
from benchmarks.capabilities.runs import AGENTS, BOUND, KEY, Run, Work
from benchmarks.executors import Engine, make_executor
from benchmarks.results_file import add_rows, check_writable, locked, provenance, read_rows
from benchmarks.training_runs import run_all
from rss_env.errors import OptionError


@dataclass
class CapabilitiesArguments:
    """Test what agents can do, one ability at a time."""

    agents: tuple[str, ...] | None = None
    """names of agents (likelihood, rss, sb3 ppo, sb3 a2c), or NAME=MODULE FLAGS for any other training command;
    default: likelihood and rss, with --quick likelihood"""
    seeds: tuple[int, ...] | None = None
    """seeds to run; default: 1 to 5, with --quick 1"""
    quick: bool = False
    """small images, few steps, and only the least and the greatest difficulty of each experiment"""
    parallel: int = 2
    """runs at once, one thread each"""
    engine: Engine = "local"
    """where the runs are done: processes of this machine, a Ray cluster, or jobs of a SLURM array"""
    engine_options: JsonObject = field(default_factory=dict)
    """ray: of its tasks, such as '{"memory": 2e9}'; slurm: of submitit, such as '{"slurm_partition": "long"}'"""
    run_dir: str = "runs/capabilities"
    """folder for the run folders"""
    out: str | None = None
    """results file; default: results.csv in the folder of the run folders, with --quick quick.csv"""


def commands_of(words: Sequence[str]) -> dict[str, str]:
    """Training commands of agents by name.

    Raises:
        OptionError: a name is unknown, given twice or that of another agent, or a command is empty.
    """
    chosen: dict[str, str] = {}
    for word in words:
        name, given, command = word.partition("=")
        if not given and name not in AGENTS:
            raise OptionError(f"Unknown agent {name!r}; valid: {', '.join(AGENTS)}, or NAME=MODULE FLAGS.")
        if given and (not name or not command.strip() or name in AGENTS):
            raise OptionError(f"--agents {word!r}: an agent of your own is NAME=MODULE FLAGS, with a name of its own.")
        if name in chosen:
            raise OptionError(f"--agents names {name!r} twice.")
        chosen[name] = command.strip() if given else AGENTS[name]
    return {BOUND: AGENTS[BOUND]} | chosen


def check_modules(runs: Sequence[Run]) -> None:
    """Raises ``OptionError`` for an agent whose module is not there, before the first run."""
    for agent, command in {run.agent: run.command for run in runs}.items():
        module = command.split()[0]
        with suppress(ModuleNotFoundError):  # of a package that would hold it
            if find_spec(module) is not None:
                continue
        raise OptionError(f"--agents: there is no module {module!r}, which {agent!r} names.")


def runs_of(args: CapabilitiesArguments) -> list[Run]:
    """The runs: those of cross-entropy first, then seed by seed."""
    size, wanted = "quick" if args.quick else "full", settings(suite(args.quick))
    made: dict[Run, None] = {}
    commands = commands_of(args.agents or (("likelihood",) if args.quick else ("likelihood", "rss")))
    for seed in args.seeds or ((1,) if args.quick else (1, 2, 3, 4, 5)):
        for agent, command in commands.items():
            for setting in wanted:
                made[Run(size, agent, command, setting.of_bound if agent == BOUND else setting, seed)] = None
    return list(made)


def run_missing(args: CapabilitiesArguments, runs: Sequence[Run], out: Path) -> None:
    """Does the runs that the results file does not hold, and adds their rows as they finish.

    Raises:
        OptionError: the file holds an agent of the same name with another command.
    """

    def done() -> set[tuple[str, ...]]:
        return {tuple(row[name] for name in KEY) for row in read_rows(out, report.COLUMNS) if row["status"] == "ok"}

    for row in read_rows(out, (*report.COLUMNS, "command")):
        other = [run for run in runs if run.agent == row["agent"] and run.command != row["command"]]
        if other:
            raise OptionError(f"{out} holds {row['agent']!r} as {row['command']!r}; give the agent another name.")
    held = done()
    missing = [run for run in runs if run.key not in held]
    work = Work(args.run_dir, provenance())  # the code as it is when the runs start
    executor = make_executor(args.engine, args.parallel, args.engine_options, Path(args.run_dir)) if missing else None
    with tqdm(total=len(missing), unit="run", disable=not missing) as bar:

        def finished(run: Run, row: dict[str, Any] | None) -> None:
            if row is not None:
                add_rows(out, [row], KEY)
                if row["status"] != "ok":
                    tqdm.write(f"{run.name}: {row['status']}")
            bar.update()

        run_all(missing, work.folder, lambda run: run.key in done(), work, finished, args.parallel, executor)


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(CapabilitiesArguments, prog="python -m benchmarks.capabilities")
    check_numbers(args, {"seeds": 0, "parallel": 1})
    check_object("engine_options", args.engine_options)
    runs = runs_of(args)
    check_modules(runs)
    out = Path(args.out or Path(args.run_dir) / ("quick.csv" if args.quick else "results.csv"))
    for path in (out, Path(args.run_dir) / "logs"):
        check_writable(path)
    run_missing(args, runs, out)
    with locked(out):  # the last to write has read all rows
        files = report.write(out)
    for line in report.summary_table(report.read(out)):
        print("  ".join(cell.ljust(24) for cell in line))
    print(*files, sep="\n")


if __name__ == "__main__":
    run_command(main)
