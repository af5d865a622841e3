"""An answer to the exercise of lesson 3, and wrong ones that ``check`` refuses."""

import numpy as np


def inverted(p, u):
    """The class at which the cumulative probabilities (C, H, W) pass u (H, W)."""
    return (u >= p.cumsum(axis=0)[:-1]).sum(axis=0)


def solution(p, side, rng):
    """One uniform number for a cell, inverted by each of its pixels through its own probabilities."""
    _, height, width = p.shape
    u = rng.random((height // side, width // side))
    return inverted(p, u.repeat(side, axis=0).repeat(side, axis=1))


def class_of_the_corner(p, side, rng):
    """One class for a cell, drawn with the probabilities of its first pixel: the others lose their own."""
    corners = solution(p[:, ::side, ::side], 1, rng)
    return corners.repeat(side, axis=0).repeat(side, axis=1)


def every_pixel_its_own(p, side, rng):
    """Plain draws: nothing is shared."""
    return inverted(p, rng.random(p.shape[1:]))


def one_number_for_the_image(p, side, rng):
    """All cells share one number, so they are not independent."""
    return inverted(p, np.full(p.shape[1:], rng.random()))


WRONG = [class_of_the_corner, every_pixel_its_own, one_number_for_the_image]
