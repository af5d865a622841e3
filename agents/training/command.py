"""What the training commands share: the command line, resuming with its stored arguments, and how errors end."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import tyro

from rss_env.errors import DatasetError, JudgeError, OptionError

from ..errors import CheckpointError, JobError, RunFolderError
from .algorithm import Algorithm
from .arguments import TrainArguments, default_run_dir, from_config
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
        RunFolderError: ``--resume`` without a run of this algorithm, or with a damaged config.json.
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
    folder = RunFolder(run_dir)
    stored, source = folder.read_config(), folder.config_path
    if stored.get("algorithm") != cls.__name__:
        raise RunFolderError(f"{run_dir} holds a run of {stored.get('algorithm')}, not of {cls.__name__}.")
    saved = Command(from_config(cls, stored, source), from_config(TrainArguments, stored, source))
    command = _parse(cls, words, saved)
    command.run.run_dir = run_dir
    return command


def report(result: Result, run: TrainArguments) -> int:
    """Prints how a run ended, in process 0 of a job; returns the command's exit code."""
    if not Job().is_main:
        return 0 if result.finished else 130
    if not result.finished:
        print(f"Stopped after step {result.step} of {run.steps}; continue with --run-dir {run.run_dir} --resume")
        return 130
    assert result.evaluation is not None
    print(
        f"{run.val_split}: {result.evaluation}; "
        f"{result.reward_queries:,} reward queries, {result.seconds:.0f} s\n{result.checkpoint}"
    )
    return 0


def run_command(main: Callable[[], int | None]) -> None:
    """Runs a command; an error on the user's side becomes one line on stderr and exit code 2.

    SIGTERM ends it as Ctrl-C does, with exit code 130. If whoever reads its output leaves early it ends as other
    commands do, with exit code 141 and no further word.
    """
    _open_streams()
    with _terminated_as_interrupted():
        try:
            code = _exit_code(main)
            sys.stdout.flush()  # else an error would come at the exit of the interpreter, with a traceback
        except (OptionError, DatasetError, JudgeError, RunFolderError, CheckpointError, FloatingPointError) as error:
            code = _fail(f"error: {error}", 2)
        except JobError as error:
            code = _fail(f"error in process {os.environ.get('RANK', '0')}: {error}", 3)
        except BrokenPipeError:
            code = 141
        except OSError as error:  # a file that is not there or may not be written, a full disk
            code = _fail(f"error: {_without_number(error)}", 2)
        except KeyboardInterrupt:
            code = _fail("interrupted", 130)
    _close_streams()
    sys.exit(code)


def _exit_code(main: Callable[[], int | None]) -> Any:
    try:
        return main()
    except SystemExit as end:  # tyro's, of --help and of words that it does not know
        return end.code


def _fail(said: str, code: int) -> int:
    with suppress(OSError):
        print(said, file=sys.stderr)
    return code


def _open_streams() -> None:
    """Has output that is closed go nowhere, and what cannot be encoded printed as an escape."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # free: the next file that is opened would get it, and with it what libraries print
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (open to the end)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _close_streams() -> None:
    """Drops what cannot be printed any more, over which the interpreter would stumble at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _without_number(error: OSError) -> str:
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror or str(error)
