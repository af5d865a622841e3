"""PASCAL VOC 2012 semantic segmentation: 20 object classes and background.

Layout below ``root`` (``VOCdevkit/`` or both outer folders may be left out)::

    VOCdevkit/VOC2012/JPEGImages/ID.jpg
    VOCdevkit/VOC2012/SegmentationClass/ID.png          palette PNG, 255 = border, ignored
    VOCdevkit/VOC2012/ImageSets/Segmentation/SPLIT.txt  train, val and trainval

The augmented split of Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011, is ``trainaug``: a list
of that name; the masks of a split whose name ends in ``aug`` are ``SegmentationClassAug/ID.png``.
"""

from __future__ import annotations

from pathlib import Path

from rss_env.datasets.info import Archive, DatasetInfo, split_names
from rss_env.datasets.layout import find_home, pair_files
from rss_env.datasets.photos import PhotoSource, bit_palette
from rss_env.datasets.split_files import read_devkit_split, split_folder

CLASSES = split_names("""
    background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
    motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
""")
LISTS = "ImageSets/Segmentation"
LAYOUT = """\
  VOCdevkit/VOC2012/JPEGImages/ID.jpg
  VOCdevkit/VOC2012/SegmentationClass/ID.png
  VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val,trainval}.txt
  and for the split trainaug: SegmentationClassAug/ID.png, ImageSets/Segmentation/trainaug.txt"""

PALETTE = bit_palette(len(CLASSES))
INFO = DatasetInfo(
    title="PASCAL VOC 2012",
    homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    citation='Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015',
    licence="The photos come from flickr; their use must respect flickr's terms of use.",
    layout=LAYOUT,
    class_names=CLASSES,
    palette=PALETTE,
    splits={"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582},
    ignore="255, the border around objects",
    archives=(
        Archive(
            url="https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            mirrors=(
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",  # its address until 2025
                "http://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",  # of the book d2l.ai
            ),
            checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
            gigabytes=2.0,
            provides="VOCdevkit/VOC2012",
        ),
    ),
    steps="For the split trainaug put the masks of Hariharan et al. into VOCdevkit/VOC2012/SegmentationClassAug/ and "
    "the list of its images into VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt.",
    aliases=("voc2012", "pascal-voc"),
)


def locate(root: str | Path | None, split: str, *, splits: str | None = None) -> PhotoSource:
    """Finds the files of one split.

    Args:
        root: the folder that holds the layout.
        split: a file in ``ImageSets/Segmentation/``, or in ``splits``.
        splits: folder of other split files, from ``root``, that are read instead; for masks of the augmented split its
            name ends in ``aug`` as well.

    Raises:
        DatasetNotFoundError: the layout is not below ``root``.
        DatasetError: unknown split, or a bad split file.
    """
    home = find_home("VOC", root, ("VOCdevkit/VOC2012", "VOC2012", ""), LISTS, INFO)
    ids = read_devkit_split("VOC", split_folder(home, splits, LISTS), split)
    labels = home / ("SegmentationClassAug" if split.endswith("aug") else "SegmentationClass")
    images, masks = pair_files(ids, home / "JPEGImages", labels)
    return PhotoSource("VOC", split, tuple(ids), images, masks, CLASSES, PALETTE)
