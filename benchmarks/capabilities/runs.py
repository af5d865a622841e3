"""One run of ``benchmarks.capabilities``: an agent in a setting with a seed, and the row of results that it gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from agents.training.run_folder import RunFolder
from benchmarks.capabilities.experiments import ENV_ID, Setting
from benchmarks.memory import PeakMemory
from benchmarks.processes import Processes
from benchmarks.results_file import device_name
from benchmarks.training_runs import RunFailed, train
from rss_env.datasets import load_dataset
from rss_env.errors import OptionError

BOUND = "cross-entropy"
AGENTS = {
    BOUND: "agents.supervised",
    "likelihood": "agents.likelihood",
    "rss": "agents.rss",
    "sb3 ppo": "agents.sb3 --algo ppo",
    "sb3 a2c": "agents.sb3 --algo a2c",
}
"""Training command of each agent."""
KEY = ("size", "agent", *(field.name for field in fields(Setting)), "seed")  # of the row of a run


@dataclass(frozen=True)
class Run:
    """An agent in a setting with a seed.

    Attributes:
        size: ``"full"`` or ``"quick"``.
        agent: its name.
        command: module and own flags of its training command.
        setting: what it is trained on.
        seed: of everything random.
    """

    size: str
    agent: str
    command: str
    setting: Setting
    seed: int

    @property
    def columns(self) -> dict[str, str]:
        """What identifies the run in a results file, as text."""
        values = {"size": self.size, "agent": self.agent} | vars(self.setting) | {"seed": self.seed}
        return {name: str(value) for name, value in values.items()}

    @property
    def key(self) -> tuple[str, ...]:
        """The values of ``KEY``."""
        return tuple(self.columns[name] for name in KEY)

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return "-".join(value for value in self.key if value).translate(str.maketrans(" :/", "___"))

    @property
    def words(self) -> list[str]:
        """The module and its arguments, without the run folder."""
        module, *own = self.command.split()
        setting, seed = self.setting, str(self.seed)
        words = [module, "--env-id", ENV_ID, "--image-size", str(setting.side), str(setting.side), "--seed", seed]
        words += ["--env-kwargs", json.dumps(setting.data), *setting.reward_words]
        if setting.samples:
            words += ["--samples-per-image", str(setting.samples)]
        if self.is_sb3:
            queries = setting.steps * setting.batch * setting.samples
            words += ["--images", str(setting.batch), "--reward-queries", str(queries), "--evaluations", "1"]
        else:
            words += ["--batch-size", str(setting.batch), "--steps", str(setting.steps)]
            words += ["--eval-every", "0", "--checkpoint-every", str(setting.steps)]
        return words + own

    @property
    def is_sb3(self) -> bool:
        """Whether the command is that of Stable-Baselines3, whose flags are others and which resumes no run."""
        return self.command.split()[0] == "agents.sb3"


@dataclass(frozen=True)
class Work:
    """Does a run.

    Attributes:
        run_dir: folder of the run folders.
        measured: columns that say what the rows were measured with; the device is that of the machine that does a run.
    """

    run_dir: str
    measured: Mapping[str, Any]

    def folder(self, run: Run) -> Path:
        """The run folder of a run."""
        return Path(self.run_dir) / run.name

    def __call__(self, run: Run, processes: Processes) -> dict[str, Any]:
        """Trains the agent, from its last checkpoint if it was interrupted, and gives the row of the run.

        Where the agent refuses the setting or its training diverges, the row says so instead of a mIoU.

        Raises:
            OptionError: the training command stopped with an error of another kind.
        """
        folder = self.folder(run)
        if run.is_sb3:
            shutil.rmtree(folder, ignore_errors=True)
        nothing = {"status": "", "val_miou": "", "reward_queries": "", "seconds": "", "learning_rate": ""}
        measured = dict(self.measured) | {"device": device_name(threads=1)}
        about = run.columns | {"command": run.command, "zero": round(zero_of(run.setting), 5)} | nothing
        peak = PeakMemory()
        try:
            train(run.words, folder, processes, memory=peak)
        except RunFailed as failure:
            if not str(failure).startswith("stopped with exit code 2: "):
                raise OptionError(f"{run.name} {failure}") from failure
            return about | {"status": str(failure).partition(": ")[2], "peak_mib": ""} | measured
        last: dict[str, Any] = {}
        for row in RunFolder(folder).read_metrics():
            last |= row
        return (
            about
            | {
                "status": "ok",
                "val_miou": round(last["val/miou"], 5),
                "reward_queries": int(last["time/reward_queries"]),
                "seconds": round(last["time/seconds"], 1),
                "learning_rate": RunFolder(folder).read_config()["learning_rate"],
                "peak_mib": "" if peak.mebibytes is None else round(peak.mebibytes),
            }
            | measured
        )


def zero_of(setting: Setting) -> float:
    """MIoU on the validation split without looking at the images: of the best constant or of random label maps, exact.

    That of random ones is of the expected confusion matrix.
    """
    data = load_dataset("Shapes", split="val", image_size=(setting.side, setting.side), **setting.data)
    assert data.targets is not None
    counts = np.bincount(np.ravel(data.targets), minlength=setting.classes).astype(float)  # pixels of each class
    pixels, present = counts.sum(), int((counts > 0).sum())
    constant = [counts[c] / pixels / (present + (counts[c] == 0)) for c in range(setting.classes)]
    hit = counts / setting.classes
    random = hit / (counts + pixels / setting.classes - hit)
    return float(max(*constant, random.mean()))
