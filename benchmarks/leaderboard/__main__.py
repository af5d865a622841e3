"""Agents × tasks × seeds under fixed budgets of reward queries; anyone can add an entry.

    python -m benchmarks.leaderboard --new my_agent.py                  # a commented entry to start from
    python -m benchmarks.leaderboard --entry my_agent.py --quick        # a first look, in a few minutes
    python -m benchmarks.leaderboard --entry my_agent.py                # ranked with the committed results
    python -m benchmarks.leaderboard --tasks shapes-32 camvid --camvid ../shared/data/camvid

An entry is a file with a function ``train(trial)`` (``benchmarks.leaderboard.trial``) or one of this project's own
training commands. Every run that the results file does not hold yet is run, a few at once. An entry that raises,
returns label maps of a wrong shape or asks for targets gets a row that says so, and the others go on. Learning curves
and a report in Markdown follow at the end. A leaderboard that was stopped continues where it was when it is started
again, and one that is started several times at once, on machines that share the results file and the run folders, is
divided among them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from tqdm import tqdm

from agents.training.arguments import JsonObject, check_object
from agents.training.command import run_command
from benchmarks.executors import Engine, make_executor
from benchmarks.leaderboard import report, submission
from benchmarks.leaderboard.code import code_digest
from benchmarks.leaderboard.judge import Judge, Verdict, readable
from benchmarks.leaderboard.own_entries import COMMANDS, ENTRIES, FILES, is_offered, train_entry
from benchmarks.processes import Processes
from benchmarks.results_file import (
    Row,
    add_rows,
    check_writable,
    device_name,
    locked,
    provenance,
    replacing,
    update_rows,
)
from benchmarks.tasks import Setting, find_tasks
from benchmarks.training_runs import log_file, result_file, run_all
from rss_env.errors import OptionError

QUICK = ("one class", "PPO template", "RSS")  # entries of --quick where none is named


@dataclass
class LeaderboardArguments:
    """Rank agents by what a budget of reward queries buys."""

    new: str | None = None
    """file for a new entry to start from; it is written, and nothing is run"""
    entry: tuple[str, ...] = ()
    """files with a function train(trial) to run; default: the project's own entries"""
    only: tuple[str, ...] = ()
    """names of entries to run"""
    again: tuple[str, ...] = ()
    """names of entries to run again; their rows with the tasks, tracks and seeds of this command are deleted first"""
    tasks: tuple[str, ...] = ("shapes-32",)
    """tasks: shapes-32, shapes-64, camvid, camvid-sequences, voc, crafter; all: those whose data there is"""
    tracks: tuple[Literal["revisited", "few_visits"], ...] = ("revisited",)
    """few_visits: no image comes more than four times, and none has an index"""
    budget: Literal["small", "large"] = "small"
    """reward queries of a run: docs/leaderboard.md"""
    quick: bool = False
    """one seed with the small budget, of --entry or of three entries: a few minutes in all"""
    camvid: str | None = None
    """folder of CamVid, for the tasks camvid and camvid-sequences"""
    voc: str | None = None
    """folder of PASCAL VOC 2012 with the split trainaug, for the task voc"""
    seeds: tuple[int, ...] = submission.SEEDS
    """seeds to run"""
    seconds: float = submission.SECONDS
    """training time of a run, evaluation not counted; commands, which evaluate by themselves, have twice as long"""
    parallel: int = 2
    """runs at once, one thread each"""
    engine: Engine = "local"
    """where the runs are done: processes of this machine, a Ray cluster, or jobs of a SLURM array"""
    engine_options: JsonObject = field(default_factory=dict)
    """ray: of its tasks, such as '{"memory": 2e9}'; slurm: of submitit, such as '{"slurm_partition": "long"}'"""
    run_dir: str = "runs/leaderboard"
    """folder for logs and the run folders of the commands"""
    out: str = "runs/leaderboard/results.csv"
    """results file; the report goes next to it"""
    submission: str | None = None
    """file for the results of the one entry of --entry, with what they were measured with, to hand in"""
    check: str | None = None
    """file of --submission to check, against the file of --entry if one is given; nothing is run"""
    rerun: bool = False
    """--check: run one seed of --entry again and compare"""


