"""How much a policy learns from raters: mIoU against answers and minutes, over the HTTP interface of ``agents.rate``.

    python -m benchmarks.raters --camvid ../shared/data/camvid
    python -m benchmarks.raters --datasets shapes --raters exact errs noisy biased skips drifts tires --kinds stars

Raters are simulated, in the manner of B-Pref (Lee et al., 2021): they see a question as the page does, compare its
label maps with the target, and answer. Two classes at 64×80: CamVid's road against all else, and Shapes with two
classes, both written as folders with masks, which only the raters and the validation read. Cross-entropy on all pixels
of all training photos, with the same network, is what they are compared with.
"""

from __future__ import annotations

import io
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from PIL import Image

from agents import Supervised, train
from agents.rate import RateArguments, Rating, make_session
from agents.training.arguments import check_numbers
from agents.training.command import run_command
from benchmarks.results_file import RESULTS, Table, add_rows, provenance, read_rows
from rss_env.datasets import load_dataset
from rss_env.errors import OptionError

SIZE = (64, 80)
NETWORK: dict[str, Any] = {"network": "efficientnet_lite0", "network_options": {"frozen": True, "width": 16}}
LENGTH = {"pair": 300, "stars": 200}  # answers
SECONDS = {"pair": 3.0, "stars": 4.0}  # that an answer is taken to need
MEASURED = 25  # answers from one row to the next
STEPS = 400  # of cross-entropy
KEY = ("dataset", "kind", "rater", "choice", "scope", "seed")
Dataset = Literal["camvid", "shapes"]
Rater = Callable[[np.ndarray, int, np.random.Generator], "list[float] | None"]


def exact(scores: np.ndarray, number: int, rng: np.random.Generator) -> list[float] | None:
    """Sees the scores as they are."""
    return scores.tolist()


def errs(scores: np.ndarray, number: int, rng: np.random.Generator) -> list[float] | None:
    """In one of ten answers the scores are any, for a pair those of the wrong order."""
    if rng.random() >= 0.1:
        return scores.tolist()
    return scores[::-1].tolist() if len(scores) == 2 else rng.random(len(scores)).tolist()


def noisy(scores: np.ndarray, number: int, rng: np.random.Generator) -> list[float] | None:
    """Sees every score with an error of deviation 0.15."""
    return (scores + rng.normal(0, 0.15, len(scores))).tolist()


def biased(scores: np.ndarray, number: int, rng: np.random.Generator) -> list[float] | None:
    """Gives a quarter less to all, and prefers what stands left by a tenth."""
    return (scores - 0.25 + np.linspace(0.1, 0, len(scores))).tolist()


def skips(scores: np.ndarray, number: int, rng: np.random.Generator) -> list[float] | None:
    """Skips three of ten questions."""
    return None if rng.random() < 0.3 else scores.tolist()


def drifts(scores: np.ndarray, number: int, rng: np.random.Generator) -> list[float] | None:
    """Becomes milder: from a quarter too little to a quarter too much."""
    return (scores - 0.25 + 0.5 * number / LENGTH["stars"]).tolist()


def tires(scores: np.ndarray, number: int, rng: np.random.Generator) -> list[float] | None:
    """Errs more and more: never at first, in four of ten answers at the end."""
    if rng.random() < 0.4 * number / LENGTH["stars"]:
        return rng.random(len(scores)).tolist()
    return scores.tolist()


RATERS: dict[str, Rater] = {rater.__name__: rater for rater in (exact, errs, noisy, biased, skips, drifts, tires)}


@dataclass
class RatersArguments:
    """Measure what a policy learns from simulated raters."""

    camvid: str | None = None
    """folder of CamVid, with images/, masks/, splits/ and classes.json"""
    datasets: tuple[Dataset, ...] = ("camvid", "shapes")
    """data sets to run on"""
    kinds: tuple[Literal["pair", "stars"], ...] = ("pair", "stars")
    """what is asked"""
    raters: tuple[Literal["exact", "errs", "noisy", "biased", "skips", "drifts", "tires"], ...] = ("errs",)
    """who answers"""
    choice: Literal["active", "random"] = "active"
    """how questions are chosen"""
    scope: Literal["part", "whole"] = "part"
    """what they are about"""
    seeds: tuple[int, ...] = (1,)
    """seeds to run"""
    updates_per_answer: int = 4
    """updates of the policy for each answer"""
    length: int | None = None
    """answers; default: 300 of pairs, 200 of stars"""
    cross_entropy: bool = True
    """train with cross-entropy too"""
    out: str = str(RESULTS / "raters.csv")
    """results file"""


