"""Which part of its image an episode shows, how large and which way round, and the pixels of that part.

Places are integers, in 1/256 of a stored pixel where images are scaled, and so is all arithmetic: NumPy and torch agree
to the bit on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rss_env.arguments import check_size
from rss_env.datasets.dataset import IGNORE_INDEX
from rss_env.episodes import GOLDEN, mix
from rss_env.errors import OptionError
from rss_env.rewards.arrays import Array, namespace

AUGMENTS = ("flip", "crop", "scale")
PADDING = np.array([124, 116, 104], np.int32)  # where a scaled image ends: the mean colour of ImageNet
UNIT = 256  # steps a stored pixel
WIDEST_RANGE = (1 / 16, 16.0)


class View(NamedTuple):
    """What B episodes show.

    Attributes:
        indices: int64 (B,), numbers of the images.
        flipped: bool (B,), whether what is shown is mirrored left and right.
        crops: (B, 4), top, left, height and width of what is shown, in pixels of the stored image: int64, or where
            images are scaled float64, multiples of 1/256; None for whole images.
    """

    indices: np.ndarray
    flipped: np.ndarray
    crops: np.ndarray | None

    def replaced(self, mask: np.ndarray, other: View) -> View:
        """This view with the episodes in ``mask``, bool (B,), from another one."""
        crops = self.crops
        if crops is not None:
            crops = np.where(mask[:, None], other.crops, crops)  # type: ignore[arg-type]
        return View(np.where(mask, other.indices, self.indices), np.where(mask, other.flipped, self.flipped), crops)


class Augmentation:
    """What episodes do to images of one size.

    Args:
        augment: ``"none"``, or some of ``AUGMENTS`` as a sequence or joined by commas, in any order.
        image_size: (H, W) of the stored images.
        crop_size: (h, w) of what is shown; None without ``"crop"``.
        scale_range: least and greatest factor of ``"scale"``.

    Attributes:
        names: the augmentations, in the order of ``AUGMENTS``.
        crop_size: (h, w), or None for whole images.
        size: (h, w) of what is shown.

    Raises:
        OptionError: an argument is not valid, or does not go with the others.
    """

    def __init__(self, augment: Any, image_size: tuple[int, int], crop_size: Any = None, scale_range: Any = (0.5, 2.0)):
        self.names = read_augment(augment)
        self.image_size = image_size
        self.crop_size = check_crop_size(self.names, crop_size)
        self.scale_range = check_scale_range(scale_range)
        if self.crop_size is not None and any(c > s for c, s in zip(self.crop_size, image_size, strict=True)):
            raise OptionError(f"crop_size {self.crop_size} must fit into the image_size, {tuple(image_size)}.")
        self.size = self.crop_size or image_size

    def plain(self, indices: np.ndarray) -> View:
        """Images (B,) as they are stored, or the middle of them, int64 (B,) -> B episodes."""
        flipped = np.zeros(len(indices), bool)
        if self.crop_size is None:
            return View(indices, flipped, None)
        place = [(side - part) // 2 for side, part in zip(self.image_size, self.size, strict=True)]
        crops = np.tile(
            np.array([*place, *self.size], np.float64 if "scale" in self.names else np.int64), (len(indices), 1)
        )
        return View(indices, flipped, crops)

    def draw(self, indices: np.ndarray, coins: np.ndarray, bits: np.ndarray) -> View:
        """What B episodes show.

        Args:
            indices: int64 (B,), numbers of the images.
            coins: bool (B,), which are mirrored if any are.
            bits: uint64 (B,), uniform.
        """
        flipped = coins & ("flip" in self.names)
        if self.crop_size is None:
            return View(indices, flipped, None)
        chances = (bits & np.uint64(0xFFFFFFFF), bits >> np.uint64(32))  # 32 bits for each axis
        if "scale" not in self.names:
            places = [
                _below(chance, np.full(len(bits), side - part + 1))
                for chance, side, part in zip(chances, self.image_size, self.size, strict=True)
            ]
            return View(indices, flipped, np.stack([*places, *(np.full(len(bits), part) for part in self.size)], 1))
        low, high = self.scale_range
        uniform = (mix(bits + GOLDEN) >> np.uint64(11)) * 2.0**-53
        steps = np.rint(UNIT / (low * (high / low) ** uniform)).astype(np.int64)  # from one shown pixel to the next
        places, sides = [], []
        for chance, side, part in zip(chances, self.image_size, self.size, strict=True):
            room = side * UNIT - steps * part  # negative where the scaled image is the smaller one
            places.append(np.sign(room) * _below(chance, np.abs(room) + 1))
            sides.append(steps * part)
        return View(indices, flipped, np.stack([*places, *sides], 1) / UNIT)

    def cut(
        self, data: Array, indices: Array, crops: np.ndarray, give: Callable[[np.ndarray], Array] = np.asarray
    ) -> Array:
        """Copies of the crops of stored images or targets, not mirrored.

        Args:
            data: uint8 (n, H, W, 3) images, which are interpolated, or (n, H, W) targets, whose nearest pixel is taken.
            indices: int64 (B,), of the kind and on the device of ``data``.
            crops: as in ``View``.
            give: turns an array into one of the kind and on the device of ``data``.
        """
        if crops.dtype == np.int64:
            tops, lefts = give(crops[:, 0]), give(crops[:, 1])
            return _windows(data, self.size)[indices, tops, lefts]
        starts, sides = np.split((crops * UNIT).astype(np.int64), 2, axis=1)
        rows, columns = (
            give((starts[:, [axis]] + ((2 * np.arange(part) + 1) * (sides[:, [axis]] // part) >> 1)).astype(np.int32))
            for axis, part in enumerate(self.size)
        )  # where the middle of every shown pixel is, (B, h) and (B, w)
        if data.ndim == 3:
            return _nearest(data, indices, rows, columns)
        return _interpolated(data, indices, rows, columns, give(PADDING))


def read_augment(augment: Any) -> tuple[str, ...]:
    """The augmentations that ``augment`` names, in the order of ``AUGMENTS``; none for ``"none"``.

    Raises:
        OptionError: it names another one, or one twice.

    Example:
        >>> read_augment("crop,flip"), read_augment("none")
        (('flip', 'crop'), ())
    """
    if isinstance(augment, str):
        names: Any = () if augment == "none" else tuple(part.strip() for part in augment.split(","))
    else:
        names = augment if isinstance(augment, (tuple, list)) else (None,)
    if not all(isinstance(name, str) and name in AUGMENTS for name in names) or len(set(names)) < len(names):
        raise OptionError(
            f"Unknown augment {augment!r}; valid: none, {', '.join(AUGMENTS)} and combinations such as 'flip,crop'."
        )
    return tuple(name for name in AUGMENTS if name in names)


def check_crop_size(names: tuple[str, ...], crop_size: Any) -> tuple[int, int] | None:
    """``crop_size`` as two Python integers, None for whole images.

    Raises:
        OptionError: it is no size, or does not go with the augmentations.
    """
    if "crop" not in names:
        if crop_size is not None:
            raise OptionError(f"crop_size={crop_size!r} is for augment='crop'; leave it out, or add 'crop' to augment.")
        if "scale" in names:
            raise OptionError("augment='scale' needs 'crop' as well, as scaled images have no common size.")
        return None
    if crop_size is None:
        raise OptionError("augment='crop' needs crop_size=(H, W), the size of what is shown.")
    return check_size("crop_size", crop_size)


def check_scale_range(scale_range: Any) -> tuple[float, float]:
    """``scale_range`` as two Python floats.

    Raises:
        OptionError: it is no range.
    """
    given = scale_range.tolist() if isinstance(scale_range, np.ndarray) else scale_range
    numbers = given if isinstance(given, Sequence) and not isinstance(given, (str, bytes)) else ()
    right = len(numbers) == 2 and all(
        isinstance(x, (int, float, np.number)) and not isinstance(x, bool) for x in numbers
    )
    if not right or not WIDEST_RANGE[0] <= numbers[0] <= numbers[1] <= WIDEST_RANGE[1]:
        raise OptionError(
            f"scale_range must be two factors, the least and the greatest, from 1/16 to 16, got {scale_range!r}."
        )
    return float(numbers[0]), float(numbers[1])


def _below(chances: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Integers 0..counts-1, int64, from uniform ones of 32 bits."""
    return (chances * counts.astype(np.uint64) >> np.uint64(32)).astype(np.int64)


