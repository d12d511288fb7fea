"""The processes of one server: places, what they hold, and turns."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from servicekit.process import siblings
from servicekit.process.siblings import PLACES, Siblings, Turn
from servicekit.wire.errors import Overloaded
from servicekit.wire.memory import Budget


class Master:
    """gunicorn's, as far as it gives places; its workers are objects here that share its memory."""

    def __init__(self) -> None:
        self.shared = Siblings()
        self.WORKERS: dict[int, Any] = {}

    def fork(self, pid: int) -> Siblings:
        worker = SimpleNamespace(pid=pid)
        self.shared.reserve(self, worker)
        self.WORKERS[pid] = worker
        own = Siblings.__new__(Siblings)
        vars(own).update(vars(self.shared))
        own.enter(worker)
        return own

    def reap(self, pid: int) -> None:
        self.shared.leave(self.WORKERS.pop(pid))


def test_a_place_is_given_again_once_its_process_has_ended() -> None:
    master = Master()
    first, second = master.fork(11), master.fork(12)
    assert (first.place, second.place, master.shared.count()) == (0, 1, 2)
    master.reap(11)
    assert master.shared.count() == 1
    assert (master.fork(13).place, second.count()) == (0, 2)


@pytest.mark.parametrize(
    ("own", "others", "room"),
    [
        (0, [0], 1),
        (1, [0], 0),
        (5, [0, 9], -4),
        (5, [None, 4], 0),  # None: takes none yet
        (0, [20, 40], 20 + 1 + 20 // 8),
        (100, [96], 96 + 1 + 96 // 8 - 100),
        (7, [], 1),
    ],
)
def test_a_process_with_more_connections_leaves_the_next_to_one_with_fewer(
    own: int, others: list[int | None], room: int
) -> None:
    master = Master()
    first = master.fork(1)
    for pid, count in enumerate(others, 2):
        other = master.fork(pid)
        if count is not None:
            other.room(count)
    assert first.room(own) == room
    ended = master.fork(99)
    ended.room(0)
    master.reap(99)
    assert first.room(own) == room


def test_more_processes_than_places_work_each_for_itself() -> None:
    master = Master()
    for pid in range(1, PLACES + 1):
        master.fork(pid)
    assert master.fork(PLACES + 1).place is None
    master.reap(PLACES + 1)


def test_one_budget_is_that_of_all_and_of_the_living_alone() -> None:
    master = Master()
    first, second = master.fork(11), master.fork(12)
    one, other = (Budget(1_000_000, process.hold) for process in (first, second))
    one.account().take(600_000)
    account = other.account()
    with pytest.raises(Overloaded):
        account.take(400_000)
    assert (one.taken, other.taken) == (600_000, 600_000)
    master.reap(11)
    account.take(400_000)
    account.close()
    assert other.taken == 0


def test_a_turn_is_that_of_all_processes_and_ends_with_the_one_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "_inherited", Siblings())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        turn = Turn()
        turn.acquire(0.0)
        turn.release()
        os.write(writing, b"1" if turn.acquire(0.0) else b"0")
        signal.pause()
    try:
        assert os.read(reading, 1) == b"1"
        turn = Turn()
        assert not turn.acquire(0.01)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    assert turn.acquire(0.01)
    assert not turn.acquire(0.0)
    turn.release()
