"""Pictures of images and label maps, as uint8 RGB arrays."""

from __future__ import annotations

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX
from rss_env.errors import OptionError

IGNORED_COLOUR = (224, 224, 192)  # VOC's colour of its borders
BLANK = 40  # grey of a label map that does not exist yet
MIN_HEIGHT = 192  # smaller pictures are enlarged by a whole factor, to be seen


def check_render_mode(render_mode: str | None, valid: list[str]) -> None:
    """Raises ``OptionError`` that lists the valid modes if ``render_mode`` is neither None nor among them."""
    if render_mode is not None and render_mode not in valid:
        raise OptionError(f"Unknown render_mode {render_mode!r}; valid: None, {', '.join(valid)}.")


def colourise(label_map: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Colours a label map.

    Args:
        label_map: uint8 (..., H, W), classes or 255.
        palette: uint8 (C, 3).

    Returns:
        uint8 (..., H, W, 3).
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    table[IGNORE_INDEX] = IGNORED_COLOUR
    return table[label_map]


def overlay(image: np.ndarray, label_map: np.ndarray, palette: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Blends a coloured label map over its image.

    Args:
        image: uint8 (H, W, 3).
        label_map: uint8 (H, W).
        palette: uint8 (C, 3).
        opacity: of the label map, 0..1.

    Returns:
        uint8 (H, W, 3).
    """
    blend = (1 - opacity) * image + opacity * colourise(label_map, palette)
    return np.round(blend).astype(np.uint8)


def panels(
    image: np.ndarray, label_map: np.ndarray | None, target: np.ndarray | None, palette: np.ndarray
) -> np.ndarray:
    """Image | label map | target side by side; no target panel without a target, a grey one without a label map.

    Args:
        image: uint8 (H, W, 3).
        label_map: uint8 (H, W) or None.
        target: uint8 (H, W) or None.
        palette: uint8 (C, 3).

    Returns:
        uint8 (s·H, s·W·panels + gaps, 3), enlarged by the smallest whole s that makes it at least 192 pixels high.
    """
    parts = [image, np.full_like(image, BLANK) if label_map is None else colourise(label_map, palette)]
    if target is not None:
        parts.append(colourise(target, palette))
    gap = np.full((image.shape[0], max(1, image.shape[0] // 32), 3), 255, np.uint8)
    row = np.concatenate([piece for part in parts for piece in (part, gap)][:-1], axis=1)
    scale = max(1, -(-MIN_HEIGHT // image.shape[0]))
    return row.repeat(scale, axis=0).repeat(scale, axis=1)
