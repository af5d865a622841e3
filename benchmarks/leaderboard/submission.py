"""A submission: the results of one entry in one file, with what they were measured with, and the check of such a file.

The file is JSON::

    {"format": "rss leaderboard submission", "protocol": 1, "entry": name,
     "code": {file: SHA-256}, "environment": {"python", "torch", "packages", "commit", "device"}, "rows": [...]}

with the rows of the results file, numbers as numbers. A check reads the file as data and runs none of it.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.leaderboard.code import code_files, digest_of
from benchmarks.leaderboard.judge import Judge, succeeded
from benchmarks.processes import Processes
from benchmarks.results_file import Row, replacing
from benchmarks.tasks import FEW_VISITS, TASKS, TRACKS, VISITS, Setting, find_tasks
from benchmarks.training_runs import log_file
from rss_env.errors import OptionError

PROTOCOL = 1  # of the leaderboard: another number where results before and after do not compare
FORMAT = "rss leaderboard submission"
SEEDS = (1, 2, 3)  # that a submission has in every setting, at least
SECONDS = 900.0  # training time of a run
SLACK = 5.0  # seconds that a run may be over its time before it is ended
METRICS = ("miou", "pixel_accuracy", "score")
NAMED = ("numpy", "gymnasium", "scipy", "numba", "torch")  # packages whose versions are in every row
TOLERANCE = 0.02  # of the metric of a run that is repeated, on another machine; or twice the spread of the seeds,
MOST_TOLERANCE = 0.1  # but no more than this
LARGEST = 64 << 20  # bytes of a file

NUMBER, TEXT = (int, float), (str,)
TOP: dict[str, tuple[type, ...]] = {
    "format": TEXT,
    "protocol": (int,),
    "entry": TEXT,
    "code": (dict,),
    "environment": (dict,),
    "rows": (list,),
}
ENVIRONMENT: dict[str, tuple[type, ...]] = {
    "python": TEXT,
    "torch": TEXT,
    "packages": (dict,),
    "commit": TEXT,
    "device": TEXT,
}
TEXTS = (
    "entry",
    "task",
    "track",
    "budget",
    "status",
    "device",
    "python",
    "torch",
    "commit",
    "date",
    "versions",
    "code",
)
INTEGERS = ("seed", "final", "reward_queries", "protocol")
NUMBERS = ("seconds", "limit_s")
OPTIONAL: tuple[str, ...] = ("mean_score", "learning_rate", "peak_mib", "most_visits")
OPTIONAL += tuple(f"{split}_{name}" for split in ("val", "test") for name in METRICS)
ROW: dict[str, tuple[type, ...]] = (
    dict.fromkeys(TEXTS, TEXT)
    | dict.fromkeys(INTEGERS, (int,))
    | dict.fromkeys(NUMBERS, NUMBER)
    | dict.fromkeys(OPTIONAL, (*NUMBER, type(None)))
)


def packages() -> dict[str, str]:
    """The installed packages and their versions."""
    return {each.name: each.version for each in sorted(distributions(), key=lambda each: each.name.lower())}


def versions_text() -> str:
    """Versions of the packages that results depend on most, in a line."""
    installed = packages()
    return ", ".join(f"{name} {installed[name]}" for name in NAMED if name in installed)


def write(path: Path, entry: Path, rows: list[Row]) -> None:
    """Writes the submission of an entry.

    Args:
        path: file to write.
        entry: the entry's file.
        rows: its rows of a results file.

    Raises:
        OptionError: there are no rows, or the code has changed since they were measured.
    """
    if not rows:
        raise OptionError(f"There are no results of {entry} to submit.")
    files, last = code_files(entry), rows[-1]
    if {row["code"] for row in rows} != {digest_of(files)}:
        raise OptionError(
            f"{entry}, or a file that it imports, has changed since its results were measured; "
            f"--again {rows[0]['entry']} measures them again."
        )
    environment = {name: last[name] for name in ("python", "torch", "commit", "device")} | {"packages": packages()}
    content = {"format": FORMAT, "protocol": PROTOCOL, "entry": last["entry"], "code": files}
    content |= {"environment": environment, "rows": list(map(typed, rows))}
    with replacing(path) as file:
        file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def typed(row: Row) -> dict[str, Any]:
    """A row with numbers in place of their texts, and None for what is empty."""
    values: dict[str, Any] = {name: row.get(name, "") for name in TEXTS}
    values |= {name: int(row[name]) for name in INTEGERS} | {name: float(row[name]) for name in NUMBERS}
    return values | {name: float(row[name]) if row.get(name) else None for name in OPTIONAL}


def read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of a submission file, and what is wrong with its form; without that its fields have their types."""
    try:
        if path.stat().st_size > LARGEST:
            return {}, [f"it has more than {LARGEST >> 20} MiB."]
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, [f"it cannot be read: {error.strerror}."]
    except (ValueError, RecursionError) as error:
        return {}, [f"it is not JSON: {error}."]
    problems = list(wrong_fields(content, TOP, "the file"))
    if problems:
        return {}, problems
    if content["format"] != FORMAT:
        return {}, [f"format is {content['format']!r}, not {FORMAT!r}."]
    problems += wrong_fields(content["environment"], ENVIRONMENT, "environment")
    for name, value in content["code"].items():
        if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
            problems.append(f"code: {name!r} has no SHA-256 of 64 hexadecimal digits.")
    if not content["code"]:
        problems.append("code names no file.")
    if not content["rows"]:
        problems.append("rows are none.")
    for number, row in enumerate(content["rows"], 1):
        problems += wrong_fields(row, ROW, f"row {number}")
    return content, problems


