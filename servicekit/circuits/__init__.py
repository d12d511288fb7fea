"""Circuits: stop asking an upstream that is failing, and notice when it is back.

docs/circuits.md draws the state machine. This package is the only importer of pybreaker.
"""

from __future__ import annotations

from servicekit.circuits.circuit import (
    Circuit,
    CircuitOpen,
    CircuitSettings,
    CircuitSnapshot,
    CircuitState,
    Permit,
    ProbeResult,
    Reason,
    Transition,
)
from servicekit.circuits.prober import Prober
from servicekit.circuits.window import SlidingWindow, WindowTotals

__all__ = [
    "Circuit",
    "CircuitOpen",
    "CircuitSettings",
    "CircuitSnapshot",
    "CircuitState",
    "Permit",
    "ProbeResult",
    "Prober",
    "Reason",
    "SlidingWindow",
    "Transition",
    "WindowTotals",
]
