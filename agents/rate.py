"""A person rates label maps in the browser, and a policy learns from it while they do.

    python -m agents.rate --root PHOTOS --classes background,horse
    python -m agents.rate --run-dir runs/horses --resume
    python -m agents.rate --root PHOTOS --classes background,horse --answers runs/horses/answers.sqlite --network unet

The address is printed. Every answer is in RUN_DIR/answers.sqlite before the page says so; Ctrl-C ends the sitting and
keeps the policy in the run folder. With --answers no page is opened: the policy is trained from a log, as often as
wanted and with whatever network. docs/rate.md says more.
"""

from __future__ import annotations

import ipaddress
import math
import secrets
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from tqdm import tqdm

from rss_env.errors import EmptySplitError, OptionError
from rss_env.evaluation import evaluate

from .errors import CheckpointError
from .networks import check_network, make_network
from .networks.checkpoints import WEIGHTS, check_classes, load_weights, read_description
from .rating import pictures
from .rating.answers import KINDS, AnswerLog, read_answers
from .rating.belief import RaterModel
from .rating.learner import Learner, LearnerOptions
from .rating.photos import Photos
from .rating.questions import Kind, Questions, Scope
from .rating.session import Session
from .training.arguments import (
    JsonObject,
    check_env_id,
    check_env_kwargs,
    check_numbers,
    check_object,
    choose_device,
    from_config,
)
from .training.command import run_command
from .training.loop import one_cycle
from .training.run_folder import STATE, RunFolder, contents_of

FOLDER = "RSS-Folder-ImageReward-v0"
LOG = "answers.sqlite"
COUNTED = 32  # photos in which the policy says how frequent it finds each class
MEASURE = "val/miou"  # by which a policy is the best


