"""Write the tables of README.md and docs from the committed CSV files.

    python -m benchmarks.tables

Each table stands between the lines ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import tyro

from agents.arguments import run_command
from benchmarks import leaderboard_report
from benchmarks.convergence_plot import panels, with_references
from benchmarks.results_file import RESULTS, read_rows
from benchmarks.suites import LEVELS, STEPS, SUITES, TITLES

ROOT = RESULTS.parent.parent
FILES = (
    ROOT / "README.md",
    ROOT / "docs" / "experiments.md",
    ROOT / "docs" / "baselines.md",
    ROOT / "docs" / "kernels.md",
    ROOT / "docs" / "leaderboard.md",
)


def convergence(path: Path = RESULTS / "headline.csv") -> dict[tuple[str, str], list[list[str]]]:
    """Final mIoU over the seeds of each method, by (data set, level)."""
    tables = {}
    for (dataset, level), groups in panels(with_references(path)).items():
        ends = {group: [row for row in rows if row["step"] == row["steps"]] for group, rows in groups.items()}
        upper = next((_mean(rows, "val_miou") for (name, _), rows in ends.items() if name == "cross_entropy"), None)
        lines = [[f"{dataset}, {level} level", "K", "seeds", "mIoU (range)", "of CE", "reward queries", "seconds"]]
        for (method, samples), rows in ends.items():
            if not rows:
                continue
            values = [float(row["val_miou"]) for row in rows]
            mean = statistics.fmean(values)
            share = f"{mean / upper:.1%}" if upper else ""
            span = f"{mean:.3f} ({min(values):.3f}–{max(values):.3f})"
            queries, seconds = f"{int(rows[0]['reward_queries']):,}", f"{_mean(rows, 'seconds'):.0f}"
            names = TITLES | STEPS if ("leave_one_out", samples) in groups else TITLES
            lines.append([names[method], str(samples or ""), str(len(rows)), span, share, queries, seconds])
        tables[dataset, level] = lines
    return tables


def convergence_of(dataset: str, level: str, suite: str = "headline") -> Callable[[], list[list[str]]]:
    """The table of one data set and level of a suite."""
    return lambda: convergence(RESULTS / f"{suite}.csv")[dataset, level]


def search() -> list[list[str]]:
    """The record of the search for the defaults, which no command makes again."""
    rows = read_rows(RESULTS / "search.csv")
    hidden = {"seed", "steps", "augment"}
    columns = [name for name in rows[0] if name not in hidden]
    names = {"samples_per_image": "K", "replayed_visits": "replayed visits", "learning_rate": "learning rate"}
    head = [names.get(name, name.replace("miou_", "")) for name in columns] + ["images mirrored", "seed"]
    lines = [head]
    for row in rows:
        cells = [f"{float(row[n]):.3f}" if n.startswith("miou") and row[n] else row[n] for n in columns]
        lines.append([*cells, "yes" if row["augment"] == "flip" else "", row["seed"]])
    return lines


def record_of(file: str) -> Callable[[], list[list[str]]]:
    """A table of a record of trials that no command makes again, column by column; mIoU to three digits."""

    def table() -> list[list[str]]:
        rows = read_rows(RESULTS / file)
        names = {"samples_per_image": "K", "learning_rate": "learning rate"}
        lines = [[names.get(name, name.replace("miou_", "")) for name in rows[0]]]
        for row in rows:
            lines.append([f"{float(row[name]):.3f}" if name.startswith("miou") else row[name] for name in row])
        return lines

    return table


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
    """Time and memory of a step, by objective and K."""
    head = ["objective", "K", "compiled", "ms a step", "images/s", "collect + loss", "times a cross-entropy step"]
    lines = [[*head, "peak memory, MiB"]]
    for row in read_rows(RESULTS / "agent_step.csv"):
        share = f"{float(row['share_collect_loss']):.0%}"
        compiled = "yes" if row["compiled"] == "True" else "no"
        speed = [f"{float(row['step_ms']):.0f}", f"{float(row['images_per_s']):.1f}"]
        ratio = f"{float(row['times_cross_entropy_step']):.2f}"
        about = [row["objective"], row["samples_per_image"], compiled]
        lines.append([*about, *speed, share, ratio, f"{int(row['peak_mib']):,}"])
    return lines


def kernels() -> list[list[str]]:
    """Every operation against the copy bandwidth, torch and torch.compile; together against the network."""
    head = ["B×K×C×H×W", "operation", "kernel", "ms", "of copy", "faster than torch", "than torch.compile"]
    lines = [[*head, "of the network"]]
    for row in read_rows(RESULTS / "kernels.csv"):
        ms = float(row["ms"])
        against = f"{float(row['compiled_ms']) / ms:.1f}×" if row["compiled_ms"] else ""
        share = f"{float(row['share_of_copy_bandwidth']):.0%}"
        plain = f"{float(row['torch_ms']) / ms:.1f}×"
        name = row["operation"].replace("_", " ")
        network = f"{ms / float(row['network_ms']):.0%}" if row["network_ms"] else ""
        kernel = row["backend"].removesuffix("_ops")
        lines.append([row["size"], name, kernel, f"{ms:.2f}", share, plain, against, network])
    return lines


def sb3_update() -> list[list[str]]:
    """Time of a PPO update and what the ratio does, by the number of pixels."""
    lines = [
        [
            "pixels",
            "label maps",
            "stock, ms",
            "dense, ms",
            "its network, ms",
            "faster",
            "clipped, image ratio",
            "clipped, pixel ratio",
            "KL, image ratio",
            "KL, pixel ratio",
        ]
    ]
    for row in read_rows(RESULTS / "sb3_update.csv"):
        times = [f"{1e3 * float(row[name]):,.0f}" for name in ("stock_seconds", "dense_seconds", "network_seconds")]
        clipped = [f"{float(row[f'{kind}_ratio_clip_fraction']):.1%}" for kind in ("image", "pixel")]
        divergence = [f"{float(row[f'{kind}_ratio_approx_kl']):.2g}" for kind in ("image", "pixel")]
        size = [f"{int(row['pixels']):,}", row["label_maps"]]
        lines.append([*size, *times, f"{float(row['speedup']):.1f}×", *clipped, *divergence])
    return lines


def leaderboard(environment: str) -> Callable[[], list[list[str]]]:
    """The ranking of one of the leaderboard's environments."""

    def table() -> list[list[str]]:
        rows = [row for row in read_rows(RESULTS / "leaderboard.csv") if row["environment"] == environment]
        return [leaderboard_report.HEAD, *leaderboard_report.ranking(rows)]

    return table


