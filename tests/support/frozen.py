"""Processes that stand still."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def freezing(pids: Collection[int]) -> Iterator[None]:
    """Stop processes where they stand."""
    try:
        _send(pids, signal.SIGSTOP)
        yield
    finally:
        _send(pids, signal.SIGCONT)


def _send(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        # Some end by themselves, as workers of PostgreSQL's do.
        with suppress(ProcessLookupError):
            os.kill(pid, number)
