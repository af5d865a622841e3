"""Shapes: a procedural data set of geometric figures that is always available."""

from __future__ import annotations

import colorsys
import dataclasses
from dataclasses import dataclass

import numpy as np

from rss_env.arguments import is_count, is_integer, is_number
from rss_env.datasets.cache import drawn_pairs
from rss_env.datasets.dataset import SegmentationDataset, check_split
from rss_env.datasets.info import DatasetInfo
from rss_env.errors import DatasetError

GENERATOR = 1  # to be raised by every change of what is drawn: cached images of another generator are not read
# Work below which a split is drawn each time, about 0.2 s: then looking into the cache and writing to it gain little.
# The unit is one pixel; what each image costs apart from its pixels is as much as this many.
LITTLE_WORK = 1 << 20
WORK_PER_IMAGE = 2250

KINDS = ("disk", "square", "triangle", "cross", "ring", "bar", "crescent", "ell")
SPLIT_SIZES = {"train": 2048, "val": 128, "test": 256}
# Every split owns its own range of global indices, so no image belongs to two of them.
SPLIT_STARTS = {"train": 0, "val": 1 << 30, "test": 1 << 31}


@dataclass(frozen=True)
class Difficulty:
    """How hard one setting is.

    Attributes:
        objects: fewest and most figures in an image.
        radius: smallest and largest radius, as a fraction of the shorter image side.
        hue_jitter: half-width of the uniform jitter around a class's own hue, in turns of the colour wheel;
            0.5 makes colour carry no information.
        noise: standard deviation of the pixel noise, in grey levels (0..255).
        clutter: number of thin background lines (labelled background).
        imbalance: how many times as often the first class of figures is drawn as the last.
    """

    objects: tuple[int, int]
    radius: tuple[float, float]
    hue_jitter: float
    noise: float
    clutter: int
    imbalance: float = 1.0


DIFFICULTIES = {
    "easy": Difficulty(objects=(1, 3), radius=(0.18, 0.30), hue_jitter=0.03, noise=6.0, clutter=0),
    "medium": Difficulty(objects=(2, 4), radius=(0.14, 0.28), hue_jitter=0.15, noise=12.0, clutter=2),
    "hard": Difficulty(objects=(3, 6), radius=(0.10, 0.24), hue_jitter=0.50, noise=22.0, clutter=6),
}


def palette(num_classes: int) -> np.ndarray:
    """Colours of the classes, uint8 (C, 3): black background, then evenly spaced hues."""
    hues = (_hue(c, num_classes) for c in range(1, num_classes))
    colours = [(0.0, 0.0, 0.0), *(colorsys.hsv_to_rgb(h, 0.75, 0.95) for h in hues)]
    return np.round(np.array(colours) * 255).astype(np.uint8)


