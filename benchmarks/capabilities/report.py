"""What the results of ``benchmarks.capabilities`` say: scores, a radar plot, and a page for each agent.

python -m benchmarks.capabilities.report benchmarks/results/capabilities.csv
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro

from agents.training.command import run_command
from benchmarks.capabilities.experiments import Experiment, Setting, settings, suite
from benchmarks.capabilities.runs import BOUND, KEY, Run
from benchmarks.results_file import RESULTS, Row, Table, replacing, results_of
from benchmarks.score_plots import colours_of, draw_intervals, draw_profiles
from benchmarks.statistics import bootstrap_interval, interquartile_mean, mean, normalise
from rss_env.errors import OptionError

COLUMNS = (*KEY, "status", "val_miou", "zero")  # that a report needs
DEFAULT = RESULTS / "capabilities.csv"
NOTE = (
    "The score is the mIoU on the validation split after the last step, normalised: 0 is what needs no look at the "
    "image (the best constant or random label maps, computed), 1 is cross-entropy on pixel labels with the same "
    "network, images and steps (measured, the mean over the seeds). An experiment's score is the mean over its "
    "difficulties. A run that was refused or diverged counts as 0."
)


@dataclass(frozen=True)
class Results:
    """The normalised scores of a results file.

    Attributes:
        size: ``"full"`` or ``"quick"``.
        experiments: of that size.
        scores: agent -> setting -> one score a seed.
        refused: agent -> setting -> what its training command said instead of training to the end.
        rows: of the agents, as they are in the file.
        scales: setting -> the mIoU that is 0 and the one that is 1.
    """

    size: str
    experiments: list[Experiment]
    scores: dict[str, dict[Setting, list[float]]]
    refused: dict[str, dict[Setting, str]]
    rows: list[Row]
    scales: dict[Setting, tuple[float, float]]

    def matrix(self, agent: str, chosen: Sequence[Setting] | None = None) -> np.ndarray:
        """Scores of an agent in some settings, or in all of them, each counted once: (seeds, settings)."""
        return np.array([self.scores[agent][setting] for setting in chosen or settings(self.experiments)]).T

    def experiment(self, agent: str, experiment: Experiment) -> np.ndarray:
        """Scores of an agent in an experiment: (seeds, difficulties)."""
        return self.matrix(agent, [setting for _, setting in experiment.difficulties])


def read(path: Path) -> Results:
    """The results of a file: of the full size if it holds an agent with all its runs, else of the quick one.

    An agent is left out if it lacks a run that the others have, as while its runs are being made.

    Raises:
        OptionError: the file holds no results, or no agent with all its runs and the bound of each, or a bound is no
            better than what needs no learning.
    """
    rows = results_of(path, "benchmarks.capabilities", COLUMNS)
    for size in ("full", "quick"):
        results = _read_size([row for row in rows if row["size"] == size], size, path)
        if results.scores:
            return results
    raise OptionError(f"{path} holds no agent with all its runs; python -m benchmarks.capabilities goes on.")


def _read_size(rows: list[Row], size: str, path: Path) -> Results:
    """The results of one size; of the agents that have all their runs."""
    chosen = suite(quick=size == "quick")
    by_key = {tuple(row[name] for name in KEY): row for row in rows}
    seeds = sorted({int(row["seed"]) for row in rows})

    def found(agent: str, setting: Setting) -> list[Row]:
        """The rows over the seeds."""
        keys = [Run(size, agent, "", setting, seed).key for seed in seeds]
        return [by_key[key] for key in keys if key in by_key]

    agents = list(dict.fromkeys(row["agent"] for row in rows if row["agent"] != BOUND))
    scores: dict[str, dict[Setting, list[float]]] = defaultdict(dict)
    refused: dict[str, dict[Setting, str]] = defaultdict(dict)
    scales: dict[Setting, tuple[float, float]] = {}
    for setting in settings(chosen):
        bound = [float(row["val_miou"]) for row in found(BOUND, setting.of_bound) if row["status"] == "ok"]
        for agent in agents:
            own = found(agent, setting)
            if len(own) < len(seeds) or len(bound) < len(seeds):
                continue
            for row in own:
                if row["status"] != "ok":
                    refused[agent][setting] = row["status"]
            zero, one = float(own[0]["zero"]), float(np.mean(bound))
            if one <= zero:
                raise OptionError(
                    f"{path}: there is no scale where {BOUND} reaches {one:.3f} and nothing {zero:.3f}: train longer "
                    f"in {setting}."
                )
            reached = [float(row["val_miou"]) if row["status"] == "ok" else zero for row in own]
            scales[setting] = zero, one
            scores[agent][setting] = normalise(reached, zero, one).tolist()
    whole = {agent: each for agent, each in scores.items() if len(each) == len(settings(chosen))}
    return Results(size, chosen, whole, dict(refused), rows, scales)


def summary_table(results: Results) -> Table:
    """Every experiment's score of every agent with its 95 % interval, and the interquartile mean over all settings."""
    lines = [["experiment", *results.scores]]
    for experiment in results.experiments:
        cells = [_with_interval(results.experiment(agent, experiment), mean) for agent in results.scores]
        lines.append([experiment.name, *cells])
    whole = [_with_interval(results.matrix(agent), interquartile_mean) for agent in results.scores]
    return [*lines, ["interquartile mean of all settings", *whole]]


