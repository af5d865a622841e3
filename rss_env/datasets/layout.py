"""Finds the files of a photo data set below its root, before anything is read."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePath

from rss_env.datasets.files import is_file, is_folder, root_path, scan
from rss_env.datasets.info import DatasetInfo
from rss_env.datasets.split_files import and_more
from rss_env.errors import DatasetError, DatasetNotFoundError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def need_root(dataset: str, root: str | Path | None, info: DatasetInfo) -> Path:
    """The root folder as a path, see ``root_path``; an error that shows the layout if none was given."""
    if root is None:
        raise DatasetNotFoundError(
            f"{dataset} reads photos from disk and needs root=<folder>, for example "
            f'gym.make("RSS-{dataset}-ImageReward-v0", root="data").\nExpected below root:\n{info.layout}'
            f"{_how_to_get(dataset, 'data', info)}"
        )
    return root_path(root)


def find_home(dataset: str, root: str | Path | None, outer: tuple[str, ...], marker: str, info: DatasetInfo) -> Path:
    """The folder that holds a data set, with or without the outer folders of its archive.

    Args:
        dataset: name of the data set, for errors.
        root: as the user gave it.
        outer: paths below ``root`` to try, the full one first; ``""`` is ``root`` itself.
        marker: a folder that must be there.
        info: card of the data set, for errors.

    Raises:
        DatasetNotFoundError: no root was given, or ``marker`` is in none of the places.
    """
    base = need_root(dataset, root, info)
    home = next((base / path for path in outer if (base / path / marker).is_dir()), None)
    if home is None:
        raise not_found(dataset, base / outer[0] / marker, base, info)
    return home


def not_found(dataset: str, looked_for: Path, root: Path, info: DatasetInfo) -> DatasetNotFoundError:
    """An error that names the layout a data set needs and what the folder holds instead."""
    if not root.exists():
        found = f"{root} does not exist"
    elif not root.is_dir():
        found = f"{root} is not a folder"
    else:
        names = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
        found = f"{root} holds {', '.join(names[:12]) + and_more(names, 12) if names else 'nothing'}"
    return DatasetNotFoundError(
        f"{dataset} was not found: looked for {looked_for}, but {found}.\n"
        f"Expected below root:\n{info.layout}\n"
        f"Pass root=<folder> that holds this layout.{_how_to_get(dataset, root, info)}"
    )


def _how_to_get(dataset: str, root: str | Path, info: DatasetInfo) -> str:
    """The command that fetches a data set, or else says how to get it; of the user's own photos, what helps."""
    if info.archives:
        return f"\nTo get it: rss-env download {dataset} --root {shlex.quote(str(root))}"
    if info.homepage:
        return f"\nHow to get it: rss-env info {dataset}"
    return f"\nWhere your files have other names: rss-env check {shlex.quote(str(root))}"


def list_photos(dataset: str, split: str, folder: Path) -> list[str]:
    """Every photo below a folder, as sorted names without suffix, relative to it.

    Raises:
        DatasetError: there is none, or two share a name, or a folder cannot be listed.
    """
    photos = files_below(folder, IMAGE_SUFFIXES)
    names = sorted(p.relative_to(folder).with_suffix("").as_posix() for p in photos)
    check_one_photo(folder, names)
    if not names:
        raise DatasetError(f"{dataset}'s split {split!r} is empty: no image in {folder}.")
    return names


def check_one_photo(folder: Path, ids: list[str]) -> None:
    """Raises ``DatasetError`` that names an id which two photos of a folder share, such as ``a.jpg`` and ``a.png``."""
    shared = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if shared:
        raise DatasetError(
            f"{folder} holds more than one photo called {shared[0]!r}{and_more(shared)}; "
            "an id is the name without its suffix, so keep one photo of each name."
        )


