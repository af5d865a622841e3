"""Measurements: how well the agents learn, how fast the environments and agents run, and the demo."""
