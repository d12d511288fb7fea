"""Circuits: stop asking an upstream that is failing, and notice when it is back.

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
    ProbeResult,
    Reason,
    Transition,
)
from servicekit.circuits.outcome import MISDIRECTED, Outcome, outcome_of
from servicekit.circuits.prober import Prober
from servicekit.circuits.shared_state import SharedStates
from servicekit.circuits.state import CircuitState, HeldUp, LocalState, Scope, Standing, StateStore
from servicekit.circuits.window import SlidingWindow, WindowTotals

__all__ = [
    "MISDIRECTED",
    "MOVES",
    "Circuit",
    "CircuitOpen",
    "CircuitSettings",
    "CircuitSnapshot",
    "CircuitState",
    "HeldUp",
    "LocalState",
    "Outcome",
    "Permit",
    "ProbeResult",
    "Prober",
    "Reason",
    "Scope",
    "SharedStates",
    "SlidingWindow",
    "Standing",
    "StateStore",
    "Transition",
    "WindowTotals",
    "outcome_of",
]
