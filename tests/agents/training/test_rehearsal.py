"""What was taught of images is learned again without a query, and a run that does so is resumed as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from agents import Likelihood, likelihood, train, unknown_score
from agents.rss import RSS
from agents.supervised import Supervised
from agents.training.algorithm import IGNORE_INDEX, Algorithm
from agents.training.rehearsal import Rehearsal
from agents.training.run_folder import RunFolder
from rss_env.errors import OptionError

SMALL: dict[str, Any] = {
    "image_size": (12, 12),
    "env_kwargs": {"num_images": 16},
    "batch_size": 4,
    "network_options": {"width": 8},
    "log_every": 1,
    "progress": False,
}
GENERATOR = torch.Generator()


def lesson_on(index: list[int], value: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that are filled with their index, and their targets with it and a value."""
    images = torch.tensor(index, dtype=torch.uint8)[:, None, None, None].expand(-1, 4, 4, 3)
    return images, (torch.tensor(index).float() + value)[:, None, None, None].expand(-1, 2, 4, 4)


def contents(rehearsal: Rehearsal, many: int = 100) -> set[tuple[int, float]]:
    """The indices and values that are drawn."""
    images, targets = rehearsal.draw(many, torch.Generator().manual_seed(0))
    return {(int(image[0, 0, 0]), float(target[0, 0, 0])) for image, target in zip(images, targets, strict=True)}


def test_of_every_image_what_was_taught_last_is_kept() -> None:
    rehearsal = Rehearsal(megabytes=1)
    rehearsal.add([3, 5], 0, *lesson_on([3, 5]))
    rehearsal.add([5, 7, 5], 1, *lesson_on([5, 7, 5], value=0.5))
    assert len(rehearsal) == 3
    assert contents(rehearsal) == {(3, 3.0), (5, 5.5), (7, 7.5)}
    assert rehearsal.nbytes == 3 * (48 + 2 * 32)


def test_the_oldest_goes_first_and_one_batch_stays() -> None:
    one = 48 + 2 * 32
    rehearsal = Rehearsal(megabytes=2 * one / 1e6)
    rehearsal.add([0, 1], 0, *lesson_on([0, 1]))
    rehearsal.add([0], 1, *lesson_on([0]))  # now image 1 is the oldest
    rehearsal.add([2], 2, *lesson_on([2]))
    assert {index for index, _ in contents(rehearsal)} == {0, 2}
    rehearsal.add([4, 5, 6], 3, *lesson_on([4, 5, 6]))
    assert {index for index, _ in contents(rehearsal)} == {4, 5, 6}


def test_no_image_is_drawn_twice_while_there_are_enough_and_all_are_as_likely() -> None:
    rehearsal = Rehearsal(megabytes=1)
    rehearsal.add([0, 1, 2, 3, 4], 0, *lesson_on([0, 1, 2, 3, 4]))
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([rehearsal.draw(3, generator)[0][:, 0, 0, 0] for _ in range(2000)])
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    share = np.bincount(drawn.flatten().numpy(), minlength=5) / 2000
    assert np.abs(share - 3 / 5).max() < 4 * np.sqrt(3 / 5 * 2 / 5 / 2000)


def test_labels_stay_integers() -> None:
    rehearsal = Rehearsal(megabytes=1)
    labels = torch.full((1, 4, 4), IGNORE_INDEX)
    rehearsal.add([0], 0, lesson_on([0])[0], labels)
    targets = rehearsal.draw(1, GENERATOR)[1]
    assert targets.dtype == torch.uint8
    assert torch.equal(targets.long(), labels)


def test_of_two_memories_what_was_taught_last_stays() -> None:
    one, other = Rehearsal(megabytes=1), Rehearsal(megabytes=1)
    one.add([0, 1], 3, *lesson_on([0, 1]))
    other.add([1, 2], 5, *lesson_on([1, 2], value=0.5))
    other.add([0], 2, *lesson_on([0], value=0.5))
    for states in ([one, other], [other, one]):
        merged = Rehearsal(megabytes=1)
        for each in states:
            merged.load_state_dict(each.state_dict())
        assert contents(merged) == {(0, 0.0), (1, 1.5), (2, 2.5)}
    again = Rehearsal(megabytes=1)
    again.load_state_dict(one.state_dict())
    first, second = (each.draw(2, torch.Generator().manual_seed(3)) for each in (one, again))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert Rehearsal(megabytes=1).state_dict() == {}