def wrong_fields(value: Any, fields: Mapping[str, tuple[type, ...]], where: str) -> Iterable[str]:
    """What differs between a JSON value and an object of these fields, with finite numbers."""
    if not isinstance(value, dict):
        yield f"{where} is no object."
        return
    for name, types in fields.items():
        if name not in value:
            yield f"{where} has no {name!r}."
        elif isinstance(value[name], bool) or not isinstance(value[name], types):
            valid = " or ".join("nothing" if each is type(None) else each.__name__ for each in types)
            yield f"{where}: {name} is {value[name]!r:.60}, not {valid}."
        elif isinstance(value[name], float) and not math.isfinite(value[name]):
            yield f"{where}: {name} is not finite."
    for name in value.keys() - fields.keys():
        yield f"{where} has an unknown field {name!r:.60}."


def check(path: Path, entry: Path | None = None) -> list[str]:
    """What is wrong with a submission file, a line each; nothing if it is in order.

    Args:
        path: the file.
        entry: file of the entry, for the comparison of its code; None: only the file is looked at.
    """
    content, problems = read(path)
    if problems:
        return problems
    if content["protocol"] != PROTOCOL:
        return [f"it is of version {content['protocol']} of the protocol, not {PROTOCOL}: run the entry again."]
    commit = content["environment"]["commit"]
    if commit.endswith("+"):
        problems.append(f"commit {commit} has changes that nobody can look up: commit them, and run the entry again.")
    if entry is not None:
        problems += changed_files(content["code"], code_files(entry))
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for number, row in enumerate(content["rows"], 1):
        problems += [f"row {number}: {said}" for said in wrong_row(row, content)]
        runs[row["task"], row["track"], row["budget"], row["seed"]].append(row)
    for key, rows in runs.items():
        problems += [f"{', '.join(map(str, key[:3]))}, seed {key[3]}: {said}" for said in wrong_run(rows)]
    for setting in dict.fromkeys(key[:3] for key in runs):
        missing = [seed for seed in SEEDS if (*setting, seed) not in runs]
        if missing:
            problems.append(f"{', '.join(setting)}: no result of seed {', '.join(map(str, missing))}.")
    return problems


