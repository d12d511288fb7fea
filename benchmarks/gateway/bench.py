"""One gateway process beside its peers: throughput, processor time, added latency and memory.

At 32 and at 1,000 connections, in front of an upstream that answers at once and of one that takes 50 ms; and at 8, with
answers of 0.5, 20 and 786 KB. Every subject has the same core, the load and the upstream another; the subjects take
turns in every round.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import load
from benchmarks.gateway import logins, subjects
from benchmarks.gateway.subjects import GatewayPlace, Subject
from benchmarks.installing import Missing
from benchmarks.processes import Process, cores, free_port
from benchmarks.report import CHECKOUT, ReportRow
from servicekit.process.lifecycle import allow_many_files

_ID = "0193a5b0-7c1e-7a52-8d52-5f0f4d6c1b2a"


@dataclass(frozen=True, slots=True)
class Requests:
    name: str
    path: str
    connections: int


WORKS = {
    "fast-32": Requests("GET, fast upstream, 32 connections", f"/users/{_ID}", 32),
    "slow-32": Requests("GET, upstream takes 50 ms, 32 connections", f"/orders/{_ID}", 32),
    "fast-1000": Requests("GET, fast upstream, 1,000 connections", f"/users/{_ID}", 1000),
    "slow-1000": Requests("GET, upstream takes 50 ms, 1,000 connections", f"/orders/{_ID}", 1000),
    "half-kb": Requests("GET, 0.5 KB, 8 connections", f"/users/{_ID}?size=500", 8),
    "20-kb": Requests("GET, 20 KB, 8 connections", f"/users/{_ID}?size=20000", 8),
    "786-kb": Requests("GET, 786 KB, 8 connections", f"/users/{_ID}?size=786000", 8),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A run: what the load saw, and of the subject's processes the resident memory at its end in MiB and the processor
    time for an answer in µs."""

    load: load.LoadResult
    memory: float | None
    cost: float | None


class Running:
    """A subject that is started when it is needed, and anew after a run that left much behind: errors, or fewer
    answers than connections. Its next run would otherwise measure that."""

    def __init__(self, subject: Subject, place: GatewayPlace) -> None:
        self.subject = subject
        self._place = place
        self._process: Process | None = None
        self._port = 0

    def run(self, work: Requests, seconds: int, core: frozenset[int] | None) -> Seen:
        if self.subject.start is not None and self._process is None:
            self._process, self._port = self.subject.start(self._place)
            warm = WORKS["fast-32"]
            load.put(self._url(warm), connections=warm.connections, seconds=1, on=core)
        before = None if self._process is None else self._process.cpu_seconds()
        seen = load.put(self._url(work), connections=work.connections, seconds=seconds, on=core)
        memory = cost = None
        if self._process is not None and before is not None:
            memory = self._process.resident_mib()
            cost = (self._process.cpu_seconds() - before) / max(seen.answers, 1) * 1e6
        if seen.errors or seen.per_second * seconds < work.connections:
            self.stop()
        return Seen(seen, memory, cost)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _url(self, work: Requests) -> str:
        place = self._place
        straight = place.fast_port if work.path.startswith("/users") else place.slow_port
        return f"http://127.0.0.1:{straight if self.subject.start is None else self._port}{work.path}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    peers, works = ", ".join(subjects.PEERS), ", ".join(WORKS)
    parser.add_argument("--peers", metavar="A,B", help=f"only these of: {peers}")
    parser.add_argument("--works", metavar="A,B", help=f"only these of: {works}")
    parser.add_argument("--auth", action="store_true", help="ours alone, with and without logins")
    parser.add_argument("--beside", metavar="CHECKOUT", type=Path, help="the gateway of another checkout too")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each subject (3, and never fewer)")
    parser.add_argument("--seconds", type=int, help="length of a run (5; quick: 1)")


