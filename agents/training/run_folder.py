"""The folder of one training run: configuration, metrics, TensorBoard events and checkpoints.

    RUN_DIR/config.json                                   the arguments
    RUN_DIR/metrics.jsonl                                 one JSON object a line
    RUN_DIR/events.out.tfevents.*                         TensorBoard: scalars and a picture grid
    RUN_DIR/pictures/val-label_maps-step-00000200.png     validation images above the policy's label maps
    RUN_DIR/checkpoints/step-00000200/weights.safetensors   the policy, with its description as metadata
    RUN_DIR/checkpoints/step-00000200/state.pt            optimiser, random state, counters
    RUN_DIR/checkpoints/step-00000200/memory-0.pt         what process 0 remembers of earlier visits of the images,
                                                          until the run is finished

Whatever is replaced is written next to its place and renamed, so a run killed at any moment leaves a folder that
`--resume` can continue from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from ..errors import CheckpointError, RunFolderError
from ..networks.checkpoints import save_policy


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

    @property
    def config_path(self) -> Path:
        """The file with the arguments of the run; it exists from the run's first moment."""
        return self.path / "config.json"

    def create(self, config: dict[str, Any]) -> None:
        """Starts a new run.

        Raises:
            RunFolderError: the folder already holds a run, or cannot be written.
        """
        if self.config_path.exists():
            raise RunFolderError(
                f"{self.path} already holds a run. Continue it with --resume, or choose another --run-dir."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_config(config)
        except OSError as error:
            raise RunFolderError(f"Cannot write the run folder {self.path}: {error}.") from error

    def write_config(self, config: dict[str, Any]) -> None:
        """Replaces config.json."""
        _write_atomically(self.config_path, json.dumps(config, indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        """The stored arguments.

        Raises:
            RunFolderError: there is no run here.
        """
        try:
            return json.loads(self.config_path.read_text())
        except FileNotFoundError:
            raise RunFolderError(f"{self.path} holds no run: {self.config_path} does not exist.") from None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"Cannot read {self.config_path}: {error}.") from error

    def latest_checkpoint(self) -> Path | None:
        """The newest checkpoint folder, or None."""
        found = sorted((self.path / "checkpoints").glob("step-*"))
        return found[-1] if found else None

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
        parent = self.path / "checkpoints"
        final = parent / f"step-{step:08d}"
        parent.mkdir(exist_ok=True)
        temporary, aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=parent)), None
        try:
            with _writing(parent):
                save_policy(temporary / "weights.safetensors", network, description)
                torch.save(state, temporary / "state.pt")
            for memory in memories:
                memory.replace(temporary / memory.name[1:])
            for file in temporary.iterdir():
                _sync(file)
            temporary.chmod(0o755)
            if final.exists():  # the same step again: the old one goes when the new one is there
                aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=parent))
                final.replace(aside)
            temporary.replace(final)
            _sync(parent)
            if aside is not None:
                shutil.rmtree(aside)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in sorted(parent.glob("step-*"))[: -self.keep]:
            shutil.rmtree(old)
        return final

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
        """Deletes what the processes remembered, which may be large and which a finished run needs no more."""
        for memory in (self.path / "checkpoints").glob("step-*/memory-*.pt"):
            memory.unlink()

    def read_memories(self, path: Path, ranks: Iterable[int]) -> Iterator[dict[str, torch.Tensor]]:
        """What these processes remembered at a checkpoint; those that had nothing are left out.

        Raises:
            CheckpointError: a file is damaged.
        """
        for rank in ranks:
            file = path / f"memory-{rank}.pt"
            if file.exists():
                yield _read_tensors(file, path)

    def read_state(self, path: Path) -> dict[str, Any]:
        """The training state of a checkpoint folder.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        return _read_tensors(path / "state.pt", path)

    def rewind(self, step: int) -> None:
        """Forgets what was logged after ``step`` and drops leftovers of writes that a kill cut short."""
        for leftover in (self.path / "checkpoints").glob(".writing-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in (self.path / "checkpoints").glob(".memory-*.pt"):
            leftover.unlink()
        kept = [json.dumps(row) + "\n" for row in self.read_metrics() if row["step"] <= step]
        _write_atomically(self.path / "metrics.jsonl", "".join(kept))
        self._events = SummaryWriter(str(self.path), purge_step=step + 1)

    def read_metrics(self) -> list[dict[str, float]]:
        """The logged rows, oldest first; a last line that a kill cut short is left out."""
        path = self.path / "metrics.jsonl"
        rows = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

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
        """Flushes and closes the TensorBoard writer."""
        if self._events is not None:
            self._events.close()
            self._events = None


def _read_tensors(file: Path, checkpoint: Path) -> dict[str, Any]:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"Cannot read {file}: it is missing, damaged or cut short ({type(error).__name__}). "
            f"Delete {checkpoint} to resume from the checkpoint before it."
        ) from error


def _write_atomically(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
