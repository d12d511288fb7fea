"""The memory that processes share: its layout, and what happens when it cannot be had."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from servicekit.circuits import (
    Circuit,
    CircuitSettings,
    SharedStates,
    shared_state,
)
from servicekit.circuits.state import CircuitStanding, LocalState, StateStore
from servicekit.circuits.window import WindowTotals
from servicekit.process.shared_memory import make_file

SETTINGS = CircuitSettings()


@pytest.fixture
def states() -> SharedStates:
    return SharedStates(["users", "orders"], SETTINGS, processes=8)


@pytest.fixture(params=["local", "shared"])
def store(request: pytest.FixtureRequest, states: SharedStates) -> StateStore:
    return states.store("users") if request.param == "shared" else LocalState(SETTINGS.window_seconds)


class TestBothStores:
    """One contract over both memories."""

    def test_a_new_one_is_closed_and_empty(self, store: StateStore) -> None:
        with store:
            assert store.standing() == CircuitStanding()
            assert store.totals(100.0) == WindowTotals(0, 0, 0)
            assert (store.consecutive_failures, store.good_trials, store.seen_away) == (0, 0, False)
            assert (store.last_probe, store.last_failure) == (None, "")

    def test_it_gives_back_what_was_committed(self, store: StateStore) -> None:
        first = CircuitStanding(
            generation=1, state="open", forced="open", openings=3, open_until=12.5, closed_at=None, opened_at=7.25
        )
        second = replace(first, generation=2, state="closed", forced=None, closed_at=0.5, epoch=2)
        for standing in (first, second):
            with store:
                store.commit(standing)
                assert store.standing() == standing
            assert store.standing() == standing

    def test_consecutive_failures_and_good_trials_end_with_their_generation(self, store: StateStore) -> None:
        with store:
            store.consecutive_failures = 4
            store.good_trials = 2
            assert (store.consecutive_failures, store.good_trials) == (4, 2)
            store.commit(CircuitStanding(generation=1, state="open"))
            assert (store.consecutive_failures, store.good_trials) == (0, 0)

    def test_counts_and_what_a_probe_saw_last_until_it_closes(self, store: StateStore) -> None:
        with store:
            store.add(100.0, failed=True, slow=False)
            store.seen_away = True
            store.commit(CircuitStanding(generation=1, state="open"))
            assert store.totals(100.0) == WindowTotals(1, 1, 0)
            assert store.seen_away
            store.commit(CircuitStanding(generation=2, state="closed", epoch=2))
            assert store.totals(100.0) == WindowTotals(0, 0, 0)
            assert not store.seen_away

    @pytest.mark.parametrize(("asked_at", "calls"), [(101.0, 3), (109.9, 3), (110.0, 1), (111.0, 0)])
    def test_a_call_is_forgotten_when_its_second_leaves_the_window(
        self, store: StateStore, asked_at: float, calls: int
    ) -> None:
        with store:
            store.add(100.9, failed=False, slow=True)
            store.add(100.9, failed=True, slow=False)
            store.add(101.0, failed=False, slow=False)
            assert store.totals(asked_at).calls == calls

    def test_the_second_of_the_bucket_that_is_used_again_does_not_count(self, store: StateStore) -> None:
        with store:
            store.add(100.0, failed=True, slow=True)
            store.add(110.0, failed=False, slow=False)
            assert store.totals(110.0) == WindowTotals(1, 0, 0)

    def test_places_of_trials_are_limited_leased_and_given_back(self, store: StateStore) -> None:
        with store:
            assert not store.has_trial(100.0)
            first, second = store.take_trial(100.0, 105.0, 2), store.take_trial(100.0, 200.0, 2)
            assert first is not None
            assert second is not None
            assert store.take_trial(104.9, 200.0, 2) is None
            third = store.take_trial(105.0, 200.0, 2)
            assert third is not None
            assert not store.end_trial(first, 105.0)
            assert store.has_trial(199.9)
            assert not store.has_trial(200.0)
            assert store.end_trial(second, 105.0)
            assert not store.end_trial(second, 105.0)
            assert store.end_trial(third, 105.0)
            assert not store.has_trial(105.0)
            assert store.take_trial(105.0, 200.0, 2) is not None
            store.commit(CircuitStanding(generation=1, state="open"))
            assert not store.has_trial(105.0)

    def test_probe_and_failure_are_kept(self, store: StateStore) -> None:
        with store:
            store.last_probe = (1234.5, False)
            store.last_failure = "timeout"
            assert (store.last_probe, store.last_failure) == ((1234.5, False), "timeout")
            store.last_probe = (1235.5, True)
            store.last_failure = ""
            assert (store.last_probe, store.last_failure) == ((1235.5, True), "")


class TestLayout:
    def test_the_header_says_what_it_is(self, states: SharedStates) -> None:
        assert list(states.words[:6]) == [shared_state.MAGIC, shared_state.LAYOUT_VERSION, 2, 2, 10, 8]

    def test_every_value_is_one_aligned_word(self, states: SharedStates) -> None:
        # Item access of a memoryview of this format copies its 8 bytes at once; struct's own formats do not.
        assert (states.words.format, states.words.itemsize) == ("Q", 8)
        assert (states.floats.format, states.floats.itemsize) == ("d", 8)
        assert len(states.words) == states.block(2)

    def test_circuits_do_not_overlap(self, states: SharedStates) -> None:
        users, orders = (Circuit(name, settings=SETTINGS, store=states.store(name)) for name in states.names)
        for _ in range(5):
            users.acquire().failure(0.1, "timeout")
        assert (users.snapshot().state, users.snapshot().calls) == ("open", 5)
        assert (orders.snapshot().state, orders.snapshot().calls) == ("closed", 0)

    def test_only_the_next_generation_can_be_committed(self, states: SharedStates) -> None:
        store = states.store("users")
        with store:
            store.commit(CircuitStanding(generation=1, state="open"))
            for generation in (0, 1, 3):
                with pytest.raises(RuntimeError, match="does not follow"):
                    store.commit(CircuitStanding(generation=generation, state="closed"))
        assert store.standing().state == "open"

    def test_a_change_is_not_seen_before_its_last_word(self, states: SharedStates) -> None:
        store, reader = states.store("users"), states.store("users")
        with store:
            store.commit(CircuitStanding(generation=1, state="open", open_until=5.0))
        head = states.words[states.block(0)]
        with store:
            store.commit(CircuitStanding(generation=2, state="half_open", open_until=9.0))
            states.words[states.block(0)] = head  # as if killed just before it
        assert reader.standing() == CircuitStanding(generation=1, state="open", open_until=5.0)

    def test_a_long_reason_is_cut_between_letters(self, states: SharedStates) -> None:
        store = states.store("users")
        with store:
            store.last_failure = "é" * 20 + "x"
            assert store.last_failure == "é" * 16
            store.last_failure = "x" + "é" * 20
            assert store.last_failure == "x" + "é" * 15


class TestCountingWithoutTheLock:
    def test_it_begins_when_nothing_can_follow_from_a_good_call(self, states: SharedStates) -> None:
        now = 100.0
        store = states.store("users")
        circuit = Circuit("users", settings=SETTINGS, store=store, clock=lambda: now)
        for _ in range(19):
            circuit.acquire().success(0.1)
        assert not store.add_success(0, now)
        circuit.acquire().success(0.1)
        assert store.add_success(0, now)
        assert circuit.snapshot().calls == 21
        assert not store.add_success(0, 101.0)  # a new second: calls may have left the window
        assert not store.add_success(1, now)  # another generation

    def test_it_ends_with_a_failure_until_a_success_has_been_counted(self, states: SharedStates) -> None:
        store = states.store("users")
        circuit = Circuit("users", settings=SETTINGS, store=store, clock=lambda: 100.0)
        for _ in range(20):
            circuit.acquire().success(0.1)
        circuit.acquire().failure(0.1, "timeout")
        assert not store.add_success(0, 100.0)
        circuit.acquire().success(0.1)
        assert store.add_success(0, 100.0)
        assert circuit.snapshot().calls == 23


class TestWithoutSharedMemory:
    def test_a_folder_that_cannot_be_written_is_an_oserror(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="No such file"):
            SharedStates(["users"], SETTINGS, folder=tmp_path / "nowhere")

    def test_the_next_folder_is_tried(self, tmp_path: Path) -> None:
        descriptor = make_file(64, [tmp_path / "nowhere", tmp_path])
        assert os.fstat(descriptor).st_size == 64
        assert list(tmp_path.iterdir()) == []  # it has no name
        os.close(descriptor)

    def test_the_server_goes_on_with_circuits_of_its_own_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_room(*args: object, **kwargs: object) -> SharedStates:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shared_state, "_inherited", {})
        monkeypatch.setattr(shared_state, "SharedStates", no_room)
        shared_state.prepare_circuits("a_server", ["users"], SETTINGS)
        circuit = Circuit("users", store=shared_state.store_for("a_server", "users", SETTINGS))
        for _ in range(5):
            circuit.acquire().failure(0.1, "timeout")
        snapshot = circuit.snapshot()
        assert (snapshot.state, snapshot.scope, snapshot.sharing_failed) == ("open", "process", True)

    def test_too_many_processes_are_no_reason_to_crash(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shared_state, "_inherited", {"a_server": SharedStates(["users"], SETTINGS, processes=0)})
        assert shared_state.store_for("a_server", "users", SETTINGS).sharing_failed

    def test_a_server_that_prepared_nothing_is_not_degraded(self) -> None:
        store = shared_state.store_for("another_server", "users", SETTINGS)
        assert (store.scope, store.sharing_failed) == ("process", False)

    def test_preparing_a_second_time_keeps_the_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shared_state, "_inherited", {})
        shared_state.prepare_circuits("a_server", ["users"], SETTINGS)
        first = shared_state.inherited("a_server")
        shared_state.prepare_circuits("a_server", ["users"], SETTINGS)
        assert shared_state.inherited("a_server") is first