def pair_files(
    ids: list[str], image_dir: Path, mask_dir: Path, *, image_ending: str = "", mask_ending: str = ".png"
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Paths of the photo and the mask of each id; see ``find_images`` and ``find_masks``."""
    return find_images(ids, image_dir, image_ending), find_masks(ids, mask_dir, mask_ending)


def find_images(ids: list[str], folder: Path, ending: str = "") -> tuple[Path, ...]:
    """Path of the photo of each id; where there is none, the path at which a JPEG would be.

    Args:
        ids: one per image, possibly with sub-folders.
        folder: where the photos are.
        ending: what follows the id in a photo's name, before the suffix.

    Raises:
        DatasetError: a folder cannot be listed.
    """
    listed: dict[str, dict[str, str]] = {}  # sub-folder -> name without suffix -> name of the photo
    images = []
    for image_id in ids:
        place, _, stem = f"{image_id}{ending}".rpartition("/")
        if place not in listed:
            listed[place] = _photos_in(folder / place)
        images.append(Path(folder, place, listed[place].get(stem, stem + IMAGE_SUFFIXES[0])))
    return tuple(images)


def find_masks(ids: list[str], folder: Path, ending: str = ".png") -> tuple[Path, ...]:
    """Path of the mask of each id, whether it is there or not.

    Args:
        ids: one per image, possibly with sub-folders.
        folder: where the masks are.
        ending: what follows the id in a mask's name, suffix included.

    Raises:
        DatasetError: a folder cannot be listed.
    """
    listed: dict[str, dict[str, str]] = {}  # sub-folder -> name with its suffix in lower case -> name of the mask
    masks = []
    for image_id in ids:
        place, _, expected = f"{image_id}{ending}".rpartition("/")
        if place not in listed:
            listed[place] = _masks_in(folder / place)
        masks.append(Path(folder, place, listed[place].get(expected, expected)))
    return tuple(masks)


def check_complete(dataset: str, images: Sequence[Path], masks: Sequence[Path]) -> None:
    """Checks that every photo and every mask of a split is on disk.

    Args:
        dataset: name of the data set, for errors.
        images: the photos.
        masks: their masks; empty if there are none.

    Raises:
        DatasetError: one is missing (the first is named, the others are counted).
    """
    missing = _missing(images)
    if missing:
        name = str(missing[0])
        if missing[0].suffix == IMAGE_SUFFIXES[0]:  # where a photo of any suffix was looked for
            name = f"{missing[0].with_suffix('')}{{{','.join(IMAGE_SUFFIXES)}}}"
        raise DatasetError(f"{dataset}: no image {name}{and_more(missing)}, but the split lists it.")
    missing = _missing(masks)
    if missing:
        image = images[masks.index(missing[0])]
        raise DatasetError(f"{dataset}: image {image} has no mask: expected {missing[0]}{and_more(missing)}.")


def _missing(paths: Sequence[Path]) -> list[Path]:
    """The paths at which there is no file."""
    folders = {path.parent for path in paths}
    there = {folder: {entry.name for entry in scan(folder) if is_file(entry)} for folder in folders}
    return [path for path in paths if path.name not in there[path.parent]]


def _photos_in(folder: Path) -> dict[str, str]:
    """The photos in one folder by name without suffix; of two with one name, the one in the commoner format."""
    photos = [(stem, suffix) for stem, suffix in _files_in(folder) if suffix.lower() in IMAGE_SUFFIXES]
    photos.sort(key=lambda photo: (-IMAGE_SUFFIXES.index(photo[1].lower()), photo[1]))
    return {stem: stem + suffix for stem, suffix in photos}


def _masks_in(folder: Path) -> dict[str, str]:
    """The files in one folder by name with the suffix in lower case; of two, the one spelt like that."""
    return {stem + suffix.lower(): stem + suffix for stem, suffix in sorted(_files_in(folder))}


def _files_in(folder: Path) -> list[tuple[str, str]]:
    """The names of the files in one folder, each as (stem, suffix)."""
    names = [PurePath(entry.name) for entry in scan(folder) if is_file(entry)]
    return [(name.stem, name.suffix) for name in names]


def files_below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Every file below a folder with one of the suffixes, in any case, broken symbolic links too.

    Symbolic links to folders are not followed.

    Raises:
        DatasetError: a folder cannot be listed.
    """
    for entry in scan(folder):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(path, suffixes)
        elif path.suffix.lower() in suffixes and not is_folder(entry):
            yield path
