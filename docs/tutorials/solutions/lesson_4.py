"""An answer to the exercise of lesson 4, and wrong ones that ``check`` refuses."""

import numpy as np


def solution(scores):
    """How many label maps of its image a label map beats, less how many beat it, as a share."""
    difference = scores[:, :, None] - scores[:, None, :]  # (B, K, K)
    return np.sign(difference).mean(axis=2)


def argsort_is_no_rank(scores):
    """``argsort`` gives the positions of the sorted scores, not the rank of each score: that takes it twice."""
    order = scores.argsort(axis=1)
    return order - order.mean(axis=1, keepdims=True)


def ties_by_position(scores):
    """True ranks, but of two equal scores the later one counts as better."""
    ranks = scores.argsort(axis=1, kind="stable").argsort(axis=1)
    return ranks - ranks.mean(axis=1, keepdims=True)


def ranks_in_the_whole_batch(scores):
    """Compares label maps of different images: an easy image looks good."""
    flat = scores.ravel()
    ranks = np.sign(flat[:, None] - flat).mean(axis=1).reshape(scores.shape)
    return ranks - ranks.mean(axis=1, keepdims=True)


def standard_scores(scores):
    """Scale and offset cancel, other monotone changes do not."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    return centred / (scores.std(axis=1, keepdims=True) + 1e-8)


WRONG = [argsort_is_no_rank, ties_by_position, ranks_in_the_whole_batch, standard_scores]