def test_the_loss_is_cross_entropy_towards_probabilities_or_labels() -> None:
    logits, q = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4).softmax(dim=1).half()
    algorithm = Likelihood()
    expected = -(q.float() * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(algorithm.rehearse(logits, q), expected)
    labels = torch.randint(3, (2, 4, 4), dtype=torch.uint8)
    labels[0, :2] = IGNORE_INDEX
    counted = labels != IGNORE_INDEX
    each = F.cross_entropy(logits, labels.long().clamp(max=2), reduction="none")
    torch.testing.assert_close(algorithm.rehearse(logits, labels), each[counted].mean())
    torch.testing.assert_close(Supervised().rehearse(logits, labels), each[counted].mean())
    nothing = torch.full_like(labels, IGNORE_INDEX)
    assert float(algorithm.rehearse(logits, nothing)) == float(Supervised().rehearse(logits, nothing)) == 0
    assert float(Supervised(loss_name="lovasz").rehearse(logits, labels)) != pytest.approx(float(each[counted].mean()))


def watched(algorithm: Algorithm) -> dict[str, list[Any]]:
    """What the algorithm is asked in every update from now on."""
    seen: dict[str, list[Any]] = {"acted": [], "taught": [], "rehearsed": []}
    act, taught, rehearse = algorithm.act, algorithm.taught, algorithm.rehearse

    def acted(logits: torch.Tensor, progress: float, generator: torch.Generator) -> torch.Tensor:
        seen["acted"].append(round(progress * 10))
        return act(logits, progress, generator)

    def of(lesson: Any) -> torch.Tensor | None:
        found = taught(lesson)
        seen["taught"].append(found)
        return found

    def again(logits: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        seen["rehearsed"].append(given)
        return rehearse(logits, given)

    algorithm.act, algorithm.taught, algorithm.rehearse = acted, of, again  # type: ignore[method-assign]
    return seen


def test_scores_are_asked_for_in_every_third_step_and_what_they_said_is_learned_again(tmp_path: Path) -> None:
    algorithm = Likelihood(samples_per_image=4, visit_every=3)
    seen = watched(algorithm)
    result = train("RSS-Shapes-ImageReward-v0", algorithm, steps=10, run_dir=str(tmp_path), **SMALL)
    assert seen["acted"] == [0, 3, 6, 9]
    assert result.reward_queries == 4 * 4 * 4
    assert len(seen["rehearsed"]) == 6
    first = {each.half().numpy().tobytes() for each in seen["taught"][0]}
    assert {each.numpy().tobytes() for part in seen["rehearsed"][:2] for each in part} <= first
    rows = [row for row in RunFolder(tmp_path).read_metrics() if "train/loss" in row]
    assert [row["time/reward_queries"] for row in rows] == [16, 16, 16, 32, 32, 32, 48, 48, 48, 64]
    assert rows[0]["reward/mean"] == rows[2]["reward/mean"]  # of the last visit
    assert rows[2]["reward/mean"] != rows[3]["reward/mean"]
    assert len({row["train/loss"] for row in rows}) == 10


def test_pixel_labels_are_learned_again(tmp_path: Path) -> None:
    algorithm = Supervised(visit_every=4)
    seen = watched(algorithm)
    train("RSS-Shapes-ImageReward-v0", algorithm, steps=9, run_dir=str(tmp_path), **SMALL)
    assert seen["acted"] == [0, 4, 9]  # 8 of 9, in tenths
    shown = {each.to(torch.uint8).numpy().tobytes() for part in seen["taught"] for each in part}
    assert {each.numpy().tobytes() for part in seen["rehearsed"] for each in part} <= shown


@pytest.mark.parametrize(
    ("env_id", "options"), [("RSS-Shapes-PixelReward-v0", {}), ("RSS-Shapes-ImageReward-v0", {"regions": ()})]
)
def test_where_nothing_can_be_learned_again_every_step_asks_and_a_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], env_id: str, options: dict[str, Any]
) -> None:
    algorithm = Likelihood(samples_per_image=4, visit_every=3, **options)
    seen = watched(algorithm)
    train(env_id, algorithm, steps=4, run_dir=str(tmp_path), **SMALL)
    assert len(seen["acted"]) == 4
    assert seen["rehearsed"] == []
    assert "Every step asks for scores: only what they say of regions can be learned again." in capsys.readouterr().out


