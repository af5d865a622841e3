"""What becomes of photos and masks in every odd form: the table of docs/data.md, row by row."""

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rss_env.datasets import DATASETS, SegmentationDataset, load_dataset
from rss_env.datasets import cache as cache_module
from rss_env.datasets.decode import read_image, read_mask
from rss_env.datasets.photos import bit_palette
from rss_env.errors import DatasetError, OptionError
from tests.datasets.plain_user import as_plain_user
from tests.trees import add_pair, save_mask, save_photo, tiny_folder, write_lines, write_voc

SIZE = (6, 8)
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type


def _load(root: Path, split: str = "all", **options: object) -> SegmentationDataset:
    return load_dataset("Folder", root=root, split=split, image_size=SIZE, **options)


def _random(*shape: int, below: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, below, shape)


def _photo(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _deep_png(values: np.ndarray, orientation: int = 1) -> bytes:
    """A PNG of 16 bits per channel, uint16 (H, W, channels), which Pillow cannot always write."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    exif = _chunk(b"eXIf", _exif(orientation).tobytes().removeprefix(b"Exif\0\0"))
    chunks = _chunk(b"IHDR", header) + exif + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# Pixels of photos


def test_grey_photos_have_three_equal_channels(tmp_path: Path):
    values = _random(4, 5).astype(np.uint8)
    save_photo(tmp_path / "grey.png", values)
    np.testing.assert_array_equal(_photo(tmp_path / "grey.png"), _grey(values))


def test_1_bit_photos_are_black_and_white(tmp_path: Path):
    values = _random(4, 5, below=2).astype(bool)
    save_photo(tmp_path / "bits.png", values)
    np.testing.assert_array_equal(_photo(tmp_path / "bits.png"), _grey(values * np.uint8(255)))


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_dropped_and_the_colours_under_it_stay(tmp_path: Path, channels: int):
    values = _random(4, 5, channels).astype(np.uint8)
    values[0, ..., -1] = 0
    save_photo(tmp_path / "clear.png", values)
    expected = values[..., :3] if channels == 4 else _grey(values[..., 0])
    np.testing.assert_array_equal(_photo(tmp_path / "clear.png"), expected)


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0, 128])], ids=["none", "one-colour", "partly"])
def test_palette_photos_have_their_colours_whatever_is_transparent(tmp_path: Path, transparency: int | bytes | None):
    labels, palette = _random(4, 5, below=3).astype(np.uint8), _random(3, 3).astype(np.uint8)
    save = {} if transparency is None else {"transparency": transparency}
    save_mask(tmp_path / "palette.png", labels, palette, **save)
    np.testing.assert_array_equal(_photo(tmp_path / "palette.png"), palette[labels])


@pytest.mark.parametrize("channels", PNG_COLOUR_TYPES)
def test_of_16_bits_a_channel_the_upper_8_are_kept(tmp_path: Path, channels: int):
    values = _random(4, 5, channels, below=1 << 16)
    (tmp_path / "deep.png").write_bytes(_deep_png(values))
    upper = values >> 8
    expected = upper[..., :3] if channels > 2 else _grey(upper[..., 0])
    np.testing.assert_array_equal(_photo(tmp_path / "deep.png"), expected)


@pytest.mark.parametrize("order", ["<", ">"])
def test_of_a_16_bit_tiff_the_upper_8_are_kept_in_either_byte_order(tmp_path: Path, order: str):
    values = _random(4, 5, below=1 << 16).astype(f"{order}u2")
    mode = {"<": "I;16", ">": "I;16B"}[order]
    Image.frombytes(mode, (5, 4), values.tobytes()).save(tmp_path / "deep.tif")
    np.testing.assert_array_equal(_photo(tmp_path / "deep.tif"), _grey(values >> 8))


def test_16_bit_photos_are_turned_upright_too(tmp_path: Path):
    values = _random(4, 5, 1, below=1 << 16)
    (tmp_path / "deep.png").write_bytes(_deep_png(values, orientation=6))
    np.testing.assert_array_equal(_photo(tmp_path / "deep.png"), _grey(np.rot90(values[..., 0] >> 8, -1)))


@pytest.mark.parametrize(
    ("values", "mode"), [(np.full((4, 5), 40_000, np.int32), "I"), (np.full((4, 5), 0.5, np.float32), "F")]
)
def test_a_photo_of_more_than_16_bits_is_refused_not_clipped(tmp_path: Path, values: np.ndarray, mode: str):
    save_photo(tmp_path / "deep.tif", values)
    with pytest.raises(
        DatasetError, match=rf"deep\.tif is a photo of Pillow mode '{mode}'; .* 8 or 16 bits per channel"
    ):
        read_image(tmp_path / "deep.tif")


def _without_adobe(content: bytes) -> bytes:
    """A JPEG without the segment that names Adobe."""
    start = content.index(b"\xff\xee")
    (length,) = struct.unpack(">H", content[start + 2 : start + 4])
    assert content[start + 4 : start + 9] == b"Adobe"
    return content[:start] + content[start + 2 + length :]


@pytest.mark.parametrize("marked", [True, False])
def test_cmyk_jpegs_are_read_as_adobe_writes_them_inverted(tmp_path: Path, marked: bool):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    content = (tmp_path / "red.jpg").read_bytes()
    (tmp_path / "red.jpg").write_bytes(content if marked else _without_adobe(content))
    with Image.open(tmp_path / "red.jpg") as stored:
        assert stored.tile[0][3][0] == "CMYK;I"  # "I": what the file holds is 255 minus the ink
    assert np.abs(_photo(tmp_path / "red.jpg").astype(int) - [255, 0, 0]).max() <= 2


def test_cmyk_tiffs_are_read_as_they_are(tmp_path: Path):
    Image.new("CMYK", (5, 4), (0, 255, 255, 0)).save(tmp_path / "red.tif")
    np.testing.assert_array_equal(_photo(tmp_path / "red.tif"), np.full((4, 5, 3), (255, 0, 0)))


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "TIFF", "GIF"])
def test_of_several_frames_or_pages_the_first_is_read(tmp_path: Path, fmt: str):
    frames = [Image.new("RGB", (5, 4), (shade, shade, shade)) for shade in (40, 200)]
    frames[0].save(tmp_path / "moving.png", fmt, save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(tmp_path / "moving.png") as moving:
        assert (moving.format, moving.n_frames) == (fmt, 2)
    assert set(_photo(tmp_path / "moving.png").ravel()) == {40}


@pytest.mark.parametrize("fmt", ["JPEG", "BMP", "WEBP", "TIFF"])
def test_the_content_decides_not_the_suffix(tmp_path: Path, fmt: str):
    root = tiny_folder(tmp_path, 1)
    Image.new("RGB", SIZE[::-1], (90, 90, 90)).save(root / "images" / "000.png", fmt)
    assert np.abs(_load(root).images.astype(int) - 90).max() <= 2


# Numbers in masks


@pytest.mark.parametrize("largest", [2, 255])
def test_16_bit_masks_give_their_numbers(tmp_path: Path, largest: int):
    labels = _random(4, 5, below=largest + 1)
    labels[0, 0] = largest
    (tmp_path / "deep.png").write_bytes(_deep_png(labels[..., None]))
    np.testing.assert_array_equal(np.asarray(read_mask(tmp_path / "deep.png")), labels)


@pytest.mark.parametrize("largest", [256, 65535])
def test_a_16_bit_mask_with_a_number_above_255_is_refused(tmp_path: Path, largest: int):
    (tmp_path / "deep.png").write_bytes(_deep_png(np.array([[[0], [largest], [1]]])))
    with pytest.raises(DatasetError, match=rf"deep\.png holds label {largest}; labels are 0..255 in 16 bits too"):
        read_mask(tmp_path / "deep.png")


def test_1_bit_masks_hold_the_classes_0_and_1(tmp_path: Path):
    root = tiny_folder(tmp_path, 1)
    labels = _random(*SIZE, below=2)
    save_photo(root / "masks" / "000.png", labels.astype(bool))
    data = _load(root)
    assert data.num_classes == 2
    np.testing.assert_array_equal(data.targets[0], labels)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (3, r"001\.png holds colours \(RGB\) instead of class numbers: \[0, 0, 0\] in 48 pixels\. .*\"palette\" into "),
        (4, r"001\.png is a mask of Pillow mode 'RGBA'; .*are transparent: save it without an alpha channel"),
    ],
)
def test_a_mask_of_colours_without_a_palette_is_refused_with_what_to_do(tmp_path: Path, channels: int, message: str):
    root = tiny_folder(tmp_path, 2)
    save_photo(root / "masks" / "001.png", np.zeros((*SIZE, channels), np.uint8))
    for options in ({}, {"num_classes": 3}):
        with pytest.raises(DatasetError, match=message):
            _load(root, **options)


def test_a_mask_of_colours_in_another_data_set_is_refused(tmp_path: Path):
    write_voc(tmp_path)
    mask = tmp_path / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000033.png"
    save_photo(mask, np.zeros((56, 40, 3), np.uint8))
    with pytest.raises(
        DatasetError, match=r"033\.png is a mask of Pillow mode 'RGB'; .*save the number of each pixel's c"
    ):
        load_dataset("VOC", root=tmp_path, split="val", image_size=SIZE)


@pytest.mark.parametrize(("mode", "suffix"), [("LA", "png"), ("I", "tif"), ("F", "tif")])
def test_a_mask_of_any_other_kind_is_refused(tmp_path: Path, mode: str, suffix: str):
    Image.new(mode, (5, 4)).save(tmp_path / f"mask.{suffix}")
    with pytest.raises(DatasetError, match=f"is a mask of Pillow mode '{mode}'; a mask must be .* as an 8-bit PNG.$"):
        read_mask(tmp_path / f"mask.{suffix}")


def test_a_jpeg_is_no_mask_whatever_its_suffix(tmp_path: Path):
    root = tiny_folder(tmp_path, 1)
    Image.new("L", SIZE[::-1], 1).save(root / "masks" / "000.png", "JPEG")
    with pytest.raises(DatasetError, match=r"000\.png is a JPEG, which can change class numbers; save .* PNG"):
        _load(root)


def _save(labels: np.ndarray, path: Path, fmt: str, **save: object) -> None:
    try:
        Image.fromarray(labels).save(path, fmt, **save)
    except (OSError, KeyError) as error:
        pytest.skip(f"this Pillow cannot write {fmt} {save}: {error}")


@pytest.mark.parametrize(
    ("fmt", "save", "named"),
    [
        ("TIFF", {"compression": "jpeg"}, "TIFF with jpeg compression"),
        ("TIFF", {"compression": "webp"}, "TIFF with webp compression"),
        ("AVIF", {}, "AVIF"),
        ("WEBP", {}, "WEBP"),
        ("JPEG2000", {"irreversible": True}, "JPEG2000"),
        ("GIF", {}, "GIF"),
        ("PPM", {}, "PPM"),
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", [".png", ".PNG"])
def test_a_format_that_can_change_class_numbers_is_no_mask(
    tmp_path: Path, fmt: str, save: dict, named: str, suffix: str
):
    root = tiny_folder(tmp_path, 1)
    (root / "masks" / "000.png").unlink()
    _save(_random(*SIZE, below=3).astype(np.uint8), root / "masks" / f"000{suffix}", fmt, **save)
    expected = f"{root / 'masks' / f'000{suffix}'} is a {named}, which can change class numbers; save masks as PNG."
    for options in ({}, {"num_classes": 3}):
        with pytest.raises(DatasetError) as caught:
            _load(root, **options)
        assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("fmt", "save"),
    [
        ("PNG", {}),
        ("BMP", {}),
        *(
            ("TIFF", {"compression": kind})
            for kind in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma")
        ),
    ],
    ids=str,
)
def test_a_lossless_mask_gives_its_numbers(tmp_path: Path, fmt: str, save: dict):
    labels = _random(9, 13).astype(np.uint8)
    _save(labels, tmp_path / "mask.png", fmt, **save)
    np.testing.assert_array_equal(np.asarray(read_mask(tmp_path / "mask.png")), labels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [1, 7, 8, 16])
def test_grey_masks_of_few_bits_give_the_stored_numbers_not_grey_levels(tmp_path: Path, bits: int, width: int):
    labels = _random(5, width, below=1 << bits).astype(np.uint8)
    labels[0, 0] = (1 << bits) - 1
    stored = np.unpackbits(labels[..., None], axis=-1)[..., -bits:].reshape(5, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in stored)
    header = struct.pack(">IIBBBBB", width, 5, bits, 0, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    np.testing.assert_array_equal(np.asarray(read_mask(tmp_path / "mask.png")), labels)


def test_masks_are_never_turned(tmp_path: Path):
    labels = _random(4, 5, below=9).astype(np.uint8)
    save_mask(tmp_path / "mask.png", labels, exif=_exif(6))
    np.testing.assert_array_equal(np.asarray(read_mask(tmp_path / "mask.png")), labels)


def test_of_an_animated_mask_the_first_frame_is_read(tmp_path: Path):
    frames = [Image.new("L", (5, 4), label) for label in (1, 2)]
    frames[0].save(tmp_path / "mask.png", save_all=True, append_images=frames[1:])
    assert set(np.asarray(read_mask(tmp_path / "mask.png")).ravel()) == {1}


# Files that promise too much, or cannot be read


@pytest.mark.parametrize("side", [10_000, 60_000])  # between Pillow's limit and its double, and far above
@pytest.mark.parametrize("folder", ["images", "masks"])
def test_a_small_file_that_says_it_is_huge_is_refused(tmp_path: Path, side: int, folder: str):
    root = tiny_folder(tmp_path, 1)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    (root / folder / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(DatasetError, match=r"000\.png is too large to decode safely"):
        _load(root, num_classes=3)


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, cache: Path, folder: str):
    root = tiny_folder(tmp_path / "tree", 2)
    path = root / folder / "001.png"
    path.chmod(0)
    with pytest.raises(DatasetError, match=f"^Cannot read {re.escape(str(path))}: Permission denied.$"):
        as_plain_user(lambda: _load(root, num_classes=3))
    path.chmod(0o644)
    assert len(as_plain_user(lambda: _load(root, num_classes=3))) == 2


@pytest.mark.parametrize("place", ["images", "images/street", "masks", "masks/street"])
def test_a_folder_that_may_not_be_listed_is_named_not_passed_over(tmp_path: Path, place: str):
    root = tiny_folder(tmp_path, 2)
    add_pair(root, "street/003", np.ones(SIZE, np.uint8))
    (root / place).chmod(0)
    try:
        with pytest.raises(DatasetError, match=f"^Cannot list the folder {root / place}: Permission denied.$"):
            as_plain_user(lambda: _load(root))
    finally:
        (root / place).chmod(0o755)


def test_a_photo_that_vanishes_while_the_data_set_is_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tiny_folder(tmp_path, 2)
    digest = cache_module.content_digest

    def digest_after_the_loss(files: Iterable[Path]) -> str:
        (root / "images" / "001.png").unlink()
        return digest(files)

    monkeypatch.setattr(cache_module, "content_digest", digest_after_the_loss)
    with pytest.raises(DatasetError, match=r"^Cannot read .*001\.png: No such file or directory.$"):
        _load(root)


# Names


@pytest.mark.parametrize("suffix", ["Png", "pNG", "PNG", "png"])
@pytest.mark.parametrize("folder", ["images", "masks"])
@pytest.mark.parametrize("split", ["mine", "all"])
def test_a_suffix_may_be_of_any_case(tmp_path: Path, suffix: str, folder: str, split: str):
    root = tiny_folder(tmp_path, 2)
    expected = _load(root)
    (root / folder / "001.png").rename(root / folder / f"001.{suffix}")
    write_lines(root / "splits" / "mine.txt", ["000", "001"])
    data = _load(root, split)
    assert (data.ids, data.num_classes) == (("000", "001"), 3)
    np.testing.assert_array_equal(data.images, expected.images)
    np.testing.assert_array_equal(data.targets, expected.targets)


def test_the_masks_are_those_that_are_spelt_as_the_layout_says_where_there_are_others(tmp_path: Path):
    root = tiny_folder(tmp_path, 1)
    expected = _load(root)
    save_mask(root / "masks" / "000.PNG", np.zeros(SIZE, np.uint8))
    np.testing.assert_array_equal(_load(root).targets, expected.targets)


def test_of_two_photos_of_a_listed_name_the_commoner_format_is_taken(tmp_path: Path):
    root = tiny_folder(tmp_path, 1)
    write_lines(root / "splits" / "mine.txt", ["000"])
    expected = _load(root, "mine")
    save_photo(root / "images" / "000.tif", np.zeros((*SIZE, 3), np.uint8))
    np.testing.assert_array_equal(_load(root, "mine").images, expected.images)


def test_a_folder_named_like_an_image_is_none(tmp_path: Path):
    root = tiny_folder(tmp_path, 2)
    for place in ("images", "masks"):
        (root / place / "folder.png").mkdir()
    assert _load(root).ids == ("000", "001")
    write_lines(root / "splits" / "mine.txt", ["000", "folder"])
    with pytest.raises(DatasetError, match=r"no image .*folder\{.*, but the split lists it"):
        _load(root, "mine")
    (root / "masks" / "001.png").unlink()
    (root / "masks" / "001.png").mkdir()
    with pytest.raises(DatasetError, match=r"001\.png has no mask: expected .*001\.png"):
        _load(root)


@pytest.mark.parametrize("split", ["all", "mine"])
def test_names_may_hold_spaces_dots_and_any_letters(tmp_path: Path, split: str):
    names = ["a.b", "zürich straße/grün", "東京/渋谷", "💡", "%s{}"]
    for label, name in enumerate(names):
        add_pair(tmp_path, name, np.full(SIZE, label, np.uint8))
    write_lines(tmp_path / "splits" / "mine.txt", names)
    data = _load(tmp_path, split)
    found = {image_id: int(target[0, 0]) for image_id, target in zip(data.ids, data.targets, strict=True)}
    for image, target in zip(data.images, data.targets, strict=True):
        np.testing.assert_array_equal(image, bit_palette()[target])
    assert found == {name: label for label, name in enumerate(names)}


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems hold only names in Unicode")
def test_names_may_be_of_bytes_that_are_not_unicode(tmp_path: Path):
    name = os.fsdecode("café".encode("latin-1"))
    add_pair(tmp_path, name, np.ones(SIZE, np.uint8))
    assert _load(tmp_path).ids == (name,)
    assert _load(tmp_path, "train").ids == (name,)  # the SHA-256 of its bytes is not divisible by 5


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path):
    root = tiny_folder(tmp_path / "root", 2)
    add_pair(tmp_path / "other", "003", np.ones(SIZE, np.uint8))
    for place in ("images", "masks"):
        (root / place / "002.png").symlink_to(tmp_path / "other" / place / "003.png")
        (root / place / "linked").symlink_to(tmp_path / "other" / place)
        (root / place / "loop.png").symlink_to(root / place)
    assert _load(root).ids == ("000", "001", "002")
    write_lines(root / "splits" / "mine.txt", ["linked/003"])
    assert _load(root, "mine").ids == ("linked/003",)  # but a split file may lead through them


def test_a_broken_link_is_an_error_not_passed_over(tmp_path: Path):
    root = tiny_folder(tmp_path, 2)
    (root / "masks" / "broken.png").symlink_to(tmp_path / "gone")
    with pytest.raises(DatasetError, match=r"Cannot read .*broken\.png: No such file"):
        _load(root)
    (root / "images" / "broken.png").symlink_to(tmp_path / "gone")
    with pytest.raises(DatasetError, match=r"no image .*broken\{.*, but the split lists it"):
        _load(root)


# What lies where a file or a folder should be


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A Folder tree with everything optional."""
    root = tiny_folder(tmp_path / "tree", 3)
    write_lines(root / "splits" / "mine.txt", ["000", "001"])
    (root / "classes.json").write_text('["a", "b", "c"]')
    return root


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(path)


def _self(path: Path) -> None:
    path.symlink_to(path)


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


FILES = {"images/001.png": "001", "masks/001.png": "001", "classes.json": "classes", "splits/mine.txt": "mine"}


@pytest.mark.parametrize("wrong", [_folder, _pipe, _self, _dangling])
@pytest.mark.parametrize("file", FILES)
def test_what_is_no_file_is_named_in_one_line(tree: Path, file: str, wrong: Callable[[Path], None]):
    (tree / file).unlink()
    wrong(tree / file)
    with pytest.raises(DatasetError) as caught:
        _load(tree, "mine")
    assert "\n" not in str(caught.value)
    assert str(tree / file).removesuffix(".png") in str(caught.value)


@pytest.mark.parametrize("wrong", [_pipe, _self, _dangling])
def test_what_is_no_file_is_named_where_every_file_is_listed_and_classes_are_counted(
    tmp_path: Path, wrong: Callable[[Path], None]
):
    root = tiny_folder(tmp_path, 2)
    wrong(root / "masks" / "extra.png")
    with pytest.raises(DatasetError, match=r"^Cannot read .*extra\.png: .*\.$"):
        _load(root)
    (root / "masks" / "extra.png").unlink()
    wrong(root / "images" / "extra.png")
    with pytest.raises(DatasetError, match=r"no image .*extra\{"):
        _load(root)


@pytest.mark.parametrize("place", ["splits", "masks"])
@pytest.mark.parametrize("wrong", [Path.touch, _pipe, _self, _dangling])
def test_what_is_no_folder_is_named_not_taken_for_none(tree: Path, place: str, wrong: Callable[[Path], None]):
    (tree / place).rename(tree / "moved")
    wrong(tree / place)
    with pytest.raises(DatasetError, match=f"^{re.escape(str(tree / place))} is not a folder\\.$"):
        _load(tree, "all")


def test_split_files_that_may_not_be_listed_are_not_taken_for_none(tree: Path):
    (tree / "splits").chmod(0)
    try:
        with pytest.raises(
            DatasetError, match=f"^Cannot list the folder {re.escape(str(tree / 'splits'))}: Permission"
        ):
            as_plain_user(lambda: _load(tree, "train"))
    finally:
        (tree / "splits").chmod(0o755)


ROOTS = {
    "unknown-user": "~nobody-of-that-name/data",
    "long": "x" * 5000,
    "long-path": "x/" * 5000,
    "nul": "a\0b",
    "surrogate": "\ud800",
}


@pytest.mark.parametrize("name", [name for name, entry in DATASETS.items() if entry.locate is not None])
@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS)
def test_a_root_that_cannot_be_is_one_short_line(name: str, root: object):
    with pytest.raises(DatasetError, match=r"^root=.* is not a path that can be used: .*\.$") as caught:
        load_dataset(name, root=root)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", [name for name, entry in DATASETS.items() if entry.locate is not None])
