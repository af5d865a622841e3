"""Likelihood: the policy as a belief about the hidden target, moved to where the scores that were seen are likelier.

    python -m agents.likelihood --env-id RSS-Shapes-ImageReward-v0
    python -m agents.likelihood --env-id RSS-Folder-ImageReward-v0 --root data/camvid --image-size 72 96
    torchrun --nproc-per-node=2 -m agents.likelihood --env-id RSS-Shapes-ImageReward-v0

Our own algorithm; it is not in the paper's abstract. One forward pass gives the probabilities p of an image. K label
maps are drawn from them, hotter than the policy, and scored by the environment. Then

- at image level the belief p predicts every score; what it did not predict says which regions of similar colour were
  right (``scores.posterior``), or, with ``--regions`` and no number, which pixels (``scores.evidence``);
- of a score whose formula is not known it is found out first whether it can be read so; the policy gradient learns
  until then, and if it cannot (``unknown_score``);
- at pixel level the class of a pixel is found, or classes are excluded (``scores.pixels``).

As it is a regression and no policy gradient, label maps may come from anywhere: earlier visits of an image are replayed
with no new query. Maths: docs/likelihood.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np
import torch
from torch import distributed

from rss_env.errors import OptionError

from .plugins import CellSchedule, SyncAN
from .plugins.sync_an import EPSILON
from .scores.evidence import Evidence, differ, read_scores, score_evidence
from .scores.formulas import Formula, Seen, formula_of
from .scores.noise import ScoreNoise, score_twice, scored_twice
from .scores.packing import PackedMaps, unpack
from .scores.pixels import UNKNOWN, PixelMemory, classes_found, success_loss
from .scores.posterior import LEAST, ONE_CLASS, PIXELS_TOO, SHIFTS, Posterior, recall_belief, region_posterior
from .scores.queries import draw, most_uncertain
from .scores.region_filter import NAMES, OFFSET, RegionFilter, filtered_posterior
from .scores.regions import Regions, grid, make_regions
from .scores.variances import Variances
from .scores.visits import Visit, VisitMemory, visit_bytes
from .training.algorithm import Algorithm, score_metrics
from .training.arguments import check_numbers
from .training.command import run_command, train_command
from .training.distributed import mean_over_processes
from .training.feedback import Feedback
from .unknown_score import ENOUGH, EXPLAINED, KEPT, TRIED, PolicyGradientLevel, TrialLevel

Metrics = dict[str, torch.Tensor | float]
KNOWN = (0.0, 0.2, 0.8)  # of what there is to know of an image
CELLS = (2.0, 4.0, 8.0)  # along its shorter side where the belief knows that; where pixels share what scores say
LEAST_SIDE = 2.5  # of regions, in pixels
CHOICE = 4  # label maps drawn for each that is scored, where scores are rounded
LEAST_BITS = 0.3  # that the rounded score of a label map should tell
HALF = 3.0  # visits on which a belief rests that is recalled with half of its weight
TOLD = 96  # scores on which a recalled belief rests for half of the most that the replay is cut by
SETTLED, FEW = 256, 11  # more scores than that settle an image, unless there are more classes: a step moves few of many
MOST_SAMPLES = 32  # label maps of an image that a budget is spent on
FEWEST = 32  # images that are shown in any case
UNCERTAIN = 8  # scores that tell as much as an exact one, where noise or rounding matters
WIDEN, NARROW = 1.1, 0.5  # shares of that number that it must come to for a change
SLOW = 0.05  # weight of an update in the running mean of what is not known
REMEMBERED = 250e6  # bytes of the regions that are kept
PAIRS = 1200  # of a class and a region that a filter has at most
LEAST_REGIONS = 9  # that it has
LOUD, QUIET = 1.5 * OFFSET**2, OFFSET**2  # variances of noise and rounding for which it is used, and is no more


@dataclass(eq=False)
class Likelihood(Algorithm):
    """Train a policy from scores of its label maps by the likelihood of the scores."""

    EARLIER: ClassVar[dict[str, Any]] = {
        "regions": (),
        "decay_from": 0.0,
        "recall": 0.0,
        "scores_per_nat": 0.0,
        "visit_every": 1,
    }

    learning_rate: float = 1e-3
    """peak of the one-cycle schedule; at image level, with regions, it is twice as high, and √K times as high while the
    policy gradient learns from a score of unknown formula, which has draws of its own as well"""
    decay_from: float = 0.6
    """share of the steps, below 1, for which the learning rate stays at its peak once it is there: what the scores said
    adds up, so the last steps know most"""
    samples_per_image: int = 32
    """label maps drawn and scored for each image (K), at least 2"""
    reward_queries: int = 0
    """budget of label maps that are scored, which then chooses samples_per_image: what it pays for in all visits, 32 at
    most; 0: no budget"""
    temperature: float = 2.0
    """temperature at which label maps are drawn"""
    regions: tuple[int, ...] = (12, 6, 3, 1)
    """regions of similar colour whose pixels share what scores of whole label maps say: their number along the shorter
    side of the image, in nested divisions from the finest to the coarsest, 1 being the whole image, which is left out
    where scores are noisy or rounded; none: every pixel is judged by itself"""
    cells: tuple[int, ...] = ()
    """sides of the cells that share one draw, from the first stage of the training to the last; default: at image level
    chosen from how sure the belief is and from the measured score noise, otherwise 1"""
    replay: int = 128
    """earlier label maps of an image whose scores count again, in whole visits of K, and fewer the more scores
    what is recalled of it rests on; 0: none"""
    recall: float = 0.8
    """weight, below 1, of what was believed of an image at its last visits against what the policy says now, once those
    visits are many, for exact scores; single pixels shift by themselves then. 0, or without regions or replay: nothing
    is recalled"""
    scores_per_nat: float = 3.0
    """scores of an image, in the whole training, for every nat that is not known of its finest regions, eight times as
    many where noise or rounding matters: of more images than that pays for, an even choice is shown, which grows with
    what is known; 0, or without regions or replay: all images are"""
    visit_every: int = 1
    """image level, with regions: steps for each in which images are shown and scores are asked for; in the others the
    policy learns again what was believed of earlier images, with no new query"""
    replay_megabytes: float = 2000.0
    """most memory that earlier label maps, and what was believed, take over all images, in MB; the oldest go first. As
    much for the sums of noisy and rounded scores, and for what is learned again"""

    def __post_init__(self) -> None:
        least = {"samples_per_image": 2, "visit_every": 1}
        least |= dict.fromkeys(("reward_queries", "replay", "replay_megabytes", "recall", "scores_per_nat"), 0)
        check_numbers(self, least, ("learning_rate", "temperature"))
        if any(number < 1 for number in self.regions) or sorted(set(self.regions), reverse=True) != list(self.regions):
            raise OptionError(f"regions must be numbers from 1 on, each less than the one before, got {self.regions}.")
        if self.recall >= 1:
            raise OptionError(f"recall must be below 1, got {self.recall:g}.")
        self.schedule = CellSchedule(self.cells or (1,))
        self.side = self.schedule.side(0.0)  # of the cells of this update, in pixels
        self.level: ImageLevel | PixelLevel | TrialLevel | PolicyGradientLevel
        self.planned: str | None = None  # what was chosen by the budget, in words
        self.asks_always = False  # whether every update is a visit, whatever visit_every says

    @property
    def learning_rate_factor(self) -> float:
        return self.level.learning_rate_factor

    @property
    def updates_a_visit(self) -> int:
        return 1 if self.asks_always else self.visit_every

    @property
    def rehearsal_megabytes(self) -> float:
        return self.replay_megabytes

    def plan(self, steps: int, batch_size: int) -> None:
        """Chooses K by the budget, if there is one. config.json holds K instead, so a run that goes on keeps it."""
        if not self.reward_queries:
            return
        budget, shown = self.reward_queries, batch_size * -(-steps // self.visit_every)
        if budget < 2 * shown:
            most = budget // (2 * batch_size) * self.visit_every
            raise OptionError(
                f"reward_queries of {budget:,} pay for less than 2 label maps of each of the {shown:,} images that "
                f"{steps:,} steps show: {f'--steps {most} is the most' if most else 'one step needs more'}."
            )
        self.samples_per_image, self.reward_queries = min(MOST_SAMPLES, budget // shown), 0
        self.planned = (
            f"{budget:,} reward queries: {self.samples_per_image} label maps for each of the {shown:,} images shown."
        )

    def env_options(self) -> dict[str, Any]:
        return {"samples_per_image": self.samples_per_image}

    def start(self, metadata: Mapping[str, Any], num_classes: int) -> str | None:
        """Learns from whole scores or from pixels, whichever the environment gives."""
        said: list[str | None] = [self.planned]
        crops, shown = number_of_crops(metadata), metadata.get("crop_size") or metadata["image_size"]
        if metadata["reward_level"] == "pixel":
            self.level = PixelLevel(self, num_classes, metadata["image_size"])
            replayed, size = crops < math.inf, metadata["image_size"]
        else:
            formula, line = formula_of(
                metadata["reward"], metadata["reward_options"], metadata.get("reward_stars", 0), num_classes
            )
            said.append(line)
            whole = metadata["num_images"] if metadata.get("crop_size") is None else None
            self.level = ImageLevel(self, num_classes, formula, shown, whole)
            replayed, size = crops <= max(1, self.level.memory.visits), shown
        if self.replay and not replayed:
            self.level.replay_nothing()
            said.append(
                f"No earlier visit is replayed: each image has {'endless' if crops == math.inf else f'{crops:,}'} "
                "crops, and what was scored on one is not carried over to another."
            )
        self.asks_always = not self.level.believes
        if self.visit_every > 1 and self.asks_always:
            said.append("Every step asks for scores: only what they say of regions can be learned again.")
        one, images = self.level.image_bytes(size) / 1e6, metadata["num_images"]
        if images * one > self.replay_megabytes:
            room = self.replay_megabytes / (images * one)
            said.append(
                f"The replay memory of {self.replay_megabytes:,g} MB holds {room:.2g} of what --replay asks for: "
                f"{images:,} images of {one:,.3g} MB; what was seen longest ago is forgotten. "
                f"--replay-megabytes {math.ceil(images * one)} would hold all."
            )
        if isinstance(self.level, ImageLevel) and not self.level.formula.is_known:
            self.level = TrialLevel(self.level, PolicyGradientLevel(self))
        return "\n".join(line for line in said if line) or None

    def images(self, scores: int) -> int | None:
        return self.level.images(scores) if isinstance(self.level, ImageLevel) else None

    def act(self, logits: torch.Tensor, progress: float, generator: torch.Generator) -> torch.Tensor:
        """Draws K label maps an image, uint8 (B, K, H, W), some of them to be scored twice."""
        if isinstance(self.level, TrialLevel):
            self.level = self.level.decided(progress) or self.level
        elif isinstance(self.level, ImageLevel) and self.level.is_of_no_use(progress):
            self.level = PolicyGradientLevel(self)
        self.side = self.level.side(progress, min(logits.shape[2:]))
        # A seed and the offset of the cells' grid; they stay on the device.
        numbers = torch.randint(2**63 - 1, (3,), generator=generator, device=generator.device)
        return self.level.draw(logits, self.side, numbers)

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> Any:
        return self.level.observe(logits, feedback)

    def synchronise(self, lessons: Sequence[Any]) -> None:
        self.level.synchronise(lessons)

    def loss(self, logits: torch.Tensor, lesson: Any, progress: float) -> tuple[torch.Tensor, Metrics]:
        """The negative log-likelihood of what was seen, of one micro-batch."""
        loss, probabilities, metrics = self.level.loss(logits, lesson, progress)
        return loss, metrics | score_metrics(lesson.feedback) | {
            "policy/entropy": torch.special.entr(probabilities).sum(dim=1).mean(),  # nats a pixel
            "policy/cell": float(self.side),
        }

    def taught(self, lesson: Any) -> torch.Tensor | None:
        evidence = lesson.evidence if isinstance(lesson, ScoreLesson) else None
        return evidence.probabilities if isinstance(evidence, Posterior) else None

    def state_dict(self) -> dict[str, Any]:
        return self.level.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state == PolicyGradientLevel.STATE:
            self.level = PolicyGradientLevel(self)
        elif isinstance(self.level, TrialLevel) and TrialLevel.NAME not in state:  # the trial is over
            self.level = self.level.level
        self.level.load_state_dict(state)

    def memory(self) -> dict[str, torch.Tensor]:
        level = self._image_level
        return self.level.memory.state_dict() | (level.filter.state_dict() if level else {})

    def load_memory(self, memory: dict[str, torch.Tensor]) -> None:
        level = self._image_level
        sums = {name: memory[name] for name in memory if level and name in NAMES}
        self.level.memory.load_state_dict({name: memory[name] for name in memory if name not in sums})
        if level:
            level.filter.load_state_dict(sums, level.pairs)

    @property
    def _image_level(self) -> ImageLevel | None:
        """What reads scores of whole label maps, or may come to."""
        level = self.level.level if isinstance(self.level, TrialLevel) else self.level
        return level if isinstance(level, ImageLevel) else None


def number_of_crops(metadata: Mapping[str, Any]) -> float:
    """Crops that an image may be shown in: 1 where whole images are, infinitely many where they are scaled."""
    crop_size = metadata.get("crop_size")
    if crop_size is None:
        return 1
    if "scale" in metadata["augment"]:
        return math.inf
    return math.prod(side - part + 1 for side, part in zip(metadata["image_size"], crop_size, strict=True))


@dataclass
class ScoreLesson:
    """What the scores of one micro-batch say.

    Attributes:
        feedback: from the environment.
        evidence: what this and the earlier visits say about the policy's probabilities.
        replayed: number of earlier visits.
        bits: that the new scores were expected to tell, each, where label maps were chosen by that.
    """

    feedback: Feedback
    evidence: Evidence | Posterior
    replayed: int
    bits: torch.Tensor | None = None


class ImageLevel:
    """One score a label map: the belief predicts it, and follows what the residuals say.

    Args:
        options: hyper-parameters.
        num_classes: C.
        formula: predicts the scores.
        image_size: height and width of what is shown.
        whole: number of images, if whole ones are shown and not crops.
    """

    def __init__(
        self,
        options: Likelihood,
        num_classes: int,
        formula: Formula,
        image_size: Sequence[int],
        whole: int | None = None,
    ) -> None:
        self.learning_rate_factor = 2.0 if options.regions else 1.0
        self.options, self.num_classes, self.formula = options, num_classes, formula
        self.image_size, self.whole = tuple(image_size), whole
        self.temperature = options.temperature
        visits = max(1, options.replay // options.samples_per_image) if options.replay else 0
        self.memory = VisitMemory(visits, options.replay_megabytes, num_classes)
        self.buffer = torch.empty(0, dtype=torch.uint8)  # where label maps of earlier visits are unpacked
        self.noise = ScoreNoise(formula.rounding)
        self.explained = 0.0  # share of what can be explained of the scores that the belief explained, a running mean
        self.judged = 0  # updates that are in it
        self.tried = False  # whether that was looked at
        self.twice = False  # whether the first label map of every image of this update is its last one as well
        self.observed = 0  # micro-batches so far, the same number in every process
        self.scale = torch.full((), torch.inf, dtype=torch.float64)  # of the last residuals that said something
        self.unsure = 1.0  # entropy of the belief, of that of even chances
        self.unknown = math.log(num_classes)  # entropy of the belief, nats a pixel, a running mean
        self.shown = 0  # number of the images that are shown; 0: not asked yet
        self.variances = Variances()
        self.bits: torch.Tensor | None = None  # that the scores of this micro-batch are expected to tell, each
        self.known_regions: dict[int, Regions] = {}  # of whole images, by index
        self.filter = RegionFilter(options.replay_megabytes)
        self.loud = formula.rounding > LOUD  # whether noise or rounding are so large that the filter reads the scores

    def replay_nothing(self) -> None:
        """Keeps no visits from now on."""
        self.memory = VisitMemory(0, 0.0, self.num_classes)

    def image_bytes(self, image_size: Sequence[int]) -> int:
        """What the replay of one image takes."""
        if self.filters:
            return 0  # no more images are shown than there is room for
        belief = 2 * self.num_classes * math.prod(image_size) if self.recalls else 0
        return self.memory.visits * visit_bytes(self.options.samples_per_image, image_size, self.num_classes) + belief

    def side(self, progress: float, shorter: int) -> int:
        """Side of the cells in pixels, at most half of the shorter side of the image if the noise chooses it."""
        if self.options.cells:
            return self.options.schedule.side(progress)
        if not self.options.regions:
            return self.noise.side(max(1, shorter // 2))
        known = 1 - self.unsure
        along = float(np.interp(known, KNOWN, CELLS))
        if self.formula.rounding:  # of label maps that differ in smaller cells all would get the same level
            along = min(along, CELLS[1])
        shortest = max(1, round(shorter / along))
        if self.chooses:  # the choice finds what rounding would hide, but not of a policy that knows next to nothing
            return shortest if known >= KNOWN[1] else max(1, shorter // 2)
        return self.noise.side(max(1, shorter // 2), shortest, rounded=known < KNOWN[1])

    def images(self, scores: int) -> int | None:
        """How many images so many scores pay for; None: any number.

        What is not known of an image is the mean entropy of the belief times the number of its finest regions, or of
        those of the filter.
        """
        options = self.options
        if not (self.remembers and options.regions and options.scores_per_nat):
            return None
        number = self._regions_of((self._filtered or 0) if self.filters else 0)
        nats = number * self.unknown * (UNCERTAIN if self.noise.matters else 1)
        paid = int(scores / (options.scores_per_nat * nats)) if nats else scores
        if not self.shown * NARROW <= max(FEWEST, paid) < self.shown * WIDEN:
            self.shown = max(FEWEST, paid)
        if self.filters:
            self.shown = min(self.shown, self.filter.fits(self.pairs))
        return self.shown

    def _sides(self, shorter: int) -> list[float]:
        """Sides of the regions of images with that shorter side, in pixels, from the finest division on."""
        sides = [shorter / along for along in self.options.regions if shorter / along >= LEAST_SIDE]
        return sides or [float(shorter)]

    def _regions_of(self, division: int) -> int:
        """Number of regions of an image in one of the divisions."""
        height, width = self.image_size
        return math.prod(grid(height, width, self._sides(min(height, width))[division]))

    @property
    def _filtered(self) -> int | None:
        """The division whose regions a filter keeps: the finest that has few enough; None if none has."""
        for division in range(len(self._sides(min(self.image_size)))):
            if self.num_classes * self._regions_of(division) <= PAIRS:
                return division if self._regions_of(division) >= LEAST_REGIONS else None
        return None

    @property
    def pairs(self) -> int:
        """Number of pairs of a class and a region of the filter."""
        return self.num_classes * self._regions_of(self._filtered or 0)

    @property
    def filters(self) -> bool:
        """Whether all that scores said of an image is kept as sums over its regions: of noisy and rounded ones."""
        kept = bool(self.options.regions) and self.remembers and self._filtered is not None
        if not (kept and self.loud and self.formula.is_known and self.noise.matters) or self.whole is None:
            return False
        fewest = min(FEWEST, self.whole) if self.options.scores_per_nat else self.whole
        return self.filter.fits(self.pairs) >= fewest

    @property
    def recalls(self) -> bool:
        """Whether a belief goes on from that of the last visit; noise would be counted again with every visit."""
        kept = bool(self.options.recall and self.options.regions) and self.remembers
        return kept and not self.noise.matters

    @property
    def remembers(self) -> bool:
        """Whether visits are kept."""
        one = visit_bytes(self.options.samples_per_image, self.image_size, self.num_classes)
        return self.memory.visits > 0 and one <= self.memory.capacity

    @property
    def believes(self) -> bool:
        """Whether scores make beliefs, which can be learned at any time."""
        return bool(self.options.regions)

    @property
    def chooses(self) -> bool:
        """Whether label maps are chosen by what their rounded scores should tell."""
        return bool(self.options.regions) and self.formula.levels is not None and self.noise.matters

    def draw(self, logits: torch.Tensor, side: int, numbers: torch.Tensor) -> torch.Tensor:
        """Draws label maps: those whose rounded scores tell most, and some twice, which measures the noise."""
        if self.chooses:
            return self.repeated(self._draw_uncertain(logits, side, numbers))
        self.bits = None
        return self.repeated(draw(logits, self.options.samples_per_image, self.temperature, side, numbers))

    def repeated(self, label_maps: torch.Tensor) -> torch.Tensor:
        """Label maps of which, when it is time to measure the noise, some are to be scored twice."""
        self.twice = self._repeats
        if self.twice:
            score_twice(label_maps)
        return label_maps

    @property
    def _repeats(self) -> bool:
        """Whether it is time to measure the noise."""
        return not self.options.cells and self.noise.due

    def read(self, logits: torch.Tensor, feedback: Feedback) -> ScoreLesson:
        """Compares the new scores with what the policy expects, and remembers them."""
        self.observed += 1
        batch = len(logits)
        image = torch.arange(batch, device=logits.device)
        seen = logits.softmax(dim=1), feedback.label_maps, feedback.scores, image, batch, self.formula
        reading = read_scores(*seen, self.noise.residual**0.5)
        self._remember(feedback, None, [0] * batch)
        return ScoreLesson(feedback, Evidence(reading, torch.zeros_like(logits)), 0)

    def _draw_uncertain(self, logits: torch.Tensor, side: int, numbers: torch.Tensor) -> torch.Tensor:
        """Draws more than are scored, and keeps those whose level the belief is least certain of.

        Where none of them is uncertain, as at the start, when all label maps get the lowest star, label maps are drawn
        coarser, so that they differ more, and colder, so that they are better.
        """
        samples, belief = self.options.samples_per_image, (logits / ONE_CLASS.heat).softmax(dim=1)
        spread = max(self.noise.residual, 1e-12) ** 0.5

        def chosen(temperature: float, side: int) -> tuple[torch.Tensor, torch.Tensor]:
            drawn = draw(logits, CHOICE * samples, temperature, side, numbers)
            label_maps, told = most_uncertain(belief, drawn, samples, self.formula, spread)
            if self._repeats:  # the noise is measured by any label map: between two levels little noise changes much
                label_maps[:, 0] = drawn[:, 0]
            return label_maps, told

        label_maps, told = chosen(self.temperature, side)
        if not self.options.cells and (told < LEAST_BITS).any():
            others, told_then = chosen(1.0, max(1, min(logits.shape[2:]) // 2))
            tells = (told >= LEAST_BITS) | (told >= told_then)
            label_maps = torch.where(tells[:, None, None, None], label_maps, others)
            told = torch.where(tells, told, told_then)
        self.bits = told.mean()
        return label_maps

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> ScoreLesson:
        """Finds what the scores of this and the earlier visits say about the policy's probabilities."""
        self.observed += 1
        if self.filters:
            return self._observe_filtered(logits, feedback)
        batch = len(logits)
        # A visit is replayed only where the very pixels that were scored are shown again.
        shown = enumerate(zip(feedback.index, feedback.crops or (None,) * batch, strict=True))
        belief, recalls = logits.softmax(dim=1), self.recalls
        old = [(b, visit) for b, (index, crop) in shown for visit in self._replayed(index, crop)]
        image = torch.tensor([*range(batch), *(b for b, _ in old)])
        regions = self._regions(feedback) if self.options.regions else None
        remembered, visits = self._recalled(feedback, old)
        if regions is not None and recalls:
            weights = [self.options.recall * many / (many + HALF) for many in visits]
            belief = recall_belief(belief, remembered, weights, regions)
        seen = (
            belief,
            self._label_maps(feedback, old),
            torch.cat([feedback.scores, *(visit.scores[None].to(logits.device) for _, visit in old)]),
            image.to(logits.device, non_blocking=True),
            batch,
            self.formula,
        )
        spread = self.noise.residual**0.5
        evidence: Evidence | Posterior
        if regions is not None:
            errors = PIXELS_TOO if recalls else SHIFTS
            if self.noise.matters:
                regions, errors = regions.parts(), ONE_CLASS
            settled = [recalls and self._told(many) > SETTLED and self.num_classes <= FEW for many in visits]
            variances = torch.tensor(self.variances.start(errors.variances(len(regions.counts))), dtype=torch.float64)
            evidence = region_posterior(
                *seen, regions, variances.to(logits.device), errors, spread, self.noise.noise, settled
            )
        else:
            evidence = score_evidence(*seen, spread)
        believed = evidence.probabilities if recalls and isinstance(evidence, Posterior) else None
        self._remember(feedback, believed, visits)
        return ScoreLesson(feedback, evidence, len(old), self.bits)

    def _observe_filtered(self, logits: torch.Tensor, feedback: Feedback) -> ScoreLesson:
        """Adds these scores to all that were seen of the images, and finds what they say together."""
        assert self._filtered is not None
        regions = self._regions(feedback).division(self._filtered)
        seen = logits.softmax(dim=1), feedback.label_maps, feedback.scores, feedback.index, self.formula, regions
        evidence, visits = filtered_posterior(*seen, self.filter, self.noise.residual**0.5, self.noise.noise)
        return ScoreLesson(feedback, evidence, visits - len(logits), self.bits)

    def _regions(self, feedback: Feedback) -> Regions:
        """Regions of the images of a micro-batch; those of whole images are remembered as they are stored."""
        images = feedback.images
        if images is None:
            raise ValueError("the feedback has no images, from which regions are made")
        sides = self._sides(min(images.shape[1:3]))
        if feedback.crops is not None:
            return make_regions(images, sides)
        known, shown = self.known_regions, []
        for image, index, flipped in zip(images, feedback.index, feedback.flipped, strict=True):
            if index not in known:
                known[index] = make_regions((image.flip(1) if flipped else image)[None], sides).packed()
            shown.append(known[index])
            if len(known) * known[index].nbytes > REMEMBERED:
                known.pop(next(iter(known)))
        return Regions.unpacked(shown).mirrored(feedback.flipped)

    def _label_maps(self, feedback: Feedback, old: Sequence[tuple[int, Visit]]) -> torch.Tensor:
        """The new label maps of the batch and, as the images are shown, those of earlier visits, (V, K, H, W)."""
        new = feedback.label_maps
        if not old:
            return new
        many = len(new) + len(old)
        if self.buffer.shape[1:] != new.shape[1:] or len(self.buffer) < many:
            self.buffer = new.new_empty(many, *new.shape[1:])
        self.buffer[: len(new)] = new
        places = unpack([visit.label_maps for _, visit in old], self.buffer[len(new) : many])
        for b, visits in groupby(enumerate(old), key=lambda visit: visit[1][0]):
            if feedback.flipped[b]:
                first, last = (number for number, _ in itemgetter(0, -1)(list(visits)))
                places[first : last + 1] = places[first : last + 1].flip(-1)
        return self.buffer[:many]

    def _replayed(self, index: int, crop: tuple[float, ...] | None) -> list[Visit]:
        """Earlier visits whose scores count again: the newest, and fewer as what is recalled rests on more scores."""
        visits = self.memory.recall(index, crop)
        if not (visits and self.recalls):
            return visits
        known = self._told(visits[0].visits)
        share = 1 - self.options.recall * known / (known + TOLD)
        return visits[: max(1, round(share * self.memory.visits))]

    def _told(self, visits: int) -> int:
        """Scores of so many visits of an image."""
        return self.options.samples_per_image * visits

    def _recalled(
        self, feedback: Feedback, old: Sequence[tuple[int, Visit]]
    ) -> tuple[list[torch.Tensor | None], list[int]]:
        """What was believed of each image last time, as it is shown, and how many visits that rests on."""
        beliefs: list[torch.Tensor | None] = [None] * len(feedback.index)
        visits = [0] * len(feedback.index)
        for b, visit in old:
            if visit.belief is not None:
                beliefs[b] = visit.belief.flip(-1) if feedback.flipped[b] else visit.belief
                visits[b] = visit.visits
        return beliefs, visits

    def _remember(self, feedback: Feedback, believed: torch.Tensor | None, visits: Sequence[int]) -> None:
        """Keeps the visits, and what is believed of the images, which rested on so many of them before."""
        if not self.memory.visits:
            return
        kept: list[tuple[Any, int]] = [(None, 0)] * len(feedback.index)
        if believed is not None:
            seen = zip(believed.clamp(min=LEAST).log(), feedback.flipped, visits, strict=True)
            kept = [((of.flip(-1) if flipped else of).half(), many + 1) for of, flipped, many in seen]
        rank = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
        for b, index in enumerate(feedback.index):
            if self.twice and b == 0 and feedback.label_maps.shape[1] == 2:
                continue  # two scores of one label map compare nothing
            maps = feedback.label_maps[b].flip(-1) if feedback.flipped[b] else feedback.label_maps[b]
            when = (self.observed << 32) + (rank << 16) + b
            packed = PackedMaps.pack(maps, self.num_classes)
            crop = None if feedback.crops is None else feedback.crops[b]
            self.memory.store(Visit(index, packed, feedback.scores[b].clone(), when, crop, *kept[b]))

    def synchronise(self, lessons: Sequence[ScoreLesson]) -> None:
        """Measures the noise of the scores, and the variance of the residuals, with SyncAN; the formula may learn."""
        readings = [lesson.evidence.reading for lesson in lessons]
        self.formula.learn([reading.seen for reading in readings])
        self.noise.rounding = self.formula.rounding
        if not self.formula.is_known and not self.tried:
            self._judge([reading.seen for reading in readings])
        if self.twice or self.noise.known:
            scores = [lesson.feedback.scores for lesson in lessons]
            self.noise.observe(
                variance=mean_over_processes([part.var(dim=1).mean() for part in scores]),
                side=self.options.side,
                noise=mean_over_processes([scored_twice(part) for part in scores]) if self.twice else None,
                residual=mean_over_processes([reading.variance for reading in readings]),
                unit=mean_over_processes([self.formula.scale(part).square().mean() for part in scores]),
            )
        beliefs = [lesson.evidence for lesson in lessons if isinstance(lesson.evidence, Posterior)]
        if beliefs:
            entropy = mean_over_processes([of.entropy for of in beliefs])
            self.unsure = entropy / math.log(self.num_classes)
            self.unknown += SLOW * (entropy - self.unknown)
            statistics = [of.statistics for of in beliefs if of.statistics is not None]
            if statistics:
                self.variances.observe(mean_over_processes(statistics))
        synchronised = SyncAN()
        for lesson in lessons:
            fresh = lesson.evidence.reading.advantages[: len(lesson.feedback.scores)]
            synchronised.add(fresh, fresh.any(dim=1, keepdim=True))  # equal scores say nothing about the variance
        scale = synchronised.finish()
        self.scale = torch.where(scale > 2 * EPSILON, scale, self.scale.to(scale.device))
        self.noise.tick()
        self.loud = self.noise.noise + self.noise.rounding > (QUIET if self.loud else LOUD)

    def _judge(self, seen: Sequence[Seen]) -> None:
        """Measures how much is explained of what scores differ by within visits, noise and rounding left out.

        An update in which all scores of every visit are equal says nothing about that.
        """
        parts = []
        for part in seen:
            varied = differ(part.scores)[:, None]
            scale = self.formula.scale(part.scores)
            observed = (part.scores - part.scores.mean(dim=1, keepdim=True)) / scale
            left = observed - (part.mean - part.mean.mean(dim=1, keepdim=True))
            limits = varied * (self.noise.noise + self.noise.rounding) / scale.square()  # that nothing can explain
            sums = [(varied * observed.square()).mean(), (varied * left.square()).mean(), limits.mean()]
            parts.append(torch.stack(sums))
        variance, left, limit = mean_over_processes(parts)
        if variance:
            self.explained += SLOW * (min((1 - left / variance) / max(1 - limit / variance, 0.1), 1.0) - self.explained)
            self.judged += 1

    @property
    def share(self) -> float:
        """The share of the scores' variance that was explained of late; the running mean started at 0."""
        return self.explained / (1 - (1 - SLOW) ** self.judged) if self.judged else 0.0

    def is_of_no_use(self, progress: float) -> bool:
        """Whether a score of unknown formula turned out to be one that right pixels, each by itself, do not explain.

        Looked at once, when a fifth of the training is done and enough updates are, or two fifths.
        """
        early = progress < TRIED or (self.judged < ENOUGH and progress < 2 * TRIED)
        if self.formula.is_known or self.tried or early:
            return False
        self.tried = True
        return self.share < (KEPT if self.judged >= ENOUGH else EXPLAINED)

    def loss(
        self, logits: torch.Tensor, lesson: ScoreLesson, progress: float
    ) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """Moves the probabilities, which are given too, to where the observed scores are more likely."""
        evidence, probabilities = lesson.evidence, logits.softmax(dim=1)
        more: Metrics = {}
        if isinstance(evidence, Posterior):
            loss = -(evidence.probabilities * logits.log_softmax(dim=1)).sum(dim=1).mean()
            more["likelihood/moved"] = evidence.moved
            if lesson.bits is not None:
                more["likelihood/bits"] = lesson.bits
        else:
            pixels = probabilities[:, 0].numel()  # the scale divides one number and not every pixel
            loss = -(evidence.direction * probabilities).sum() / (pixels * self.scale.square()).to(logits.dtype)
        return (
            loss,
            probabilities.detach(),
            {
                "policy/advantage_scale": torch.where(self.scale.isfinite(), self.scale, 0.0),  # 0: nothing said yet
                "likelihood/explained": evidence.reading.explained,
                "likelihood/offset": evidence.reading.offset,
                "likelihood/noise": self.noise.noise**0.5,
                "replay/visits": lesson.replayed / len(logits),
            }
            | more,
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, next to the memory."""
        return {
            "noise": self.noise.state_dict(),
            "formula": self.formula.state_dict(),
            "observed": self.observed,
            "scale": self.scale.cpu(),
            "unsure": self.unsure,
            "unknown": self.unknown,
            "shown": self.shown,
            "loud": self.loud,
            "variances": self.variances.state_dict(),
            "explained": self.explained,
            "judged": self.judged,
            "tried": self.tried,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from ``state_dict()``."""
        self.noise.load_state_dict(state["noise"])
        self.formula.load_state_dict(state["formula"])
        self.noise.rounding = self.formula.rounding
        self.observed, self.scale = state["observed"], state["scale"]
        self.explained, self.tried, self.unsure = state["explained"], state["tried"], state.get("unsure", 1.0)
        self.judged = state.get("judged", state["observed"])
        self.unknown, self.shown = state.get("unknown", self.unknown), state.get("shown", 0)
        self.loud = state.get("loud", self.loud)
        if "variances" in state:
            self.variances.load_state_dict(state["variances"])


@dataclass
class PixelLesson:
    """What the pixel rewards of one micro-batch and of the earlier visits of its images say.

    Attributes:
        feedback: from the environment.
        known: uint8 (B, H, W), the class of each pixel, ``UNKNOWN`` where it was not found.
        excluded: bool (B, C, H, W), classes that earned nothing.
    """

    feedback: Feedback
    known: torch.Tensor
    excluded: torch.Tensor


class PixelLevel:
    """One reward a pixel: its class is found, or classes are excluded, and both are remembered.

    Args:
        options: hyper-parameters.
        num_classes: C.
        image_size: (H, W) of the stored images.
    """

    believes = False
    learning_rate_factor = 1.0

    def __init__(self, options: Likelihood, num_classes: int, image_size: tuple[int, int]) -> None:
        self.options, self.num_classes = options, num_classes
        self.temperature = options.temperature
        self.memory = PixelMemory(num_classes, options.replay_megabytes, image_size)
        self.replay = options.replay > 0

    def replay_nothing(self) -> None:
        """Remembers nothing of images from now on."""
        self.replay = False

    def image_bytes(self, image_size: Sequence[int]) -> int:
        """What is remembered of one image."""
        return math.prod(image_size) * (1 + math.ceil(self.num_classes / 8)) if self.replay else 0

    def side(self, progress: float, shorter: int) -> int:
        """Side of the cells in pixels."""
        return self.options.schedule.side(progress)

    def draw(self, logits: torch.Tensor, side: int, numbers: torch.Tensor) -> torch.Tensor:
        """Draws label maps."""
        return draw(logits, self.options.samples_per_image, self.temperature, side, numbers)

    def observe(self, logits: torch.Tensor, feedback: Feedback) -> PixelLesson:
        """Puts together what this and the earlier visits of the batch's images say about every pixel."""
        assert feedback.pixel_rewards is not None
        known, excluded = classes_found(feedback.label_maps, feedback.pixel_rewards, self.num_classes)
        for b, index in enumerate(feedback.index if self.replay else ()):
            axes = (-1,) if feedback.flipped[b] else ()  # kept as the image is stored, not as it is shown
            crop = None if feedback.crops is None else tuple(map(int, feedback.crops[b]))
            before = self.memory.recall(index, crop)
            if before is not None:
                known[b] = torch.minimum(known[b], before[0].flip(axes).to(known.device))
                excluded[b] |= before[1].flip(axes).to(known.device)
            self.memory.store(index, known[b].flip(axes), excluded[b].flip(axes), crop)
        return PixelLesson(feedback, known, excluded)

    def synchronise(self, lessons: Sequence[PixelLesson]) -> None:
        """Nothing is shared between micro-batches or processes."""

    def loss(
        self, logits: torch.Tensor, lesson: PixelLesson, progress: float
    ) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """Moves the probabilities, which are given too, to the classes that were found and from those excluded."""
        log_probabilities = logits.log_softmax(dim=1)
        loss = success_loss(log_probabilities, lesson.known, lesson.excluded)
        return loss, log_probabilities.detach().exp(), {"likelihood/known": (lesson.known != UNKNOWN).float().mean()}

    def state_dict(self) -> dict[str, Any]:
        """Nothing next to the memory."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to continue from."""


if __name__ == "__main__":
    run_command(lambda: train_command(Likelihood))
