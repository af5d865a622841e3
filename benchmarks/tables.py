"""Write the tables of README.md and docs from the committed CSV files.

    python -m benchmarks.tables

Each table is between the lines ``<!-- table: NAME -->`` and ``<!-- end -->``. The code that writes a results file also
makes its table; here is only which table goes by which name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import tyro

from agents.training.command import run_command
from benchmarks import (
    agent_step,
    executor_scaling,
    information,
    kernel_resources,
    kernels,
    outcomes,
    pretrained,
    raters,
    sb3_update,
    search_bounds,
    step_bytes,
    throughput,
    throughput_stages,
    unknown_formula,
)
from benchmarks.capabilities.report import table as capabilities_table
from benchmarks.convergence.records import record_table, search_table
from benchmarks.convergence.results import final_table, headline_table, regions_table
from benchmarks.convergence.suites import LEVELS, SUITES
from benchmarks.leaderboard.report import best_table, committed_together, ranking_table
from benchmarks.results_file import RESULTS, Table
from benchmarks.tasks import FEW_VISITS
from rss_env.errors import OptionError

ROOT = RESULTS.parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PLACE = re.compile(r"(<!-- table: (\S+) -->\n)(?:(?!<!-- table:).)*?(<!-- end -->)", re.DOTALL)
RECORDS = (
    "search_shapes",
    "search_shapes_long",
    "search_evidence",
    "search_camvid",
    "search_feedback",
    "rss_parts",
    "rss_parts_animals",
    "neighbour_parts",
    "label_bits",
    "camvid_176x240",
    "search_formula",
    "search_boundary_f1",
    "unknown_score_trial",
    "search_region_posterior",
    "region_solving",
    "region_cells",
    "region_training",
    "region_pooling",
    "region_variances",
    "region_tried",
    "region_steps",
    "region_imperfect",
    "region_shifts",
    "region_shifts_tried",
    "region_stars",
    "region_details",
    "replay_crops",
    "fewer_images",
    "test_split",
    "images_shown",
    "gpu_runs",
    "region_filter",
    "region_filter_simulated",
    "region_heat",
    "region_heat_simulated",
    "region_visits",
    "budget_steps",
    "region_again",
    "balance",
    "region_targets",
    "region_second_steps",
)
TABLES: dict[str, Callable[[], Table]] = {
    **{
        f"{suite}_{dataset}_{level}": final_table(suite, dataset, level)
        for suite in SUITES
        for dataset in ("camvid", "shapes")
        for level in LEVELS
    },
    "headline": headline_table,
    "search": search_table,
    "regions": regions_table,
    **{name: record_table(name) for name in RECORDS},
    "pretrained": pretrained.pretrained_table,
    "pretrained_few_visits": lambda: pretrained.pretrained_table(RESULTS / "pretrained_few_visits.csv"),
    "information_needed": information.needed_table,
    "information_query": information.query_table,
    "information_tasks": information.tasks_table,
    "search_bounds": search_bounds.bounds_table,
    "outcomes": outcomes.outcomes_table,
    "outcomes_classes": outcomes.class_table,
    "unknown_formula": unknown_formula.unknown_formula_table,
    "raters": raters.raters_table,
    "sb3_update": sb3_update.update_table,
    "kernels": kernels.kernels_table,
    "kernels_cuda": lambda: kernels.kernels_table("kernels_cuda.csv"),
    "kernel_resources": kernel_resources.resources_table,
    "step_bytes": step_bytes.bytes_table,
    "throughput": throughput.step_table,
    "throughput_growth": throughput.growth_table,
    "throughput_stages": throughput_stages.stages_table,
    "agent_step": agent_step.step_table,
    "agent_step_cuda": lambda: agent_step.step_table("agent_step_cuda.csv"),
    "capabilities": capabilities_table("summary"),
    "capabilities_likelihood": capabilities_table("likelihood"),
    "leaderboard_shapes": ranking_table("shapes-32"),
    "leaderboard_shapes_few_visits": ranking_table("shapes-32", FEW_VISITS),
    "leaderboard_shapes_large": ranking_table("shapes-32", budget="large"),
    "executors": executor_scaling.scaling_table,
    "leaderboard_shapes_64": ranking_table("shapes-64"),
    "leaderboard_shapes_64_few_visits": ranking_table("shapes-64", FEW_VISITS),
    "leaderboard_crafter": ranking_table("crafter"),
    "leaderboard_crafter_few_visits": ranking_table("crafter", FEW_VISITS),
    "leaderboard_voc": ranking_table("voc-3091"),
    "leaderboard_voc_few_visits": ranking_table("voc-3091", FEW_VISITS),
    "leaderboard_camvid": ranking_table("camvid"),
    "leaderboard_camvid_few_visits": ranking_table("camvid", FEW_VISITS),
    "leaderboard_sequences": ranking_table("camvid-sequences"),
    "leaderboard_sequences_few_visits": ranking_table("camvid-sequences", FEW_VISITS),
    "leaderboard_best": best_table,
    "leaderboard_together": committed_together,
}


def fill(text: str) -> str:
    """The text with each of its tables written again.

    Raises:
        OptionError: there is no table of a name, or a table has no end.
    """
    text, count = PLACE.subn(lambda place: place[1] + _lines(place[2]) + place[3], text)
    if count < text.count("<!-- table:"):
        raise OptionError("A table is not between the lines <!-- table: NAME --> and <!-- end -->.")
    return text


def _lines(name: str) -> str:
    """A table in Markdown."""
    if name not in TABLES:
        raise OptionError(f"There is no table {name!r}; valid: {', '.join(TABLES)}.")
    head, *body = (f"| {' | '.join(cells)} |" for cells in TABLES[name]())
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *body]) + "\n"


def main(files: tuple[Path, ...] = PAGES) -> None:
    """Write the tables of README and docs from the committed CSV files.

    Args:
        files: the files whose tables are written.
    """
    for file in files:
        try:
            text = fill(file.read_text(encoding="utf-8"))
        except OptionError as error:
            raise OptionError(f"{file}: {error}") from error
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, prog="python -m benchmarks.tables"))
