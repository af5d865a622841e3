"""The agent's hot path: drawing label maps from class probabilities and turning advantages into a gradient."""

from agents.ops.credit import credit
from agents.ops.sampling import sample_label_maps

__all__ = ["credit", "sample_label_maps"]