def test_a_policy_gradient_learns_nothing_again(tmp_path: Path) -> None:
    algorithm = RSS(samples_per_image=4)
    seen = watched(algorithm)
    train("RSS-Shapes-ImageReward-v0", algorithm, steps=3, run_dir=str(tmp_path), **SMALL)
    assert (len(seen["acted"]), seen["taught"], seen["rehearsed"]) == (3, [], [])


@pytest.mark.parametrize("algorithm", [Likelihood, Supervised])
def test_a_visit_in_no_step_is_refused(algorithm: Any) -> None:
    with pytest.raises(OptionError, match="visit_every must be at least 1, got 0"):
        algorithm(visit_every=0)


def test_micro_batches_rehearse_as_many_images_as_they_see(tmp_path: Path) -> None:
    algorithm = Likelihood(samples_per_image=4, visit_every=2)
    seen = watched(algorithm)
    train("RSS-Shapes-ImageReward-v0", algorithm, steps=4, run_dir=str(tmp_path), accumulation_steps=2, **SMALL)
    assert [len(part) for part in seen["rehearsed"]] == [2, 2, 2, 2]
    assert len(seen["acted"]) == 4


def test_a_score_that_right_pixels_do_not_explain_leaves_nothing_to_learn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for share in ("EXPLAINED", "PROMISING"):
        monkeypatch.setattr(unknown_score, share, 2.0)  # no belief explains as much
    algorithm = Likelihood(samples_per_image=4, visit_every=2)
    seen = watched(algorithm)
    arguments: dict[str, Any] = SMALL | {"reward": "boundary_f1", "run_dir": str(tmp_path), "checkpoint_every": 10}
    result = train("RSS-Shapes-ImageReward-v0", algorithm, steps=20, **arguments)
    assert isinstance(algorithm.level, unknown_score.PolicyGradientLevel)
    assert len(seen["acted"]) == 10
    assert result.reward_queries == 10 * 4 * 4
    assert [each is None for each in seen["taught"]] == [True] * 10
    assert len(seen["rehearsed"]) == 0
    rows = {int(row["step"]): row for row in RunFolder(tmp_path).read_metrics()}
    assert "train/loss" in rows[5]
    assert "train/loss" not in rows[6]  # nothing was learned
    assert not list(tmp_path.glob("checkpoints/step-00000010/memory*"))


def test_a_score_that_is_given_up_after_a_trial_leaves_nothing_to_learn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown_score, "PROMISING", -9.0)  # it is tried to read it, whatever it is
    monkeypatch.setattr(likelihood, "EXPLAINED", 2.0)  # and found to be in vain
    monkeypatch.setattr(likelihood, "ENOUGH", 0)
    algorithm = Likelihood(samples_per_image=4, visit_every=2)
    seen = watched(algorithm)
    train("RSS-Shapes-ImageReward-v0", algorithm, steps=20, run_dir=str(tmp_path), reward="boundary_f1", **SMALL)
    assert isinstance(algorithm.level, unknown_score.PolicyGradientLevel)
    assert [each is None for each in seen["taught"]] == [True, True, False, *[True] * 7]
    assert len(seen["rehearsed"]) == 1


def test_an_algorithm_that_never_visits_is_refused(tmp_path: Path) -> None:
    class Never(RSS):
        @property
        def updates_a_visit(self) -> int:
            return 0

    with pytest.raises(OptionError, match="updates_a_visit must be at least 1, got 0"):
        train("RSS-Shapes-ImageReward-v0", Never(samples_per_image=4), steps=3, run_dir=str(tmp_path), **SMALL)


def test_a_memory_smaller_than_a_batch_is_gone_on_from_as_it_was() -> None:
    rehearsal, again = Rehearsal(megabytes=0), Rehearsal(megabytes=0)
    rehearsal.add([0, 1, 2], 0, *lesson_on([0, 1, 2]))
    again.load_state_dict(rehearsal.state_dict())
    assert contents(again) == contents(rehearsal)
    again.add([3], 1, *lesson_on([3]))
    assert contents(again) == {(3, 3.0)}
