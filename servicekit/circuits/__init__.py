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
from servicekit.circuits.outcome import MISDIRECTED, CallOutcome, outcome_of
from servicekit.circuits.prober import Prober
from servicekit.circuits.shared_state import SharedStates
from servicekit.circuits.state import (
    CircuitLockTimeout,
    CircuitScope,
    CircuitStanding,
    CircuitState,
    LocalState,
    StateStore,
)
from servicekit.circuits.window import SlidingWindow, WindowTotals

__all__ = [
    "MISDIRECTED",
    "MOVES",
    "CallOutcome",
    "Circuit",
    "CircuitLockTimeout",
    "CircuitOpen",
    "CircuitScope",
    "CircuitSettings",
    "CircuitSnapshot",
    "CircuitStanding",
    "CircuitState",
    "LocalState",
    "Permit",
    "ProbeResult",
    "Prober",
    "Reason",
    "SharedStates",
    "SlidingWindow",
    "StateStore",
    "Transition",
    "WindowTotals",
    "outcome_of",
]
