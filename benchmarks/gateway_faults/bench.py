"""What other people notice of one service's trouble, and of clients that are idle or slow or want much.

One client asks users 200 times a second, at fixed times, while another asks orders 50 times a second; first with both
services well, then with orders frozen, slow (3 s), failing (8 of 10) or resetting; then with both well again and 1,000
idle connections, 500 clients that send a byte of their request's head each second, or one that asks users for 786 KB
again and again. What counts is the first client, from the moment in which the trouble begins. A frozen or slow service
is waited for until the gateway gives it up and refuses at once, and the run goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.gateway import subjects
from benchmarks.gateway.subjects import GatewayPlace, Subject
from benchmarks.installing import Missing
from benchmarks.open_load import TimedRequest, summary
from benchmarks.processes import Process, cores, free_port
from benchmarks.report import CHECKOUT, ReportRow
from servicekit.process.lifecycle import allow_many_files

_ID = "0193a5b0-7c1e-7a52-8d52-5f0f4d6c1b2a"
USERS_RATE, ORDERS_RATE = 200, 50
#: A request without an answer after so many seconds counts as lost, with this latency.
PATIENCE = 6.0
_PEERS = ("flask", "express", "nginx")
#: Seconds for which both are asked before the trouble begins.
_WARM_SECONDS = 1.0
#: A gateway that refuses nothing for so many seconds of trouble is not waited for any longer.
_REFUSAL_SECONDS = 12.0
#: Nothing of ours takes longer to begin or to end than this.
_LIMIT_SECONDS = 30.0
#: No run takes longer, so a load whose benchmark was killed ends by itself.
_PLAN_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """`mode` is what orders does; `crowd` the other clients: their number and kind.

    `is_waited_for`: calls hang for a while before the gateway gives the service up.
    """

    name: str
    mode: str = "well"
    crowd: tuple[int, str] | None = None
    is_waited_for: bool = False


@dataclass(frozen=True, slots=True)
class UsersSeen:
    """The requests of users in a run, and when (time.perf_counter) it began and orders was refused at once first."""

    requests: Sequence[TimedRequest]
    began: float
    refused: float | None = None


QUIET = Trouble("all well")
WORKS = {
    "frozen": Trouble("orders is frozen", "frozen", is_waited_for=True),
    "slow": Trouble("orders takes 3 s", "slow", is_waited_for=True),
    "failing": Trouble("orders fails 8 of 10", "failing"),
    "resetting": Trouble("orders resets connections", "resetting"),
    "idle": Trouble("1,000 idle connections", crowd=(1000, "idle")),
    "slow-headers": Trouble("500 clients with slow headers", crowd=(500, "slow")),
    "large": Trouble("one client asks for 786 KB without pause", crowd=(1, "large")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--works", help=f"some of {','.join(WORKS)}")
    parser.add_argument("--peers", help="some of flask,express,aiohttp,nginx (all but aiohttp; quick: none)")
    parser.add_argument("--beside", metavar="CHECKOUT", type=Path, help="the gateway of another checkout too")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each work (3, and never fewer)")
    parser.add_argument("--seconds", type=float, help="length of a run, or of what follows the waiting (5; quick: 2)")


def run(arguments: argparse.Namespace) -> Sequence[ReportRow]:
    works = _chosen(arguments.works)
    found = _subjects(arguments)
    seconds = arguments.seconds or (2.0 if arguments.quick else 5.0)
    rounds = max(arguments.rounds, 3)
    split = cores()
    outer, inner = split if split is not None else (None, None)
    allow_many_files()
    print(
        f"users is asked {USERS_RATE} times a second, orders {ORDERS_RATE}; {rounds} runs of {seconds:g} s, in turn, "
        f"and up to {_REFUSAL_SECONDS:g} s more until a service that is frozen or slow is given up\n"
    )
    runs: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-faults-")))
        stage = Stage(GatewayPlace(folder, inner, free_port(), free_port()), outer, seconds)
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
    return [
        ReportRow(work, name, metric, unit, tuple(runs[work, metric, unit, name])) for work, metric, unit, name in keys
    ]


_UNTIL, _SINCE = "until orders is given up", "once orders is given up"
_METRICS = (
    "p50 of users", "p99 of users", "p99 of users beside its quiet value", "worst of users",
    "orders is given up after",
    f"p99 of users {_UNTIL}", f"p99 of users {_UNTIL}, beside its quiet value",
    f"p99 of users {_SINCE}", f"p99 of users {_SINCE}, beside its quiet value",
    "added p50 of users", "added p99 of users", "users without a good answer", "generator late at most",
)  # fmt: skip


def _note(
    runs: dict[tuple[str, str, str, str], list[float]],
    subject: str,
    work: Trouble,
    seen: UsersSeen,
    quiet: UsersSeen | None,
) -> None:
    def note(metric: str, unit: str, value: float) -> None:
        runs[work.name, metric, unit, subject].append(value)

    whole = summary(seen.requests)
    note("p50 of users", "ms", whole.p50)
    note("p99 of users", "ms", whole.p99)
    note("worst of users", "ms", whole.worst)
    if quiet is not None:
        usual = summary(quiet.requests)
        note("p99 of users beside its quiet value", "x", whole.p99 / usual.p99)
        if work.crowd is not None:
            note("added p50 of users", "ms", whole.p50 - usual.p50)
            note("added p99 of users", "ms", whole.p99 - usual.p99)
        if seen.refused is not None:
            note("orders is given up after", "s", seen.refused - seen.began)
            for when, requests in (
                (_UNTIL, [request for request in seen.requests if request.due < seen.refused]),
                (_SINCE, [request for request in seen.requests if request.due >= seen.refused]),
            ):
                part = summary(requests)
                note(f"p99 of users {when}", "ms", part.p99)
                note(f"p99 of users {when}, beside its quiet value", "x", part.p99 / usual.p99)
    note("users without a good answer", "1", len(seen.requests) - whole.answers[200])
    note("generator late at most", "ms", whole.late)


class LoadProcess:
    """A load of open_load.py in a process of its own, begun when this is made."""

    def __init__(self, url: str, rate: int, on: frozenset[int] | None) -> None:
        command = ["benchmarks.open_load", url, str(rate), str(_PLAN_SECONDS), str(PATIENCE)]
        self._child = _spawn(command, on)
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._await("began", _LIMIT_SECONDS)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.wait()
        self._reader.join()

    def await_refusal(self, since: float) -> float | None:
        """When the first answer of 500 or more came at once; None if it came before `since`, or not for a while."""
        try:
            at: float = self._await("refused", _REFUSAL_SECONDS)
        except queue.Empty:
            return None
        return at if at > since else None

    def end(self) -> list[TimedRequest]:
        """Send nothing more; gives all requests when the last one is answered or lost."""
        self._child.terminate()
        return [TimedRequest(*one) for one in self._await("requests", PATIENCE + _LIMIT_SECONDS)]

    def _await(self, name: str, seconds: float) -> Any:
        until = time.monotonic() + seconds
        while True:
            line = self._lines.get(timeout=max(until - time.monotonic(), 0))
            if name in line:
                return line[name]

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._lines.put(json.loads(line))


class Stage:
    """The two services, and whatever stands before them for a run."""

    def __init__(self, place: GatewayPlace, outer: frozenset[int] | None, seconds: float) -> None:
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

    def measure(self, subject: Subject, work: Trouble) -> UsersSeen:
        """What the client of users saw, with everything started anew, so that no run has another one's trouble."""
        assert subject.start is not None
        port = self._place.slow_port
        self._orders = self._start(["benchmarks.gateway_faults.upstream", str(port)], port, "orders.log")
        gateway, gateway_port = subject.start(self._place)
        users_url, orders_url = (f"http://127.0.0.1:{gateway_port}/{name}/{_ID}" for name in ("users", "orders"))
        try:
            # From before the trouble on, so that nothing else begins with it.
            with (
                LoadProcess(users_url, USERS_RATE, self._outer) as users,
                LoadProcess(orders_url, ORDERS_RATE, self._outer) as orders,
            ):
                time.sleep(_WARM_SECONDS)
                with self._crowd(work, gateway_port):
                    began = time.perf_counter()
                    with self._trouble(work):
                        refused = orders.await_refusal(since=began) if work.is_waited_for else None
                        time.sleep(self._seconds)
                        ended = time.perf_counter()
                        requests = users.end()
            return UsersSeen([one for one in requests if began <= one.due < ended], began, refused)
        finally:
            gateway.stop()
            self._orders.stop()
            self._orders = None

    @contextmanager
    def _trouble(self, work: Trouble) -> Iterator[None]:
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
    def _crowd(self, work: Trouble, port: int) -> Iterator[None]:
        if work.crowd is None:
            yield
            return
        number, kind = work.crowd
        with _spawn(["benchmarks.gateway_faults.crowd", str(port), str(number), kind], self._outer) as crowd:
            assert crowd.stdout is not None
            try:
                crowd.stdout.readline()
                yield
            finally:
                crowd.terminate()

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


def _spawn(module: Sequence[str], on: frozenset[int] | None) -> subprocess.Popen[str]:
    """A module of ours on its cores."""
    with _on(on):
        return subprocess.Popen([sys.executable, "-m", *module], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)


def _subjects(arguments: argparse.Namespace) -> list[Subject]:
    found = [subjects.ours()]
    if arguments.beside is not None:
        found.append(subjects.ours(arguments.beside.resolve()))
    names = arguments.peers.split(",") if arguments.peers is not None else () if arguments.quick else _PEERS
    for name in filter(None, names):
        if name not in subjects.PEERS or name == "direct":
            sys.exit(f"there is no peer {name} here; there are flask, express, aiohttp and nginx")
        try:
            found.append(subjects.PEERS[name]())
        except Missing as error:
            print(f"missing: {name} ({error})")
    return found


def _chosen(text: str | None) -> list[Trouble]:
    names = list(WORKS) if text is None else [name for name in text.split(",") if name]
    for name in names:
        if name not in WORKS:
            sys.exit(f"there is no work {name}; there are {', '.join(WORKS)}")
    return [WORKS[name] for name in names]
