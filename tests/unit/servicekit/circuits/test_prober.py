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


def test_it_asks_only_for_open_circuits() -> None:
    asked: list[str] = []

    def ask(name: str) -> bool:
        asked.append(name)
        return False

    Prober([broken("users"), Circuit("orders")], ask).run_once()
    assert asked == ["users"]


def test_it_leaves_forced_circuits_alone() -> None:
    circuit = Circuit("users")
    circuit.force("open")
    assert Prober([circuit], lambda _: True).run_once() == 0


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
    with pytest.raises(ValueError, match="interval"):
        Prober([], lambda _: True, interval=0)
