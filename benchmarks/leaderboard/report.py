"""The report of the leaderboard: a ranking per setting, learning curves and label maps, in Markdown.

python -m benchmarks.leaderboard.report
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import gymnasium as gym
import matplotlib
import numpy as np
import tyro

import rss_env  # noqa: F401  (registers the ids)
from agents.training.command import run_command
from benchmarks.capabilities.report import markdown
from benchmarks.leaderboard.judge import succeeded
from benchmarks.leaderboard.together import FEWEST, TASKS_TOGETHER, draw_together, together_table
from benchmarks.learning_curves import Curve, draw_learning_curves
from benchmarks.picture_grid import draw_picture_grid
from benchmarks.results_file import RESULTS, Row, Table, read_rows, replacing, results_of
from benchmarks.statistics import bootstrap_interval, interquartile_mean
from benchmarks.tasks import REVISITED, TASKS, TRACKS, task_of
from rss_env.rendering import colourise

KEY = ("entry", "task", "track", "budget", "seed")  # of the rows of one run
COLUMNS = ("entry", "seed", "status", "final", "val_miou")  # that a report needs
BOUNDS = [  # they see labels, of pixels or of images
    "cross-entropy",
    "cross-entropy, 4 times the steps",
    "cross-entropy, few labels",
    "soft IoU and cross-entropy",
    "image tags",
    "reward tuning",
]
TOGETHER = (
    "Test metrics, normalised: 0 is random label maps, 1 the mean of cross-entropy, whose own spread is in no "
    "interval. Of the entries that were tested on all of these tasks with the same seeds, at least three."
)
COMMITTED = RESULTS / "leaderboard.csv"
NAMES = {"miou": "mIoU", "score": "score"}  # of what a task is ranked by
HEAD = [
    "",
    "entry",
    "test METRIC",
    "95 % interval",
    "val METRIC",
    "seeds",
    "reward queries",
    "seconds",
    "MiB",
    "regret",
]
HEAD += ["status"]
OLD_TASKS = {"shapes": "shapes-32"}  # names of tasks in rows from before there were tracks
NOTE = (
    "Metrics on the test split, evaluated once when training has ended, with those on the validation split at the last "
    "report next to them: interquartile mean over seeds, and its bootstrap interval on test. MiB: peak memory of the "
    "process tree, the mean over seeds. Regret: one minus the mean score of all label maps that were tried while "
    "training. Cross-entropy and soft IoU see pixel labels, reward tuning sees them before it sees scores, and image "
    "tags sees which classes an image has: they are bounds, not entries, and tags are other information than scores, "
    "not more or less of it. Few labels: of as many images as the scores would tell enough of if nothing were lost."
)


def ranking(rows: list[Row]) -> Table:
    """Lines of the table of one setting, best first; then, without a place, entries without a test and failed ones.

    Rows from another results file, which ``with_committed`` marks, are entries of their own.
    """
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["final"] == "1":
            groups[row["entry"], row.get("where", "")].append(row)
    ranked: list[tuple[float, str, list[str]]] = []
    untested: list[tuple[float, str, list[str]]] = []
    failed: Table = []
    for (entry, where), finals in groups.items():
        name, metric = f"{entry} ({where})" if where else entry, metric_of(finals[0]["task"])
        good = [row for row in finals if succeeded(row["status"])]
        tested = [row for row in good if row.get(f"test_{metric}")]
        if not good:
            failed.append(["–", name, *[""] * (len(HEAD) - 3), finals[0]["status"]])
            continue
        shown = tested or good
        line = [
            name,
            *cells_of([float(row[f"test_{metric}"]) for row in tested]),
            f"{float(interquartile_mean([float(row[f'val_{metric}']) for row in shown])):.3f}",
            str(len(shown)),
            f"{int(shown[0]['reward_queries']):,}",
            mean_of([float(row["seconds"]) for row in shown], 0),
            mean_of([float(row["peak_mib"]) for row in shown if row.get("peak_mib")], 0),
            mean_of([1 - float(row["mean_score"]) for row in shown if row["mean_score"]], 3),
            "; ".join(remarks(finals, shown, bool(tested))) or "ok",
        ]
        value = float(line[1] or line[3])
        (ranked if tested else untested).append((value, entry, line))
    for lines in (ranked, untested):
        lines.sort(key=lambda item: -item[0])
    places = itertools.count(1)
    placed = [["bound" if entry in BOUNDS else str(next(places)), *line] for _, entry, line in ranked]
    return placed + [["–", *line] for _, _, line in untested] + failed


def cells_of(values: list[float]) -> tuple[str, str]:
    """The interquartile mean and its interval as a table shows them; no interval of less than ``FEWEST`` values."""
    if not values:
        return "", ""
    low, high = bootstrap_interval(values)
    interval = f"{low:.3f}–{high:.3f}" if len(values) >= FEWEST else ""
    return f"{float(interquartile_mean(values)):.3f}", interval


def mean_of(values: list[float], digits: int) -> str:
    """The mean, empty without values."""
    return f"{sum(values) / len(values):.{digits}f}" if values else ""


def remarks(finals: list[Row], shown: list[Row], tested: bool) -> list[str]:
    """What a reader must know about the runs of an entry."""
    said = [] if tested else ["no test"]
    late = [row for row in shown if row["status"] != "ok"]
    if late:
        many = f"{len(late)} of {len(shown)} seeds " if len(late) < len(shown) else ""
        said.append(many + late[0]["status"].removeprefix("ok, "))
    if len(shown) < len(finals):
        said.append(f"{len(finals) - len(shown)} of {len(finals)} seeds failed")
    return said


def metric_of(task: str) -> str:
    """What a task is ranked by."""
    known = task_of(task)
    return known.metric if known else "miou"


def heading(task: str) -> list[str]:
    """The heading of the table of a task."""
    return [word.replace("METRIC", NAMES[metric_of(task)]) for word in HEAD]


def ranking_table(task: str, track: str = REVISITED, budget: str = "small") -> Callable[[], Table]:
    """The ranking of one setting of the committed results."""

    def table() -> Table:
        rows = [row for row in read_results(COMMITTED) if setting_of(row) == (task, track, budget)]
        return [heading(task), *ranking(rows)]

    return table


def committed_together() -> Table:
    """The entries of the committed results over several tasks at once."""
    return together_table(read_results(COMMITTED), BOUNDS)


def best_table() -> Table:
    """Every setting of the committed results with a test: cross-entropy, and the entry of scores that is best on val.

    Metrics are those on test.
    """
    rows = read_results(COMMITTED)
    head = [
        "task",
        "track",
        "budget",
        "reward queries",
        "cross-entropy, test",
        "best of scores, test",
        "of it",
        "by",
    ]
    lines = [[*head, "seeds", "entries with a test"]]
    known = {name: task_of(name) for name in (*TASKS, *sorted({row["task"] for row in rows}))}
    tasks = {name: task for name, task in known.items() if task}
    settings = [(name, track, budget) for name in tasks for track in TRACKS for budget in tasks[name].budgets]
    for task, track, budget in settings:
        placed = ranking([row for row in rows if setting_of(row) == (task, track, budget)])
        if not any(line[2] for line in placed):
            continue
        bound = next((float(line[2]) for line in placed if line[1] == "cross-entropy" and line[2]), None)
        entries = [line for line in placed if line[0].isdigit()]
        best = max(entries, key=lambda line: float(line[4]), default=[""] * (len(HEAD) - 1))
        share = f"{float(best[2]) / bound:.1%}" if bound and best[2] else ""
        setting = [task, track.replace("_", " "), budget, f"{tasks[task].budgets[budget]:,}"]
        lines.append(
            [*setting, f"{bound:.3f}" if bound else "", best[2], share, best[1], best[5], str(len(entries) or "")]
        )
    return lines


def read_results(path: Path) -> list[Row]:
    """The rows of a results file of the leaderboard; those from before there were tracks as they would be now.

    Raises:
        OptionError: the file is not one of the leaderboard.
    """
    return [upgraded(row) for row in read_rows(path, COLUMNS)]


def upgraded(row: Row) -> Row:
    """A row with task, track and the name of its budget, also if it is from before there were tracks."""
    if row.get("task"):
        return row
    task = row.get("environment", "")
    return row | {"task": OLD_TASKS.get(task, task), "track": REVISITED, "budget": "small"}


def with_committed(rows: list[Row], path: Path) -> list[Row]:
    """Rows of a results file, and of the committed one those in the same settings, marked so."""
    if path.resolve() == COMMITTED.resolve():
        return rows
    settings = set(map(setting_of, rows))
    others = [row | {"where": "committed"} for row in read_results(COMMITTED) if setting_of(row) in settings]
    return rows + others


def setting_of(row: Row) -> tuple[str, str, str]:
    """Task, track and budget of a row."""
    return row["task"], row["track"], row["budget"]


def key_of(row: Row) -> tuple[str, ...]:
    """Entry, task, track, budget and seed of a row."""
    return tuple(row[name] for name in KEY)


def file_name(key: Iterable[str]) -> str:
    """The name that the files of a run have."""
    return "-".join(key).replace(" ", "_").replace(",", "")


def label_maps_file(run_dir: Path, key: Iterable[str]) -> Path:
    """Where the label maps of the last report of a run are kept."""
    return run_dir / "label_maps" / f"{file_name(key)}.npy"


def title_of(setting: tuple[str, str, str]) -> str:
    """A setting as headings name it."""
    task, track, budget = setting
    known = task_of(task)
    queries = f", {known.budgets[budget]:,} reward queries" if known else ""
    return f"{task}, {track.replace('_', ' ')}, {budget} budget{queries}"


def draw_curves(rows: list[Row], path: Path) -> Path:
    """Draws learning curves on the validation split, one row of panels a setting in which scores were asked for."""
    entries = dict.fromkeys(row["entry"] for row in rows)
    names = sorted(entries, key=lambda name: name not in ("RSS", "cross-entropy"))  # they have the strongest colours
    scale = matplotlib.colormaps["tab20"]
    colours = [scale(number) for number in (*range(0, 20, 2), *range(1, 20, 2))]  # the strong ones, then the pale
    panels: dict[str, list[Curve]] = {}
    asked = [row for row in rows if float(row["reward_queries"] or 0) > 0] or rows
    for setting in dict.fromkeys(map(setting_of, asked)):
        metric = f"val_{metric_of(setting[0])}"
        good = [row for row in rows if setting_of(row) == setting and succeeded(row["status"])]
        by_entry = {name: [row | {"val_miou": row[metric]} for row in good if row["entry"] == name] for name in names}
        panels[title_of(setting)] = [
            Curve(name, colours[names.index(name) % 20], of_it) for name, of_it in by_entry.items() if of_it
        ]
    metrics = {title_of(setting): NAMES[metric_of(setting[0])] for setting in map(setting_of, rows)}
    return draw_learning_curves(panels, path, metrics)


def draw_label_maps(rows: list[Row], run_dir: Path, path: Path) -> Path | None:
    """Draws procedural validation images, their targets and the label maps of every entry's best seed.

    Pictures of photos stay in the run folders.

    Returns:
        The file; None if no label maps of the procedural environment are there.
    """
    of_it = [row for row in rows if setting_of(row) == ("shapes-32", REVISITED, "small") and row["final"] == "1"]
    found: dict[str, np.ndarray] = {}
    for row in sorted((row for row in of_it if succeeded(row["status"])), key=lambda row: -float(row["val_miou"])):
        file = label_maps_file(run_dir, key_of(row))
        if row["entry"] not in found and file.exists():
            found[row["entry"]] = np.load(file)
    if not found:
        return None
    first = next(iter(found.values()))
    options = {"split": "val", "order": "sequential", "expose_target": True, "image_size": first.shape[1:]}
    envs = gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=len(first), **options)
    images, infos = envs.reset()
    palette = np.array(envs.metadata["palette"], np.uint8)
    label_maps = {"target": infos["target"]} | found
    shown = {"image": images} | {name: colourise(maps, palette) for name, maps in label_maps.items()}
    with replacing(path) as file:
        draw_picture_grid(shown, side=96).save(file)
    return path


def write(results: Path = COMMITTED, run_dir: Path = Path("runs/leaderboard")) -> Path:
    """Writes the report next to a results file, as ``.md`` and ``.png``; committed results are ranked with its own.

    Args:
        results: CSV file of ``benchmarks.leaderboard``.
        run_dir: folder of its runs, for the label maps; without it an earlier picture of them stays.

    Returns:
        The Markdown file.

    Raises:
        OptionError: there are no results.
    """
    own = [upgraded(row) for row in results_of(results, "benchmarks.leaderboard", COLUMNS)]
    rows = with_committed(own, results)
    text = ["# Leaderboard", "", NOTE, ""]
    if len(rows) > len(own):
        text += ["Entries marked (committed) come with the project; compare their seconds only on the same device.", ""]
    for setting in dict.fromkeys(map(setting_of, rows)):
        head, lines = heading(setting[0]), ranking([row for row in rows if setting_of(row) == setting])
        text += [f"## {title_of(setting)}", "", *markdown([head, *lines]), ""]
    together = together_table(rows, BOUNDS)
    if together:
        title = f"## {', '.join(TASKS_TOGETHER)} together, revisited, small budget"
        text += [title, "", TOGETHER, "", *markdown(together), ""]
    pictures = {"learning curves on validation": draw_curves(own, results.with_suffix(".png"))}
    titles = "aggregates over several tasks", "performance profiles over several tasks"
    pictures |= dict(zip(titles, draw_together(own, results), strict=False))
    maps = results.with_suffix(".label_maps.png")
    if draw_label_maps(own, run_dir, maps) or maps.exists():
        pictures["label maps of procedural validation images, the best seed of each entry"] = maps
    for title, file in pictures.items():
        text += [f"![{title}]({file.name})", ""]
    with replacing(results.with_suffix(".md")) as file:
        file.write_text("\n".join(text), encoding="utf-8")
    return results.with_suffix(".md")


def main(results: Path = COMMITTED) -> None:
    """Write the report of the leaderboard.

    Args:
        results: CSV file of the leaderboard.
    """
    print(write(results))


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, prog="python -m benchmarks.leaderboard.report"))
