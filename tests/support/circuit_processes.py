"""Processes that share a circuit, directed by the test."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import astuple
from multiprocessing.connection import Connection
from typing import Any

from servicekit.circuits import (
    Circuit,
    CircuitLockTimeout,
    CircuitOpen,
    CircuitSettings,
    Permit,
    SharedStates,
    Transition,
)

FORK = multiprocessing.get_context("fork")


class Meeting:
    """State shared by the processes of one test, besides the circuit."""

    def __init__(self) -> None:
        self.begun = FORK.Event()
        self.turns = FORK.Value("q", 0)
        self.running = FORK.Value("q", 0)
        self.most = FORK.Value("q", 0)


class Agent:
    """One process with its circuit. `do` gives it an order and waits for the result."""

    def __init__(self, states: SharedStates, settings: CircuitSettings, meeting: Meeting) -> None:
        self._pipe, theirs = FORK.Pipe()
        self.process = FORK.Process(target=_serve, args=(theirs, states, settings, meeting), daemon=True)
        self.process.start()
        theirs.close()

    def do(self, what: str, *args: Any) -> Any:
        self.begin(what, *args)
        return self.end()

    def begin(self, what: str, *args: Any) -> None:
        self._pipe.send((what, args))

    def end(self) -> Any:
        assert self._pipe.poll(30), "no answer"
        return self._pipe.recv()

    def kill(self) -> None:
        """Kill it without a chance to clean up."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(10)

    def freeze(self) -> None:
        """Stop it until `thaw`."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join(10)


class _Worker:
    def __init__(self, states: SharedStates, settings: CircuitSettings, meeting: Meeting) -> None:
        self.meeting = meeting
        self.told: list[Transition] = []
        self.dropped = 0
        self.states = states
        self.store = states.store("users")
        self.circuit = Circuit(
            "users",
            settings=settings,
            store=self.store,
            listeners=[self.told.append],
            on_uncounted=lambda _: self._drop(),
        )
        self.permits: list[Permit] = []

    def _drop(self) -> None:
        self.dropped += 1

    def uncounted(self) -> int:
        return self.dropped

    def is_held_up(self) -> bool:
        return self.circuit.snapshot().held_up

    def place(self) -> int:
        return self.states.place

    def transitions(self) -> list[tuple[Any, ...]]:
        return [astuple(one) for one in self.told]

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.circuit.acquire().failure(0.01, "timeout")

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            self.circuit.acquire().success(0.01)

    def run_alone(self, good: int) -> None:
        """Make 25 successful calls, so that later ones need no lock, then `good` more."""
        self.succeed(25 + good)

    def admitted(self) -> bool:
        """Take a permit and keep it."""
        try:
            self.permits.append(self.circuit.acquire())
        except CircuitOpen:
            return False
        return True

    def report(self, outcome: str) -> None:
        permit = self.permits.pop(0)
        if outcome == "success":
            permit.success(0.01)
        else:
            permit.failure(0.01, "timeout")

    def force(self, state: Any) -> bool:
        """Force the state; False if the circuit is held up."""
        try:
            self.circuit.force(state)
        except CircuitLockTimeout:
            return False
        return True

    def probe(self, ok: bool) -> None:
        self.circuit.note_probe(ok)

    def snapshot(self) -> tuple[Any, ...]:
        return astuple(self.circuit.snapshot())

    def state(self) -> str:
        return self.circuit.snapshot().state

    def calls(self) -> int:
        return self.circuit.snapshot().calls

    def elected(self) -> bool:
        return self.states.elected()

    def living(self) -> list[int]:
        return [pid for pid, _ in self.states.living()]

    def enter(self) -> None:
        """Take the circuit's lock and keep it."""
        self.store.__enter__()

    def leave(self) -> None:
        """Release the circuit's lock."""
        self.store.__exit__(None, None, None)

    def half_commit(self) -> None:
        """Begin to open the circuit, and stop before the last word is written."""
        self.store.__enter__()
        at = self.states.block(0) + 10  # the first of the two copies, not the one in use
        for word in range(at, at + 12):
            if self.states.words[self.states.block(0)] >> 2 & 1 != (word - at) // 6:
                self.states.words[word] = 1

    def run(self, calls: int, failing: frozenset[int]) -> int:
        """Make `calls` calls or until refused; those whose number, over all processes, is in `failing` fail."""
        self.meeting.begun.wait(30)
        for done in range(calls):
            try:
                permit = self.circuit.acquire()
            except CircuitOpen:
                return done
            with self.meeting.turns.get_lock():
                turn = self.meeting.turns.value
                self.meeting.turns.value += 1
            if turn % 10 in failing:
                permit.failure(0.01, "timeout")
            else:
                permit.success(0.01)
        return calls

    def run_trials(self, trials: int) -> None:
        """Take trials until there were so many over all processes; note the most that ran at once."""
        self.meeting.begun.wait(30)
        running, turns, most = self.meeting.running, self.meeting.turns, self.meeting.most
        ends_at = time.monotonic() + 30
        while turns.value < trials and time.monotonic() < ends_at:
            try:
                permit = self.circuit.acquire()
            except CircuitOpen:
                continue
            with running.get_lock():
                turns.value += 1
                running.value += 1
                most.value = max(most.value, running.value)
            time.sleep(0.001)  # long enough for the others to try
            with running.get_lock():
                running.value -= 1
            permit.neutral()


def _serve(pipe: Connection, states: SharedStates, settings: CircuitSettings, meeting: Meeting) -> None:
    worker = _Worker(states, settings, meeting)
    while True:
        try:
            what, args = pipe.recv()
        except EOFError:
            return
        method: Callable[..., Any] = getattr(worker, what)
        pipe.send(method(*args))
