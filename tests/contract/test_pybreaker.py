"""What servicekit.circuits needs of pybreaker, all of it by public names."""

from __future__ import annotations

import ast
from datetime import datetime
from pathlib import Path

import pybreaker

CHECKOUT = Path(__file__).resolve().parents[2]


class Recorder(pybreaker.CircuitBreakerStorage):
    """Notes what pybreaker sets, in order."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.value = pybreaker.STATE_CLOSED
        self.good = 0
        self.seen: list[str] = []

    @property
    def state(self) -> str:
        return self.value

    @state.setter
    def state(self, state: str) -> None:
        self.seen.append(state)
        self.value = state

    @property
    def counter(self) -> int:
        return 0

    @property
    def success_counter(self) -> int:
        return self.good

    @property
    def opened_at(self) -> datetime | None:
        return None

    @opened_at.setter
    def opened_at(self, when: datetime) -> None:
        assert when.tzinfo is not None


def make(storage: Recorder) -> pybreaker.CircuitBreaker:
    return pybreaker.CircuitBreaker(
        name="users", state_storage=storage, success_threshold=3, throw_new_error_on_trip=False
    )


def test_open_half_open_and_close_set_the_storages_state_exactly_once() -> None:
    storage = Recorder()
    breaker = make(storage)
    breaker.open()
    breaker.open()
    breaker.half_open()
    breaker.close()
    breaker.close()
    assert storage.seen == ["open", "open", "half-open", "closed", "closed"]


def test_making_a_breaker_changes_nothing_in_its_storage() -> None:
    storage = Recorder()
    storage.value = pybreaker.STATE_OPEN
    breaker = make(storage)
    assert storage.seen == []
    assert breaker.current_state == pybreaker.STATE_OPEN


def test_a_state_that_another_process_set_is_seen_at_once_and_can_be_left() -> None:
    storage = Recorder()
    breaker = make(storage)
    storage.value = pybreaker.STATE_OPEN
    assert breaker.current_state == pybreaker.STATE_OPEN
    breaker.half_open()
    assert storage.value == pybreaker.STATE_HALF_OPEN


def test_successes_come_from_the_storage_and_the_threshold_from_us() -> None:
    storage = Recorder()
    breaker = make(storage)
    storage.good = 2
    assert (breaker.success_counter, breaker.success_threshold) == (2, 3)


def test_no_private_name_of_pybreaker_is_used() -> None:
    text = (CHECKOUT / "servicekit" / "circuits" / "circuit.py").read_text(encoding="utf-8")
    used = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("pybreaker", "self._breaker")
    }
    assert used
    assert not [name for name in used if name.startswith("_")]
