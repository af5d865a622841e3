"""A results file read and written by one process; ``test_many_writers`` has several."""

from __future__ import annotations

import errno
import fcntl
import threading
from pathlib import Path

import pytest
import torch

from benchmarks.results_file import (
    add_rows,
    check_writable,
    device_name,
    locked,
    read_last_device,
    read_rows,
    replacing,
    update_rows,
)
from rss_env.errors import OptionError


def test_rows_of_a_key_are_replaced_together_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    add_rows(path, [{"run": 1, "step": 1}, {"run": 1, "step": 2}], ["run"])
    add_rows(path, [{"run": 2, "step": 1}], ["run"])
    add_rows(path, [{"run": 1, "step": 3}], ["run"])
    assert read_rows(path) == [{"run": "2", "step": "1"}, {"run": "1", "step": "3"}]


def test_columns_grow_and_rows_without_a_column_leave_it_empty(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    text = 'three, "four"\nand five'
    add_rows(path, [{"a": 1, "old": text}], ["a"])
    add_rows(path, [{"new": None, "a": 2}, {"a": 3, "new": 0.5}], ["a"])
    assert read_rows(path) == [
        {"a": "1", "old": text, "new": ""},
        {"a": "2", "old": "", "new": ""},
        {"a": "3", "old": "", "new": "0.5"},
    ]


def test_a_file_without_rows_keeps_its_heading_and_a_change_of_nothing_does_not_write(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    update_rows(path, lambda rows: rows)
    assert not path.exists()
    add_rows(path, [{"a": 1, "b": 2}], ["a"])
    update_rows(path, lambda rows: [])
    assert path.read_text() == "a,b\n"
    before = path.stat().st_ino
    update_rows(path, lambda rows: rows)
    assert path.stat().st_ino == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n3", "line 3 does not have the 2 cells of the heading"),  # cut within a line
        ("a,b\n1,2\n3,4", "line 3 is cut short"),  # perhaps of 3,40
        ('a,b\n1,"2', "unexpected end of data"),
        ("a,b\n1,2,3\n", "line 2 does not have the 2 cells of the heading"),
        ("a,a\n1,2\n", "two columns have one name"),
    ],
)
def test_a_file_with_a_line_that_is_not_whole_is_refused_and_stays_as_it_is(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(OptionError, match=f"rows.csv cannot be read as CSV: {said}"):
        read_rows(path)
    with pytest.raises(OptionError, match=said):
        add_rows(path, [{"a": 5, "b": 6}], ["a"])
    assert path.read_text() == text


def test_other_results_are_refused_and_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n")
    with pytest.raises(OptionError, match="holds other results: it has no column 'run'"):
        add_rows(path, [{"run": 1}], ["run"])
    assert path.read_text() == "a,b\n"


def test_tables_show_the_device_that_was_measured_last(tmp_path: Path) -> None:
    path, key = tmp_path / "rows.csv", ["size", "device"]
    assert read_last_device(path) == []
    for device in ("one", "two"):
        add_rows(path, [{"size": size, "device": device, "ms": 1} for size in (1, 2)], key)
    assert [(row["size"], row["device"]) for row in read_last_device(path)] == [("1", "two"), ("2", "two")]
    add_rows(path, [{"size": 1, "device": "one", "ms": 3}], key)
    assert [(row["size"], row["ms"]) for row in read_last_device(path)] == [("2", "1"), ("1", "3")]


def test_a_time_of_the_processor_is_not_said_to_be_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert device_name() == device_name(device=torch.device("cuda")) == "a GPU"
    assert "threads" in device_name(device=torch.device("cpu"))


def test_results_that_cannot_be_written_leave_the_old_ones_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    add_rows(path, [{"a": 1}], ["a"])

    def fill_the_disk() -> None:
        with replacing(path) as file:
            file.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"cannot write .*rows.csv: No space"):
        fill_the_disk()
    assert read_rows(path) == [{"a": "1"}]
    assert sorted(tmp_path.iterdir()) == [tmp_path / ".rows.csv.lock", path]


def test_a_folder_that_takes_no_files_is_named() -> None:
    path = Path("/sys/rows.csv")  # not even the superuser can write here
    for write in (check_writable, lambda path: add_rows(path, [{"a": 1}], ["a"])):
        with pytest.raises(OSError, match=r"cannot write /sys/rows\.csv: "):
            write(path)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_refused_before_anything_is_measured(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"cannot write .*rows.csv: its file system has no locks; choose another folder"):
        check_writable(tmp_path / "rows.csv")


def test_a_lock_excludes_other_threads_and_is_free_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run"
    seen: list[bool] = []

    def look() -> None:
        with locked(path, wait=False) as held:
            seen.append(held)

    def look_from_a_thread() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    def interrupted() -> None:
        with locked(path):
            look_from_a_thread()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    look_from_a_thread()
    assert seen == [False, True]


def test_a_link_to_a_results_file_stays_a_link_and_has_its_lock(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path, link = tmp_path / "there" / "rows.csv", tmp_path / "link.csv"
    link.symlink_to(path)
    add_rows(link, [{"a": 1}], ["a"])
    add_rows(path, [{"a": 2}], ["a"])
    assert link.is_symlink()
    assert read_rows(link) == read_rows(path) == [{"a": "1"}, {"a": "2"}]
    assert sorted(tmp_path.rglob("*.lock")) == [tmp_path / "there" / ".rows.csv.lock"]