@dataclass
class RateArguments:
    """Rate label maps in the browser and train a policy from the answers."""

    root: str | None = None
    """folder of the photos: itself, its images/ or any layout of the data set; procedural images need none"""
    classes: str | None = None
    """names of the classes, joined by commas; default: classes.json's"""
    env_id: str = FOLDER
    """id of the environment that shows the photos"""
    env_kwargs: JsonObject = field(default_factory=dict)
    """the data set's own options, such as '{"images": "photos/*.jpg"}'"""
    image_size: tuple[int, int] = (128, 128)
    """height and width in pixels at which the policy sees the photos"""
    resize: Literal["pad", "crop", "stretch"] = "pad"
    """how photos reach that size"""
    split: str = "train"
    """split that is rated"""
    val_split: str = "val"
    """split whose photos are shown with the policy's answer; with masks they measure it"""
    val_images: int = 64
    """most photos that measure it"""

    kinds: tuple[Kind, ...] = ("pair",)
    """what is asked, in turn: pair, better or worse; stars, 1 to 5; ranking"""
    scope: Scope = "part"
    """part: about outlined parts of photos, "is this horse?"; whole: about whole label maps. Rankings are about whole
    ones"""
    choice: Literal["active", "random"] = "active"
    """active: what the policy is least sure of; random: anything"""
    side: int | None = None
    """side in pixels of the parts, or of the cells whose pixels share one draw; default: a sixth of the shorter side"""
    repeat: float = 0.1
    """share of the questions that a rater gets because another one has answered them"""
    checks: float | None = None
    """share of the questions that are asked at random and not learned from, but measure the policy; default: 0 with
    masks, otherwise 0.1"""

    network: str = "unet"
    """the policy's network; efficientnet_lite0 (pretrained) needs far fewer answers on photos: docs/networks.md"""
    network_options: JsonObject = field(default_factory=dict)
    """the network's own options, such as '{"frozen": true}'"""
    learning_rate: float = 2e-3
    """of AdamW"""
    weight_decay: float = 1e-2
    """of AdamW"""
    batch_size: int = 8
    """most photos an update, each with all answers to it"""
    updates_per_answer: int = 10
    """updates of the policy for each answer, after which it waits for the next one"""
    lapse: float = 0.1
    """share of the answers that are taken for mistakes"""
    seed: int = 1
    """seed of the weights and of what is asked"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where the policy learns"""

    host: str = "127.0.0.1"
    """address to listen on; any but this machine's own needs the token that is printed"""
    port: int = 8000
    """port to listen on; 0: any that is free"""
    token: str | None = None
    """word that whoever opens the page must know; default: a random one where --host is not this machine's own"""

    run_dir: str = "runs/rate"
    """run folder, with the log of the answers"""
    resume: bool = False
    """go on with the run in run_dir; its stored arguments are the defaults, and another network starts afresh from its
    log"""
    answers: str | None = None
    """log to train from, answers.sqlite or JSON lines, without a page"""
    progress: bool = True
    """with --answers: show a progress bar"""

    def check(self) -> None:
        """Raises ``OptionError`` if a value is out of range."""
        check_env_id(self.env_id)
        check_env_kwargs(self.env_kwargs)
        check_object("network_options", self.network_options)
        least = {"val_images": 1, "side": 2, "batch_size": 1, "updates_per_answer": 1, "seed": 0, "weight_decay": 0}
        check_numbers(self, least, ("learning_rate",))
        for name in ("repeat", "checks", "lapse"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise OptionError(f"{name} must be at least 0 and less than 1, got {value}.")
        if not 0 <= self.port <= 65535:
            raise OptionError(f"port must be 0 to 65535, got {self.port}.")
        if not self.kinds or any(kind not in KINDS for kind in self.kinds):
            raise OptionError(f"kinds must be some of {', '.join(KINDS)}, got {self.kinds}.")
        if self.token is not None and len(self.token) < 8:
            raise OptionError("A token must have at least 8 characters.")

    def env_options(self) -> dict[str, Any]:
        """Keyword arguments of the environment, but for the split."""
        own: dict[str, Any] = dict(self.env_kwargs)
        names = self.class_names()
        if self.env_id == FOLDER and self.root is not None and names is not None:
            root = Path(self.root)
            if not ({"images", "manifest", "huggingface"} & own.keys() or (root / "images").is_dir()):
                own["images"] = "**/*"
            if not ({"num_classes", "classes"} & own.keys() or (root / "classes.json").is_file()):
                own["num_classes"] = len(names)
        return {"root": self.root, "image_size": self.image_size, "resize": self.resize} | own

    def class_names(self) -> list[str] | None:
        """Names of the classes, if they were given."""
        if self.classes is None:
            return None
        names = [name.strip() for name in self.classes.split(",")]
        if len(names) < 2 or not all(names) or len(set(names)) < len(names):
            raise OptionError(f"classes must be two different names or more, joined by commas; got {self.classes!r}.")
        return names


def no_reward(image: np.ndarray, label_map: np.ndarray, target: np.ndarray | None) -> float:
    """The reward of a run whose scores came from people: it cannot be asked for again.

    Raises:
        OptionError: always.
    """
    raise OptionError("People rated the label maps of this run, so without masks there is no score to measure by.")


class Rating:
    """What a sitting and a training from a log have in common: photos, policy and run folder."""

    def __init__(self, args: RateArguments) -> None:
        self.args, self.device = args, choose_device(args.device)
        self.folder = RunFolder(args.run_dir)
        options = args.env_options()
        # The reward is never asked for; a callable is what an environment without masks needs.
        self.options = options | {"reward": f"{__package__}.rate:no_reward"}
        self.photos = Photos(args.env_id, split=args.split, **self.options)
        try:
            self.held_out: Photos | None = Photos(args.env_id, split=args.val_split, **self.options)
        except EmptySplitError as error:
            print(f"No photos to measure on: {error}", file=sys.stderr)
            self.held_out = None
        self.class_names = args.class_names() or list(self.photos.metadata["class_names"])
        if len(self.class_names) != len(self.photos.metadata["class_names"]):
            raise OptionError(
                f"classes names {len(self.class_names)} classes, but the data set has "
                f"{len(self.photos.metadata['class_names'])}."
            )
        self.palette = pictures.colours_of(len(self.class_names))
        torch.manual_seed(args.seed)
        network = make_network(args.network, len(self.class_names), args.network_options)
        check_network(network, args.network, args.image_size, len(self.class_names))
        learning = LearnerOptions(args.learning_rate, args.weight_decay, args.batch_size, seed=args.seed)
        self.learner = Learner(
            network,
            self.photos.images,
            self.photos.names,
            learning,
            RaterModel(lapse=args.lapse),
            self.device,
            len(self.class_names),
        )
        self.began = time.perf_counter()
        self.last: dict[str, float] = {}
        self.best = -math.inf  # of MEASURE

    def config(self) -> dict[str, Any]:
        """What config.json stores; ``agents.evaluate`` reads the environment from it."""
        stored = asdict(self.args) | {"token": None, "reward": self.options["reward"], "reward_options": {}}
        own = {name: value for name, value in self.options.items() if name not in stored}
        return {"algorithm": "Rate"} | stored | {"env_kwargs": own}

    def open_folder(self) -> None:
        """Begins a run, or goes on with the one in the run folder if the network is the same."""
        if not self.args.resume:
            self.folder.create(self.config())
            return
        self.folder.lock()
        checkpoint, said = self.folder.latest_whole_checkpoint()
        if said:
            print(said, file=sys.stderr)
        if checkpoint is not None:
            description = read_description(checkpoint / WEIGHTS)
            check_classes(description, len(self.class_names), checkpoint, self.class_names)
            state = self.folder.read_state(checkpoint)
            with contents_of(checkpoint / STATE):
                same = (state["network"], state["network_options"]) == (self.args.network, self.args.network_options)
                if same:
                    self.learner.load_state_dict(state["learner"])
            if same:
                load_weights(self.learner.policy, checkpoint / WEIGHTS)
                self.folder.rewind(self.learner.updates)
                best = self.folder.best_policy()
                if best is not None:
                    with contents_of(best / WEIGHTS):
                        self.best = read_description(best / WEIGHTS)["training"]["validation"][MEASURE]
            else:
                print(f"Another network begins afresh from the answers; {self.put_aside()} has the one before.")
        self.folder.write_config(self.config())

    def put_aside(self) -> Path:
        """Moves the checkpoints and numbers of an earlier network to a folder of their own."""
        number = 1
        while (aside := self.folder.path / f"before-{number}").exists():
            number += 1
        aside.mkdir()
        for name in ("checkpoints", "metrics.jsonl", "config.json"):
            (self.folder.path / name).rename(aside / name)
        return aside

    def measure(self) -> dict[str, float]:
        """How good the policy is on the held-out photos, if they have masks."""
        if self.held_out is None or not self.held_out.has_masks:
            return {}
        result = evaluate(
            self.learner.label_maps,
            self.args.env_id,
            split=self.args.val_split,
            limit=self.args.val_images,
            score=False,
            **self.options,
        )
        return {"val/miou": result.metrics["miou"], "val/pixel_accuracy": result.metrics["pixel_accuracy"]}

    def save(self, metrics: dict[str, float]) -> None:
        """Logs numbers and writes a checkpoint, and the policy once more if it is the best so far.

        ``agents.predict``, ``evaluate`` and ``load`` read the best one where there is one, otherwise the checkpoint.
        """
        learner, args = self.learner, self.args
        self.last = metrics
        row = {name: value for name, value in metrics.items() if "/" in name}
        row |= {"time/answers": len(learner), "time/seconds": time.perf_counter() - self.began}
        self.folder.log(learner.updates, row)
        description = {
            "network": args.network,
            "network_options": args.network_options,
            "num_classes": len(self.class_names),
            "class_names": self.class_names,
            "palette": self.palette.tolist(),
            "image_size": list(args.image_size),
            "resize": args.resize,
            "training": {
                "env_id": args.env_id,
                "algorithm": "Rate",
                "step": learner.updates,
                "answers": len(learner),
                "validation": {name: value for name, value in row.items() if name.startswith("val/")},
            },
        } | learner.shares(COUNTED).description
        state = {"network": args.network, "network_options": args.network_options, "learner": learner.state_dict()}
        with learner.weights:
            self.folder.save_checkpoint(learner.updates, learner.policy, description, state)
            if MEASURE in row and row[MEASURE] >= self.best:
                self.best = row[MEASURE]
                self.folder.save_best(learner.policy, description)

    def report(self) -> None:
        """Prints how it ended."""
        learner = self.learner
        measured = ", ".join(f"{n.partition('/')[2]} {v:.3f}" for n, v in self.last.items() if n.startswith("val/"))
        print(f"{len(learner)} answers learned from in {learner.updates} updates" + f"; {measured}" * bool(measured))
        checkpoint = self.folder.latest_checkpoint()
        if checkpoint is not None:
            print(checkpoint)
        best = self.folder.best_policy()
        if best is not None and self.best > self.last.get(MEASURE, -math.inf):
            print(f"{best}: {MEASURE.partition('/')[2]} {self.best:.3f}, the best")


def train_from_log(args: RateArguments) -> int:
    """Trains a policy from a log, without a page; returns the exit code."""
    assert args.answers is not None
    answers = read_answers(args.answers)
    rating = Rating(args)
    learned = add_answers(rating.learner, answers, args.answers)
    rating.open_folder()
    try:
        steps = args.updates_per_answer * learned
        metrics: dict[str, float] = {}
        for step in tqdm(range(rating.learner.updates, steps), disable=not args.progress, unit="update"):
            metrics = rating.learner.update(one_cycle(step / steps))
        rating.save(metrics | rating.measure())
    finally:
        rating.folder.close()
    rating.report()
    return 0


def add_answers(learner: Learner, answers: list[Any], source: str) -> int:
    """Has a learner learn from the answers of a log; returns how many of them teach something.

    Raises:
        OptionError: it fits neither the photos nor the size.
    """
    for answer in answers:
        shape = answer.question.label_maps.shape[1:]
        if shape != learner.images.shape[1:3]:
            height, width = shape
            raise OptionError(f"The label maps of {source} have another size: --image-size {height} {width}")
        if int(answer.question.label_maps.max()) >= learner.num_classes:
            raise OptionError(f"The label maps of {source} have more than {learner.num_classes} classes.")
        if answer.question.chosen != "check":
            learner.add(answer)
    known = sum(answer.question.image in learner.index for answer in answers)
    if not len(learner):
        raise OptionError(f"{source} holds {len(answers)} answers, {known} of them to these photos: nothing to learn.")
    if known < len(answers):
        print(f"{len(answers) - known} of {len(answers)} answers are to photos that are not here.", file=sys.stderr)
    return len(learner)


def make_session(rating: Rating, **options: Any) -> Session:
    """The sitting of a run, with its log opened; ``options`` are of ``Session``."""
    args, learner, photos = rating.args, rating.learner, rating.photos
    log = AnswerLog(Path(args.run_dir) / LOG, rating.class_names, args.image_size)
    questions = Questions(
        photos.images,
        photos.names,
        lambda numbers: learner.probabilities(photos.images[numbers]),
        kinds=args.kinds,
        scope=args.scope,
        choice=args.choice,
        side=args.side or max(2, min(args.image_size) // 6),
        seed=args.seed,
    )
    measurable = rating.held_out is not None and rating.held_out.has_masks
    session = Session(
        log,
        questions,
        learner,
        rating.measure,
        repeat=args.repeat,
        checks=(0.0 if measurable else 0.1) if args.checks is None else args.checks,
        updates_per_answer=args.updates_per_answer,
        save=rating.save,
        seed=args.seed,
        **options,
    )
    for row in rating.folder.read_metrics():  # of a run that is resumed
        measured = {name: value for name, value in row.items() if name.startswith("val/")}
        session.curve.append({"answers": row["time/answers"], "updates": row["step"]} | measured)
    return session


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(args: RateArguments) -> int:
    """Serves the page until Ctrl-C; returns the exit code."""
    try:
        import uvicorn

        from .rating.server import Server
    except ImportError as error:
        raise OptionError(f"The page needs {error.name}: pip install 'rss-env[rate]'.") from None
    loopback = is_loopback(args.host)
    token = args.token or (None if loopback else secrets.token_urlsafe(16))
    try:
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listening = socket.create_server((args.host, args.port), family=family)
    except (OSError, UnicodeError) as error:
        raise OptionError(f"Cannot listen on {args.host}, port {args.port}: {error}. Try --port 0.") from None
    with listening:
        rating = Rating(args)
        rating.open_folder()
        session = make_session(rating)
        port = listening.getsockname()[1]
        hosts = [f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]", args.host)] if loopback else None
        server = Server(session, rating.photos, rating.held_out, rating.class_names, rating.palette, hosts, token)
        config = uvicorn.Config(
            server.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            limit_concurrency=200,
        )
        shown = f"[{args.host}]" if ":" in args.host else args.host
        print(f"http://{shown}:{port}/" + (f"?token={token}" if token else ""), flush=True)
        session.start()
        try:
            ending(uvicorn.Server, session)(config).run(sockets=[listening])
        except KeyboardInterrupt:
            pass
        finally:
            session.stop()
            session.log.close()
            rating.folder.close()
    rating.report()
    return 0 if session.error is None else 1


def ending(server: Any, session: Session) -> Any:
    """The class of a server that lets the pages go when it is asked to end, instead of waiting for them."""

    class Ending(server):
        def handle_exit(self, number: int, frame: Any) -> None:
            session.leaving = True
            super().handle_exit(number, frame)

    return Ending


def parse(words: list[str] | None = None) -> RateArguments:
    """The command line; with ``--resume`` the arguments stored in the run folder are the defaults."""
    prog = "python -m agents.rate"
    args = tyro.cli(RateArguments, prog=prog, args=words)
    if args.resume:
        folder = RunFolder(args.run_dir)
        stored = folder.read_config()
        if stored.get("algorithm") != "Rate":
            raise CheckpointError(f"{args.run_dir} holds a run of {stored.get('algorithm')}, not of people's answers.")
        saved = from_config(RateArguments, stored, folder.config_path)
        saved.token, saved.answers = None, None
        args = tyro.cli(RateArguments, prog=prog, args=words, default=saved)
    args.check()
    return args


def main() -> int:
    """Runs the command line."""
    args = parse()
    return serve(args) if args.answers is None else train_from_log(args)


if __name__ == "__main__":
    run_command(main)
