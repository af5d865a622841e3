"""PASCAL-Context: dense labels of 59 things and stuff for PASCAL VOC 2010's photos.

Layout below ``root`` (``VOCdevkit/`` or both outer folders may be left out)::

    VOCdevkit/VOC2010/JPEGImages/ID.jpg
    VOCdevkit/VOC2010/SegmentationClassContext/ID.png          0 = background, 1..59 the classes
    VOCdevkit/VOC2010/ImageSets/SegmentationContext/SPLIT.txt  train 4,998, val 5,105 images

Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the Wild", CVPR 2014. The photos
come from flickr; their use must respect flickr's terms.
"""

from __future__ import annotations

from pathlib import Path

from rss_env.datasets.dataset import IGNORE_INDEX, check_split
from rss_env.datasets.photos import PhotoSource, bit_palette, need_root, not_found, pair_files, read_split

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "table",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
    "bag",
    "bed",
    "bench",
    "book",
    "building",
    "cabinet",
    "ceiling",
    "cloth",
    "computer",
    "cup",
    "door",
    "fence",
    "floor",
    "flower",
    "food",
    "grass",
    "ground",
    "keyboard",
    "light",
    "mountain",
    "mouse",
    "curtain",
    "platform",
    "sign",
    "plate",
    "road",
    "rock",
    "shelves",
    "sidewalk",
    "sky",
    "snow",
    "bedclothes",
    "track",
    "tree",
    "truck",
    "wall",
    "water",
    "window",
    "wood",
)
LAYOUT = """\
  VOCdevkit/VOC2010/JPEGImages/ID.jpg
  VOCdevkit/VOC2010/SegmentationClassContext/ID.png
  VOCdevkit/VOC2010/ImageSets/SegmentationContext/{train,val}.txt"""


def locate(root: str | Path | None, split: str, *, background: bool = False) -> PhotoSource:
    """Finds the files of one split.

    Args:
        root: the folder that holds ``VOCdevkit/``.
        split: a file in ``ImageSets/SegmentationContext/``.
        background: True for the 60-class version, in which background is class 0; else it is ignored.

    Raises:
        DatasetNotFoundError: the layout is not below ``root``.
        DatasetError: unknown split, or a listed photo or mask is missing.
    """
    base = need_root("PascalContext", root, LAYOUT)
    candidates = (base / "VOCdevkit" / "VOC2010", base / "VOC2010", base)
    home = next((c for c in candidates if (c / "ImageSets" / "SegmentationContext").is_dir()), None)
    if home is None:
        raise not_found("PascalContext", candidates[0] / "ImageSets" / "SegmentationContext", base, LAYOUT)
    lists = home / "ImageSets" / "SegmentationContext"
    check_split("PascalContext", split, sorted(p.stem for p in lists.glob("*.txt")))
    ids = read_split(lists / f"{split}.txt")
    images, masks = pair_files("PascalContext", ids, home / "JPEGImages", home / "SegmentationClassContext")
    names: tuple[str, ...] = CLASSES
    relabel = {0: IGNORE_INDEX} | {value: value - 1 for value in range(1, len(CLASSES) + 1)}
    if background:
        names, relabel = ("background", *CLASSES), {}
    return PhotoSource("PascalContext", split, tuple(ids), images, masks, names, bit_palette(len(names)), relabel)
