"""The folder of one training run: configuration, metrics, TensorBoard events and checkpoints.

    RUN_DIR/config.json                                   the arguments, and their checksum
    RUN_DIR/metrics.jsonl                                 one JSON object a line
    RUN_DIR/events.out.tfevents.*                         TensorBoard: scalars and a picture grid
    RUN_DIR/pictures/val-label_maps-step-00000200.png     validation images above the policy's label maps
    RUN_DIR/checkpoints/step-00000200/weights.safetensors   the policy, with its description as metadata
    RUN_DIR/checkpoints/step-00000200/state.pt            optimiser, random state, counters
    RUN_DIR/checkpoints/step-00000200/memory-0.pt         what process 0 remembers of earlier visits of the images,
                                                          until the run is finished
    RUN_DIR/checkpoints/step-00000200/SHA256SUMS          checksums of these files
    RUN_DIR/checkpoints/best/                             weights and checksum of the best policy, where a run keeps it
    RUN_DIR/.lock                                         held by the process that writes the folder

Whatever is replaced is written next to its place and renamed, so a run killed at any moment leaves a folder that
`--resume` can continue from its last checkpoint. Files and folders have the modes that the umask gives.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from ..checksums import add_checksums, check_folder, sync
from ..errors import CheckpointError, DamagedCheckpointError, RunFolderError
from ..networks.checkpoints import BEST, WEIGHTS, find_checkpoints, save_policy

STATE = "state.pt"


class RunFolder:
    """Reads and writes one run folder.

    Args:
        path: the folder.
        keep: how many checkpoints stay; older ones are deleted.
    """

    def __init__(self, path: str | Path, keep: int = 2) -> None:
        self.path = Path(path)
        self.keep = keep
        self._events: SummaryWriter | None = None
        self._lock = filelock.FileLock(self.path / ".lock")

    @property
    def config_path(self) -> Path:
        """The file with the arguments of the run; it exists from the run's first moment."""
        return self.path / "config.json"

    def create(self, config: dict[str, Any]) -> None:
        """Starts a new run, and locks its folder.

        Raises:
            RunFolderError: the folder already holds a run, is in use, or cannot be written.
        """
        self._refuse_a_run()
        self.lock()
        self._refuse_a_run()  # another process may have been quicker
        try:
            self.write_config(config)
        except OSError as error:
            raise RunFolderError(f"Cannot write the run folder {self.path}: {error}.") from error

    def _refuse_a_run(self) -> None:
        if self.config_path.exists():
            raise RunFolderError(
                f"{self.path} already holds a run. Continue it with --resume, or choose another --run-dir."
            )

    def lock(self) -> None:
        """Keeps other processes from writing the folder until ``close``, or until this process ends in any way.

        Raises:
            RunFolderError: another process writes it, or it cannot be written.
        """
        try:
            str(self.path).encode()  # TensorBoard takes no other names
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise RunFolderError(
                f"Another process is writing {self.path}. Wait until it has ended, or choose another --run-dir."
            ) from None
        except UnicodeEncodeError:
            raise RunFolderError(f"The name of the run folder {str(self.path)!a} is no valid UTF-8.") from None
        except OSError as error:
            raise RunFolderError(f"Cannot write the run folder {self.path}: {error}.") from error

    def write_config(self, config: dict[str, Any]) -> None:
        """Replaces config.json."""
        _write_atomically(self.config_path, json.dumps(config | {"sha256": _checksum(config)}, indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        """The stored arguments.

        Raises:
            RunFolderError: there is no run here, or config.json is damaged.
        """
        path = self.config_path
        try:
            config = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise RunFolderError(f"{self.path} holds no run: {path} does not exist.") from None
        except OSError as error:
            raise RunFolderError(f"Cannot read {path}: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise RunFolderError(f"{path} is damaged: {error}. Restore a copy of it.") from error
        if not isinstance(config, dict):
            raise RunFolderError(f"{path} is damaged: it is no JSON object. Restore a copy of it.")
        checksum = config.pop("sha256", None)
        if checksum is not None and checksum != _checksum(config):
            raise RunFolderError(
                f"{path} is damaged or was edited: it does not fit its checksum. Restore a copy of it; if you edited "
                'it, delete its line "sha256".'
            )
        return config

    def latest_checkpoint(self) -> Path | None:
        """The newest checkpoint folder, or None."""
        found = find_checkpoints(self.path)
        return found[-1] if found else None

    def latest_whole_checkpoint(self) -> tuple[Path | None, str | None]:
        """The newest checkpoint that a run can go on from.

        Returns:
            The folder, or None if there is no checkpoint; and a line that the user should read if there are newer ones,
            which are damaged.

        Raises:
            CheckpointError: all are damaged.
        """
        damaged = []
        for checkpoint in reversed(find_checkpoints(self.path)):
            try:
                check_folder(checkpoint, (WEIGHTS, STATE))
            except DamagedCheckpointError as error:
                damaged.append(error)
            else:
                said = f"{damaged[0]} Going on from {checkpoint.name}." if damaged else None
                return checkpoint, said
        if damaged:
            raise CheckpointError(
                f"{' '.join(map(str, damaged))} No checkpoint is whole. Restore a copy, or start again in another "
                "--run-dir."
            )
        return None, None

    def save_checkpoint(
        self,
        step: int,
        network: nn.Module,
        description: dict[str, Any],
        state: dict[str, Any],
        memories: Sequence[Path] = (),
    ) -> Path:
        """Writes a checkpoint, then deletes the ones that are no longer kept.

        Args:
            step: of the training.
            network: the policy.
            description: see ``save_policy``.
            state: what a resumed run needs, tensors and numbers only.
            memories: files of ``write_memory``, which become part of the checkpoint.

        Raises:
            RunFolderError: the disk is full, or cannot be written to.
        """
        final = self.path / "checkpoints" / f"step-{step:08d}"
        with _replacing(final) as temporary:
            save_policy(temporary / WEIGHTS, network, description)
            torch.save(state, temporary / STATE)
            for memory in memories:
                memory.replace(temporary / memory.name[1:])
        for old in find_checkpoints(self.path)[: -self.keep]:
            shutil.rmtree(old)
        return final

    def save_best(self, network: nn.Module, description: dict[str, Any]) -> Path:
        """Writes the best policy so far, in place of the one before; what reads the run folder takes it.

        Args:
            network: the policy.
            description: see ``save_policy``.

        Raises:
            RunFolderError: the disk is full, or cannot be written to.
        """
        final = self.path / "checkpoints" / BEST
        with _replacing(final) as temporary:
            save_policy(temporary / WEIGHTS, network, description)
        return final

    def best_policy(self) -> Path | None:
        """The folder of the best policy, or None if the run keeps none."""
        final = self.path / "checkpoints" / BEST
        return final if final.is_dir() else None

    def write_memory(self, rank: int, memory: dict[str, torch.Tensor]) -> Path | None:
        """Writes what only process ``rank`` remembers, for the next ``save_checkpoint``.

        Returns:
            The file; None if there is nothing to remember.

        Raises:
            RunFolderError: the disk is full, or cannot be written to.
        """
        if not memory:
            return None
        parent = self.path / "checkpoints"
        parent.mkdir(exist_ok=True)
        file = parent / f".memory-{rank}.pt"
        with _writing(parent):
            torch.save(memory, file)
        return file

    def forget_memories(self) -> None:
        """Deletes what the processes remembered, which may be large and which a finished run needs no more.

        Checkpoints that lose theirs still list it, as nothing can go on from them as it was.
        """
        for memory in (self.path / "checkpoints").glob("step-*/memory-*.pt"):
            memory.unlink()

    def read_memories(self, path: Path, ranks: Iterable[int]) -> Iterator[tuple[Path, dict[str, torch.Tensor]]]:
        """The files of what these processes remembered at a checkpoint, and what they hold.

        Processes that remembered nothing are left out.

        Raises:
            CheckpointError: a file is damaged.
        """
        for rank in ranks:
            file = path / f"memory-{rank}.pt"
            if file.exists():
                yield file, _read_tensors(file, path)

    def read_state(self, path: Path) -> dict[str, Any]:
        """The training state of a checkpoint folder.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        return _read_tensors(path / STATE, path)

    def rewind(self, step: int) -> None:
        """Forgets what was logged and saved after ``step``, and drops leftovers of writes that a kill cut short."""
        for later in find_checkpoints(self.path):
            if later.name > f"step-{step:08d}":  # damaged ones, which the run will write again
                shutil.rmtree(later)
        for leftover in (self.path / "checkpoints").glob(".writing-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in (self.path / "checkpoints").glob(".memory-*.pt"):
            leftover.unlink()
        kept = [json.dumps(row) + "\n" for row in self.read_metrics() if row["step"] <= step]
        _write_atomically(self.path / "metrics.jsonl", "".join(kept))
        self._events = SummaryWriter(str(self.path), purge_step=step + 1)

    def read_metrics(self) -> list[dict[str, float]]:
        """The logged rows, oldest first; a line that is damaged, or that a kill cut short, is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        return [row for row in map(_read_row, lines) if row is not None]

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Appends one row to metrics.jsonl and the same numbers to TensorBoard."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            self.events.add_scalar(name, value, step)

    def log_picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Adds a picture, uint8 (H, W, 3), to TensorBoard and as a PNG file to pictures/."""
        self.events.add_image(name, picture, step, dataformats="HWC")
        folder = self.path / "pictures"
        folder.mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / f"{name.replace('/', '-')}-step-{step:08d}.png")

    @property
    def events(self) -> SummaryWriter:
        """The TensorBoard writer, opened at its first use."""
        if self._events is None:
            self._events = SummaryWriter(str(self.path))
        return self._events

    def close(self) -> None:
        """Flushes and closes the TensorBoard writer, and lets other processes write the folder."""
        if self._events is not None:
            self._events.close()
            self._events = None
        self._lock.release()


@contextmanager
def contents_of(file: Path) -> Iterator[None]:
    """Names the file whose contents a block cannot use: a key is missing, or a value is not what it should be.

    Raises:
        CheckpointError: in place of the error of the block.
    """
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{file} does not hold what this run needs ({type(error).__name__}: {said}). "
            f"Delete {file.parent} to resume from the checkpoint before it."
        ) from error


def _read_tensors(file: Path, checkpoint: Path) -> dict[str, Any]:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"Cannot read {file}: it is missing, damaged or cut short ({type(error).__name__}). "
            f"Delete {checkpoint} to resume from the checkpoint before it."
        ) from error


def _read_row(line: bytes) -> dict[str, float] | None:
    """A row of metrics.jsonl, numbers by name; None if the line holds none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and isinstance(row.get("step"), int)
    return row if whole and all(isinstance(value, int | float) for value in row.values()) else None


def _checksum(config: dict[str, Any]) -> str:
    as_read = json.loads(json.dumps(config))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".writing-{path.name}")
    try:
        temporary.write_text(text)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what a kill left
    folder.mkdir()


@contextmanager
def _replacing(final: Path) -> Iterator[Path]:
    """An empty folder that takes the place of ``final``, with checksums of its files, when the block has ended."""
    parent = final.parent
    temporary, aside = parent / f".writing-{final.name}", parent / f".writing-{final.name}-aside"
    parent.mkdir(exist_ok=True)
    try:
        with _writing(parent):
            _make_empty(temporary)
            yield temporary
            files = sorted(temporary.iterdir())
            for file in files:
                sync(file)
            add_checksums(files)
            sync(temporary)
        if final.exists():  # the old one goes when the new one is there
            _make_empty(aside)
            final.replace(aside)
        temporary.replace(final)
        sync(parent)
        if aside.exists():
            shutil.rmtree(aside)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Names the folder that a checkpoint cannot be written to, and why: a full disk, most often.

    torch and safetensors hide the operating system's error behind one of their own.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        first: BaseException = error
        while first.__context__ is not None:
            first = first.__context__
        for memory in path.glob(".memory-*.pt"):
            memory.unlink(missing_ok=True)
        raise RunFolderError(f"Cannot write a checkpoint to {path}; is the disk full? {first}") from error
