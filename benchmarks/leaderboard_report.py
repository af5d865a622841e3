"""The leaderboard's report: a ranking per environment and learning curves, as Markdown and as one HTML file.

python -m benchmarks.leaderboard_report
"""

from __future__ import annotations

import base64
import html
import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import tyro

import rss_env  # noqa: F401  (registers the ids)
from agents.arguments import run_command
from benchmarks.results_file import RESULTS, replacing, results_of
from benchmarks.statistics import bootstrap_interval, interquartile_mean

Row = dict[str, str]
COLUMNS = ("entry", "environment", "budget", "seed", "status", "final", "val_miou")  # without which there is no report
BOUNDS = ("cross-entropy", "image tags")  # they see no score: pixel labels, image tags
HEAD = ["", "entry", "mIoU", "95 % interval", "seeds", "reward queries", "seconds", "regret", "status"]
NOTE = (
    "mIoU on the validation split at the last report: interquartile mean over seeds and its bootstrap interval. "
    "Regret: one minus the mean score of all label maps that were tried while training. Cross-entropy sees pixel "
    "labels, and image tags sees which classes an image has: both are bounds and no entries, and tags are other "
    "information than scores, not more or less of it."
)


def ranking(rows: list[Row]) -> list[list[str]]:
    """Lines of one environment's table, best first; entries that failed come last with what went wrong."""
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


