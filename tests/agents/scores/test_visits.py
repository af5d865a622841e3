"""The memory of visits, against plain lists."""

from __future__ import annotations

import dataclasses
import gc
import io
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.scores import visits
from agents.scores.packing import PackedMaps, unpack
from agents.scores.visits import Visit, VisitMemory, visit_bytes

SAMPLES, HEIGHT, WIDTH, CLASSES = 2, 3, 2, 256
VISIT_BYTES = SAMPLES * HEIGHT * WIDTH + 8 * SAMPLES  # four labels of 256 classes in 32 bits, and float64 scores


def make_visit(index: int, mark: int, samples: int = SAMPLES) -> Visit:
    """A visit whose content is its mark."""
    return Visit(
        index,
        PackedMaps.pack(torch.full((samples, HEIGHT, WIDTH), mark % 256, dtype=torch.uint8), CLASSES),
        torch.full((samples,), mark / 2, dtype=torch.float64),
        mark,
    )


def test_a_visit_comes_back_only_for_the_crop_that_it_is_of_from_a_file_too() -> None:
    memory, restored = VisitMemory(9, 1), VisitMemory(9, 1)
    crops = [(0.0, 1.0, 3.0, 2.0), (0.5, 1.0, 3.0, 2.0), (0.0, 1.0, 3.0, 2.0)]
    for mark, crop in enumerate(crops):
        memory.store(dataclasses.replace(make_visit(4, mark), crop=crop))
    restored.load_state_dict(through_a_file(memory.state_dict()))
    for each in (memory, restored):
        assert [visit.when for visit in each.recall(4, (0, 1, 3, 2))] == [2, 0]
        assert [visit.when for visit in each.recall(4, crops[1])] == [1]
        assert not each.recall(4, (0, 0, 3, 2))
        assert not each.recall(4)
        assert not each.recall(3, crops[0])


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """The state as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def label_maps_of(visit: Visit) -> torch.Tensor:
    return unpack([visit.label_maps], torch.empty(1, *visit.label_maps.shape, dtype=torch.uint8))[0]


def same(one: Visit, other: Visit) -> bool:
    return (
        (one.index, one.when) == (other.index, other.when)
        and torch.equal(label_maps_of(one), label_maps_of(other))
        and torch.equal(one.scores, other.scores)
        and (one.label_maps.numbers.dtype, one.scores.dtype) == (torch.int32, torch.float64)
    )


def size_of(visit: Visit) -> int:
    labels = visit.scores.numel() * HEIGHT * WIDTH
    return 4 * -(-labels // 4) + 8 * visit.scores.numel()  # four labels in 32 bits


def keep(kept: list[Visit], visit: Visit, visits: int, capacity: int) -> list[Visit]:
    """The plain model of ``VisitMemory.store``: a list, oldest first."""
    size = size_of(visit)
    if visits == 0 or size > capacity:
        return kept
    kept = [*kept, visit]
    of_image = [other for other in kept if other.index == visit.index]
    if len(of_image) > visits:
        kept = [other for other in kept if other is not of_image[0]]
    while sum(map(size_of, kept)) > capacity:
        kept = kept[1:]
    return kept


def assert_holds(memory: VisitMemory, kept: list[Visit], images: int) -> None:
    assert len(memory) == len(kept)
    assert memory.nbytes == sum(visit.nbytes for visit in kept)
    for index in range(images):
        recalled = memory.recall(index)
        expected = [visit for visit in reversed(kept) if visit.index == index]
        assert len(recalled) == len(expected)
        assert all(same(one, other) for one, other in zip(recalled, expected, strict=True))


@given(
    visits=st.integers(0, 4),
    capacity=st.integers(0, 12 * VISIT_BYTES),
    stored=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=40),  # image, K
)
def test_a_visit_memory_keeps_what_a_plain_list_would(
    visits: int, capacity: int, stored: list[tuple[int, int]]
) -> None:
    memory, kept = VisitMemory(visits, capacity / 1e6), list[Visit]()
    assert abs(memory.capacity - capacity) <= 1  # megabytes are a float
    for mark, (index, samples) in enumerate(stored):
        visit = make_visit(index, mark, samples)
        memory.store(visit)
        kept = keep(kept, visit, visits, memory.capacity)
        assert_holds(memory, kept, 5)
        assert memory.nbytes <= memory.capacity


def test_the_newest_visit_of_an_image_is_recalled_first_and_the_oldest_goes() -> None:
    memory = VisitMemory(visits=2, megabytes=1)
    given = [make_visit(7, mark) for mark in range(3)]
    for visit in given:
        memory.store(visit)
    assert len(memory.recall(7)) == 2
    assert all(same(one, other) for one, other in zip(memory.recall(7), [given[2], given[1]], strict=True))
    assert memory.recall(8) == []
    assert memory.nbytes == 2 * VISIT_BYTES == sum(visit.nbytes for visit in given[1:])


def test_a_full_memory_forgets_the_oldest_visit_of_all_images() -> None:
    memory = VisitMemory(visits=9, megabytes=3 * VISIT_BYTES / 1e6)
    for mark, index in enumerate([0, 1, 1, 2]):
        memory.store(make_visit(index, mark))
    assert [len(memory.recall(index)) for index in range(3)] == [0, 2, 1]
    memory.store(make_visit(0, 4))
    assert [len(memory.recall(index)) for index in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(("most", "megabytes"), [(0, 1.0), (3, 0.0), (3, (VISIT_BYTES - 1) / 1e6)])
def test_no_visits_or_too_small_a_memory_keep_nothing(most: int, megabytes: float) -> None:
    memory = VisitMemory(most, megabytes)
    memory.store(make_visit(0, 1))
    assert (len(memory), memory.nbytes, memory.recall(0), memory.state_dict()) == (0, 0, [], {})


def test_a_visit_larger_than_the_memory_drives_nothing_out() -> None:
    memory = VisitMemory(9, 2 * VISIT_BYTES / 1e6)
    small, large = make_visit(0, 1), make_visit(1, 2, samples=3 * SAMPLES)
    memory.store(small)
    memory.store(large)
    (kept,) = memory.recall(0)
    assert same(kept, small)
    assert memory.recall(1) == []


@settings(max_examples=40)
@given(
    visits=st.integers(0, 3),
    capacity=st.integers(0, 9),
    stored=st.lists(st.integers(0, 4), max_size=20),
    later=st.lists(st.integers(0, 4), max_size=10),
)
def test_a_visit_memory_goes_on_from_a_file_as_if_nothing_had_happened(
    visits: int, capacity: int, stored: list[int], later: list[int]
) -> None:
    memory, restored = (VisitMemory(visits, (capacity * VISIT_BYTES + 1) / 1e6) for _ in range(2))
    for mark, index in enumerate(stored):
        memory.store(make_visit(index, mark))
    restored.load_state_dict(through_a_file(memory.state_dict()))
    for mark, index in enumerate([-1, *later], start=100):
        if index >= 0:
            memory.store(make_visit(index, mark))
            restored.store(make_visit(index, mark))
        assert (len(restored), restored.nbytes) == (len(memory), memory.nbytes)
        for image in range(5):
            pairs = zip(restored.recall(image), memory.recall(image), strict=True)
            assert all(same(one, other) for one, other in pairs)


def test_the_size_of_a_visit_is_known_beforehand() -> None:
    for samples in (1, 2, 5):
        visit = make_visit(0, 1, samples)
        assert visit.nbytes == visit_bytes(samples, (HEIGHT, WIDTH), CLASSES) == size_of(visit)


def test_what_was_believed_is_kept_of_the_last_visit_of_each_crop_and_comes_back_from_a_file() -> None:
    memory, restored = VisitMemory(9, 1), VisitMemory(9, 1)
    first, second, crop = torch.full((4, 3, 2), 1.0).half(), torch.full((4, 3, 2), 2.0).half(), (0.0, 1.0, 3.0, 2.0)
    memory.store(dataclasses.replace(make_visit(4, 0), belief=first, visits=1))
    memory.store(dataclasses.replace(make_visit(4, 1), belief=first, visits=1, crop=crop))
    memory.store(dataclasses.replace(make_visit(4, 2), belief=second, visits=2))
    memory.store(dataclasses.replace(make_visit(5, 4), belief=first, visits=1))
    assert memory.nbytes == 4 * VISIT_BYTES + 3 * first.nbytes
    whole, one_crop, other = memory.recall(4), memory.recall(4, crop), memory.recall(5)
    assert [visit.belief is not None for visit in whole] == [True, False]
    assert [visit.visits for visit in whole] == [2, 0]
    assert torch.equal(whole[0].belief, second)  # type: ignore[arg-type]
    assert torch.equal(one_crop[0].belief, first)  # type: ignore[arg-type]
    assert torch.equal(other[0].belief, first)  # type: ignore[arg-type]
    alone = VisitMemory(9, 1)
    for mark, belief in ((0, first), (1, second)):
        alone.store(dataclasses.replace(make_visit(4, mark), belief=belief, visits=mark + 1))
    state = through_a_file(alone.state_dict())
    restored.load_state_dict(state)
    assert restored.nbytes == alone.nbytes
    for mine, theirs in zip(restored.recall(4), alone.recall(4), strict=True):
        assert ((mine.belief is None), mine.visits) == ((theirs.belief is None), theirs.visits)
        if mine.belief is not None and theirs.belief is not None:
            assert torch.equal(mine.belief, theirs.belief)
    del state["visits"]  # a file from before they were counted
    older = VisitMemory(9, 1)
    older.load_state_dict(state)
    assert [visit.visits for visit in older.recall(4)] == [1, 0]
    assert "belief" not in VisitMemory(9, 1).state_dict()


def test_what_was_believed_before_a_visit_that_it_does_not_know_is_forgotten() -> None:
    memory = VisitMemory(9, 1)
    memory.store(dataclasses.replace(make_visit(4, 0), belief=torch.zeros(4, 3, 2).half(), visits=1))
    memory.store(make_visit(4, 1))
    assert [(visit.belief, visit.visits) for visit in memory.recall(4)] == [(None, 0), (None, 0)]
    assert memory.nbytes == 2 * VISIT_BYTES


def test_the_visits_of_two_processes_come_together() -> None:
    first, second, both = (VisitMemory(3, 1) for _ in range(3))
    for mark, (memory, index) in enumerate([(first, 0), (second, 1), (first, 2), (second, 0)]):
        memory.store(make_visit(index, mark))
    both.load_state_dict(first.state_dict())
    both.load_state_dict(second.state_dict())
    assert sorted(int(label_maps_of(visit)[0, 0, 0]) for index in range(3) for visit in both.recall(index)) == [
        0,
        1,
        2,
        3,
    ]
    assert both.nbytes == first.nbytes + second.nbytes


def test_visits_that_come_together_are_kept_once_and_in_the_order_of_time() -> None:
    first, second, both = (VisitMemory(3, 1) for _ in range(3))
    for memory, marks in ((first, (4, 5, 6)), (second, (1, 5, 7))):  # 5 was loaded by both from an earlier checkpoint
        for mark in marks:
            memory.store(make_visit(0, mark))
    for memory in (first, second):
        both.load_state_dict(memory.state_dict())
    assert [visit.when for visit in both.recall(0)] == [7, 6, 5]


def test_a_restored_visit_does_not_hold_the_whole_file_in_memory() -> None:
    memory, restored = VisitMemory(9, 1), VisitMemory(9, 1)
    for mark in range(5):
        memory.store(make_visit(0, mark))
    state = memory.state_dict()
    restored.load_state_dict(state)
    of_file = state["label_maps"].untyped_storage().data_ptr()
    for visit in restored.recall(0):
        assert visit.label_maps.numbers.untyped_storage().data_ptr() != of_file
        assert visit.scores.untyped_storage().nbytes() == visit.scores.nbytes


def test_label_maps_lie_in_blocks_and_take_the_places_of_those_that_went(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "BLOCK", 3 * SAMPLES * HEIGHT * WIDTH)
    memory = VisitMemory(2, 1)
    for mark in range(40):
        given = make_visit(mark % 2, mark)
        memory.store(given)
        given.label_maps.numbers.zero_()  # it was a copy
    kept = [visit for index in range(2) for visit in memory.recall(index)]
    assert [int(label_maps_of(visit)[0, 0, 0]) for visit in kept] == [38, 36, 39, 37]
    blocks = {visit.label_maps.numbers.untyped_storage().data_ptr() for visit in kept}
    assert len(blocks) <= 2  # at most five visits are held at once, in blocks of three
    assert sum(visit.label_maps.nbytes for visit in kept) == 4 * SAMPLES * HEIGHT * WIDTH


def test_a_restored_memory_keeps_no_block_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "BLOCK", 4 * SAMPLES * HEIGHT * WIDTH)
    memory = VisitMemory(9, 1)
    for mark in range(6):
        memory.store(make_visit(mark, mark))
    blocks = {weakref.ref(memory.recall(i)[0].label_maps.numbers.untyped_storage()) for i in range(6)}
    memory.load_state_dict(through_a_file(memory.state_dict()))
    gc.collect()
    assert all(block() is None for block in blocks)
    assert [int(label_maps_of(memory.recall(i)[0])[0, 0, 0]) for i in range(6)] == list(range(6))