@dataclass(frozen=True)
class Run:
    """One entry in one setting with one seed."""

    entry: str
    setting: Setting
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies the run in a results file: entry, task, track, budget and seed."""
        return self.entry, *self.setting.names, str(self.seed)

    def folder(self, run_dir: str) -> Path:
        """The run folder, if the entry is a command."""
        return Path(run_dir) / report.file_name(self.key)


@dataclass(frozen=True)
class Work:
    """Does runs: plain data, so that it can be sent to where they are done.

    Attributes:
        files: of the entries that have one, by name.
        run_dir: folder of the run folders.
        seconds: training time of a run.
        out: results file.
        measured: columns that say what the rows were measured with; the device is that of the machine that does a run.
        digests: of the code of each entry.
    """

    files: Mapping[str, Path]
    run_dir: str
    seconds: float
    out: Path
    measured: Mapping[str, Any]
    digests: Mapping[str, str]

    def folder(self, run: Run) -> Path:
        """The run folder of a run."""
        return run.folder(self.run_dir)

    def is_done(self, run: Run) -> bool:
        """Whether the results file holds a run."""
        return run.key in map(report.key_of, report.read_results(self.out))

    def __call__(self, run: Run, processes: Processes) -> list[dict[str, Any]]:
        """Trains, evaluates and tests an entry, keeps the label maps that it ends with, and gives its rows."""
        folder = self.folder(run)
        if run.entry in self.files:
            file = self.files[run.entry]
            verdict = Judge(file, run.setting, run.seed, self.seconds, processes, log_file(folder)).run()
        else:
            verdict = train_entry(run.entry, run.setting, run.seed, folder, self.seconds, processes)
        if verdict.label_maps is not None and not processes.stopped:
            with replacing(report.label_maps_file(Path(self.run_dir), run.key)) as path:
                np.save(path, verdict.label_maps)
        measured = dict(self.measured) | {"device": device_name(threads=1), "code": self.digests[run.entry]}
        return rows_of(run, verdict, measured)


def rows_of(run: Run, verdict: Verdict, measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one run: one a report, the last one marked and with the test, or a single one without a report."""
    about: dict[str, Any] = dict(zip(report.KEY, run.key, strict=True)) | {"status": readable(verdict.status)}
    about |= {"mean_score": rounded(verdict.mean_score, 5), "learning_rate": rounded(verdict.learning_rate, 8)}
    about |= {"peak_mib": rounded(verdict.memory, 0), "most_visits": verdict.most_visits}
    nothing = {"reward_queries": verdict.queries, "seconds": round(verdict.seconds, 2)}
    points: list[dict[str, Any]] = [dict(point) for point in verdict.curve] or [nothing]
    metrics = dict.fromkeys(f"{split}_{name}" for split in ("val", "test") for name in submission.METRICS)
    rows = [about | {"final": int(point is points[-1])} | metrics | point for point in points]
    rows[-1] |= verdict.test
    return [{name: "" if value is None else value for name, value in (row | dict(measured)).items()} for row in rows]


def rounded(value: float | None, digits: int) -> float | int | None:
    """A number with so many digits after the point."""
    if value is None:
        return None
    return round(value, digits) if digits else round(value)


def choose(args: LeaderboardArguments) -> tuple[dict[str, Path], list[str]]:
    """The files of all entries that have one, by name, and the names of the entries to run.

    Raises:
        OptionError: an entry is unknown or not there, its name is taken, or a number is out of range.
    """
    for name, number in (("seconds", args.seconds), ("parallel", args.parallel)):
        if not 0 < number < float("inf"):
            raise OptionError(f"--{name} must be positive and finite, got {number}.")
    for name, values in (("tasks", args.tasks), ("tracks", args.tracks)):
        if not values:
            raise OptionError(f"--{name} must name at least one.")
    if not args.seeds or min(args.seeds) < 0:
        raise OptionError(f"--seeds must be integers from 0 on, got {' '.join(map(str, args.seeds)) or 'none'}.")
    if args.submission is not None and (len(args.entry) != 1 or args.only or args.again[1:]):
        raise OptionError("--submission is of one entry: name its file by --entry, and no other.")
    files = {name: ENTRIES / file for name, file in FILES.items()}
    given = []
    for path in map(Path, args.entry):
        if not path.is_file():
            raise OptionError(f"--entry {path}: there is no such file.")
        own = [name for name, file in files.items() if file.resolve() == path.resolve()]
        name = own[0] if own else path.stem
        if not own and name in [*files, *COMMANDS]:
            raise OptionError(f"--entry {path}: there is another entry called {name!r}; give the file another name.")
        files[name] = path
        given.append(name)
    names = [*files, *COMMANDS]
    for word in (*args.only, *args.again):
        if word not in names:
            raise OptionError(f"Unknown entry {word!r}; valid: {', '.join(map(repr, names))}.")
    wanted = {*given, *args.only, *args.again} or set(QUICK if args.quick else names)
    return files, [name for name in names if name in wanted]


def read_results(out: Path) -> list[Row]:
    """The rows of a results file.

    Raises:
        OptionError: the file is not one of the leaderboard.
    """
    if out.suffix != ".csv":
        raise OptionError(f"--out must be a .csv file, got {out}; the report goes next to it.")
    return report.read_results(out)


def run_missing(args: LeaderboardArguments, files: Mapping[str, Path], missing: list[Run], out: Path) -> None:
    """Does these runs and adds their rows to the results file as they finish."""
    measured = provenance()  # the code as it is when the runs start
    measured |= {"versions": submission.versions_text(), "protocol": submission.PROTOCOL, "limit_s": args.seconds}
    digests = {name: code_digest(files[name]) if name in files else "" for name in {run.entry for run in missing}}
    work = Work(dict(files), args.run_dir, args.seconds, out, measured, digests)
    executor = make_executor(args.engine, args.parallel, args.engine_options, Path(args.run_dir)) if missing else None
    with tqdm(total=len(missing), unit="run", disable=not missing) as bar:

        def finished(run: Run, rows: list[dict[str, Any]] | None) -> None:
            bar.update()
            if rows is None:
                return
            add_rows(out, rows, report.KEY)
            if rows[0]["status"] != "ok":
                log = log_file(run.folder(args.run_dir))
                tqdm.write(f"{run.entry}, {', '.join(run.setting.names)}, seed {run.seed}: {rows[0]['status']} ({log})")

        run_all(missing, work.folder, work.is_done, work, finished, args.parallel, executor)


