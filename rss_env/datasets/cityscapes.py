"""Cityscapes: street scenes of 50 cities, 19 classes.

Layout below ``root``::

    leftImg8bit/{train,val,test}/CITY/ID_leftImg8bit.png
    gtFine/{train,val,test}/CITY/ID_gtFine_labelIds.png     or ID_gtFine_labelTrainIds.png (0..18, 255)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rss_env.datasets.dataset import IGNORE_INDEX, check_split
from rss_env.datasets.info import DatasetInfo
from rss_env.datasets.layout import list_photos, need_root, not_found, pair_files
from rss_env.datasets.photos import PhotoSource

# Class: (value in labelIds, colour).
CLASSES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
LARGEST_ID = 33
IMAGE_ENDING = "_leftImg8bit"
SPLITS = ("train", "val", "test")
LAYOUT = """\
  leftImg8bit/{train,val,test}/CITY/ID_leftImg8bit.png
  gtFine/{train,val,test}/CITY/ID_gtFine_labelIds.png or ID_gtFine_labelTrainIds.png"""

PALETTE = np.array([colour for _, colour in CLASSES.values()], np.uint8)
INFO = DatasetInfo(
    title="Cityscapes",
    homepage="https://www.cityscapes-dataset.com",
    citation='Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016',
    licence="For non-commercial purposes, after registration; the frames may not be passed on.",
    layout=LAYOUT,
    class_names=tuple(CLASSES),
    palette=PALETTE,
    splits={"train": 2975, "val": 500, "test": 1525},
    ignore="in labelIds all but the 19 classes that are evaluated; in labelTrainIds 255",
    steps="1. Register at https://www.cityscapes-dataset.com.\n"
    "2. Download leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (0.2 GB).\n"
    "3. Extract both into the same folder, which is root.",
)


def locate(root: str | Path | None, split: str) -> PhotoSource:
    """Finds the files of one split. The published labels of ``test`` ignore every pixel.

    Raises:
        DatasetNotFoundError: the layout is not below ``root``.
        DatasetError: unknown split, or an empty one.
    """
    base = need_root("Cityscapes", root, INFO)
    check_split("Cityscapes", split, SPLITS)
    photos, labels = base / "leftImg8bit" / split, base / "gtFine" / split
    for folder in (photos, labels):
        if not folder.is_dir():
            raise not_found("Cityscapes", folder, base, INFO)
    ids = [name.removesuffix(IMAGE_ENDING) for name in list_photos("Cityscapes", split, photos)]
    converted = (labels / f"{ids[0]}_gtFine_labelTrainIds.png").is_file()
    kind = "labelTrainIds" if converted else "labelIds"
    images, masks = pair_files(ids, photos, labels, image_ending=IMAGE_ENDING, mask_ending=f"_gtFine_{kind}.png")
    relabel = {}
    if not converted:
        relabel = dict.fromkeys(range(LARGEST_ID + 1), IGNORE_INDEX)
        relabel |= {value: label for label, (value, _) in enumerate(CLASSES.values())}
    return PhotoSource("Cityscapes", split, tuple(ids), images, masks, tuple(CLASSES), PALETTE, relabel)
