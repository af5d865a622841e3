"""Lesson 10: the gradient of a preference, the share of mistakes, and a wrong label map with the full outcome."""

import numpy as np


def solution(p, a, b):
    """The surprise, shared among the pixels that differ: (1 − P) p (1 − p) / (|D| A B), with the sign of a − b."""
    differ = a != b
    n = differ.sum()
    of_a = np.where(a == 1, p, 1 - p)[differ].sum() / n
    of_b = 1 - of_a
    size = of_b * p * (1 - p) / (n * of_a * of_b)  # as A + B = 1, 1 − P = B
    return np.where(differ, np.where(a == 1, size, -size), 0.0)


def all_pixels(p, a, b):
    """Credits every pixel of the label map that won."""
    return np.where(a == 1, 1 - p, -p) / len(p)


def of_the_probability(p, a, b):
    """The gradient of P, as of a policy gradient, instead of that of log P."""
    differ = a != b
    of_a = np.where(a == 1, p, 1 - p)[differ].mean()
    return of_a * solution(p, a, b)


def not_shared(p, a, b):
    """Gives each pixel that differs the whole credit."""
    return solution(p, a, b) * (a != b).sum()


WRONG = [all_pixels, of_the_probability, not_shared]


def solution_2(chances, M):
    """Expectation and maximisation: how likely each answer was a mistake, then the mean of that."""
    lapse = 0.5
    for _ in range(1000):
        mistakes = lapse / M / ((1 - lapse) * chances + lapse / M)
        lapse = mistakes.mean()
    return lapse


def surprises(chances, M):
    """Counts the unlikely answers. Some are right, and some mistakes are likely."""
    return float((chances < 1 / M).mean())


def one_round(chances, M):
    """Stops after the first round, where 0.5 has hardly been left."""
    return float((0.5 / M / (0.5 * chances + 0.5 / M)).mean())


def not_the_expected(chances, M):
    """One less the mean probability: who is in doubt is taken for one who errs."""
    return float(1 - chances.mean())


WRONG_2 = [surprises, one_round, not_the_expected]


def solution_3(outcome, true_map, classes):
    """Makes wrong what can be, keeping the changes before, until nothing more can be."""
    full, found = outcome(true_map), true_map.copy()
    changed = True
    while changed:
        changed = False
        for place in np.ndindex(true_map.shape):
            for wrong in range(classes):
                if found[place] != true_map[place] or wrong == true_map[place]:
                    continue
                tried = found.copy()
                tried[place] = wrong
                if outcome(tried) >= full:
                    found, changed = tried, True
    return found


def each_by_itself(outcome, true_map, classes):
    """Tries each change on the true map: what does no harm alone may do harm together."""
    full, found = outcome(true_map), true_map.copy()
    for place in np.ndindex(true_map.shape):
        for wrong in range(classes):
            tried = true_map.copy()
            tried[place] = wrong
            if wrong != true_map[place] and outcome(tried) >= full:
                found[place] = wrong
    return found


def nothing_wrong(outcome, true_map, classes):
    """The true map earns all there is, but it is no hack."""
    return true_map


def all_wrong(outcome, true_map, classes):
    """The next class everywhere: nothing right is left, and nothing is earned."""
    return ((true_map + 1) % classes).astype(np.uint8)


WRONG_3 = [each_by_itself, nothing_wrong, all_wrong]