def forget(run: Run, run_dir: str, out: Path) -> None:
    """Deletes the rows and the run folder of a run; the folder only if no other process is doing the run."""
    with locked(run.folder(run_dir), wait=False) as claimed:
        if claimed:
            shutil.rmtree(run.folder(run_dir), ignore_errors=True)
            result_file(run.folder(run_dir)).unlink(missing_ok=True)
        update_rows(out, lambda rows: [row for row in rows if report.key_of(row) != run.key], report.COLUMNS)


def write_template(path: Path) -> None:
    """Writes a commented entry to start from.

    Raises:
        OptionError: there is a file already, or it is no Python file.
    """
    if path.suffix != ".py":
        raise OptionError(f"--new must be a .py file, got {path}.")
    text = (ENTRIES / FILES["PPO template"]).read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text.replace("benchmarks/leaderboard/entries/template.py", str(path)))
    except FileExistsError:
        raise OptionError(f"--new {path}: there is a file already; choose another name.") from None


def find_runs(args: LeaderboardArguments, chosen: list[str]) -> list[Run]:
    """The runs that are asked for, each of whose environments can be made."""
    tasks, left_out = find_tasks(args.tasks, args.camvid, args.voc)
    for line in left_out:
        print(line)
    settings = [Setting(task, track, args.budget) for task in tasks for track in dict.fromkeys(args.tracks)]
    for setting in settings:  # a missing data set is reported before the first run
        for split in (setting.task.train_split, "val", "test"):
            gym.make_vec(setting.task.env_id, num_envs=1, split=split, **setting.task.env_options)
    seeds = args.seeds[:1] if args.quick else args.seeds
    return [
        Run(name, setting, seed)
        for seed in dict.fromkeys(seeds)
        for setting in settings
        for name in chosen
        if is_offered(name, setting)
    ]


def check_submission(args: LeaderboardArguments, path: Path) -> int:
    """Prints what is wrong with a submission file, a line each; gives the exit code."""
    if len(args.entry) > 1 or (args.rerun and not args.entry):
        raise OptionError("--check takes the file of the entry by --entry, which --rerun needs.")
    entry = Path(args.entry[0]) if args.entry else None
    if entry is not None and not entry.is_file():
        raise OptionError(f"--entry {entry}: there is no such file.")
    problems = submission.check(path, entry)
    if args.rerun and not problems:
        assert entry is not None
        problems, line = submission.rerun(path, entry, args.camvid, args.voc, Path(args.run_dir))
        print(line)
    for problem in problems:
        print(f"{path}: {problem}")
    if not problems:
        print(f"{path}: no problem was found." + " The code was not compared: add --entry FILE." * (entry is None))
    return 1 if problems else 0


def main() -> int:
    """Runs the command line."""
    args = tyro.cli(LeaderboardArguments, prog="python -m benchmarks.leaderboard")
    if args.new is not None:
        write_template(Path(args.new))
        print(f"{args.new} is an entry to start from; python -m benchmarks.leaderboard --entry {args.new} --quick")
        return 0
    if args.check is not None:
        return check_submission(args, Path(args.check))
    if args.rerun:
        raise OptionError("--rerun goes with --check FILE.")
    if args.quick and args.budget != "small":
        raise OptionError("--quick has the small budget: leave out --budget or --quick.")
    files, chosen = choose(args)
    check_object("engine_options", args.engine_options)
    out = Path(args.out)
    wanted = find_runs(args, chosen)
    read_results(out)
    for path in (out, Path(args.run_dir) / "logs", *([Path(args.submission)] if args.submission else [])):
        check_writable(path)
    if out.exists():
        update_rows(out, lambda rows: list(map(report.upgraded, rows)), report.COLUMNS)
    for run in wanted:
        if run.entry in args.again:
            forget(run, args.run_dir, out)
    done = set(map(report.key_of, read_results(out)))
    missing = [run for run in wanted if run.key not in done]
    if len(missing) < len(wanted):
        print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are in {out}; --again ENTRY runs them again.")
    run_missing(args, files, missing, out)
    with locked(out):  # the last to write a report has read all rows
        text = report.write(out, Path(args.run_dir)).read_text(encoding="utf-8")
    print(text)
    if args.submission is not None:
        keys = {run.key for run in wanted}
        rows = [row for row in read_results(out) if report.key_of(row) in keys]
        submission.write(Path(args.submission), files[chosen[0]], rows)
        print(f"{args.submission} holds the results of {chosen[0]}; --check {args.submission} checks it.")
    return 0


if __name__ == "__main__":
    run_command(main)