TABLES: dict[str, Callable[[], list[list[str]]]] = {
    **{
        f"{suite}_{dataset}_{level}": convergence_of(dataset, level, suite)
        for suite in SUITES
        for dataset in ("camvid", "shapes")
        for level in LEVELS
    },
    "search": search,
    "search_shapes": record_of("search_shapes.csv"),
    "search_shapes_long": record_of("search_shapes_long.csv"),
    "search_evidence": record_of("search_evidence.csv"),
    "search_camvid": record_of("search_camvid.csv"),
    "search_feedback": record_of("search_feedback.csv"),
    "sb3_update": sb3_update,
    "kernels": kernels,
    "throughput": throughput,
    "throughput_stages": throughput_stages,
    "throughput_growth": throughput_growth,
    "agent_step": agent_step,
    "leaderboard_shapes": leaderboard("shapes"),
    "leaderboard_camvid": leaderboard("camvid"),
}


def fill(text: str) -> str:
    """The text with every table that it holds made anew."""
    for name, table in TABLES.items():
        if f"<!-- table: {name} -->" not in text:
            continue
        head, *body = (f"| {' | '.join(cells)} |" for cells in table())
        ruler = "|" + "---|" * (head.count("|") - 1)
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, rest = text.split(begin)
        text = before + begin + "\n".join([head, ruler, *body]) + "\n" + end + rest.split(end, 1)[1]
    return text


def main(files: tuple[Path, ...] = FILES) -> None:
    """Write the tables of README and docs from the committed CSV files.

    Args:
        files: the files whose tables are written.
    """
    for file in files:
        file.write_text(fill(file.read_text()))


def _mean(rows: list[dict[str, str]], column: str) -> float:
    return statistics.fmean(float(row[column]) for row in rows)


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, prog="python -m benchmarks.tables"))
