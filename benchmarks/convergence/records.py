"""The tables of ``results/records``: trials, most of them with code that was not kept, which no command runs again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.results_file import RESULTS, Row, Table, read_rows

RECORDS = RESULTS / "records"
NAMES = {"samples_per_image": "K", "replayed_visits": "replayed visits", "learning_rate": "learning rate"}


def record_table(name: str) -> Callable[[], Table]:
    """The table of a record, column by column; mIoU to three digits."""

    def table() -> Table:
        rows = read_rows(RECORDS / f"{name}.csv")
        return [_head(rows[0]), *(_cells(row, row) for row in rows)]

    return table


def search_table() -> Table:
    """The search for the defaults, on one number of steps."""
    rows = read_rows(RECORDS / "search.csv")
    columns = [name for name in rows[0] if name not in ("seed", "steps", "augment")]
    lines = [[*_head(columns), "images mirrored", "seed"]]
    for row in rows:
        lines.append([*_cells(row, columns), "yes" if row["augment"] == "flip" else "", row["seed"]])
    return lines


def _head(columns: Iterable[str]) -> list[str]:
    return [NAMES.get(name, name.replace("miou_", "")) for name in columns]


def _cells(row: Row, columns: Iterable[str]) -> list[str]:
    return [f"{float(row[name]):.3f}" if name.startswith("miou") and row[name] else row[name] for name in columns]
