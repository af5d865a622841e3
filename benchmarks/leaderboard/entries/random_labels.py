"""Uniformly random label maps."""

import numpy as np


def train(trial):
    rng = np.random.default_rng(trial.seed)
    trial.report(lambda images: rng.integers(0, trial.num_classes, images.shape[:3], np.uint8))
