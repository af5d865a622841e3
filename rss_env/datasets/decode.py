"""Decodes one photo and its mask with Pillow, checks them and brings them to one size."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from rss_env.datasets.dataset import IGNORE_INDEX
from rss_env.datasets.files import check_file
from rss_env.datasets.photos import Colour, Colours, PhotoSource
from rss_env.errors import DatasetError, OptionError

RESIZES = ("pad", "crop", "stretch")
# A mask must be of a format that keeps its numbers. Others change them: JPEG, JPEG 2000, AVIF and HEIF by compression,
# netpbm by its largest value, GIF by its palette; what is not known may.
MASK_FORMATS = ("PNG", "BMP", "TIFF")
TIFF_COMPRESSIONS = ("raw", "tiff_ccitt", "group3", "group4", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate",
    "packbits", "lzma", "zstd")  # fmt: skip
SCALES = {"L;2": 85, "L;4": 17}  # by how much Pillow multiplies grey values of 2 and 4 bits
MANY_COLOURS = 4096  # more are no colours of classes, and are not counted
COLOURS_NAMED = 4  # in one message


class ColourError(DatasetError):
    """A mask holds colours that stand for no class.

    Attributes:
        counts: (r, g, b) -> pixels of each such colour; None if the mask holds more than ``MANY_COLOURS``.
    """

    def __init__(self, message: str, counts: dict[Colour, int] | None) -> None:
        super().__init__(message)
        self.counts = counts


def check_resize(resize: str) -> None:
    """Raises ``OptionError`` that lists the valid modes if ``resize`` is not among them."""
    if resize not in RESIZES:
        raise OptionError(f"Unknown resize {resize!r}; valid: {', '.join(RESIZES)}.")


def decode_pair(
    source: PhotoSource, index: int, image_size: tuple[int, int], resize: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Decodes pair ``index`` of a source at (H, W).

    Returns:
        The image, uint8 (H, W, 3), and the target, uint8 (H, W), values 0..C-1 or 255; None where there are no masks.

    Raises:
        DatasetError: a file is corrupt, the mask holds no class numbers or is not of the photo's size, or a label is
            too large; the file is named.
    """
    image_path = source.images[index]
    image = read_image(image_path)
    fitted = np.asarray(fit(image, image_size, resize, Image.Resampling.BILINEAR, 0))
    if not source.masks:
        return fitted, None
    labels = read_labels(source, index, image.size)
    target = fit(Image.fromarray(labels), image_size, resize, Image.Resampling.NEAREST, IGNORE_INDEX)
    return fitted, np.asarray(target)


def read_labels(source: PhotoSource, index: int, size: tuple[int, int]) -> np.ndarray:
    """The target of pair ``index`` at its own size, uint8 (H, W), values 0..C-1 or 255.

    Args:
        source: has masks.
        index: of the pair.
        size: (W, H) of the photo.

    Raises:
        DatasetError: see ``decode_pair``.
    """
    path = source.masks[index]
    mask = read_mask(path, source.colours)
    if mask.size != size:
        raise DatasetError(
            f"{path} is {mask.width}×{mask.height} pixels, but its image {source.images[index]} is {size[0]}×{size[1]}."
        )
    mapping = np.arange(256, dtype=np.uint8)
    for value, label in source.relabel.items():
        mapping[value] = label
    labels = mapping[np.asarray(mask)]
    bad = labels[(labels >= source.num_classes) & (labels != IGNORE_INDEX)]
    if bad.size:
        raise DatasetError(
            f"{path} holds label {int(bad.max())}, but {source.name} has {source.num_classes} classes "
            f"(0..{source.num_classes - 1}, {IGNORE_INDEX} = ignored)."
        )
    return labels


def read_image(path: Path) -> Image.Image:
    """A photo as 8-bit RGB, turned upright by its EXIF orientation; transparency is dropped.

    Of 16 bits per channel the upper 8 are kept; of several frames or pages, the first.
    """
    image = _read(path)
    if image.mode.startswith("I;16"):  # Pillow would clip these to 255 instead of scaling them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode.startswith(("I", "F")):
        raise DatasetError(
            f"{path} is a photo of Pillow mode {image.mode!r}; a photo must have 8 or 16 bits per channel."
        )
    elif image.mode == "P":  # in one step, Pillow would warn of colours that are partly transparent
        image = image.convert("RGBA")
    return image.convert("RGB")


def read_mask(path: Path, colours: Colours | None = None) -> Image.Image:
    """A label map as an 8-bit grey image whose values are the stored numbers (palette colours are dropped).

    The numbers may be stored in 1, 2, 4, 8 or 16 bits, but none may be above 255. The format must be one that keeps
    them: PNG, BMP or TIFF without lossy compression.

    Args:
        path: of the mask.
        colours: the classes of colours, with which RGB masks are read too; an alpha channel must be opaque everywhere.

    Raises:
        ColourError: an RGB mask, and ``colours`` has not all of its colours.
        DatasetError: any other fault.
    """
    mask = _read(path, mask=True)
    if mask.mode in ("L", "P"):
        return Image.frombytes("L", mask.size, mask.tobytes())
    if colours is not None and (
        mask.mode == "RGB" or (mask.mode == "RGBA" and mask.getchannel("A").getextrema() == (255, 255))
    ):
        return _look_up(path, mask.convert("RGB"), colours)
    if mask.mode != "1" and not mask.mode.startswith("I;16"):
        hint = " It seems to hold colours: save the number of each pixel's class instead." * (len(mask.getbands()) > 2)
        if mask.mode == "RGBA" and colours is not None:
            hint = " Some of its pixels are transparent: save it without an alpha channel."
        raise DatasetError(
            f"{path} is a mask of Pillow mode {mask.mode!r}; a mask must be greyscale or palette of at most 16 bits, "
            f"such as an 8-bit PNG.{hint}"
        )
    labels = np.asarray(mask)
    if labels.max() > IGNORE_INDEX:
        raise DatasetError(f"{path} holds label {int(labels.max())}; labels are 0..{IGNORE_INDEX} in 16 bits too.")
    return Image.fromarray(labels.astype(np.uint8))


