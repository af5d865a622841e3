"""PASCAL-Context: dense labels of 59 things and stuff for PASCAL VOC 2010's photos.

Layout below ``root`` (``VOCdevkit/`` or both outer folders may be left out)::

    VOCdevkit/VOC2010/JPEGImages/ID.jpg
    VOCdevkit/VOC2010/SegmentationClassContext/ID.png          0 = background, 1..59 the classes
    VOCdevkit/VOC2010/ImageSets/SegmentationContext/SPLIT.txt  train and val
"""

from __future__ import annotations

from pathlib import Path

from rss_env.datasets.info import DatasetInfo, split_names
from rss_env.datasets.layout import find_home, pair_files
from rss_env.datasets.photos import PhotoSource, bit_palette, ignore_zero
from rss_env.datasets.split_files import read_devkit_split

CLASSES = split_names("""
    aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, table, dog, horse, motorbike, person,
    pottedplant, sheep, sofa, train, tvmonitor, bag, bed, bench, book, building, cabinet, ceiling, cloth,
    computer, cup, door, fence, floor, flower, food, grass, ground, keyboard, light, mountain, mouse, curtain,
    platform, sign, plate, road, rock, shelves, sidewalk, sky, snow, bedclothes, track, tree, truck, wall, water,
    window, wood
""")
LISTS = "ImageSets/SegmentationContext"
LAYOUT = """\
  VOCdevkit/VOC2010/JPEGImages/ID.jpg
  VOCdevkit/VOC2010/SegmentationClassContext/ID.png
  VOCdevkit/VOC2010/ImageSets/SegmentationContext/{train,val}.txt"""

PALETTE = bit_palette(len(CLASSES))
INFO = DatasetInfo(
    title="PASCAL-Context",
    homepage="https://cs.stanford.edu/~roozbeh/pascal-context/",
    citation='Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the Wild", '
    "CVPR 2014",
    licence="The photos come from flickr; their use must respect flickr's terms of use.",
    layout=LAYOUT,
    class_names=CLASSES,
    palette=PALETTE,
    splits={"train": 4998, "val": 5105},
    ignore="0, background; with background=True it is class 0 of 60 and nothing is ignored",
    steps="1. Get the photos, VOCtrainval_03-May-2010.tar, from http://host.robots.ox.ac.uk/pascal/VOC/voc2010/ and "
    "extract them.\n"
    "2. Get the annotations from https://cs.stanford.edu/~roozbeh/pascal-context/ and convert those of the 59 most "
    "frequent classes to PNG files of the values 0..59, for example with MMSegmentation's converter.\n"
    "3. Put them and the lists of the splits into the layout above.",
    aliases=("context", "pascal-context"),
)


def locate(root: str | Path | None, split: str, *, background: bool = False) -> PhotoSource:
    """Finds the files of one split.

    Args:
        root: the folder that holds ``VOCdevkit/``.
        split: a file in ``ImageSets/SegmentationContext/``.
        background: True for the 60-class version, in which background is class 0; else it is ignored.

    Raises:
        DatasetNotFoundError: the layout is not below ``root``.
        DatasetError: unknown split, or a bad split file.
    """
    home = find_home("PascalContext", root, ("VOCdevkit/VOC2010", "VOC2010", ""), LISTS, INFO)
    ids = read_devkit_split("PascalContext", home / LISTS, split)
    images, masks = pair_files(ids, home / "JPEGImages", home / "SegmentationClassContext")
    names: tuple[str, ...] = ("background", *CLASSES) if background else CLASSES
    relabel = {} if background else ignore_zero(len(CLASSES))
    return PhotoSource("PascalContext", split, tuple(ids), images, masks, names, bit_palette(len(names)), relabel)
