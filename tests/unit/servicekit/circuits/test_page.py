"""docs/circuit_states.md says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

from servicekit.circuits import MOVES, Circuit, CircuitSettings, Transition
from servicekit.circuits.circuit import Reason

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "circuit_states.md").read_text(encoding="utf-8")
EDGES = {
    (old, new, reason)
    for old, new, reasons in re.findall(r"^    (\w+) --> (\w+): (.+)$", PAGE, re.MULTILINE)
    for reason in reasons.split(", ")
}


def seen_edges() -> set[tuple[str, str, str]]:
    """Walk through every change of state that the code can make."""
    told: list[Transition] = []
    now = 0.0
    circuit = Circuit("users", clock=lambda: now, chance=lambda: 0.5, listeners=[told.append])

    def report(times: int, *, failed: bool, seconds: float = 0.1) -> None:
        for _ in range(times):
            permit = circuit.acquire()
            if failed:
                permit.failure(seconds, "timeout")
            else:
                permit.success(seconds)

    def open_it() -> None:
        circuit.force("auto")
        report(5, failed=True)

    def half_open_it() -> None:
        open_it()
        circuit.note_probe(False)
        circuit.note_probe(True)

    open_it()
    circuit.force("auto")
    open_it()
    circuit.force("closed")
    circuit.force("auto")
    for _ in range(10):
        report(1, failed=False)
        report(1, failed=True)
    circuit.force("auto")
    report(20, failed=False, seconds=3)
    now += 60
    circuit.snapshot()
    report(1, failed=True)
    for forced in ("open", "closed", "auto"):
        half_open_it()
        circuit.force(forced)  # type: ignore[arg-type]  # a loop variable is no literal
    half_open_it()
    now += 2
    circuit.note_probe(True)
    half_open_it()
    report(1, failed=False, seconds=3)
    half_open_it()
    report(1, failed=False)
    circuit.force("open")
    return {(one.old, one.new, one.reason) for one in told}


def test_the_diagram_shows_every_change_of_state_and_no_other() -> None:
    assert seen_edges() == EDGES


def test_every_change_of_state_is_named_once_in_the_code_too() -> None:
    assert sorted(MOVES) == sorted(EDGES)


def test_every_reason_is_in_the_diagram() -> None:
    assert {reason for _, _, reason in EDGES} == set(get_args(Reason))


def test_every_setting_is_named() -> None:
    assert [field.name for field in fields(CircuitSettings) if f"`{field.name}`" not in PAGE] == []
