"""The rounds in which stacks take turns, with a look at their answers before each run."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import requests

from benchmarks import load
from benchmarks.installing import Missing
from benchmarks.load import NUMBER, Ask
from benchmarks.logins import with_tokens
from benchmarks.processes import cores, free_port, pinned
from benchmarks.report import ReportRow
from benchmarks.system.stacks import GATEWAY, PEERS, RunningStack, Stack, Tables, ours, running
from benchmarks.system.works import StackWork, differences
from benchmarks.tasks.subjects import Server
from servicekit.process.lifecycle import allow_many_files

_ROWS = 10_000
_PATIENCE = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: works over numbers of clients and of rows, so many times, so long."""

    works: Sequence[StackWork]
    clients: Sequence[int]
    rows: Sequence[int]
    rounds: int
    seconds: int
    #: Through the gateway, everything on all cores; else the service alone, on a core of its own.
    whole: bool

    def title(self, work: StackWork, clients: int, rows: int) -> str:
        """What tells the run from all others of the plan."""
        more = [f"{clients:,} clients" if clients != 1 else "1 client"] if len(self.clients) > 1 else []
        more += [f"{rows:,} rows"] if len(self.rows) > 1 else []
        return ", ".join([work.title, *more])


@dataclass(frozen=True, slots=True)
class StackRun:
    """What was seen in one run: by the load, and of CPU seconds."""

    seen: load.LoadResult
    cpu: float
    database_cpu: float


def add_arguments(
    parser: argparse.ArgumentParser, works: Mapping[str, StackWork], lists: Mapping[str, StackWork], clients: int
) -> None:
    also = "" if not lists else f"; for --rows also {', '.join(name for name in lists if name not in works)}"
    parser.add_argument("--works", metavar="A,B", help=f"only these of: {', '.join(works)}{also}")
    parser.add_argument("--peers", metavar="A,B", help=f"only these of: {', '.join(PEERS)}; with '' none")
    parser.add_argument("--auth", action="store_true", help="ours a second time, where everybody has logged in")
    parser.add_argument("--beside", metavar="CHECKOUT", type=Path, help="the same of another checkout too")
    parser.add_argument("--clients", metavar="A,B", default=str(clients), help=f"connections kept ({clients})")
    parser.add_argument("--rows", metavar="A,B", help=f"rows of each table ({_ROWS}, and at least 100)")
    parser.add_argument("--rounds", type=int, help="runs of each stack (3; quick: 2)")
    parser.add_argument("--seconds", type=int, help="length of a run (3; quick: 1)")


def plan_of(arguments: argparse.Namespace, known: Mapping[str, StackWork], usual: Sequence[str], whole: bool) -> Plan:
    """The plan that arguments ask for; ends the program at one that cannot be."""
    names = list(usual) if arguments.works is None else [name for name in arguments.works.split(",") if name]
    for name in names:
        if name not in known:
            sys.exit(f"there is no work {name}; there are {', '.join(known)}")
    rows = numbers("rows", arguments.rows or str(_ROWS), least=100)
    clients = numbers("clients", arguments.clients, least=1)
    seconds = arguments.seconds or (1 if arguments.quick else 3)
    rounds = max(arguments.rounds or (2 if arguments.quick else 3), 1)
    return Plan([known[name] for name in names], clients, rows, rounds, seconds, whole)


def numbers(what: str, text: str, *, least: int) -> list[int]:
    """The numbers in a comma-separated list; ends the program at what is none, or too small."""
    try:
        found = [int(one.replace("_", "")) for one in text.split(",")]
    except ValueError:
        sys.exit(f"--{what} takes numbers with commas between them, such as 1000,100000")
    if min(found) < least:
        sys.exit(f"--{what} takes numbers from {least} on")
    return found


def stacks_of(arguments: argparse.Namespace) -> list[Stack]:
    """Ours first; a peer that cannot be had is said to be missing."""
    found = [ours(), *([ours(has_logins=True)] if arguments.auth else [])]
    if arguments.beside is not None:
        found.append(ours(arguments.beside.resolve()))
    names = list(PEERS) if arguments.peers is None else [name for name in arguments.peers.split(",") if name]
    for name in names:
        if name not in PEERS:
            sys.exit(f"there is no peer {name}; there are {', '.join(PEERS)}")
        try:
            found.append(PEERS[name]())
        except Missing as error:
            print(f"missing: {name} ({error})")
    return found


