"""The lane in which passwords are hashed."""

from __future__ import annotations

import os
import sys
import threading

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from service_users.accounts import passwords
from service_users.accounts.passwords import Passwords, verify_now
from service_users.errors import TooManyPasswords
from servicekit.wire import deadline
from servicekit.wire.errors import DeadlineExceeded


class Hashing:
    """A hash that takes until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.at_once = self.most_at_once = self.niceness = 0

    def __call__(self, *_: str) -> bool:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.niceness = os.getpriority(os.PRIO_PROCESS, 0)
        self.began.release()
        assert self.let_go.acquire(timeout=10)
        self.at_once -= 1
        return True


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Hashing:
    made = Hashing()
    monkeypatch.setattr(passwords, "verify_now", made)
    return made


def in_thread(lane: Passwords, results: list[bool]) -> threading.Thread:
    thread = threading.Thread(target=lambda: results.append(lane.verify("stored", "x")))
    thread.start()
    return thread


def test_one_is_hashed_the_others_wait_and_whoever_finds_no_place_is_refused_at_once(hashing: Hashing) -> None:
    lane, results = Passwords(places=3), []
    threads = [in_thread(lane, results) for _ in range(3)]
    assert hashing.began.acquire(timeout=10)
    hashing.let_go.release(3)
    for thread in threads:
        thread.join(10)
    assert (results, hashing.most_at_once) == ([True] * 3, 1)
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert hashing.niceness == min(own + 10, 19), "everybody else goes first"

    taken = Passwords(places=1)
    first = in_thread(taken, results)
    assert hashing.began.acquire(timeout=10)
    with pytest.raises(TooManyPasswords) as refused:
        taken.verify("stored", "y")
    assert refused.value.headers == {"Retry-After": "1"}
    hashing.let_go.release(2)
    first.join(10)
    assert taken.verify("stored", "y")


def test_nobody_waits_longer_than_the_lane_or_the_request_allows(
    hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = Passwords(places=2)
    first = in_thread(lane, [])
    assert hashing.began.acquire(timeout=10)
    with deadline.within(0.01), pytest.raises(DeadlineExceeded):
        lane.verify("stored", "y")
    monkeypatch.setattr(passwords, "WAIT_SECONDS", 0.01)
    for _ in range(3):  # a place that is not given back would be missing by now
        with pytest.raises(TooManyPasswords):
            lane.verify("stored", "y")
    hashing.let_go.release()
    first.join(10)


@pytest.mark.parametrize("by", ["known device", "session or link"])
def test_whoever_guesses_leaves_others_their_place_their_core_and_is_not_even_counted(
    hashing: Hashing, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    lane, counted, niceness = Passwords(places=1), list[str](), list[int]()

    def note(*_: str) -> bool:
        niceness.append(os.getpriority(os.PRIO_PROCESS, 0))
        return True

    first = in_thread(lane, [])
    assert hashing.began.acquire(timeout=10)
    with pytest.raises(TooManyPasswords):
        lane.verify(None, "y", before=lambda: counted.append("somebody"))
    monkeypatch.setattr(passwords, "verify_now", note)
    monkeypatch.setattr(passwords, "hash_now", note)
    if by == "known device":
        assert lane.verify("stored", "y", is_known=True, before=lambda: counted.append(by))
    else:
        assert lane.hash("y")
    assert (counted, first.is_alive()) == ([by] if by == "known device" else [], True), "it waits for nobody"
    if sys.platform == "linux":
        assert niceness == [os.getpriority(os.PRIO_PROCESS, 0)], "no flood of requests takes its core"
    hashing.let_go.release()
    first.join(10)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_after_a_wrong_password_whatever_a_known_device_does_not_send_goes_last_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policies, now, has_core = list[int](), [0.0], threading.Event()

    def note(_stored: str, password: str) -> bool:
        policies.append(os.sched_getscheduler(0))
        if policies[-1] == os.SCHED_IDLE:
            assert has_core.wait(60)
        return password == "right"

    has_core.set()
    monkeypatch.setattr(passwords, "_IDLE_SECONDS", 60)

    monkeypatch.setattr(passwords, "verify_now", note)
    monkeypatch.setattr(passwords, "monotonic", lambda: now[0])
    lane = Passwords(places=1)
    for at, password, is_known in (
        (10, "right", False), (11, "wrong", False), (12, "right", True), (12.5, "right", False), (14, "right", False)
    ):  # fmt: skip
        now[0] = at
        lane.verify("stored", password, is_known=is_known)
    assert policies == [os.SCHED_OTHER] * 3 + [os.SCHED_IDLE, os.SCHED_OTHER]

    # Where all cores have other work without end, it gets its share of them in the end.
    has_core.clear()
    monkeypatch.setattr(passwords, "_IDLE_SECONDS", 0.01)
    lane.verify("stored", "wrong")
    for _ in range(2):
        assert lane.verify("stored", "right")
    has_core.set()


def test_hashes_of_several_lanes_that_are_tried_at_once_do_not_wait_for_each_other_for_ever() -> None:
    stored = Argon2id(salt=bytes(16), length=32, iterations=1, lanes=4, memory_cost=8_192).derive_phc_encoded(b"x")
    answers = list[bool]()
    threads = [
        threading.Thread(target=lambda: answers.extend(verify_now(stored, "x") for _ in range(5)), daemon=True)
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [True] * 20
