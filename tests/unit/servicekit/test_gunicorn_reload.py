"""A reload that cannot even be tried leaves gunicorn's master as it is."""

from __future__ import annotations

import errno
import os
import time
from types import SimpleNamespace

import pytest
from gunicorn.arbiter import Arbiter
from structlog.testing import capture_logs

from servicekit.process.gunicorn_reload import keep_what_works


@pytest.mark.parametrize(("name", "number"), [("fork", errno.EAGAIN), ("pipe", errno.EMFILE)])
def test_a_reload_for_which_there_is_no_process_or_file_is_refused(
    name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    reloaded: list[object] = []
    monkeypatch.setattr(Arbiter, "handle_hup", reloaded.append)
    master = SimpleNamespace()
    keep_what_works(master)
    open_before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patched, capture_logs() as lines:
        patched.setattr(os, name, refuse)
        master.handle_hup()

    assert not reloaded
    assert [(line["event"], line["cause"]) for line in lines] == [
        ("reload_refused", f"it cannot be tried: {os.strerror(number)}")
    ]
    assert len(os.listdir("/proc/self/fd")) == len(open_before)


def test_a_long_cause_is_cut_wherever_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("x" + "é" * 3000)

    reloaded: list[object] = []
    monkeypatch.setattr(Arbiter, "handle_hup", reloaded.append)
    master = SimpleNamespace(cfg=SimpleNamespace(address=[]), app=SimpleNamespace(reload=fail))
    keep_what_works(master)
    with capture_logs() as lines:
        master.handle_hup()

    assert not reloaded
    assert lines[0]["cause"].startswith("ValueError: xé")


def test_no_process_is_told_to_go_before_those_that_replace_it_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    # The time of a worker's file, at first the clock's.
    beats = iter([time.time(), time.time(), 1.0])

    def beat() -> float:
        told.append(next(beats))
        return told[-1]

    begins = SimpleNamespace(tmp=SimpleNamespace(last_update=beat))
    serves = SimpleNamespace(tmp=SimpleNamespace(last_update=lambda: 1.0))
    master = SimpleNamespace(WORKERS={1: serves, 2: begins}, num_workers=1, reap_workers=lambda: None)
    keep_what_works(master)
    monkeypatch.setattr(Arbiter, "manage_workers", lambda _: told.append(0.0))

    master.manage_workers()

    assert len(told) == 4
    assert told[-2:] == [1.0, 0.0]
