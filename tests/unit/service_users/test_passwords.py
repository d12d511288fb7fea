"""The lane in which passwords are hashed."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from service_users.accounts import passwords
from service_users.accounts.passwords import Passwords
from service_users.errors import TooManyPasswords
from servicekit.wire import deadline
from servicekit.wire.errors import DeadlineExceeded
from tests.support.waiting import eventually


class Hashing:
    """A hash that takes until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.at_once = self.most_at_once = self.niceness = 0

    def __call__(self, password: str) -> str:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.niceness = os.getpriority(os.PRIO_PROCESS, 0)
        self.began.release()
        assert self.let_go.acquire(timeout=10)
        self.at_once -= 1
        return f"hash of {password}"


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Hashing:
    made = Hashing()
    monkeypatch.setattr(passwords, "hash_now", made)
    return made


def in_thread(lane: Passwords, results: list[str]) -> threading.Thread:
    thread = threading.Thread(target=lambda: results.append(lane.hash("x")))
    thread.start()
    return thread


def test_one_is_hashed_the_others_wait_and_whoever_finds_no_place_is_refused_at_once(hashing: Hashing) -> None:
    lane, results = Passwords(places=3), []
    threads = [in_thread(lane, results) for _ in range(3)]
    assert hashing.began.acquire(timeout=10)
    hashing.let_go.release(3)
    for thread in threads:
        thread.join(10)
    assert (results, hashing.most_at_once) == (["hash of x"] * 3, 1)
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert hashing.niceness == min(own + 10, 19), "everybody else goes first"

    taken = Passwords(places=1)
    first = in_thread(taken, results)
    assert hashing.began.acquire(timeout=10)
    with pytest.raises(TooManyPasswords) as refused:
        taken.hash("y")
    assert refused.value.headers == {"Retry-After": "1"}
    hashing.let_go.release(2)
    first.join(10)
    assert taken.hash("y") == "hash of y"


def test_nobody_waits_longer_than_the_lane_or_the_request_allows(
    hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = Passwords(places=2)
    first = in_thread(lane, [])
    assert hashing.began.acquire(timeout=10)
    with deadline.within(0.01), pytest.raises(DeadlineExceeded):
        lane.hash("y")
    monkeypatch.setattr(passwords, "WAIT_SECONDS", 0.01)
    for _ in range(3):  # a place that is not given back would be missing by now
        with pytest.raises(TooManyPasswords):
            lane.hash("y")
    hashing.let_go.release()
    first.join(10)


def test_whoever_guesses_leaves_a_known_device_its_place_and_is_not_even_counted(hashing: Hashing) -> None:
    lane, counted = Passwords(places=1), list[str]()
    first = in_thread(lane, [])
    assert hashing.began.acquire(timeout=10)
    with pytest.raises(TooManyPasswords):
        lane.verify(None, "y", before=lambda: counted.append("somebody"))
    known = threading.Thread(
        target=lambda: lane.verify(None, "y", is_known=True, before=lambda: counted.append("known device"))
    )
    known.start()
    eventually(lambda: counted == ["known device"], what="it waits for its turn")
    hashing.let_go.release()
    for thread in (first, known):
        thread.join(10)
        assert not thread.is_alive()