def load(
    split: str,
    image_size: tuple[int, int],
    *,
    num_classes: int = 5,
    difficulty: str = "medium",
    imbalance: float = 1.0,
    dataset_seed: int = 0,
    num_images: int | None = None,
) -> SegmentationDataset:
    """Generates one split of the Shapes data set, once: what takes long to draw is kept in the decoded cache.

    Image ``i`` of a split depends only on ``(dataset_seed, split, i)`` and the options: the same call gives the same
    bytes on every machine, and the splits share no image. Where the cache cannot be written, a warning is logged and
    the images are drawn into memory.

    Args:
        split: ``"train"`` (2,048 images), ``"val"`` (128) or ``"test"`` (256).
        image_size: (H, W) in pixels, each at least 8.
        num_classes: background and the first ``num_classes - 1`` of the figures in ``KINDS``; 2 to 9.
        difficulty: ``"easy"`` (colour gives the class away), ``"medium"`` (colour helps) or ``"hard"`` (only the
            outline helps; more and smaller figures, clutter and noise).
        imbalance: how many times as often a figure is of the first class of figures as of the last, from 1 (all are
            equally frequent) to 1,000; from each class to the next the frequency falls by the same factor.
        dataset_seed: seed of the generator, at least 0.
        num_images: how many images of the split to generate instead of its full size.

    Returns:
        A data set of uint8 images (n, H, W, 3) and targets (n, H, W), read-only; no pixel is ignored.

    Raises:
        DatasetError: an option is out of range; the message lists the valid values.
    """
    check_split("Shapes", split, SPLIT_SIZES)
    height, width = image_size
    if height < 8 or width < 8:
        raise DatasetError(f"Shapes needs images of at least 8×8 pixels, got image_size={image_size}.")
    if not isinstance(num_classes, (int, np.integer)) or not 2 <= num_classes <= len(KINDS) + 1:
        raise DatasetError(f"Shapes has 2 to {len(KINDS) + 1} classes, got num_classes={num_classes!r}.")
    if difficulty not in DIFFICULTIES:
        raise DatasetError(f"Unknown Shapes difficulty {difficulty!r}; valid: {', '.join(DIFFICULTIES)}.")
    if not is_number(imbalance) or not 1 <= imbalance <= 1000:
        raise DatasetError(f"imbalance must be a number from 1 to 1,000, got {imbalance!r}.")
    if not is_integer(dataset_seed) or dataset_seed < 0:
        raise DatasetError(f"dataset_seed must be an integer of at least 0, got {dataset_seed!r}.")
    scene = dataclasses.replace(DIFFICULTIES[difficulty], imbalance=float(imbalance))
    count = SPLIT_SIZES[split] if num_images is None else num_images
    if not is_count(count) or count > 1 << 30:
        raise DatasetError(f"num_images must be an integer between 1 and 2**30, got {num_images!r}.")

    def draw(i: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([dataset_seed, SPLIT_STARTS[split] + i])
        return draw_scene(rng, image_size, num_classes, scene)

    ingredients = {
        "generator": GENERATOR,
        "numpy": np.__version__,  # its random streams and rounding may change with the version
        "start": SPLIT_STARTS[split],
        "num_classes": int(num_classes),
        "difficulty": dataclasses.asdict(scene),
        "dataset_seed": int(dataset_seed),
    }
    keep = count * (height * width + WORK_PER_IMAGE) > LITTLE_WORK
    images, targets = drawn_pairs(
        "Shapes", split, ingredients, draw, int(count), (height, width), takes="some seconds", keep=keep
    )
    return SegmentationDataset(
        name="Shapes",
        split=split,
        images=images,
        targets=targets,
        ids=tuple(f"{split}-{i:06d}" for i in range(count)),
        class_names=("background", *KINDS[: num_classes - 1]),
        palette=palette(num_classes),
    )


def draw_scene(
    rng: np.random.Generator, image_size: tuple[int, int], num_classes: int, difficulty: Difficulty
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one image, uint8 (H, W, 3), and its target, uint8 (H, W)."""
    height, width = image_size
    side = min(height, width)
    # float64 throughout: float32 would give other bits with other versions of NumPy and other instruction sets.
    y, x = np.mgrid[:height, :width] + 0.5
    image = _background(rng, x / width, y / height)
    target = np.zeros((height, width), np.uint8)

    for _ in range(difficulty.clutter):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(0.2, 0.8)
        distance = np.cos(angle) * (x - offset * width) + np.sin(angle) * (y - offset * height)
        image[np.abs(distance) < 0.012 * side + 0.5] = rng.uniform(40, 215, 3)

    for _ in range(rng.integers(difficulty.objects[0], difficulty.objects[1], endpoint=True)):
        label = _draw_label(rng, num_classes, difficulty.imbalance)
        radius = rng.uniform(*difficulty.radius) * side
        centre_x, centre_y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height
        angle = rng.uniform(0, 2 * np.pi)
        u = (np.cos(angle) * (x - centre_x) + np.sin(angle) * (y - centre_y)) / radius
        v = (-np.sin(angle) * (x - centre_x) + np.cos(angle) * (y - centre_y)) / radius
        inside = _inside(KINDS[label - 1], u, v)
        hue = _hue(label, num_classes) + rng.uniform(-difficulty.hue_jitter, difficulty.hue_jitter)
        colour = colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(0.55, 0.9), rng.uniform(0.6, 1.0))
        image[inside] = np.array(colour) * 255
        target[inside] = label

    image += rng.normal(0.0, difficulty.noise, image.shape)
    return np.clip(np.round(image), 0, 255).astype(np.uint8), target


def _draw_label(rng: np.random.Generator, num_classes: int, imbalance: float) -> int:
    """A class of figures, 1 to C − 1."""
    if imbalance == 1:
        return int(rng.integers(1, num_classes))
    frequencies = imbalance ** -np.linspace(0, 1, num_classes - 1)
    return 1 + int(rng.choice(num_classes - 1, p=frequencies / frequencies.sum()))


def _hue(label: int, num_classes: int) -> float:
    return (label - 1) / (num_classes - 1)


def _background(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A soft grey gradient with a slow wave, float64 (H, W, 3); x and y run from 0 to 1."""
    tint = rng.uniform(-15, 15, 3)
    slope = rng.uniform(-60, 60, 2)
    wave = rng.uniform(5, 25) * np.sin(2 * np.pi * (rng.uniform(-2, 2) * x + rng.uniform(-2, 2) * y + rng.uniform()))
    grey = rng.uniform(70, 170) + slope[0] * (x - 0.5) + slope[1] * (y - 0.5) + wave
    return grey[..., None] + tint


def _inside(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Mask of one figure of unit radius in its own coordinates, bool (H, W)."""
    a, b, r2 = np.abs(u), np.abs(v), u * u + v * v
    if kind == "disk":
        return r2 <= 0.81
    if kind == "square":
        return np.maximum(a, b) <= 0.8
    if kind == "triangle":
        return (v >= -0.6) & (1.732 * a + v <= 1.1)
    if kind == "cross":
        return (np.minimum(a, b) <= 0.33) & (np.maximum(a, b) <= 1.0)
    if kind == "ring":
        return (r2 <= 1.0) & (r2 >= 0.36)
    if kind == "bar":
        return (a <= 1.1) & (b <= 0.35)
    if kind == "crescent":
        return (r2 <= 1.0) & ((u - 0.55) ** 2 + v * v >= 0.64)
    return ((a <= 0.9) & (b <= 0.9)) & ~((u > -0.2) & (v > -0.2))  # ell


INFO = DatasetInfo(
    title="Procedural shapes",
    licence="MIT, that of this package; the images are generated and nobody else's.",
    class_names=("background", *KINDS[:4]),
    palette=palette(5),
    splits=SPLIT_SIZES,
    ignore="nothing",
)