def measure(plan: Plan, stacks: Sequence[Stack]) -> list[ReportRow]:
    """Run the plan, every stack in turn in each round."""
    split = None if plan.whole else cores()
    outer, inner = split if split is not None else (None, None)
    where = "everything on all cores"
    if outer is not None and inner is not None:
        where = f"load and PostgreSQL on core {min(outer)}, the services on core {min(inner)}"
    print(f"load: {load.generator()}, one thread; {plan.rounds} runs of {plan.seconds} s each, in turn; {where}\n")
    allow_many_files()
    runs: dict[str, dict[str, list[StackRun]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-stacks-") as name, ExitStack() as outermost:
        folder = Path(name)
        # PostgreSQL may run as another user than we do.
        folder.chmod(0o755)
        server = Server(folder, free_port())
        with pinned(outer):
            server.start()
        outermost.callback(server.stop)
        for rows in plan.rows:
            tables = Tables(server, rows)
            with ExitStack() as started:
                up = [
                    started.enter_context(running(stack, tables.of(stack), rows, folder, inner, whole=plan.whole))
                    for stack in stacks
                ]
                bench = _Rounds(plan, server, up, rows, folder, outer)
                for work in plan.works:
                    for clients in plan.clients:
                        runs[plan.title(work, clients, rows)] = bench.run(work, clients)
            for stack in up:
                for database in stack.databases.values():
                    server.drop(database)
    return report(runs, whole=plan.whole)


class _Rounds:
    """Stacks that run over the same rows."""

    def __init__(
        self,
        plan: Plan,
        server: Server,
        stacks: Sequence[RunningStack],
        rows: int,
        folder: Path,
        core: frozenset[int] | None,
    ) -> None:
        self._plan, self._server, self._stacks = plan, server, stacks
        self._rows, self._folder, self._core = rows, folder, core
        self._runs = 0
        self._warm: set[tuple[str, str]] = set()

    def run(self, work: StackWork, clients: int) -> dict[str, list[StackRun]]:
        found: dict[str, list[StackRun]] = defaultdict(list)
        for number in range(self._plan.rounds):
            require_same(self._stacks, work, self._asks(work), self._base)
            for stack in self._stacks:
                print(f"{work.title}, round {number + 1}: {stack.name}", file=sys.stderr, flush=True)
                # A gateway has connections to open for each kind of request, a service alone only to its database.
                warm = (stack.name, work.title if self._plan.whole else work.part)
                if warm not in self._warm:
                    self._warm.add(warm)
                    self._load(stack, work, min(clients, 32), seconds=1)
                found[stack.name].append(self._measured(stack, work, clients))
                if work.writes:
                    stack.reset()
        return found

    def _measured(self, stack: RunningStack, work: StackWork, clients: int) -> StackRun:
        parts = list(stack.processes) if self._plan.whole else [work.part]
        processes = [stack.processes[part] for part in parts]
        used, of_database = sum(process.cpu_seconds() for process in processes), self._server.cpu_seconds()
        seen = self._load(stack, work, clients, self._plan.seconds)
        return StackRun(
            seen,
            sum(process.cpu_seconds() for process in processes) - used,
            self._server.cpu_seconds() - of_database,
        )

    def _load(self, stack: RunningStack, work: StackWork, clients: int, seconds: int) -> load.LoadResult:
        file = self._folder / "asks.tsv"
        base, asks = self._base(stack, work), self._asks(work)
        if stack.logins is not None:
            asks = with_tokens(asks, stack.logins.tokens())
        return load.put_asks(base, asks, file, connections=clients, seconds=seconds, on=self._core)

    def _asks(self, work: StackWork) -> list[Ask]:
        self._runs += 1
        return work.asks(self._rows, f"run{self._runs}")

    def _base(self, stack: RunningStack, work: StackWork) -> str:
        return stack.urls[GATEWAY if self._plan.whole else work.part]


def require_same(
    stacks: Sequence[RunningStack],
    work: StackWork,
    asks: Sequence[Ask],
    base: Callable[[RunningStack, StackWork], str],
) -> None:
    """Ask every stack each kind of request of a work once; raises RuntimeError where one answers otherwise."""
    kinds = {(ask.method, ask.path.count("/"), ask.path.split("/")[1]): ask for ask in reversed(asks)}
    with requests.Session() as session:
        session.trust_env = False
        # What shows comes first: what is made has another id and time in each stack.
        for ask in sorted(kinds.values(), key=lambda ask: ask.method != "GET"):
            answers = []
            for stack in stacks:
                answer = session.request(
                    ask.method,
                    base(stack, work) + ask.path,
                    data=ask.body.replace(NUMBER, "1") or None,
                    headers={**({"Content-Type": "application/json"} if ask.body else {}), **fields_of(stack)},
                    timeout=_PATIENCE,
                )
                if not answer.ok:
                    raise RuntimeError(
                        f"{stack.name}: {ask.method} {ask.path}: {answer.status_code} {answer.text[:300]}"
                    )
                answers.append((answer.status_code, answer.json()))
            for stack, (status, body) in zip(stacks, answers, strict=True):
                found = differences(list(answers[0]), [status, body], writes=ask.method != "GET")
                if found:
                    raise RuntimeError(
                        f"{stack.name} answers {ask.method} {ask.path} otherwise: {'; '.join(found[:5])}"
                    )


def fields_of(stack: RunningStack) -> dict[str, str]:
    return {} if stack.logins is None else {"Authorization": f"Bearer {stack.logins.tokens()[0]}"}


def report(runs: Mapping[str, Mapping[str, Sequence[StackRun]]], *, whole: bool) -> list[ReportRow]:
    """A row for each work, metric and stack. CPU is told for each answer, and as nothing where none came."""
    of = "the stack" if whole else "the service's process"
    metrics: list[tuple[str, str, Callable[[StackRun], float]]] = [
        ("good answers", "1/s", lambda run: run.seen.per_second),
        (f"CPU of {of}", "µs/answer", lambda run: run.cpu * 1e6 / max(run.seen.answers, 1)),
        ("CPU of PostgreSQL", "µs/answer", lambda run: run.database_cpu * 1e6 / max(run.seen.answers, 1)),
        ("p50 latency", "ms", lambda run: run.seen.p50),
        ("p99 latency", "ms", lambda run: run.seen.p99),
        ("errors in a run", "1", lambda run: run.seen.errors),
    ]
    rows = []
    for title, by_stack in runs.items():
        for metric, unit, value in metrics:
            for name, seen in by_stack.items():
                values = tuple(value(run) for run in seen)
                rows.append(ReportRow(title, name, metric, unit, values))
            if metric.startswith("CPU of the"):
                for name, seen in by_stack.items():
                    least = (min(value(run) for run in seen),)
                    rows.append(ReportRow(title, name, f"{metric}, least of the rounds", unit, least))
    return rows
