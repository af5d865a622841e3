"""How far raters who got the same question agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from .answers import Answer


@dataclass(frozen=True)
class Agreement:
    """Of two raters.

    Attributes:
        first: name of a rater.
        second: name of another one.
        questions: that both have answered, skips left out.
        equal: share of their judgements that are the same: of label maps for stars, of pairs of label maps otherwise.
        kappa: Cohen's kappa of these judgements, 1 for full agreement and 0 for that of chance; None where chance alone
            would have them agree.
        tau: Kendall's tau-b of the order in which they put the label maps of one question; None where there is none.
    """

    first: str
    second: str
    questions: int
    equal: float
    kappa: float | None
    tau: float | None


def agreements(answers: Sequence[Answer]) -> list[Agreement]:
    """The agreement of every two raters with a question in common."""
    by_question: dict[str, dict[str, Answer]] = defaultdict(dict)
    for answer in answers:
        if "skip" not in answer.answer and not answer.undone:
            by_question[answer.question.id][answer.rater] = answer
    common: dict[tuple[str, str], list[tuple[Answer, Answer]]] = defaultdict(list)
    for given in by_question.values():
        for first, second in combinations(sorted(given), 2):
            common[first, second].append((given[first], given[second]))
    return [_agreement(first, second, both) for (first, second), both in sorted(common.items())]


def _agreement(first: str, second: str, both: Sequence[tuple[Answer, Answer]]) -> Agreement:
    said: list[tuple[int, int]] = []
    orders: list[tuple[int, int]] = []
    for one, other in both:
        places = [of_maps(answer) for answer in (one, other)]
        rated = sorted(k for k in places[0] if k in places[1])
        pairs = [
            (_compare(places[0][i], places[0][j]), _compare(places[1][i], places[1][j]))
            for i, j in combinations(rated, 2)
        ]
        orders += pairs
        said += [(places[0][k], places[1][k]) for k in rated] if one.question.kind == "stars" else pairs
    equal = sum(a == b for a, b in said) / len(said) if said else 0.0
    return Agreement(first, second, len(both), equal, cohens_kappa(said), kendalls_tau(orders))


def of_maps(answer: Answer) -> dict[int, int]:
    """A number for each label map that was judged, the higher the better: its stars, or minus its group."""
    if "stars" in answer.answer:
        return {k: stars for k, stars in enumerate(answer.answer["stars"]) if stars is not None}
    return {k: -place for place, group in enumerate(answer.answer["order"]) for k in group}


def cohens_kappa(said: Sequence[tuple[int, int]]) -> float | None:
    """Cohen's kappa (1960) of pairs of judgements; None if it is not defined."""
    if not said:
        return None
    values = {value for pair in said for value in pair}
    shares = [{v: sum(pair[r] == v for pair in said) / len(said) for v in values} for r in (0, 1)]
    chance = sum(shares[0][v] * shares[1][v] for v in values)
    equal = sum(a == b for a, b in said) / len(said)
    return None if chance == 1 else (equal - chance) / (1 - chance)


def kendalls_tau(orders: Sequence[tuple[int, int]]) -> float | None:
    """Kendall's tau-b of comparisons −1, 0 or 1 of the same two things by two raters; None if it is not defined."""
    agree = sum(a * b for a, b in orders)
    decided = [sum(pair[r] != 0 for pair in orders) for r in (0, 1)]
    return agree / (decided[0] * decided[1]) ** 0.5 if all(decided) else None


def _compare(a: int, b: int) -> int:
    return (a > b) - (a < b)
