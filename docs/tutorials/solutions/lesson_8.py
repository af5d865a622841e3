"""Lesson 8: the doubly robust estimator."""

import numpy as np


def solution(rewards, weights, predicted, values):
    """The model's value, corrected by the weighted errors of the model."""
    return float(np.mean(values + weights * (rewards - predicted)))


def only_the_model(rewards, weights, predicted, values):
    """The direct method: as wrong as the model."""
    return float(np.mean(values))


def errors_without_weights(rewards, weights, predicted, values):
    """Corrects by what the old policy's label maps miss, not the new one's."""
    return float(np.mean(values + rewards - predicted))


def weighted_rewards(rewards, weights, predicted, values):
    """Adds the inverse-propensity estimate and does not take the model's off: the value counts twice."""
    return float(np.mean(values + weights * rewards))


def weighted_model_too(rewards, weights, predicted, values):
    """Weighs the model's value as well, although it is one under the new policy already."""
    return float(np.mean(weights * (values + rewards - predicted)))


WRONG = [only_the_model, errors_without_weights, weighted_rewards, weighted_model_too]