@pytest.mark.parametrize("root", [5, b"data", ["data"]], ids=str)
def test_a_root_that_is_no_path_is_one_short_line(name: str, root: object):
    with pytest.raises(OptionError) as caught:
        load_dataset(name, root=root)  # type: ignore[arg-type]
    assert str(caught.value) == f"root must be the path of a folder, got {root!r}."


def test_a_root_in_the_home_folder_may_be_written_with_a_tilde(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tree.parent))
    monkeypatch.setenv("USERPROFILE", str(tree.parent))
    assert _load(Path("~/tree"), "mine").ids == _load("~/tree", "mine").ids == ("000", "001")


@pytest.mark.parametrize("depth", [2000, 4050])
def test_a_root_so_long_that_what_is_below_is_too_long_is_one_line(tmp_path: Path, depth: int):
    root = tmp_path / "/".join(["x" * 49] * ((depth - len(str(tmp_path))) // 50))
    with pytest.raises(DatasetError):
        load_dataset("VOC", root=root)


def test_a_root_that_may_not_be_entered_is_one_line(tree: Path):
    tree.chmod(0)
    try:
        for root in (tree, tree / "images"):
            with pytest.raises(DatasetError, match="Permission denied"):
                as_plain_user(lambda root=root: _load(root, "mine"))
    finally:
        tree.chmod(0o755)
