"""What other people notice of one service's trouble, and of clients that are idle or slow.

One client asks users 200 times a second, at fixed times, while another asks orders 50 times a second; first with both
services well, then with orders frozen, slow (3 s), failing (8 of 10) or resetting; then with both well again and 1,000
idle connections, or 500 clients that send a byte of their request's head each second. What counts is the first client.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway import subjects
from benchmarks.gateway.subjects import Place, Subject
from benchmarks.installing import Missing
from benchmarks.processes import Process, allow_many_files, cores, free_port
from benchmarks.report import CHECKOUT, Row

_ID = "0193a5b0-7c1e-7a52-8d52-5f0f4d6c1b2a"
USERS_RATE, ORDERS_RATE = 200, 50
#: A request without an answer after so many seconds counts as lost, with this latency.
PATIENCE = 6.0
_PEERS = ("flask", "express")
_WARM_SECONDS = 1.0
#: The trouble begins with orders' load, so long before the measurement.
_LEAD_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Work:
    """`mode` is what orders does; `crowd` the other clients: their number and kind."""

    name: str
    mode: str = "well"
    crowd: tuple[int, str] | None = None


QUIET = Work("all well")
WORKS = {
    "frozen": Work("orders is frozen", "frozen"),
    "slow": Work("orders takes 3 s", "slow"),
    "failing": Work("orders fails 8 of 10", "failing"),
    "resetting": Work("orders resets connections", "resetting"),
    "idle": Work("1,000 idle connections", crowd=(1000, "idle")),
    "slow-headers": Work("500 clients with slow headers", crowd=(500, "slow")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--works", help=f"some of {','.join(WORKS)}")
    parser.add_argument("--peers", help="some of flask,express,aiohttp (flask,express; quick: none)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each work (3, and never fewer)")
    parser.add_argument("--seconds", type=float, help="length of a run (10; quick: 2)")


def run(arguments: argparse.Namespace) -> Sequence[Row]:
    works = _chosen(arguments.works)
    found = _subjects(arguments)
    seconds = arguments.seconds or (2.0 if arguments.quick else 10.0)
    rounds = max(arguments.rounds, 3)
    split = cores()
    outer, inner = split if split is not None else (None, None)
    allow_many_files()
    print(
        f"users is asked {USERS_RATE} times a second, orders {ORDERS_RATE}; {rounds} runs of {seconds:g} s, in turn\n"
    )
    runs: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-faults-")))
        stage = Stage(Place(folder, inner, free_port(), free_port()), outer, seconds)
        stack.callback(stage.stop)
        for number in range(rounds):
            for subject in found:
                quiet = None
                for work in (QUIET, *works):
                    print(f"round {number + 1} of {rounds}, {work.name}: {subject.name}", file=sys.stderr, flush=True)
                    seen = stage.measure(subject, work)
                    _note(runs, subject.name, work, seen, quiet)
                    quiet = quiet or seen
    order = [(work.name, metric) for work in (QUIET, *works) for metric in _METRICS]
    names = [subject.name for subject in found]
    keys = sorted(runs, key=lambda key: (order.index((key[0], key[1])), names.index(key[3])))
    return [Row(work, name, metric, unit, tuple(runs[work, metric, unit, name])) for work, metric, unit, name in keys]


_METRICS = (
    "p50 of users", "p99 of users", "p99 of users beside its quiet value", "added p50 of users",
    "added p99 of users", "users without a good answer", "generator late at most",
)  # fmt: skip


def _note(
    runs: dict[tuple[str, str, str, str], list[float]],
    subject: str,
    work: Work,
    seen: dict[str, Any],
    quiet: dict[str, Any] | None,
) -> None:
    def note(metric: str, unit: str, value: float) -> None:
        runs[work.name, metric, unit, subject].append(value)

    note("p50 of users", "ms", seen["p50"])
    note("p99 of users", "ms", seen["p99"])
    if quiet is not None and work.crowd is None:
        note("p99 of users beside its quiet value", "x", seen["p99"] / quiet["p99"])
    elif quiet is not None:
        note("added p50 of users", "ms", seen["p50"] - quiet["p50"])
        note("added p99 of users", "ms", seen["p99"] - quiet["p99"])
    bad = sum(count for status, count in seen["statuses"].items() if status != "200")
    note("users without a good answer", "1", seen["lost"] + bad)
    note("generator late at most", "ms", seen["late"])


class Stage:
    """The two services, and whatever stands before them for a run."""

    def __init__(self, place: Place, outer: frozenset[int] | None, seconds: float) -> None:
        self._place = place
        self._outer = outer
        self._seconds = seconds
        self._orders: Process | None = None
        # The other benchmark's service has a slow side too, which nobody asks here.
        ports = [str(place.fast_port), str(free_port())]
        self._users = self._start(["benchmarks.gateway.upstream", *ports], place.fast_port, "users.log")

    def stop(self) -> None:
        """End what is there; harmless twice."""
        self._users.stop()
        if self._orders is not None:
            self._orders.stop()
            self._orders = None

    def measure(self, subject: Subject, work: Work) -> dict[str, Any]:
        """What the client of users saw, with everything started anew, so that no run has another one's trouble."""
        assert subject.start is not None
        port = self._place.slow_port
        self._orders = self._start(["benchmarks.gateway_faults.upstream", str(port)], port, "orders.log")
        gateway, gateway_port = subject.start(self._place)
        users, orders = (f"http://127.0.0.1:{gateway_port}/{name}/{_ID}" for name in ("users", "orders"))
        try:
            with self._load(users, USERS_RATE, _WARM_SECONDS) as one, self._load(orders, ORDERS_RATE, _WARM_SECONDS):
                one.communicate(timeout=_WARM_SECONDS + 4 * PATIENCE)
            more = self._load(orders, ORDERS_RATE, self._seconds + 2 * _LEAD_SECONDS)
            with self._crowd(work, gateway_port), self._trouble(work), more:
                time.sleep(_LEAD_SECONDS)
                with self._load(users, USERS_RATE, self._seconds) as one:
                    said, _ = one.communicate(timeout=self._seconds + 4 * PATIENCE)
            found: dict[str, Any] = json.loads(said)
            return found
        finally:
            gateway.stop()
            self._orders.stop()
            self._orders = None

    @contextmanager
    def _trouble(self, work: Work) -> Iterator[None]:
        assert self._orders is not None
        if work.mode != "frozen":
            urllib.request.urlopen(f"http://127.0.0.1:{self._place.slow_port}/mode/{work.mode}", timeout=5).close()
            yield
            return
        os.kill(self._orders.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._orders.pid, signal.SIGCONT)

    @contextmanager
    def _crowd(self, work: Work, port: int) -> Iterator[None]:
        if work.crowd is None:
            yield
            return
        number, kind = work.crowd
        with self._spawn(["benchmarks.gateway_faults.crowd", str(port), str(number), kind]) as crowd:
            assert crowd.stdout is not None
            crowd.stdout.readline()
            yield

    def _load(self, url: str, rate: int, seconds: float) -> Any:
        return self._spawn(["benchmarks.open_load", url, str(rate), str(seconds), str(PATIENCE)])

    @contextmanager
    def _spawn(self, module: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        """A module of ours on the outer core, ended on leaving."""
        with _on(self._outer):
            child = subprocess.Popen([sys.executable, "-m", *module], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
        with child:
            try:
                yield child
            finally:
                child.terminate()

    def _start(self, module: Sequence[str], port: int, log: str) -> Process:
        command = [sys.executable, "-m", *module]
        return Process(command, port=port, output=self._place.folder / log, on=self._outer, cwd=CHECKOUT)


@contextmanager
def _on(these: frozenset[int] | None) -> Iterator[None]:
    """Children that are started meanwhile run on these cores."""
    before = None if these is None else os.sched_getaffinity(0)
    if these is not None:
        os.sched_setaffinity(0, these)
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def _subjects(arguments: argparse.Namespace) -> list[Subject]:
    found = [subjects.ours()]
    names = arguments.peers.split(",") if arguments.peers is not None else () if arguments.quick else _PEERS
    for name in filter(None, names):
        if name not in subjects.PEERS or name in ("direct", "nginx"):
            sys.exit(f"there is no peer {name} here; there are flask, express and aiohttp")
        try:
            found.append(subjects.PEERS[name]())
        except Missing as error:
            print(f"missing: {name} ({error})")
    return found


def _chosen(text: str | None) -> list[Work]:
    names = list(WORKS) if text is None else [name for name in text.split(",") if name]
    for name in names:
        if name not in WORKS:
            sys.exit(f"there is no work {name}; there are {', '.join(WORKS)}")
    return [WORKS[name] for name in names]
