"""What the training commands share: the command line, resuming with its stored arguments, and how errors end."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import tyro

from rss_env.errors import DatasetError, OptionError

from ..errors import CheckpointError, JobError, RunFolderError
from .algorithm import Algorithm
from .arguments import MAY_CHANGE_ON_RESUME, TrainArguments, default_run_dir, to_config
from .distributed import Job
from .loop import Result, fit
from .run_folder import RunFolder

AnyAlgorithm = TypeVar("AnyAlgorithm", bound=Algorithm)


@dataclass
class Command(Generic[AnyAlgorithm]):
    """A training command: an algorithm, whose fields are flags, and the run's own arguments."""

    algorithm: AnyAlgorithm
    run: TrainArguments = field(default_factory=TrainArguments)


def train_command(cls: type[Algorithm]) -> int:
    """Runs the command line of an algorithm; returns the exit code."""
    command = parse_command(cls)
    return report(fit(command.run, command.algorithm), command.run)


def parse_command(cls: type[AnyAlgorithm], words: Sequence[str] | None = None) -> Command[AnyAlgorithm]:
    """Parses a command line; with ``--resume`` the arguments stored in the run folder are the defaults.

    Args:
        cls: the algorithm; its fields and those of ``TrainArguments`` are the flags.
        words: the command line; None: that of this process.

    Raises:
        RunFolderError: ``--resume`` without a run, or with an argument that would make it another run.
        OptionError: a value is out of range.
    """
    words = list(sys.argv[1:] if words is None else words)
    command = _parse(cls, words, Command(cls()))
    if command.run.run_dir is None:
        command.run.run_dir = default_run_dir(cls.__name__, command.run)
    if command.run.resume:
        command = _parse_resumed(cls, words, command.run.run_dir)
    command.run.check()
    return command


def _parse(cls: type[AnyAlgorithm], words: Sequence[str], default: Command[AnyAlgorithm]) -> Command[AnyAlgorithm]:
    # tyro fills in a form whose values are not checked yet: it would wrap the algorithm's own errors in a box.
    blank: Any = type(cls.__name__, (cls,), {"__post_init__": lambda _: None, "__doc__": cls.__doc__})
    flat: Any = tyro.conf.OmitArgPrefixes  # flags are named by their fields only
    spec = sys.modules[cls.__module__].__spec__
    form = tyro.cli(
        flat[Command[blank]],
        args=list(words),
        default=Command(blank(**_fields(default.algorithm)), default.run),
        prog=cls.__name__ if spec is None else f"python -m {spec.name}",
        description=cls.__doc__,
    )
    return Command(cls(**_fields(form.algorithm)), form.run)


def _fields(algorithm: Algorithm) -> dict[str, Any]:
    return {field.name: getattr(algorithm, field.name) for field in dataclasses.fields(algorithm)}


def _parse_resumed(cls: type[AnyAlgorithm], words: Sequence[str], run_dir: str) -> Command[AnyAlgorithm]:
    stored = RunFolder(run_dir).read_config()
    if stored.get("algorithm") != cls.__name__:
        raise RunFolderError(f"{run_dir} holds a run of {stored.get('algorithm')}, not of {cls.__name__}.")
    saved = Command(_restore(cls, stored), _restore(TrainArguments, stored))
    command = _parse(cls, words, saved)
    command.run.run_dir = run_dir
    before, now = to_config(saved.run, saved.algorithm), to_config(command.run, command.algorithm)
    changed = [
        f"{name} {before[name]!r} -> {now[name]!r}"
        for name in sorted(set(now) - MAY_CHANGE_ON_RESUME)
        if before[name] != now[name]
    ]
    if changed:
        raise RunFolderError(
            f"--resume continues the run in {run_dir}; these arguments would make it another one: {'; '.join(changed)}."
        )
    return command


def _restore(cls: type[Any], stored: dict[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(cls)}
    return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in stored.items() if key in known})


def report(result: Result, run: TrainArguments) -> int:
    """Prints how a run ended, in process 0 of a job; returns the command's exit code."""
    if not Job().is_main:
        return 0 if result.finished else 130
    if not result.finished:
        print(f"Stopped after step {result.step} of {run.steps}; continue with --run-dir {run.run_dir} --resume")
        return 130
    assert result.evaluation is not None
    print(
        f"{run.val_split}: mIoU {result.evaluation.miou:.4f}, "
        f"pixel accuracy {result.evaluation.pixel_accuracy:.4f} on {result.evaluation.images} images; "
        f"{result.reward_queries:,} reward queries, {result.seconds:.0f} s\n{result.checkpoint}"
    )
    return 0


def run_command(main: Callable[[], int | None]) -> None:
    """Runs a command; an error on the user's side becomes one line on stderr and exit code 2."""
    try:
        sys.exit(main())
    except (OptionError, DatasetError, RunFolderError, CheckpointError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except JobError as error:
        print(f"error in process {os.environ.get('RANK', '0')}: {error}", file=sys.stderr)
        sys.exit(3)
    except OSError as error:  # a file that is not there or may not be written, a full disk
        print(f"error: {_without_number(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _without_number(error: OSError) -> str:
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror or str(error)
