"""Worlds: games in which somebody acts on a label map, and what happens then is its score. See docs/outcomes.md."""
