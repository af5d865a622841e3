"""A list of training commands, run a few at once, and one row of results each: what several benchmarks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from agents.training.run_folder import RunFolder
from benchmarks.processes import Processes
from benchmarks.results_file import add_rows, check_writable, device_name, provenance, read_rows
from benchmarks.training_runs import RunFailed, run_all, train
from rss_env.errors import OptionError


@dataclass(frozen=True)
class Case:
    """One training run.

    Attributes:
        columns: what identifies it in the results file.
        command: the module and its arguments, without the run folder.
    """

    columns: dict[str, str]
    command: Sequence[str]

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return "-".join(value.replace(" ", "_") for value in self.columns.values() if value)


def run_cases(
    cases: Sequence[Case],
    out: Path,
    run_dir: Path,
    parallel: int,
    measure: Callable[[Case, Path], dict[str, Any]],
) -> None:
    """Trains the runs that a results file does not hold, resumed where they stopped, and adds a row for each.

    Args:
        cases: the runs, all with the same columns.
        out: results file.
        run_dir: folder of the run folders.
        parallel: runs at once.
        measure: what is measured of a finished run by its folder, next to its queries and seconds.

    Raises:
        OptionError: a run stopped with an error.
    """
    check_writable(out)
    key = list(cases[0].columns)

    def held() -> set[tuple[str, ...]]:
        return {tuple(row[name] for name in key) for row in read_rows(out, key)}

    def is_done(case: Case) -> bool:
        return tuple(case.columns.values()) in held()

    def folder(case: Case) -> Path:
        return run_dir / case.name

    def work(case: Case, processes: Processes) -> dict[str, Any]:
        try:
            train(case.command, folder(case), processes)
        except RunFailed as failure:
            raise OptionError(f"{case.name} {failure}") from failure
        last: dict[str, Any] = {}
        for row in RunFolder(folder(case)).read_metrics():
            last |= row
        spent = {
            "reward_queries": int(last["time/reward_queries"]),
            "seconds": round(last["time/seconds"], 1),
        }
        return case.columns | measure(case, folder(case)) | spent | measured

    missing = [case for case in cases if not is_done(case)]
    on_cuda = any("cuda" in case.command for case in cases)
    device = torch.device("cuda" if on_cuda else "cpu")
    measured = provenance() | {"device": device_name(threads=1, device=device)}
    with tqdm(total=len(missing), unit="run") as bar:

        def finished(case: Case, row: dict[str, Any] | None) -> None:
            if row is not None:
                add_rows(out, [row], key)
            bar.update()

        run_all(missing, folder, is_done, work, finished, parallel)