def curves(rows: list[Row], path: Path) -> Path:
    """Learning curves against reward queries and against seconds, one line of panels an environment."""
    environments = list(dict.fromkeys(row["environment"] for row in rows))
    figure, axes = plt.subplots(
        len(environments), 2, figsize=(11, 3.8 * len(environments)), squeeze=False, layout="constrained"
    )
    names = list(dict.fromkeys(row["entry"] for row in rows))
    scale = plt.get_cmap("tab20")
    for line, environment in zip(axes, environments, strict=True):
        for quantity, label, axis in zip(
            ("reward_queries", "seconds"), ("reward queries", "seconds of training"), line, strict=True
        ):
            for name in names:
                runs: dict[str, list[Row]] = defaultdict(list)
                for row in rows:
                    if (row["entry"], row["environment"], row["status"]) == (name, environment, "ok"):
                        runs[row["seed"]].append(row)
                if not runs:
                    continue
                points = list(zip(*runs.values(), strict=False))  # the n-th report of every seed
                place = [sum(float(row[quantity]) for row in at) / len(at) for at in points]
                middle = [float(interquartile_mean([float(row["val_miou"]) for row in at])) for at in points]
                colour = scale(names.index(name) % 20)
                if len(points) == 1 or (quantity == "reward_queries" and place[-1] == 0):
                    axis.axhline(middle[-1], color=colour, linestyle="--", label=name, linewidth=1)
                    continue
                axis.plot(place, middle, color=colour, marker=".", label=name)
                spans = [bootstrap_interval([float(row["val_miou"]) for row in at]) for at in points]
                axis.fill_between(place, *zip(*spans, strict=True), color=colour, alpha=0.12, linewidth=0)
            axis.set_xlabel(label)
            axis.set_ylabel("mIoU, validation")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            axis.set_title(environment, fontsize=10)
        line[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    with replacing(path) as file:
        figure.savefig(file, dpi=100)
    plt.close(figure)
    return path


def label_maps_file(run_dir: Path, entry: str, environment: str, seed: int) -> Path:
    """Where the label maps of a run's last report are kept."""
    return run_dir / "label_maps" / f"{entry}-{environment}-{seed}.npy".replace(" ", "_").replace(",", "")


def gallery(rows: list[Row], run_dir: Path, path: Path) -> Path | None:
    """Draws images, targets and every entry's label maps of procedural validation images side by side.

    Photos are shown nowhere but in run folders.

    Returns:
        The file; None if no label maps of the procedural environment are there.
    """
    ok = [row for row in rows if row["environment"] == "shapes" and row["status"] == "ok" and row["final"] == "1"]
    best = sorted(ok, key=lambda row: -float(row["val_miou"]))
    found: dict[str, np.ndarray] = {}
    for row in best:
        file = label_maps_file(run_dir, row["entry"], "shapes", int(row["seed"]))
        if row["entry"] not in found and file.exists():
            found[row["entry"]] = np.load(file)
    if not found:
        return None
    first = next(iter(found.values()))
    number, size = len(first), first.shape[1:]
    options = {"split": "val", "order": "sequential", "expose_target": True, "image_size": size}
    envs: Any = gym.make_vec("RSS-Shapes-ImageReward-v0", num_envs=number, **options)
    images, infos = envs.reset()
    palette = envs.unwrapped.task.dataset.palette
    rows_shown = {"image": images, "target": palette[infos["target"]]} | {
        name: palette[maps] for name, maps in found.items()
    }
    figure, axes = plt.subplots(
        number, len(rows_shown), figsize=(1.25 * len(rows_shown), 1.25 * number + 0.5), squeeze=False
    )
    for column, (name, pictures) in zip(axes.T, rows_shown.items(), strict=True):
        column[0].set_title(name.replace(", ", ",\n").replace("REINFORCE ", "REINFORCE\n"), fontsize=6)
        for axis, picture in zip(column, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.axis("off")
    figure.tight_layout(pad=0.3)
    with replacing(path) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)
    return path


def write(results: Path = RESULTS / "leaderboard.csv", run_dir: Path = Path("runs/leaderboard")) -> Path:
    """Writes the report beside a results file, as ``.md``, ``.html`` and ``.png``.

    Args:
        results: CSV file of ``benchmarks.leaderboard``.
        run_dir: folder of its runs, for the label maps; an earlier picture of them stays where it is missing.

    Returns:
        The Markdown file.

    Raises:
        OptionError: there are no results.
    """
    rows = results_of(results, "benchmarks.leaderboard", COLUMNS)
    picture = curves(rows, results.with_suffix(".png"))
    text, page = ["# Leaderboard", "", NOTE, ""], ["<h1>Leaderboard</h1>", f"<p>{html.escape(NOTE)}</p>"]
    for environment in dict.fromkeys(row["environment"] for row in rows):
        of_it = [row for row in rows if row["environment"] == environment]
        title = f"{environment}: {int(of_it[0]['budget']):,} reward queries"
        lines = ranking(of_it)
        text += [f"## {title}", "", f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
        text += [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines] + [""]
        cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in lines]
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in HEAD)
        page += [f"<h2>{html.escape(title)}</h2>", f"<table><tr>{head}</tr>"]
        page += [f"<tr>{line}</tr>" for line in cells] + ["</table>"]
    pictures = {"Learning curves": picture}
    maps = results.with_suffix(".label_maps.png")
    if gallery(rows, run_dir, maps) or maps.exists():
        pictures["Label maps of procedural validation images, the best seed of each entry"] = maps
    for title, file in pictures.items():
        text += [f"![{title.lower()}]({file.name})", ""]
        data = base64.b64encode(file.read_bytes()).decode()
        page += [f'<h2>{title}</h2><img alt="{title.lower()}" src="data:image/png;base64,{data}">']
    style = (
        "body{font:15px sans-serif;max-width:75em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
        "td,th{border-bottom:1px solid #ccc;padding:.3em .7em;text-align:left}img{max-width:100%}"
    )
    page_text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Leaderboard</title><style>{style}</style>'
        f"</head><body>{''.join(page)}</body></html>\n"
    )
    for suffix, content in {".html": page_text, ".md": "\n".join(text)}.items():
        with replacing(results.with_suffix(suffix)) as file:
            file.write_text(content, encoding="utf-8")
    return results.with_suffix(".md")


def main(results: Path = RESULTS / "leaderboard.csv") -> None:
    """Write the leaderboard's report.

    Args:
        results: CSV file of the leaderboard.
    """
    print(write(results))


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, prog="python -m benchmarks.leaderboard_report"))
