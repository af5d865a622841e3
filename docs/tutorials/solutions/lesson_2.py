"""An answer to the exercise of lesson 2, and wrong ones that ``check`` refuses."""

import numpy as np


def solution(pi, R, g):
    """dV/db = −2/K · E[(R − b) |g|²] = 0, so b is the mean of the scores, each weighted with |g|²."""
    weights = pi * (g**2).sum(axis=(1, 2))
    return weights @ R / weights.sum()


def expected_score(pi, R, g):
    """Would be the best if all |g|² were equal."""
    return pi @ R


def forgets_the_policy(pi, R, g):
    """Every label map counts the same, as if the policy drew them equally often."""
    weights = (g**2).sum(axis=(1, 2))
    return weights @ R / weights.sum()


def length_without_square(pi, R, g):
    """|g| in place of |g|²."""
    weights = pi * np.sqrt((g**2).sum(axis=(1, 2)))
    return weights @ R / weights.sum()


WRONG = [expected_score, forgets_the_policy, length_without_square]