def write_folder(dataset: Dataset, camvid: str | None, root: Path) -> None:
    """Writes two classes of a data set as a folder of photos and masks."""
    if dataset == "camvid" and camvid is None:
        raise OptionError("Give the folder of CamVid with --camvid.")
    for name in ("images", "masks", "splits"):
        (root / name).mkdir()
    for split in ("train", "val"):
        if dataset == "camvid":
            data = load_dataset("Folder", root=camvid, split=split, image_size=SIZE, resize="stretch")
            road = data.class_names.index("Road")
        else:
            data = load_dataset("Shapes", split=split, image_size=SIZE, num_classes=2)
            road = 1
        assert data.targets is not None
        names = [f"{split}-{number:04}" for number in range(len(data))]
        for name, image, labels in zip(names, data.images, data.targets, strict=True):
            Image.fromarray(image).save(root / "images" / f"{name}.png")
            mask = np.where(labels == 255, 255, labels == road).astype(np.uint8)
            Image.fromarray(mask).save(root / "masks" / f"{name}.png")
        (root / "splits" / f"{split}.txt").write_text("\n".join(names))
    (root / "classes.json").write_text('{"classes": ["other", "road"]}')


def read_targets(root: Path) -> list[np.ndarray]:
    """The masks of the training photos, by number."""
    names = (root / "splits" / "train.txt").read_text().split()
    return [np.asarray(Image.open(root / "masks" / f"{name}.png")) for name in names]


@contextmanager
def served(rating: Rating, measure_every: int = MEASURED) -> Iterator[tuple[str, Any]]:
    """A sitting behind its server, measured every so many answers; gives the address and the session."""
    import uvicorn  # of the extra "rate", which the table of the results does not need

    from agents.rating.server import Server

    rating.open_folder()
    session = make_session(rating, measure_every=measure_every, save_every=10**9)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        app = Server(
            session, rating.photos, rating.held_out, rating.class_names, rating.palette, [f"127.0.0.1:{port}"]
        ).app
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        session.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{port}", session
        finally:
            session.stop()
            server.should_exit = True
            thread.join()
            session.log.close()
            rating.folder.close()


def scores_of(label_maps: list[np.ndarray], part: np.ndarray | None, target: np.ndarray) -> np.ndarray:
    """What a rater looks at: the share of right pixels of the outlined part, the mean IoU of whole label maps."""
    counted = target != 255
    if part is not None:
        counted = counted & part
        return np.array([(m == target)[counted].mean() if counted.any() else 0.5 for m in label_maps])
    return np.array([mean_iou(m[counted], target[counted]) for m in label_maps])


def mean_iou(label_map: np.ndarray, target: np.ndarray) -> float:
    """Mean over the classes in either of intersection / union."""
    ious = []
    for c in (0, 1):
        union = ((label_map == c) | (target == c)).sum()
        if union:
            ious.append(((label_map == c) & (target == c)).sum() / union)
    return float(np.mean(ious)) if ious else 0.5


class Simulated:
    """A rater who answers over HTTP.

    Args:
        address: of the server.
        name: of the rater, a key of ``RATERS``.
        targets: of the photos, by their number.
        seconds: an answer is said to have taken.
        seed: of the errors.
    """

    def __init__(self, address: str, name: str, targets: list[np.ndarray], seconds: float, seed: int) -> None:
        import requests  # of the extra "cli"

        self.address, self.name, self.targets, self.seconds = address, name, targets, seconds
        self.rng = np.random.default_rng(seed)
        self.http = requests.Session()
        self.given = 0

    def post(self, path: str, **content: Any) -> dict[str, Any]:
        """Posts JSON and returns what comes back."""
        response = self.http.post(self.address + path, json={"rater": self.name, **content}, timeout=120)
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    def picture(self, path: str) -> np.ndarray:
        """The numbers in a picture."""
        return np.asarray(Image.open(io.BytesIO(self.http.get(self.address + path, timeout=120).content)))

    def answer(self) -> None:
        """Answers one question."""
        question = self.post("/api/question")
        number = int(question["photo"].rpartition("/")[2].removesuffix(".jpg"))
        label_maps = [self.picture(option["labels"]) for option in question["options"]]
        part = None if question["part_labels"] is None else self.picture(question["part_labels"]) == 1
        scores = scores_of(label_maps, part, self.targets[number])
        seen = RATERS[self.name](scores, self.given, self.rng)
        if seen is None:
            answer: dict[str, Any] = {"skip": True}
        elif question["kind"] == "stars":
            answer = {"stars": [1 + round(4 * min(max(score, 0.0), 1.0)) for score in seen]}
        elif seen[0] == seen[1]:
            answer = {"order": [[0, 1]]}
        else:
            answer = {"order": [[int(k)] for k in np.argsort([-score for score in seen], kind="stable")]}
        named = {"question": question["id"], "attempt": question["attempt"], "answer": answer}
        self.post("/api/answer", seconds=self.seconds, **named)
        self.given += 1