def _look_up(path: Path, mask: Image.Image, colours: Colours) -> Image.Image:
    """The classes of an RGB mask's colours, as an 8-bit grey image."""
    if colours.ambiguous:
        first, second = colours.ambiguous
        raise DatasetError(
            f'{path} holds colours (RGB), but in {colours.file} "palette" gives the classes {first} and {second} one '
            "colour: give every class a colour of its own."
        )
    codes = np.frombuffer(mask.tobytes("raw", "RGBX"), "<u4") & 0xFFFFFF  # 24 bits a pixel, red the lowest
    found = colours.table[codes] if colours.classes else np.zeros(1, np.uint16)
    if found.all():
        return Image.frombytes("L", mask.size, (found - 1).astype(np.uint8).tobytes())
    listed: Any = mask.getcolors(MANY_COLOURS)
    if listed is None:
        raise ColourError(
            f"{path} holds more than {MANY_COLOURS:,} colours, so it is no label map: is it a photo, a JPEG saved "
            "anew, or a label map whose edges were smoothed?",
            None,
        )
    counts = {colour: count for count, colour in sorted(listed, reverse=True) if colour not in colours.classes}
    named = ", ".join(f"{list(colour)} in {count:,} pixels" for colour, count in list(counts.items())[:COLOURS_NAMED])
    named += f" and {len(counts) - COLOURS_NAMED:,} more" if len(counts) > COLOURS_NAMED else ""
    if colours.classes:
        raise ColourError(
            f'{path} holds colours that {colours.file} gives no class: {named}. Add them to its "palette", or to '
            '"ignore_colours" if these pixels should not count.',
            counts,
        )
    raise ColourError(
        f"{path} holds colours (RGB) instead of class numbers: {named}. Write the colour of each class as "
        f'"palette" into {colours.file}; rss-env check lists all colours and prints that file to start from.',
        counts,
    )


def fit(
    image: Image.Image, image_size: tuple[int, int], resize: str, resample: Image.Resampling, fill: int
) -> Image.Image:
    """Brings an image to (H, W): ``pad`` and ``crop`` keep its proportions and centre it, ``stretch`` does not."""
    size = (image_size[1], image_size[0])  # Pillow's order: width, height
    if resize == "stretch":
        return image.resize(size, resample)
    if resize == "crop":
        return ImageOps.fit(image, size, resample)
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = tuple(max(1, min(s, round(side * scale))) for s, side in zip(size, image.size, strict=True))
    canvas = Image.new(image.mode, size, (fill,) * 3 if image.mode == "RGB" else fill)
    canvas.paste(image.resize((inner[0], inner[1]), resample), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas


def _read(path: Path, mask: bool = False) -> Image.Image:
    """The first frame: of a photo turned upright, of a mask with the grey values that are stored."""
    check_file(path)
    try:
        with Image.open(path) as image:
            # Pillow only warns up to twice its limit, and turning warnings into errors is not safe in threads.
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(
                    f"{image.width}×{image.height} pixels, PIL.Image.MAX_IMAGE_PIXELS is {Image.MAX_IMAGE_PIXELS}."
                )
            scale = _check_mask(path, image) if mask else 1
            image.load()
            read = image if mask else ImageOps.exif_transpose(image)
            if image.mode == "I" and image.format == "PNG":  # how older Pillow reads 16-bit grey
                read = Image.fromarray(np.asarray(read).astype(np.uint16))
            return Image.fromarray(np.asarray(read) // np.uint8(scale)) if scale > 1 else read
    except DatasetError:
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DatasetError(f"Cannot read {path}: {error.strerror}.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise DatasetError(f"Cannot decode {path}: {error}. Is the file truncated or corrupt?") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(f"{path} is too large to decode safely: {error}") from error


def _check_mask(path: Path, image: Image.Image) -> int:
    """Checks that a format keeps class numbers, before decoding; returns by how much Pillow will multiply them."""
    compression = image.info.get("compression") if image.format == "TIFF" else None
    if image.format not in MASK_FORMATS or (image.format == "TIFF" and compression not in TIFF_COMPRESSIONS):
        form = "JPEG" if image.format == "MPO" else image.format
        details = f" with {compression} compression" if compression else ""
        raise DatasetError(f"{path} is a {form}{details}, which can change class numbers; save masks as PNG.")
    tiles = getattr(image, "tile", None)
    layout = tiles[0][3] if tiles else None  # how the pixels are stored, in Pillow's words
    return SCALES.get(layout if isinstance(layout, str) else next(iter(layout or ()), ""), 1)
