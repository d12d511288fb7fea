"""What handlers in other processes tell."""

from __future__ import annotations

import multiprocessing
import threading

import pytest

from benchmarks.tasks import meter
from benchmarks.tasks.meter import Meter, Reading, read_meters


@pytest.fixture
def clock(monkeypatch):
    """Ten, eleven, twelve … seconds, one with every look."""
    ticks = iter(range(10, 10_000))
    monkeypatch.setattr(meter.time, "time", lambda: float(next(ticks)))


def test_nothing_was_told_where_no_handler_ran(tmp_path):
    assert read_meters(tmp_path) == Reading()
    assert read_meters(tmp_path).seconds() == 0


@pytest.mark.usefixtures("clock")
def test_starts_and_ends_are_counted_with_the_first_and_the_last_of_them(tmp_path):
    told = Meter(tmp_path)
    told.start()  # 10
    told.start()  # 11
    told.end()  # 12
    assert read_meters(tmp_path) == Reading(started=2, ended=1, first_start=10, last_end=12, last_start=11)
    assert read_meters(tmp_path).running == 1
    assert read_meters(tmp_path).seconds() == 2


@pytest.mark.usefixtures("clock")
def test_a_handler_that_does_nothing_starts_and_ends_at_once(tmp_path):
    told = Meter(tmp_path)
    told.pass_by()  # 10
    told.pass_by()  # 11
    assert read_meters(tmp_path) == Reading(started=2, ended=2, first_start=10, last_end=11, last_start=11)


def test_the_files_of_several_processes_are_added_up(tmp_path, monkeypatch):
    for pid, seconds in ((1, 20.0), (2, 30.0)):
        monkeypatch.setattr(meter.os, "getpid", lambda pid=pid: pid)
        monkeypatch.setattr(meter.time, "time", lambda seconds=seconds: seconds)
        Meter(tmp_path).pass_by()
    assert read_meters(tmp_path) == Reading(started=2, ended=2, first_start=20, last_end=30, last_start=30)


def test_a_file_that_is_being_made_is_left_out(tmp_path):
    Meter(tmp_path).pass_by()
    (tmp_path / "meter-0").write_bytes(b"")
    assert read_meters(tmp_path).ended == 1


def test_a_process_that_has_not_run_a_task_does_not_move_the_beginning(tmp_path):
    (tmp_path / "meter-0").write_bytes(bytes(meter._LAYOUT.size))
    Meter(tmp_path).pass_by()
    assert read_meters(tmp_path).first_start > 0


def test_threads_lose_no_task(tmp_path):
    told = Meter(tmp_path)
    threads = [threading.Thread(target=lambda: [told.pass_by() for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_meters(tmp_path).ended == 2000


def _pass_by_once():
    meter.meter().pass_by()


def test_a_forked_process_has_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv(meter.FOLDER, str(tmp_path))
    monkeypatch.setattr(meter, "_mine", None)
    _pass_by_once()
    child = multiprocessing.get_context("fork").Process(target=_pass_by_once)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert len(list(tmp_path.iterdir())) == 2
    assert read_meters(tmp_path).ended == 2