def rate(args: RatersArguments, root: Path, dataset: Dataset, kind: Any, rater: str, seed: int) -> list[dict[str, Any]]:
    """The rows of one sitting."""
    with tempfile.TemporaryDirectory() as run_dir:
        rating = Rating(
            RateArguments(
                root=str(root),
                image_size=SIZE,
                resize="stretch",
                kinds=(kind,),
                scope=args.scope,
                choice=args.choice,
                updates_per_answer=args.updates_per_answer,
                val_images=10**6,
                repeat=0.0,
                seed=seed,
                run_dir=f"{run_dir}/run",
                **NETWORK,
            )
        )
        with served(rating) as (address, session):
            simulated = Simulated(address, rater, read_targets(root), SECONDS[kind], 100 + seed)
            for _ in range(args.length or LENGTH[kind]):
                simulated.answer()
                while not session.caught_up and session.error is None:
                    time.sleep(0.005)
            curve, queries = list(session.curve), session.status()["queries"]
        columns = {"dataset": dataset, "kind": kind, "rater": rater, "choice": args.choice, "scope": args.scope}
        rows = []
        for point in curve:
            answers = int(point["answers"])
            if answers % MEASURED == 0 and answers:
                rows.append(
                    columns
                    | {
                        "seed": seed,
                        "answers": answers,
                        "minutes": round(answers * SECONDS[kind] / 60, 2),
                        "seconds_an_answer": SECONDS[kind],
                        "label_maps": queries * answers // simulated.given,
                        "updates_per_answer": args.updates_per_answer,
                        "val_miou": round(point["val/miou"], 5),
                    }
                )
        return rows


def cross_entropy(root: Path, dataset: Dataset, seed: int) -> list[dict[str, Any]]:
    """The row of the bound."""
    with tempfile.TemporaryDirectory() as run_dir:
        result = train(
            "RSS-Folder-ImageReward-v0",
            Supervised(),
            root=str(root),
            image_size=SIZE,
            resize="stretch",
            augment="flip",
            steps=STEPS,
            seed=seed,
            eval_every=0,
            checkpoint_every=STEPS,
            run_dir=f"{run_dir}/run",
            progress=False,
            **NETWORK,
        )
    assert result.evaluation is not None
    columns = {"dataset": dataset, "kind": "cross-entropy", "rater": "", "choice": "", "scope": "", "seed": seed}
    empty = {"answers": "", "minutes": "", "seconds_an_answer": "", "label_maps": "", "updates_per_answer": ""}
    return [columns | empty | {"val_miou": round(result.evaluation.metrics["miou"], 5)}]


def main() -> None:
    """Runs the command line."""
    args = tyro.cli(RatersArguments, prog="python -m benchmarks.raters")
    check_numbers(args, {"seeds": 0, "updates_per_answer": 1, "length": 1})
    out = Path(args.out)
    for dataset in args.datasets:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_folder(dataset, args.camvid, root)
            for seed in args.seeds:
                if args.cross_entropy:
                    add_rows(out, [row | provenance() for row in cross_entropy(root, dataset, seed)], KEY)
                for kind in args.kinds:
                    for rater in args.raters:
                        rows = rate(args, root, dataset, kind, rater, seed)
                        add_rows(out, [row | provenance() for row in rows], KEY)
                        last = rows[-1]
                        print(
                            f"{dataset} {kind} {rater} seed {seed}: {last['answers']} answers, {last['val_miou']:.3f}"
                        )
    for line in raters_table(out):
        print("  ".join(f"{cell:>14}" for cell in line))


AT = (50, 100, 200, 300)


def raters_table(file: Path = RESULTS / "raters.csv") -> Table:
    """MIoU after so many answers, and the last as a share of cross-entropy's; means over seeds."""
    rows = read_rows(file, KEY)
    bounds: dict[str, list[float]] = {}
    groups: dict[tuple[str, ...], dict[int, list[float]]] = {}
    for row in rows:
        if row["kind"] == "cross-entropy":
            bounds.setdefault(row["dataset"], []).append(float(row["val_miou"]))
            continue
        group = groups.setdefault(tuple(row[name] for name in KEY[:-1]), {})
        group.setdefault(int(row["answers"]), []).append(float(row["val_miou"]))
    heading = ["data", "asked", "rater", "chosen", "about", "seeds", *(f"after {n}" for n in AT), "minutes"]
    table = [[*heading, "last, of cross-entropy's"]]
    for key, measured in sorted(groups.items()):
        last = max(measured)
        cells = [f"{np.mean(measured[n]):.3f}" if n in measured else "" for n in AT]
        bound = np.mean(bounds[key[0]]) if key[0] in bounds else np.nan
        minutes = f"{last * SECONDS[key[1]] / 60:.0f}"
        share = f"{np.mean(measured[last]) / bound:.0%} of {bound:.3f}" if np.isfinite(bound) else ""
        table.append([*key, str(len(measured[last])), *cells, minutes, share])
    return table


if __name__ == "__main__":
    run_command(main)