def changed_files(submitted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """How the code of an entry differs from what was submitted."""
    problems = [f"code: {name} is not the file that was submitted." for name in found if name not in submitted]
    problems += [f"code: {name} is missing next to the entry." for name in submitted if name not in found]
    return problems + [
        f"code: {name} differs from what was submitted."
        for name in found
        if name in submitted and found[name] != submitted[name]
    ]


def wrong_row(row: Mapping[str, Any], content: Mapping[str, Any]) -> Iterable[str]:
    """What is wrong with one row, whose fields have their types."""
    environment = content["environment"]
    same: dict[str, Any] = {"entry": content["entry"], "protocol": PROTOCOL, "code": digest_of(content["code"])}
    same |= {name: environment[name] for name in ("python", "torch", "commit", "device")}
    for name, expected in same.items():
        if row[name] != expected:
            yield f"{name} is {row[name]!r:.60}, but the file says {expected!r:.60}."
    if row["task"] not in TASKS:
        yield f"there is no task {row['task']!r:.60}; valid: {', '.join(TASKS)}."
        return
    task = TASKS[row["task"]]
    if row["track"] not in TRACKS:
        yield f"there is no track {row['track']!r:.60}; valid: {', '.join(TRACKS)}."
    if row["budget"] not in task.budgets:
        yield f"there is no budget {row['budget']!r:.60}; valid: {', '.join(task.budgets)}."
    elif not 0 <= row["reward_queries"] <= task.budgets[row["budget"]]:
        yield f"{row['reward_queries']:,} reward queries are not within the budget of {task.budgets[row['budget']]:,}."
    if not 0 < row["limit_s"] <= SECONDS:
        yield f"a time of {row['limit_s']:g} s is not the {SECONDS:g} s of the protocol."
    if not 0 <= row["seconds"] <= row["limit_s"] + SLACK:
        yield f"{row['seconds']:g} s are not within the {row['limit_s']:g} s of a run."
    if row["track"] == FEW_VISITS and not (row["most_visits"] is not None and 0 <= row["most_visits"] <= VISITS):
        yield f"an image may be shown {VISITS} times; most_visits is {row['most_visits']}."
    for split in ("val", "test"):
        for name in METRICS:
            value = row[f"{split}_{name}"]
            if value is not None and not 0 <= value <= 1:
                yield f"{split}_{name} is {value:g}, not within 0 and 1."


def wrong_run(rows: list[dict[str, Any]]) -> Iterable[str]:
    """What is wrong between the rows of one run."""
    if [row["final"] for row in rows] != [0] * (len(rows) - 1) + [1]:
        yield "not exactly its last row is marked as final."
    for name in ("status", "mean_score", "date", "learning_rate", "peak_mib", "most_visits", "versions"):
        if any(row[name] != rows[0][name] for row in rows):
            yield f"its rows differ in {name}."
    for name in ("reward_queries", "seconds"):
        values = [row[name] for row in rows]
        if values != sorted(values):
            yield f"{name} fall from row to row."
    if any(row[f"test_{name}"] is not None for row in rows[:-1] for name in METRICS):
        yield "a row before the last one has a result on test, which is evaluated once."
    if not succeeded(rows[-1]["status"]):
        yield f"it failed: {rows[-1]['status']}."
        return
    task = TASKS.get(rows[-1]["task"])
    for column in (f"{split}_{task.metric}" for split in ("val", "test")) if task else ():
        if rows[-1][column] is None:
            yield f"it has no {column}."


def rerun(
    path: Path, entry: Path, camvid: str | None, voc: str | None, run_dir: Path, judge: Callable[..., Any] = Judge
) -> tuple[list[str], str]:
    """Runs one seed of a submission that is in order again, and compares.

    Args:
        path: the submission.
        entry: file of the entry, which is run.
        camvid: folder of CamVid.
        voc: folder of VOC.
        run_dir: folder for the log.
        judge: what is called in place of ``Judge``.

    Returns:
        What is wrong, and a line about both results.

    Raises:
        OptionError: the data of the task is not given.
    """
    finals = [row for row in read(path)[0]["rows"] if row["final"]]
    row = finals[0]
    folders = {"camvid": camvid if "camvid" in row["task"] else None, "voc": voc if row["task"] == "voc" else None}
    tasks, left_out = find_tasks([row["task"]], **folders)
    if left_out:
        raise OptionError(left_out[0])
    if tasks[0].name != row["task"]:
        raise OptionError(f"The data is that of the task {tasks[0].name}, and the results are of {row['task']}.")
    setting = Setting(tasks[0], row["track"], row["budget"])
    log = log_file(run_dir / f"rerun-{entry.stem}")
    verdict = judge(entry, setting, row["seed"], row["limit_s"], Processes(), log).run()
    what = f"{', '.join(setting.names)}, seed {row['seed']}"
    metric = f"test_{setting.task.metric}"
    if metric not in verdict.test:
        return [f"{what}, again: {verdict.status}."], f"{what}, again: no result; its log is {log}"
    submitted, found = row[metric], verdict.test[metric]
    here = [other[metric] for other in finals if all(other[key] == row[key] for key in ("task", "track", "budget"))]
    allowed = min(MOST_TOLERANCE, max(TOLERANCE, 2 * (max(here) - min(here))))
    line = f"{what}, again: {metric} {found:.4f}, submitted {submitted:.4f}"
    if abs(found - submitted) > allowed:
        return [f"{line}: they differ by more than {allowed:.3f}."], line
    return [], f"{line}: within {allowed:.3f}"
