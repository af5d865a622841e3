from __future__ import annotations

import textwrap
from pathlib import Path

from benchmarks.leaderboard.arenas import Arena
from benchmarks.leaderboard.judge import Judge, Verdict
from benchmarks.processes import Processes

ARENA = Arena("shapes", "RSS-Shapes-ImageReward-v0", (16, 16), 96, {"num_images": 8, "num_classes": 3})
REPORT = "trial.report(lambda images: np.zeros(images.shape[:3], np.uint8))"


def judge_body(folder: Path, body: str, arena: Arena = ARENA, seconds: float = 60) -> Verdict:
    """Judges an entry whose ``train`` starts in line 5."""
    path = folder / "my_entry.py"
    path.write_text(f"import numpy as np\n\n\ndef train(trial):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n")
    return judge_file(path, folder / "log.txt", arena, seconds)


def judge_file(path: Path, log: Path, arena: Arena = ARENA, seconds: float = 60) -> Verdict:
    return Judge(path, arena, 1, seconds, Processes(), log).run()
