"""What scores are measured to tell, on cases that can be worked out, and the tables made of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.supervised import Supervised
from agents.training.command import parse_command
from benchmarks import bits, information
from benchmarks.information import DATA, TRAININGS, spread_of, within_and_between
from benchmarks.results_file import add_rows
from rss_env.datasets import load_dataset


def test_variances_within_and_between_images_are_unbiased() -> None:
    generator = np.random.default_rng(0)
    found = np.array(
        [within_and_between(generator.normal(0, 2, (40, 4)) + generator.normal(0, 3, (40, 1))) for _ in range(400)]
    )
    error = found.std(axis=0) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - [4, 9]) < 4 * error).all()
    assert within_and_between(np.full((1, 5), 2.0)) == (0, 0)


@pytest.mark.parametrize("cell", [1, 4])
def test_the_spread_of_counts_is_that_of_the_draws(cell: int) -> None:
    targets = np.kron(np.array([[[0, 1], [2, 2]], [[1, 1], [0, 2]]], np.uint8), np.ones((1, 8, 8), np.uint8))
    share = torch.tensor([0.5, 0.25, 0.25])
    logits = (
        (2 * share.log()).view(1, 3, 1, 1).expand(2, 3, 16, 16).contiguous()
    )  # drawn from the shares at temperature 2
    chance = torch.tensor([[share[c] for c in each.ravel()] for each in targets]).double().numpy()
    found = spread_of(logits, targets, 3, 1000, cell)
    if cell == 1:
        v = (chance * (1 - chance)).sum(axis=1).mean()
        assert float(found["count_variance"]) == pytest.approx(v, rel=0.1)  # its standard error is 3 %
        assert float(found["accuracy"]) == pytest.approx(chance.mean(), rel=0.01)
        w = chance.sum(axis=1).var(ddof=1)
        assert float(found["count_level"]) == pytest.approx(w, abs=2)
        decoded = 0.0
        for c, s in enumerate(share.tolist()):
            size = np.mean([(each == c).sum() for each in targets])  # every class is in both images
            decoded += bits.exact_visit_bits(1, size * s * (1 - s))
        assert float(found["decoded_bits"]) == pytest.approx(decoded, abs=0.1)
        assert found["classes_present"] == "3"
    else:  # the grid may lie across the borders of the regions; then a cell's pixels differ, and v is less
        alone = float(spread_of(logits, targets, 3, 1000, 1)["count_variance"])
        assert 4 * alone < float(found["count_variance"]) < 17 * alone


def test_stars_of_scores_that_hardly_differ_tell_nothing_and_their_entropy_is_estimated() -> None:
    assert information.star_entropy(np.full(50, 3)) == 0
    generator = np.random.default_rng(0)
    found = [information.star_entropy(generator.choice(3, 40, p=[0.5, 0.25, 0.25])) for _ in range(400)]
    assert abs(np.mean(found) - 1.5) < 4 * np.std(found) / math.sqrt(400)


def test_cross_entropy_counts_the_pixels_that_are_not_ignored() -> None:
    logits = torch.zeros(1, 4, 2, 2)
    assert information.cross_entropy_bits(logits, np.array([[[0, 3], [1, 255]]], np.uint8)) == pytest.approx([6])


@pytest.mark.parametrize("data", DATA, ids=lambda data: f"{data.name}-{data.size}")
def test_the_network_that_draws_is_trained_on_every_other_image(data: information.Data) -> None:
    command = information._command(data, "photos" if data.folder else None, 30)
    run = parse_command(Supervised, [*command[1:], "--run-dir", "run"]).run
    assert (run.split, run.steps, run.image_size) == (f"{data.split}[::2]", 30, data.image_size)
    assert run.root == ("photos" if data.folder else None)


@pytest.mark.parametrize(
    "training", TRAININGS, ids=lambda t: f"{t.data}-{t.feedback}-{t.rows.get('samples_per_image')}"
)
def test_every_training_has_committed_runs_of_three_seeds(training: information.Training) -> None:
    for file, columns in ((training.file, training.rows), (training.bound_file, training.bound)):
        assert {row["seed"] for row in information._final(file, columns)} == {"1", "2", "3"}


def test_a_label_map_holds_less_for_one_who_knows_more() -> None:
    data = load_dataset("Shapes", split="val", image_size=(32, 32))
    assert data.targets is not None
    seen, held_out = (replace(data, targets=np.array(data.targets[i::2])) for i in (0, 1))
    holds, shares = information.held_bits(seen, held_out)
    assert 0 < holds["neighbour_bits"] < holds["deflate_bits"] < holds["marginal_bits"] < 1024 * math.log2(5)
    assert holds["pixels"] == 1024
    assert shares.sum() == pytest.approx(1)


def test_what_binds_is_told_by_what_is_needed_and_what_is_told() -> None:
    assert information.what_binds(100, 99) == "information"
    assert information.what_binds(100, 100) == information.what_binds(100, 300) == "visits"
    assert information.what_binds(100, 301) == "inference or optimisation"


def test_tables_are_made_of_the_rows(tmp_path: Path) -> None:
    row = {"data": "shapes", "image_size": "64x64", "images": "2048", "pixels": "4096", "classes": "5"}
    row |= {"marginal_bits": "5000", "deflate_bits": "1000", "neighbour_bits": "400", "neighbour_bits_error": "4"}
    row |= {"belief_bits": "300", "size_bits": "20", "count_variance": "400", "count_level": "0", "decoded_bits": "16"}
    row |= {"decoded_level_bits": "2", "classes_present": "3", "score_variance": "0.0025", "score_level": "0"}
    row |= {"star_entropy": "0", "ties": "0.5", "cell": "1"}
    file = tmp_path / "information.csv"
    add_rows(
        file, [row | {"belief": "network, 9 steps"}, row | {"belief": "shares", "belief_bits": "5000"}], information.KEY
    )
    assert information.needed_table(file)[1][-4:] == ["5,000", "1,000", "400 ± 4", "300"]
    one_count, compared = bits.exact_visit_bits(1, 400), bits.exact_comparison_bits(32, 400) / 32
    line = information.query_table(file, "shapes")[1]
    assert line[2:4] == ["0.0500", f"{compared:.2g} / {one_count:.2g}"]
    assert line[5:] == [f"{31 / 64:.2g} / 0.5", f"0 / {bits.level_of_answers_bits(32, 5) / 32:.2g}", "50.0%"]
    mean_iou, accuracy = information.tasks_table(file)[1:]
    decoded = 20 + 187.5 / 32 * (32 * 16 + 2 + 3 * 2.5)
    assert mean_iou[4:8] == ["188", "300 (300)", f"{187.5 * compared:,.0f}", f"{decoded:,.0f}"]
    assert accuracy[4:8] == ["188", "300 (300)", f"{187.5 * compared:,.0f}", f"{187.5 * one_count:,.0f}"]
    assert (mean_iou[8], accuracy[8]) == ("2,048", "2,048")
    assert accuracy[9:11] == ["inference or optimisation"] * 2
