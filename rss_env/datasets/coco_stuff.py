"""COCO-Stuff 164k: 80 things and 91 kinds of stuff on the photos of COCO 2017.

Layout below ``root``::

    images/{train2017,val2017}/ID.jpg
    annotations/{train2017,val2017}/ID.png   the published pixel maps (0..181, 11 of them unused; 255 = unlabelled)
                                             or ID_labelTrainIds.png (0..170, 255)
"""

from __future__ import annotations

from pathlib import Path

from rss_env.datasets.dataset import IGNORE_INDEX, check_split
from rss_env.datasets.info import DatasetInfo, split_names
from rss_env.datasets.layout import list_photos, need_root, not_found, pair_files
from rss_env.datasets.photos import PhotoSource, bit_palette

CLASSES = split_names("""
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv,
    laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase,
    scissors, teddy bear, hair drier, toothbrush, banner, blanket, branch, bridge, building-other, bush, cabinet,
    cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain,
    desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower,
    fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal,
    mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic, platform,
    playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper,
    snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-other, towel, tree, vegetable,
    wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops,
    window-blind, window-other, wood
""")
UNUSED = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}  # values of the pixel maps that no class has
FOLDERS = {"train": "train2017", "val": "val2017"}
LAYOUT = """\
  images/{train2017,val2017}/ID.jpg
  annotations/{train2017,val2017}/ID.png or ID_labelTrainIds.png"""

PALETTE = bit_palette(len(CLASSES))
INFO = DatasetInfo(
    title="COCO-Stuff 164k",
    homepage="https://github.com/nightrome/cocostuff",
    citation='Caesar, Uijlings and Ferrari, "COCO-Stuff: Thing and Stuff Classes in Context", CVPR 2018',
    licence="Annotations: CC BY 4.0. The photos come from flickr; their use must respect flickr's terms of use.",
    layout=LAYOUT,
    class_names=CLASSES,
    palette=PALETTE,
    splits={"train": 118287, "val": 5000},
    ignore="255, unlabelled, and the 11 values of the published pixel maps that stand for no class",
    steps="1. Download http://images.cocodataset.org/zips/train2017.zip and val2017.zip (19 GB) and extract them into "
    "images/.\n"
    "2. Download stuffthingmaps_trainval2017.zip (0.7 GB), to which https://github.com/nightrome/cocostuff links, and "
    "extract it into annotations/.",
    aliases=("coco", "coco-stuff"),
)


def locate(root: str | Path | None, split: str) -> PhotoSource:
    """Finds the files of one split, ``"train"`` or ``"val"``.

    Raises:
        DatasetNotFoundError: the layout is not below ``root``.
        DatasetError: unknown split, or an empty one.
    """
    base = need_root("COCOStuff", root, INFO)
    check_split("COCOStuff", split, FOLDERS)
    photos, labels = base / "images" / FOLDERS[split], base / "annotations" / FOLDERS[split]
    for folder in (photos, labels):
        if not folder.is_dir():
            raise not_found("COCOStuff", folder, base, INFO)
    ids = list_photos("COCOStuff", split, photos)
    converted = (labels / f"{ids[0]}_labelTrainIds.png").is_file()
    images, masks = pair_files(ids, photos, labels, mask_ending="_labelTrainIds.png" if converted else ".png")
    used = [value for value in range(len(CLASSES) + len(UNUSED)) if value not in UNUSED]
    relabel = {}
    if not converted:
        relabel = dict.fromkeys(UNUSED, IGNORE_INDEX) | {value: label for label, value in enumerate(used)}
    return PhotoSource("COCOStuff", split, tuple(ids), images, masks, CLASSES, PALETTE, relabel)
