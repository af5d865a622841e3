"""The score to beat: one class everywhere, the one that scores best on the training images; found by asking."""

import numpy as np


def train(trial):
    images = 32
    envs = trial.make_envs(num_envs=images, samples_per_image=trial.num_classes)
    envs.reset(seed=trial.seed)
    label_maps = np.empty((images, trial.num_classes, *trial.image_size), np.uint8)
    label_maps[:] = np.arange(trial.num_classes)[:, None, None]
    scores = envs.step(label_maps)[4]["final_info"]["scores"]
    best = int(scores.mean(axis=0).argmax())
    trial.report(lambda shown: np.full(shown.shape[:3], best, np.uint8))
