"""The report of the leaderboard: a ranking per environment, learning curves and label maps, in Markdown.

python -m benchmarks.leaderboard.report
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import matplotlib
import numpy as np
import tyro

import rss_env  # noqa: F401  (registers the ids)
from agents.training.command import run_command
from benchmarks.learning_curves import Curve, draw_learning_curves
from benchmarks.picture_grid import draw_picture_grid
from benchmarks.results_file import RESULTS, Row, Table, read_rows, replacing, results_of
from benchmarks.statistics import bootstrap_interval, interquartile_mean
from rss_env.rendering import colourise

KEY = ("entry", "environment", "seed")  # of the rows of one run
COLUMNS = ("entry", "environment", "budget", "seed", "status", "final", "val_miou")  # that a report needs
BOUNDS = ("cross-entropy", "image tags")  # they see no score: pixel labels, image tags
HEAD = ["", "entry", "mIoU", "95 % interval", "seeds", "reward queries", "seconds", "regret", "status"]
NOTE = (
    "mIoU on the validation split at the last report: interquartile mean over seeds and its bootstrap interval. "
    "Regret: one minus the mean score of all label maps that were tried while training. Cross-entropy sees pixel "
    "labels, and image tags sees which classes an image has: both are bounds, not entries, and tags are other "
    "information than scores, not more or less of it."
)


def ranking(rows: list[Row]) -> Table:
    """Lines of the table of one environment, best first; entries that failed come last with what went wrong."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["final"] == "1":
            groups[row["entry"]].append(row)
    ranked, failed = [], []
    for name, finals in groups.items():
        good = [row for row in finals if row["status"] == "ok"]
        if not good:
            failed.append(["–", name, "", "", "0", "", "", "", finals[0]["status"]])
            continue
        values = [float(row["val_miou"]) for row in good]
        low, high = bootstrap_interval(values)
        tried = [1 - float(row["mean_score"]) for row in good if row["mean_score"]]
        line = [
            name,
            f"{float(interquartile_mean(values)):.3f}",
            f"{low:.3f}–{high:.3f}",
            str(len(good)),
            f"{int(good[0]['reward_queries']):,}",
            f"{sum(float(row['seconds']) for row in good) / len(good):.0f}",
            f"{sum(tried) / len(tried):.3f}" if tried else "",
            "ok" if len(good) == len(finals) else f"{len(finals) - len(good)} of {len(finals)} seeds failed",
        ]
        ranked.append((float(interquartile_mean(values)), line))
    ranked.sort(key=lambda item: -item[0])
    places = itertools.count(1)
    return [["bound" if line[0] in BOUNDS else str(next(places)), *line] for _, line in ranked] + failed


def ranking_table(environment: str) -> Callable[[], Table]:
    """The ranking of one environment of the committed results."""

    def table() -> Table:
        rows = [row for row in read_rows(RESULTS / "leaderboard.csv") if row["environment"] == environment]
        return [HEAD, *ranking(rows)]

    return table


def key_of(row: Row) -> tuple[str, str, str]:
    """Entry, environment and seed of a row."""
    entry, environment, seed = (row[name] for name in KEY)
    return entry, environment, seed


def file_name(entry: str, environment: str, seed: str) -> str:
    """The name that the files of a run have."""
    return f"{entry}-{environment}-{seed}".replace(" ", "_").replace(",", "")


def label_maps_file(run_dir: Path, entry: str, environment: str, seed: str) -> Path:
    """Where the label maps of the last report of a run are kept."""
    return run_dir / "label_maps" / f"{file_name(entry, environment, seed)}.npy"


def draw_curves(rows: list[Row], path: Path) -> Path:
    """Draws learning curves, one row of panels an environment."""
    names = list(dict.fromkeys(row["entry"] for row in rows))
    scale = matplotlib.colormaps["tab20"]
    panels: dict[str, list[Curve]] = {}
    for environment in dict.fromkeys(row["environment"] for row in rows):
        ok = [row for row in rows if (row["environment"], row["status"]) == (environment, "ok")]
        by_entry = {name: [row for row in ok if row["entry"] == name] for name in names}
        panels[environment] = [
            Curve(name, scale(names.index(name) % 20), of_it) for name, of_it in by_entry.items() if of_it
        ]
    return draw_learning_curves(panels, path)


def draw_label_maps(rows: list[Row], run_dir: Path, path: Path) -> Path | None:
    """Draws procedural validation images, their targets and the label maps of every entry's best seed.

    Pictures of photos stay in the run folders.

    Returns:
        The file; None if no label maps of the procedural environment are there.
    """
    ok = [row for row in rows if row["environment"] == "shapes" and row["status"] == "ok" and row["final"] == "1"]
    found: dict[str, np.ndarray] = {}
    for row in sorted(ok, key=lambda row: -float(row["val_miou"])):
        file = label_maps_file(run_dir, *key_of(row))
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


def write(results: Path = RESULTS / "leaderboard.csv", run_dir: Path = Path("runs/leaderboard")) -> Path:
    """Writes the report next to a results file, as ``.md`` and ``.png``.

    Args:
        results: CSV file of ``benchmarks.leaderboard``.
        run_dir: folder of its runs, for the label maps; without it an earlier picture of them stays.

    Returns:
        The Markdown file.

    Raises:
        OptionError: there are no results.
    """
    rows = results_of(results, "benchmarks.leaderboard", COLUMNS)
    text = ["# Leaderboard", "", NOTE, ""]
    for environment in dict.fromkeys(row["environment"] for row in rows):
        of_it = [row for row in rows if row["environment"] == environment]
        text += [f"## {environment}: {int(of_it[0]['budget']):,} reward queries", ""]
        text += [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
        text += [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in ranking(of_it)] + [""]
    pictures = {"learning curves": draw_curves(rows, results.with_suffix(".png"))}
    maps = results.with_suffix(".label_maps.png")
    if draw_label_maps(rows, run_dir, maps) or maps.exists():
        pictures["label maps of procedural validation images, the best seed of each entry"] = maps
    for title, file in pictures.items():
        text += [f"![{title}]({file.name})", ""]
    with replacing(results.with_suffix(".md")) as file:
        file.write_text("\n".join(text), encoding="utf-8")
    return results.with_suffix(".md")


def main(results: Path = RESULTS / "leaderboard.csv") -> None:
    """Write the report of the leaderboard.

    Args:
        results: CSV file of the leaderboard.
    """
    print(write(results))


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, prog="python -m benchmarks.leaderboard.report"))
