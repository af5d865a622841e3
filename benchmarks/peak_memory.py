"""Runs a training command and keeps the peak memory of its process next to what it trained.

python -m benchmarks.peak_memory --module agents.rss --run-dir runs/rss …     and further words of agents.rss
"""

from __future__ import annotations

import argparse
import json
import resource
import runpy
import sys
from pathlib import Path

import torch

FILE = "peak_memory.json"


def main() -> int:
    """Runs the module with the other words, in this process, and gives its exit code."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--module", required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    given, words = parser.parse_known_args()
    sys.argv = [given.module, "--run-dir", str(given.run_dir), *words]
    code = 0
    try:
        runpy.run_module(given.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = int(end.code or 0)
    if given.run_dir.is_dir():
        earlier = read_peak(given.run_dir) or 0.0  # of the part before an interruption
        (given.run_dir / FILE).write_text(json.dumps({"peak_mib": max(earlier, peak())}))
    return code


def peak() -> float:
    """Most memory that this process has held, in MiB: of the GPU where it used one, else of the host."""
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return (on_gpu or unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 2**20


def read_peak(run_dir: Path) -> float | None:
    """The peak in MiB that a run folder holds; None if it holds none."""
    try:
        return float(json.loads((run_dir / FILE).read_text())["peak_mib"])
    except (FileNotFoundError, ValueError):
        return None


if __name__ == "__main__":
    sys.exit(main())
