"""The prober: whom it asks, how often, and what it makes of trouble."""

from __future__ import annotations

import errno
import threading

import pytest

from servicekit.circuits import Circuit, Prober


def broken(name: str) -> Circuit:
    circuit = Circuit(name)
    for _ in range(5):
        circuit.acquire().failure(0.01, "timeout")
    return circuit


def test_it_asks_those_that_are_not_well_each_time_and_the_others_now_and_then() -> None:
    now = 0.0
    asked: list[str] = []
    away = {"users", "orders"}

    def ask(name: str) -> bool:
        asked.append(name)
        return name not in away

    forced = Circuit("tasks")
    forced.force("open")
    circuits = [broken("users"), Circuit("orders"), forced]
    prober = Prober(circuits, ask, chance=lambda: 0.5, clock=lambda: now)

    def turns(seconds: int) -> dict[str, int]:
        nonlocal now
        asked.clear()
        for _ in range(seconds):
            now += 1
            prober.run_once()
        return {name: asked.count(name) for name in ("users", "orders", "tasks")}

    assert turns(4) == {"users": 4, "orders": 0, "tasks": 0}
    # From now on orders, which nobody calls, is seen away.
    assert turns(4) == {"users": 4, "orders": 4, "tasks": 1}
    assert circuits[1].snapshot().state == "closed"
    away.clear()
    # Once each until they are found well; users is then half-open, and was asked while its circuit was not closed.
    assert turns(1) == {"users": 1, "orders": 1, "tasks": 0}
    circuits[0].force("auto")
    assert turns(10) == {"users": 2, "orders": 2, "tasks": 2}


def test_a_process_that_is_not_elected_asks_nobody() -> None:
    prober = Prober([broken("users")], lambda _: pytest.fail("asked"), elected=lambda: False)
    assert prober.run_once() == 0


def test_asking_that_raises_means_not_ready() -> None:
    def ask(name: str) -> bool:
        raise ConnectionRefusedError

    circuit = broken("users")
    Prober([circuit], ask).run_once()
    last = circuit.snapshot().last_probe
    assert last is not None
    assert not last.ok


def test_when_this_process_has_no_file_left_to_ask_with_nothing_was_learned() -> None:
    def ask(name: str) -> bool:
        raise OSError(errno.EMFILE, "Too many open files")

    circuit = broken("users")
    Prober([circuit], ask).run_once()
    assert circuit.snapshot().last_probe is None


def test_back_again_means_half_open_early() -> None:
    circuit = broken("users")
    answers = iter([False, True])
    prober = Prober([circuit], lambda _: next(answers))
    prober.run_once()
    prober.run_once()
    assert circuit.snapshot().state == "half_open"


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 0.7), (0.5, 1.0), (1.0, 1.3)])
def test_the_pause_is_jittered_by_at_most_its_share(chance: float, seconds: float) -> None:
    assert Prober([], lambda _: True, interval=1.0, jitter=0.3, chance=lambda: chance).pause() == pytest.approx(seconds)


def test_its_thread_asks_until_it_is_stopped_and_may_be_stopped_twice() -> None:
    asked = threading.Event()

    def ask(name: str) -> bool:
        asked.set()
        return False

    prober = Prober([broken("users")], ask, interval=0.01)
    prober.start()
    assert asked.wait(5)
    prober.stop()
    prober.stop()


def test_stopped_before_its_start_it_never_begins() -> None:
    prober = Prober([broken("users")], lambda _: pytest.fail("asked"), interval=0.01)
    prober.stop()
    prober.start()
    prober.stop()


def test_an_interval_that_makes_no_sense_is_refused() -> None:
    for interval, well_interval in ((0, 5), (1, 0.5)):
        with pytest.raises(ValueError, match="interval"):
            Prober([], lambda _: True, interval=interval, well_interval=well_interval)