def agent_table(results: Results, agent: str) -> Table:
    """The score of an agent at every difficulty of every experiment, and the mIoU that is 1 there; means over seeds."""
    most = max(len(experiment.difficulties) for experiment in results.experiments)
    lines = [["experiment", "difficulty", *[""] * (most - 1), "score", "mIoU that is 1", "what it tests"]]
    for experiment in results.experiments:
        matrix = results.experiment(agent, experiment)
        cells = []
        for (title, setting), values in zip(experiment.difficulties, matrix.T, strict=True):
            refused = " (refused)" if setting in results.refused.get(agent, {}) else ""
            cells.append(f"{title}: {values.mean():.2f}{refused}")
        ones = [f"{results.scales[setting][1]:.2f}" for _, setting in experiment.difficulties]
        scale = ones[0] if len(set(ones)) == 1 else ", ".join(ones)
        name = f"{experiment.name} ({experiment.unit})"
        lines.append([name, *cells, _with_interval(matrix, mean), scale, experiment.tests])
    return lines


def table(name: str) -> Callable[[], Table]:
    """A table of the committed results: ``"summary"``, or the name of an agent."""

    def of_committed() -> Table:
        results = read(DEFAULT)
        return summary_table(results) if name == "summary" else agent_table(results, name)

    return of_committed


def draw_radar(results: Results, path: Path, agents: Sequence[str] | None = None) -> Path:
    """Draws the score of every experiment on an axis of its own, an agent a polygon; a circle at 1 is cross-entropy.

    Scores below 0 are drawn at 0.

    Args:
        results: scores.
        path: PNG file to write.
        agents: those that are drawn in colour, the others in grey; None: all.
    """
    names = [experiment.name for experiment in results.experiments]
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    colours = colours_of(results.scores)
    figure = plt.figure(figsize=(7.2, 5.2), layout="constrained")
    axis: Any = figure.add_subplot(projection="polar")
    axis.plot(np.linspace(0, 2 * np.pi, 200), np.ones(200), "--", color="black", linewidth=1, label=BOUND)
    most = 1.0
    for agent in sorted(results.scores, key=lambda name: agents is not None and name in agents):
        values = radar_values(results, agent)
        most = max(most, *values)
        shown = agents is None or agent in agents
        closed = [*values, values[0]], [*angles, angles[0]]
        axis.plot(closed[1], closed[0], color=colours[agent] if shown else "0.75", label=agent, linewidth=2)
        if shown:
            axis.fill(closed[1], closed[0], color=colours[agent], alpha=0.12)
    axis.set_theta_offset(np.pi / 2)
    axis.set_theta_direction(-1)
    axis.set_xticks(angles, names)
    axis.set_ylim(0, 1.05 * most)
    axis.set_yticks([0.25, 0.5, 0.75, 1.0])
    axis.set_rlabel_position(180 / len(names))
    axis.tick_params(axis="x", pad=12)
    axis.tick_params(axis="y", labelsize=7)
    axis.legend(loc="center left", bbox_to_anchor=(1.12, 0.5), fontsize=9)
    with replacing(path) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)
    return path


