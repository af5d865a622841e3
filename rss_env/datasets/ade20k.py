"""ADE20K in the version of the Scene Parsing Challenge 2016: 150 classes of indoor and outdoor scenes.

Layout below ``root`` (``ADEChallengeData2016/`` may be left out)::

    ADEChallengeData2016/images/{training,validation}/ID.jpg
    ADEChallengeData2016/annotations/{training,validation}/ID.png   1..150 the classes, 0 = other, ignored
"""

from __future__ import annotations

from pathlib import Path

from rss_env.datasets.dataset import check_split
from rss_env.datasets.info import Archive, DatasetInfo, split_names
from rss_env.datasets.layout import find_home, list_photos, pair_files
from rss_env.datasets.photos import PhotoSource, bit_palette, ignore_zero

CLASSES = split_names("""
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth,
    door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug,
    field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column,
    signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path,
    stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table,
    toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar,
    arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth,
    television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet,
    poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel,
    basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot,
    animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
    ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
""")
FOLDERS = {"train": "training", "val": "validation"}
LAYOUT = """\
  ADEChallengeData2016/images/{training,validation}/ID.jpg
  ADEChallengeData2016/annotations/{training,validation}/ID.png"""

PALETTE = bit_palette(len(CLASSES))
INFO = DatasetInfo(
    title="ADE20K, Scene Parsing Challenge 2016",
    homepage="http://sceneparsing.csail.mit.edu",
    citation='Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017',
    licence="The photos are for non-commercial research and education; annotations: BSD 3-Clause.",
    layout=LAYOUT,
    class_names=CLASSES,
    palette=PALETTE,
    splits={"train": 20210, "val": 2000},
    ignore="0, what is none of the 150 classes",
    archives=(
        Archive(
            url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            checksum="sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
            gigabytes=1.0,
            provides="ADEChallengeData2016",
        ),
    ),
    aliases=("ade", "adechallengedata2016"),
)


def locate(root: str | Path | None, split: str) -> PhotoSource:
    """Finds the files of one split, ``"train"`` or ``"val"``.

    Raises:
        DatasetNotFoundError: the layout is not below ``root``.
        DatasetError: unknown split, or an empty one.
    """
    check_split("ADE20K", split, FOLDERS)
    home = find_home("ADE20K", root, ("ADEChallengeData2016", ""), f"annotations/{FOLDERS[split]}", INFO)
    photos, labels = home / "images" / FOLDERS[split], home / "annotations" / FOLDERS[split]
    ids = list_photos("ADE20K", split, photos)
    images, masks = pair_files(ids, photos, labels)
    relabel = ignore_zero(len(CLASSES))
    return PhotoSource("ADE20K", split, tuple(ids), images, masks, CLASSES, PALETTE, relabel)
