"""The bytes that a whole step of the likelihood moves next to the network, operation by operation; nothing runs.

    python -m benchmarks.tables

Every operation reads its inputs once and writes its outputs once. ``docs/kernels.md`` shows the table.
"""

from __future__ import annotations

from typing import NamedTuple

from agents.ops.torch_ops import labels_a_number
from benchmarks.results_file import Table

SIZES = ((16, 21, 512, 512), (16, 150, 512, 512))  # B, C, H, W
SAMPLES, REPLAYED = 32, 256  # label maps an image, new and earlier


class Part(NamedTuple):
    """An operation, and how often it moves each of the large tensors.

    Attributes:
        name: what it does.
        kernel: whether it is one of the project's kernels, or torch's elementwise code.
        dense: times 4·BCN bytes: logits, probabilities, directions and their gradients.
        new: times BKN bytes: the label maps of this step.
        old: times B·256·N bytes: the earlier ones that are replayed, unpacked.
        packed: times the bytes of the new ones, packed.
        packed_old: times the bytes of the earlier ones, packed.
    """

    name: str
    kernel: bool
    dense: int = 0
    new: int = 0
    old: int = 0
    packed: int = 0
    packed_old: int = 0


STEP = (
    Part("draw", True, dense=1, new=1),
    Part("count, for the scores", True, new=1),
    Part("softmax", False, dense=2),
    Part("earlier label maps unpacked", True, old=1, packed_old=1),
    Part("soft counts", True, dense=1, new=1, old=1),
    Part("target pixels of every class: a sum", False, dense=1),
    Part("class credit", True, dense=1, new=1, old=1),
    Part("what holds for all pixels added to the direction", False, dense=2),
    Part("loss: softmax, product with the direction, sum", False, dense=6),
    Part("entropy, a metric: p log p, sum", False, dense=3),
    Part("backward: product, softmax", False, dense=5),
)
REPLAY = (  # only where label maps are kept
    Part("new label maps next to the earlier ones", False, new=2),
    Part("new label maps packed", True, new=1, packed=1),
)


def moved(part: Part, size: tuple[int, int, int, int], replay: bool) -> float:
    """Bytes that an operation moves."""
    batch, classes, height, width = size
    pixels, a_label = batch * height * width, 4 / labels_a_number(classes)
    old = REPLAYED * replay * (part.old + a_label * part.packed_old)
    return pixels * (4 * classes * part.dense + SAMPLES * (part.new + a_label * part.packed) + old)


def bytes_table() -> Table:
    """Of every operation what it moves at two sizes, without and with replayed label maps, and the sums."""
    sizes = [f"{b}×{c}×{h}×{w}" for b, c, h, w in SIZES]
    lines = [["operation", "bytes", *(text for size in sizes for text in (f"{size}, GB", "with replay, GB"))]]
    for part in (*STEP, *REPLAY):
        cells = []
        for size in SIZES:
            for replay in (False, True):
                number = moved(part, size, replay) if part in STEP or replay else 0
                cells.append(f"{number / 1e9:.2f}" if number else "")
        lines.append([part.name, formula(part), *cells])
    for title, kernels in (("the kernels together", (True,)), ("torch together", (False,)), ("all", (True, False))):
        cells = []
        for size in SIZES:
            for replay in (False, True):
                parts = (*STEP, *REPLAY) if replay else STEP
                cells.append(f"{sum(moved(part, size, replay) for part in parts if part.kernel in kernels) / 1e9:.1f}")
        lines.append([f"**{title}**", "", *cells])
    return lines


def formula(part: Part) -> str:
    """The bytes in letters: F for logits, L for new, R for replayed label maps, with a small p where packed."""
    counts = {"F": part.dense, "L": part.new, "R": part.old, "Lp": part.packed, "Rp": part.packed_old}
    return " + ".join(letter if count == 1 else f"{count}{letter}" for letter, count in counts.items() if count)