def run(arguments: argparse.Namespace) -> Sequence[ReportRow]:
    found = [] if arguments.auth else _subjects(arguments)
    works = _chosen(arguments.works, WORKS)
    seconds = arguments.seconds or (1 if arguments.quick else 5)
    rounds = max(arguments.rounds, 3)
    split = cores()
    outer, inner = split if split is not None else (None, None)
    allow_many_files()
    print(f"load: {load.generator()}, one thread; {rounds} runs of {seconds} s each, in turn")
    if outer is None or inner is None:
        print("no pinning: fewer than two cores, or not Linux; figures are lower and less even")
    else:
        print(f"load and upstream on core {min(outer)}, every subject on core {min(inner)}")
    print()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-")))
        place = GatewayPlace(folder, inner, free_port(), free_port())
        upstream = Process(
            [sys.executable, "-m", "benchmarks.gateway.upstream", str(place.fast_port), str(place.slow_port)],
            port=place.slow_port,
            output=folder / "upstream.log",
            on=outer,
            cwd=CHECKOUT,
        )
        stack.callback(upstream.stop)
        if arguments.auth:
            return logins.measure(stack, place, outer, rounds=rounds, seconds=seconds)
        running = [Running(subject, place) for subject in found]
        for one in running:
            stack.callback(one.stop)
        return _measure(running, works, rounds, seconds, outer)


def _measure(
    running: Sequence[Running], works: Sequence[Requests], rounds: int, seconds: int, core: frozenset[int] | None
) -> list[ReportRow]:
    runs: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for work in works:
        for number in range(rounds):
            seen = {}
            for one in running:
                name = one.subject.name
                progress = f"{work.name}, round {number + 1} of {rounds}: {name}"
                print(f"\r\033[K{progress}" if sys.stderr.isatty() else progress, file=sys.stderr, end="", flush=True)
                if not sys.stderr.isatty():
                    print(file=sys.stderr)
                this = one.run(work, seconds, core)
                seen[name] = this.load
                runs[work.name, "good answers", "1/s", name].append(this.load.per_second)
                if this.cost is not None:
                    runs[work.name, "processor time for an answer", "µs", name].append(this.cost)
                if this.memory is not None:
                    runs[work.name, "resident memory", "MiB", name].append(this.memory)
            for name, result in seen.items():
                straight = seen.get("direct")
                for quantile in ("p50", "p99"):
                    value = getattr(result, quantile)
                    if name == "direct":
                        runs[work.name, f"{quantile} latency without a gateway", "ms", name].append(value)
                    elif straight is not None:
                        added = value - getattr(straight, quantile)
                        runs[work.name, f"added {quantile} latency", "ms", name].append(added)
                    else:
                        runs[work.name, f"{quantile} latency", "ms", name].append(value)
                runs[work.name, "errors in a run", "1", name].append(result.errors)
    if sys.stderr.isatty():
        print("\r\033[K", file=sys.stderr, end="", flush=True)
    order = {one.subject.name: at for at, one in enumerate(running)}
    metrics = list(dict.fromkeys((work, metric) for work, metric, _, _ in runs))
    keys = sorted(runs, key=lambda key: (metrics.index(key[:2]), order[key[3]]))
    return [
        ReportRow(work, name, metric, unit, tuple(runs[work, metric, unit, name])) for work, metric, unit, name in keys
    ]


def _subjects(arguments: argparse.Namespace) -> list[Subject]:
    found = [subjects.ours()]
    if arguments.beside is not None:
        found.append(subjects.ours(arguments.beside.resolve()))
    names = list(subjects.PEERS) if arguments.peers is None else [n for n in arguments.peers.split(",") if n]
    for name in names:
        if name not in subjects.PEERS:
            sys.exit(f"there is no peer {name}; there are {', '.join(subjects.PEERS)}")
        try:
            found.append(subjects.PEERS[name]())
        except Missing as error:
            print(f"missing: {name} ({error})")
    return found


def _chosen(text: str | None, works: dict[str, Requests]) -> list[Requests]:
    names = list(works) if text is None else [name for name in text.split(",") if name]
    for name in names:
        if name not in works:
            sys.exit(f"there is no work {name}; there are {', '.join(works)}")
    return [works[name] for name in names]
