"""Circuits: stop calling a failing upstream, and notice when it is back.

docs/circuit_states.md draws the state machine. This package is the only importer of pybreaker.
"""

from __future__ import annotations

from servicekit.circuits.circuit import (
    MOVES,
    Circuit,
    CircuitOpen,
    CircuitSettings,
    CircuitSnapshot,
    Permit,
    Transition,
)
from servicekit.circuits.outcome import MISDIRECTED, outcome_of
from servicekit.circuits.prober import Prober
from servicekit.circuits.shared_state import SharedStates
from servicekit.circuits.state import CircuitLockTimeout

__all__ = [
    "MISDIRECTED",
    "MOVES",
    "Circuit",
    "CircuitLockTimeout",
    "CircuitOpen",
    "CircuitSettings",
    "CircuitSnapshot",
    "Permit",
    "Prober",
    "SharedStates",
    "Transition",
    "outcome_of",
]
