"""One photo and its mask: geometry against independent expectations, and labels that are never interpolated."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rss_env.datasets.decode import RESIZES, decode_pair, read_image, read_mask
from rss_env.datasets.photos import PhotoSource, bit_palette
from rss_env.errors import DatasetError
from tests.trees import save_mask, save_photo

SIDE = st.integers(1, 12)


def _decode(
    image: np.ndarray,
    labels: np.ndarray,
    size: tuple[int, int],
    resize: str,
    relabel: dict[int, int] | None = None,
    num_classes: int = 250,
) -> tuple[np.ndarray, np.ndarray]:
    """Writes a lossless pair, then decodes it at ``size``."""
    with tempfile.TemporaryDirectory() as folder:
        photo, mask = Path(folder, "photo.png"), Path(folder, "mask.png")
        save_photo(photo, image)
        save_mask(mask, labels)
        names = tuple(map(str, range(num_classes)))
        palette = bit_palette(num_classes)
        source = PhotoSource("Test", "all", ("photo",), (photo,), (mask,), names, palette, relabel or {})
        image, target = decode_pair(source, 0, size, resize)
    assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
    assert (target.shape, target.dtype) == (size, np.uint8)
    return image, target


def _random_pair(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, height, width])
    return rng.integers(0, 256, (height, width, 3), np.uint8), rng.integers(0, 250, (height, width), np.uint8)


def _grow(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return np.repeat(np.repeat(pixels, rows, 0), columns, 1)


# Size


@pytest.mark.parametrize("resize", RESIZES)
@given(height=SIDE, width=SIDE)
@settings(max_examples=15)
def test_a_pair_of_the_right_size_is_unchanged(resize: str, height: int, width: int):
    image, labels = _random_pair(height, width)
    decoded = _decode(image, labels, (height, width), resize)
    np.testing.assert_array_equal(decoded[0], image)
    np.testing.assert_array_equal(decoded[1], labels)


@given(height=SIDE, width=SIDE, margin=SIDE, upright=st.booleans())
@settings(max_examples=40)
def test_pad_centres_the_photo_between_black_and_ignored_borders(height: int, width: int, margin: int, upright: bool):
    image, labels = _random_pair(height, width)
    before, after = margin // 2, margin - margin // 2
    borders = ((0, 0), (before, after)) if upright else ((before, after), (0, 0))
    size = (height, width + margin) if upright else (height + margin, width)
    padded = _decode(image, labels, size, "pad")
    np.testing.assert_array_equal(padded[0], np.pad(image, (*borders, (0, 0)), constant_values=0))
    np.testing.assert_array_equal(padded[1], np.pad(labels, borders, constant_values=255))


@given(height=SIDE, width=SIDE, margin=SIDE, factor=st.integers(2, 4))
@settings(max_examples=40)
def test_pad_enlarges_by_whole_factors_exactly(height: int, width: int, margin: int, factor: int):
    _, labels = _random_pair(height, width)
    image = np.full((height, width, 3), (200, 90, 7), np.uint8)
    borders = ((margin // 2, margin - margin // 2), (0, 0))
    padded = _decode(image, labels, (height * factor + margin, width * factor), "pad")
    expected = np.pad(_grow(labels, factor, factor), borders, constant_values=255)
    np.testing.assert_array_equal(padded[1], expected)
    np.testing.assert_array_equal(padded[0], np.pad(_grow(image, factor, factor), (*borders, (0, 0))))


@given(height=SIDE, width=SIDE, margin=SIDE, factor=st.integers(2, 4))
@settings(max_examples=40)
def test_pad_shrinks_by_whole_factors_exactly(height: int, width: int, margin: int, factor: int):
    _, labels = _random_pair(height, width)
    image = np.full((height * factor, width * factor, 3), (200, 90, 7), np.uint8)
    borders = ((0, 0), (margin // 2, margin - margin // 2))
    padded = _decode(image, _grow(labels, factor, factor), (height, width + margin), "pad")
    np.testing.assert_array_equal(padded[1], np.pad(labels, borders, constant_values=255))
    np.testing.assert_array_equal(padded[0], np.pad(image[:height, :width], (*borders, (0, 0))))


@given(photo=st.tuples(st.integers(1, 60), st.integers(1, 60)), size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(max_examples=60)
def test_pad_keeps_proportions_and_fills_one_side(photo: tuple[int, int], size: tuple[int, int]):
    image, target = _decode(np.full((*photo, 3), 200, np.uint8), np.zeros(photo, np.uint8), size, "pad")
    np.testing.assert_array_equal((image == 0).all(-1), target == 255)
    rows, columns = np.flatnonzero((target == 0).any(1)), np.flatnonzero((target == 0).any(0))
    inner = (len(rows), len(columns))
    assert (target == 0).sum() == inner[0] * inner[1]  # a full rectangle
    scale = min(size[0] / photo[0], size[1] / photo[1])
    for side, whole, original, used in zip(inner, size, photo, (rows, columns), strict=True):
        assert abs(side - original * scale) <= 0.5 or side == 1
        assert 0 <= (whole - 1 - used[-1]) - used[0] <= 1  # centred; an odd pixel goes to the far side
    assert inner[0] == size[0] or inner[1] == size[1]


@given(height=SIDE, width=SIDE, margin=st.integers(0, 6), factor=st.integers(1, 3), upright=st.booleans())
@settings(max_examples=40)
def test_crop_cuts_the_centre(height: int, width: int, margin: int, factor: int, upright: bool):
    shape = (height + 2 * margin, width) if upright else (height, width + 2 * margin)
    image, labels = _random_pair(*shape)
    centre = np.s_[margin : margin + height, :] if upright else np.s_[:, margin : margin + width]
    _, target = _decode(_grow(image, factor, factor), _grow(labels, factor, factor), (height, width), "crop")
    np.testing.assert_array_equal(target, labels[centre])
    cut, _ = _decode(image, labels, (height, width), "crop")
    np.testing.assert_array_equal(cut, image[centre])


@given(height=SIDE, width=SIDE, rows=st.integers(1, 4), columns=st.integers(1, 4))
@settings(max_examples=40)
def test_stretch_scales_each_side_on_its_own(height: int, width: int, rows: int, columns: int):
    image, labels = _random_pair(height, width)
    size = (height * rows, width * columns)
    np.testing.assert_array_equal(_decode(image, labels, size, "stretch")[1], _grow(labels, rows, columns))
    _, shrunk = _decode(_grow(image, rows, columns), _grow(labels, rows, columns), (height, width), "stretch")
    np.testing.assert_array_equal(shrunk, labels)


@pytest.mark.parametrize("resize", RESIZES)
@given(
    photo=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    labels=st.lists(st.integers(0, 249), min_size=1, max_size=3),
)
@settings(max_examples=30)
def test_labels_are_never_interpolated(resize: str, photo: tuple[int, int], size: tuple[int, int], labels: list[int]):
    chosen = np.random.default_rng(0).choice(np.array(labels, np.uint8), photo)
    _, target = _decode(np.zeros((*photo, 3), np.uint8), chosen, size, resize)
    allowed = {*labels, 255} if resize == "pad" else set(labels)
    assert set(np.unique(target)) <= allowed


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(90, 90), (60, 140), (200, 150), (97, 131)])
def test_photo_and_target_stay_aligned(resize: str, size: tuple[int, int]):
    labels = _grow(np.random.default_rng(1).permutation(48).reshape(6, 8).astype(np.uint8), 20, 20)
    image = bit_palette()[labels]
    image, target = _decode(image, labels, size, resize)
    # Only pixels whose whole 7 × 7 neighbourhood has one label: next to an edge colours blend.
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(target, 3, constant_values=255), (7, 7))
    inner = (windows == target[..., None, None]).all((2, 3)) & (target != 255)
    assert inner.sum() > 100
    np.testing.assert_array_equal(image[inner], bit_palette()[target[inner]])


# Labels


@pytest.mark.parametrize("resize", RESIZES)
def test_relabelling_happens_before_the_labels_are_checked(resize: str):
    labels = np.array([[0, 11, 10], [255, 3, 11]], np.uint8)
    _, target = _decode(np.zeros((2, 3, 3), np.uint8), labels, (2, 3), resize, {11: 255}, num_classes=11)
    assert target.tolist() == [[0, 255, 10], [255, 3, 255]]


@pytest.mark.parametrize("colours", [2, 4, 16, 256])
@pytest.mark.parametrize("transparency", [None, 0])
def test_palette_masks_give_their_indices_whatever_the_colours(tmp_path: Path, colours: int, transparency: int | None):
    labels = (np.arange(512).reshape(16, 32) % colours).astype(np.uint8)
    palette = np.random.default_rng(colours).integers(0, 256, (colours, 3), np.uint8)
    save = {} if transparency is None else {"transparency": transparency}
    for name, chosen in {"random": palette, "black": palette * 0, "reversed": palette[::-1]}.items():
        path = tmp_path / f"{name}.png"
        save_mask(path, labels, chosen, bits=(colours - 1).bit_length(), **save)
        mask = read_mask(path)
        assert mask.mode == "L"
        np.testing.assert_array_equal(np.asarray(mask), labels)


def test_grey_masks_give_their_values(tmp_path: Path):
    labels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    save_mask(tmp_path / "mask.png", labels)
    np.testing.assert_array_equal(np.asarray(read_mask(tmp_path / "mask.png")), labels)


# Photos

UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_photos_are_turned_upright(tmp_path: Path, orientation: int):
    stored, _ = _random_pair(4, 6)
    save_photo(tmp_path / "photo.png", stored, exif=_exif(orientation))
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "photo.png")), UPRIGHT[orientation](stored))


def test_the_mask_of_a_turned_jpeg_fits_the_upright_photo(tmp_path: Path):
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8] = 250  # bright above; orientation 6 shows it to the right
    photo, mask = tmp_path / "photo.jpg", tmp_path / "mask.png"
    save_photo(photo, stored, exif=_exif(6), quality=95)
    labels = np.zeros((24, 16), np.uint8)
    labels[:, 8:] = 1
    save_mask(mask, labels)
    source = PhotoSource("Test", "all", ("photo",), (photo,), (mask,), ("dark", "bright"), bit_palette(2))
    image, target = decode_pair(source, 0, (24, 16), "pad")
    np.testing.assert_array_equal(target, labels)
    np.testing.assert_array_equal(image[..., 0] > 125, labels == 1)


# Files that are not what they should be


def _saved(fmt: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_random_pair(20, 30)[0]).save(buffer, fmt, exif=_exif(6))
    return buffer.getvalue()


def _mode_or_error(read: Callable[[Path], Image.Image], path: Path) -> str:
    try:
        return read(path).mode
    except DatasetError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, on a corrupt EXIF block
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@given(
    cut=st.integers(0, 2500),
    changes=st.lists(st.tuples(st.integers(0, 250), st.integers(0, 255)), max_size=6),
)
@settings(max_examples=100, derandomize=True)
def test_a_damaged_file_decodes_or_is_named_in_the_error(fmt: str, cut: int, changes: list[tuple[int, int]]):
    content = bytearray(_saved(fmt))
    for position, value in changes:
        content[position] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "damaged.bin")
        path.write_bytes(content[: len(content) - cut] if cut < len(content) else b"")
        for read in (read_image, read_mask):
            outcome = _mode_or_error(read, path)
            assert outcome in ("RGB", "L") or str(path) in outcome


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_file_that_went_missing_is_named(tmp_path: Path, read: Callable[[Path], Image.Image]):
    with pytest.raises(DatasetError, match=r"Cannot read .*gone\.png: No such file"):
        read(tmp_path / "gone.png")


def test_a_corrupt_exif_block_is_an_error_that_names_the_file(tmp_path: Path):
    exif = b"Exif\0\0MM\xbb*\0\0\0\x08" + bytes(20)  # byte 3 should be 0
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.webp", exif=exif)
    with pytest.raises(DatasetError, match=r"Cannot decode .*photo\.webp"):
        read_image(tmp_path / "photo.webp")


@pytest.mark.parametrize("limit", [10, 40])  # Pillow itself refuses beyond twice its limit, and only warns below
def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int):
    save_photo(tmp_path / "bomb.png", np.zeros((6, 8, 3), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for action in ("ignore", "error"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            with pytest.raises(DatasetError, match=r"bomb\.png is too large to decode safely: .*(8×6|48) pixels"):
                read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("limit", [48, None])
def test_a_photo_within_the_limit_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None):
    save_photo(tmp_path / "photo.png", np.zeros((6, 8, 3), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert read_image(tmp_path / "photo.png").size == (8, 6)


def test_decoding_in_threads_leaves_the_warning_filters_alone(tmp_path: Path):
    save_photo(tmp_path / "photo.png", _random_pair(100, 150)[0])
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: read_image(tmp_path / "photo.png"), range(200)))
    assert list(warnings.filters) == before
