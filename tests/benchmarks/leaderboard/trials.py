from __future__ import annotations

import textwrap
from pathlib import Path

from benchmarks.leaderboard.judge import Judge, Verdict
from benchmarks.processes import Processes
from benchmarks.tasks import FEW_VISITS, Setting, Task

OPTIONS = {"num_images": 8, "num_classes": 3}
TASK = Task("shapes-32", "RSS-Shapes-ImageReward-v0", (16, 16), {"small": 96, "large": 512}, OPTIONS)
SETTING = Setting(TASK)
FEW = Setting(TASK, FEW_VISITS, "large")
REPORT = "trial.report(lambda images: np.zeros(images.shape[:3], np.uint8))"


def judge_body(folder: Path, body: str, setting: Setting = SETTING, seconds: float = 60) -> Verdict:
    """Judges an entry whose ``train`` starts in line 5."""
    path = folder / "my_entry.py"
    path.write_text(f"import numpy as np\n\n\ndef train(trial):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n")
    return judge_file(path, folder / "log.txt", setting, seconds)


def judge_file(path: Path, log: Path, setting: Setting = SETTING, seconds: float = 60) -> Verdict:
    return Judge(path, setting, 1, seconds, Processes(), log).run()