def _windows(data: Array, size: tuple[int, int]) -> Array:
    """Every window of every image, (n, H-h+1, W-w+1, h, w, …): a view, which takes no memory and is only read."""
    number, height, width, *channels = data.shape
    shape = (number, height - size[0] + 1, width - size[1] + 1, *size, *channels)
    if isinstance(data, np.ndarray):
        along = data.strides
        strides = (*along[:3], *along[1:])
        return np.lib.stride_tricks.as_strided(data, shape, strides, writeable=False)
    along = data.stride()
    return data.as_strided(shape, (*along[:3], *along[1:]))


def _nearest(data: Array, indices: Array, rows: Array, columns: Array) -> Array:
    height, width = data.shape[1:3]
    labels = _pixels(data, indices, _pixel(rows, height), _pixel(columns, width))
    inside = _inside(rows, height)[:, :, None] & _inside(columns, width)[:, None]
    return namespace(data).where(inside, labels, IGNORE_INDEX)


def _interpolated(data: Array, indices: Array, rows: Array, columns: Array, padding: Array) -> Array:
    """Bilinear interpolation between the middles of the four nearest pixels, rounded to the nearest integer."""
    height, width = data.shape[1:3]
    # What depends on the column has an axis of colours: NumPy is slow where the last axis is short and broadcast.
    around = padding + 0 * columns[:, None, :, None]  # (B, 1, w, 3)
    inside = _inside(rows, height)[:, :, None, None] & (_inside(columns, width)[:, None, :, None] & (around >= 0))
    rows, columns = rows - UNIT // 2, columns - UNIT // 2  # where the nearer pixel above and left has its middle
    down, right = (rows & UNIT - 1)[:, :, None, None], (columns & UNIT - 1)[:, None, :, None] + 0 * around
    lines = []
    for line in (rows, rows + UNIT):
        near, far = (
            _pixels(data, indices, _pixel(line, height), _pixel(column, width)) for column in (columns, columns + UNIT)
        )
        lines.append(near * (UNIT - right) + far * right)
    total = lines[0] * (UNIT - down) + lines[1] * down
    shown = namespace(data).where(inside, total + UNIT * UNIT // 2 >> 16, around)
    return shown.astype(np.uint8) if isinstance(shown, np.ndarray) else shown.byte()


def _pixels(data: Array, indices: Array, rows: Array, columns: Array) -> Array:
    """Pixels of B images at rows (B, h) and columns (B, w)."""
    places = indices[:, None, None], rows[:, :, None], columns[:, None]
    if not isinstance(data, np.ndarray) or data.ndim == 3:
        return data[places]
    found = data.view("V3")[..., 0][places]  # a colour as one item of three bytes: five times faster
    return found.view(np.uint8).reshape(*found.shape, 3)


def _inside(places: Array, side: int) -> Array:
    return (places >= 0) & (places < side * UNIT)


def _pixel(places: Array, side: int) -> Array:
    """Numbers of the pixels that places are in, of the nearest one for those outside."""
    return (places // UNIT).clip(0, side - 1)
