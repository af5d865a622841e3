"""Write the README's tables from the committed CSV files.

    python -m benchmarks.tables

Each table stands between the lines ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import tyro

from benchmarks.results_file import RESULTS, read_rows

README = RESULTS.parent.parent / "README.md"
METHODS = {
    "cross_entropy": "cross-entropy on pixel labels",
    "rss_image_k32": "one number a label map, K = 32",
    "rss_image_k128": "one number a label map, K = 128",
    "rss_pixel_k32": "one number a pixel, K = 32",
}


def convergence(path: Path = RESULTS / "convergence.csv", dataset: str = "camvid") -> list[list[str]]:
    """Mean and range of mIoU over the seeds of each method on one data set."""
    groups = defaultdict(list)
    for row in read_rows(path):
        if row["dataset"] == dataset:
            groups[row["method"], int(row["steps"])].append(row)
    upper = {steps: _mean(rows, "val_miou") for (method, steps), rows in groups.items() if method == "cross_entropy"}
    lines = [["learned from", "steps", "seeds", "mIoU (range)", "of cross-entropy", "reward queries", "seconds"]]
    for (method, steps), rows in sorted(groups.items(), key=lambda item: (item[0][1], list(METHODS).index(item[0][0]))):
        values = [float(row["val_miou"]) for row in rows]
        mean = statistics.fmean(values)
        share = f"{mean / upper[steps]:.0%}" if steps in upper else ""
        span = f"{mean:.3f} ({min(values):.3f}–{max(values):.3f})"
        queries, seconds = f"{int(rows[0]['reward_queries']):,}", f"{_mean(rows, 'seconds'):.0f}"
        lines.append([METHODS[method], f"{steps:,}", str(len(rows)), span, share, queries, seconds])
    return lines


def throughput(level: str = "image", side: int = 64, num_envs: int = 64) -> list[list[str]]:
    """Milliseconds a step of each contender, for one size and number of environments."""
    lines = [["", "ms a step", "episodes/s", "× floor", "× gather floor", "× SyncVectorEnv", "KiB an environment"]]
    for row in read_rows(RESULTS / "throughput.csv"):
        if (row["level"], int(row["image_size"]), int(row["num_envs"])) != (level, side, num_envs):
            continue
        speed = f"{int(row['episodes_per_second']):,}"
        keys = ("times_floor", "times_gather_floor", "speedup_over_sync")
        factors = [f"{float(row[key]):.1f}" for key in keys]
        memory = f"{float(row['kib_per_env']):,.0f}" if row["kib_per_env"] else "–"
        lines.append([row["contender"], f"{float(row['ms_per_step']):.2f}", speed, *factors, memory])
    return lines


def throughput_growth(contender: str = "SegmentationVectorEnv, uint8") -> list[list[str]]:
    """Nanoseconds a pixel of the vector environment, by size, reward level and number of environments."""
    rows = [row for row in read_rows(RESULTS / "throughput.csv") if row["contender"] == contender]
    counts = list(dict.fromkeys(row["num_envs"] for row in rows))
    lines = [["", *(f"{int(count):,}" for count in counts)]]
    cells: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in rows:
        cells[row["level"], row["image_size"]][row["num_envs"]] = f"{float(row['ns_per_pixel']):.2f}"
    for (level, side), by_count in cells.items():
        lines.append([f"{level} level, {side}×{side}", *(by_count[count] for count in counts)])
    return lines


def throughput_stages() -> list[list[str]]:
    """Microseconds of each stage of a step, by the dtype of the label maps."""
    rows = read_rows(RESULTS / "throughput_stages.csv")
    dtypes = list(dict.fromkeys(row["label_maps"] for row in rows))
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        cells[row["stage"]][row["label_maps"]] = f"{float(row['microseconds']):.0f} ({float(row['share']):.0%})"
    return [["µs a step", *dtypes], *([stage, *(times[d] for d in dtypes)] for stage, times in cells.items())]


def agent_step() -> list[list[str]]:
    """Share of a step that is not the network's."""
    lines = [["K", "images", "size", "ms a step", "sampling + scoring + advantage", "times a cross-entropy step"]]
    for row in read_rows(RESULTS / "agent_step.csv"):
        share = f"{float(row['share_sampling_scoring_advantage']):.0%}"
        start = [row["samples_per_image"], row["batch_size"], row["image_size"].replace("x", "×")]
        lines.append([*start, f"{float(row['step_ms']):.0f}", share, f"{float(row['times_cross_entropy_step']):.2f}"])
    return lines


TABLES: dict[str, Callable[[], list[list[str]]]] = {
    "convergence": convergence,
    "throughput": throughput,
    "throughput_stages": throughput_stages,
    "throughput_growth": throughput_growth,
    "agent_step": agent_step,
}


def fill(text: str) -> str:
    """The text with every table made anew."""
    for name, table in TABLES.items():
        head, *body = (f"| {' | '.join(cells)} |" for cells in table())
        ruler = "|" + "---|" * (head.count("|") - 1)
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, rest = text.split(begin)
        text = before + begin + "\n".join([head, ruler, *body]) + "\n" + end + rest.split(end, 1)[1]
    return text


def main(readme: Path = README) -> None:
    """Write the README's tables from the committed CSV files.

    Args:
        readme: the file whose tables are written.
    """
    readme.write_text(fill(readme.read_text()))


def _mean(rows: list[dict[str, str]], column: str) -> float:
    return statistics.fmean(float(row[column]) for row in rows)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.tables")