def radar_values(results: Results, agent: str) -> list[float]:
    """The score of every experiment as it is drawn: at least 0."""
    return [max(0.0, float(mean(results.experiment(agent, each)))) for each in results.experiments]


def page(results: Results, agent: str, radar: str) -> str:
    """The report of one agent, one page of Markdown.

    Args:
        results: scores.
        agent: its name.
        radar: file name of its radar plot.
    """
    own = [row for row in results.rows if row["agent"] == agent]
    matrix = results.matrix(agent)
    weakest = sorted(results.experiments, key=lambda each: float(mean(results.experiment(agent, each))))[:3]
    fine = [row for row in own if row["status"] == "ok"]
    measured = {name: ", ".join(sorted({row[name] for row in own})) for name in ("device", "torch", "commit")}
    spent = sum(float(row["seconds"]) for row in fine) / 60
    memory = max((int(row["peak_mib"]) for row in fine if row["peak_mib"]), default=None)
    text = [
        f"# What {agent} can do",
        "",
        f"`{own[0]['command']}`; {len(matrix)} seed{'s' * (len(matrix) > 1)}, {len(own)} runs of "
        f"{own[0]['steps']} steps ({results.size} size), "
        f"{spent:.0f} minutes of training{'' if memory is None else f', at most {memory:,} MiB'}. Measured with "
        f"commit {measured['commit']}, PyTorch {measured['torch']}, {measured['device']}.",
        "",
        f"Interquartile mean over all settings: **{_with_interval(matrix, interquartile_mean)}**. Weakest: "
        f"{', '.join(each.name for each in weakest)}.",
        "",
        f"![score of every experiment]({radar})",
        "",
        *markdown(agent_table(results, agent)),
        "",
        NOTE,
    ]
    reasons = sorted(set(results.refused.get(agent, {}).values()))
    text += ["", "Refused, or diverged:", "", *(f"- {reason}" for reason in reasons)] if reasons else []
    return "\n".join(text) + "\n"


def markdown(lines: Table) -> list[str]:
    """A table in Markdown."""
    head, *body = (f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    return [head, "|" + "---|" * len(lines[0]), *body]


def write(path: Path = DEFAULT) -> list[Path]:
    """Writes the plots and the pages of a results file next to it.

    Returns:
        The files: radar, intervals, profiles, and of each agent its radar and its page.
    """
    results = read(path)
    matrices: Mapping[str, np.ndarray] = {agent: results.matrix(agent) for agent in results.scores}
    files = [
        draw_radar(results, path.with_suffix(".radar.png")),
        draw_intervals(matrices, path.with_suffix(".intervals.png")),
        draw_profiles(matrices, path.with_suffix(".profiles.png")),
    ]
    for agent in results.scores:
        name = agent.replace(" ", "_").replace("/", "_")
        radar = draw_radar(results, path.with_suffix(f".{name}.png"), [agent])
        with replacing(path.with_suffix(f".{name}.md")) as file:
            file.write_text(page(results, agent, radar.name), encoding="utf-8")
        files += [radar, path.with_suffix(f".{name}.md")]
    return files


def _with_interval(matrix: np.ndarray, statistic: Callable[[Any], Any]) -> str:
    """The statistic, and its interval if there are several seeds."""
    if len(matrix) < 2:
        return f"{float(statistic(matrix)):.2f}"
    low, high = bootstrap_interval(matrix, statistic=statistic)
    return f"{float(statistic(matrix)):.2f} ({low:.2f}–{high:.2f})"


def main(results: tyro.conf.Positional[Path] = DEFAULT) -> None:
    """Write the radar plot and the agents' pages of a results file.

    Args:
        results: a CSV file of ``benchmarks.capabilities``.
    """
    print(*write(results), sep="\n")


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main, prog="python -m benchmarks.capabilities.report"))
