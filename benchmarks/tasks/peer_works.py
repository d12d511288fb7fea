"""The works for peers: the same figures as ours, told by their handlers (meter.py) and their creators."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.processes import Process
from benchmarks.tasks import figures
from benchmarks.tasks.figures import BATCH, CHURN_RATE, CLAIM, HAS_NONE, Churned, Figure, churn_figures, keep_pace
from benchmarks.tasks.peer import Ground, PeerFailed, PeerQueue, Servers

_START_SECONDS = 60.0
#: A worker rests that used at most this much CPU, in seconds (the kernel's tick), over so many looks.
_RESTING_CPU, _LOOKS = 0.01, 4
_CLAIMS = 40
_CLAIM_SECONDS = 20.0

PeerWork = Callable[[PeerQueue, Servers, Path, bool], Iterator[Figure]]


@contextlib.contextmanager
def _ground(peer: PeerQueue, servers: Servers, folder: Path) -> Iterator[Ground]:
    ground = Ground(peer, servers, folder)
    try:
        yield ground
    finally:
        ground.close()


def peer_noop(workers: int) -> PeerWork:
    def run(peer: PeerQueue, servers: Servers, folder: Path, quick: bool) -> Iterator[Figure]:
        count, seconds = (peer.quick_fill, 8.0) if quick else (peer.fill, 30.0)
        with _ground(peer, servers, folder) as ground:
            ground.desk.ask("fill", count=count)
            ground.settle()
            place = ground.place
            before = (0.0, 0.0) if place is None else (place.wal(), place.row_writes())
            with ground.workers(workers, peer.worker) as running:
                ground.wait(lambda: ground.reading().ended > 0, _START_SECONDS, running)
                first, used, served = ground.reading(), _cpu(running), ground.server_cpu()
                until = time.monotonic() + seconds
                ground.wait(lambda: ground.reading().ended >= count or time.monotonic() > until, seconds + 10, running)
                last, used, served = ground.reading(), _cpu(running) - used, ground.server_cpu() - served
            done = max(last.ended - first.ended, 1)
            yield *figures.TASKS, last.ended / max(last.seconds(), 1e-6)
            yield *figures.WORKERS_CPU, used / done * 1e6
            yield *figures.SERVER_CPU, served / done * 1e6
            if place is None:
                yield *figures.WAL, HAS_NONE
                yield *figures.DEAD, HAS_NONE
            else:
                # Those too that ended while the workers stopped.
                ended = ground.reading().ended
                yield *figures.WAL, (place.wal() - before[0]) / ended
                yield *figures.DEAD, (place.row_writes() - before[1]) / ended

    return run


def latency(peer: PeerQueue, servers: Servers, folder: Path, quick: bool) -> Iterator[Figure]:
    with _ground(peer, servers, folder) as ground, ground.workers(1, peer.worker) as running:
        _greet(ground, running)
        waits = ground.desk.ask("latencies", count=30 if quick else 200)
    yield *figures.MEDIAN, statistics.median(waits)
    yield *figures.P95, statistics.quantiles(waits, n=20)[-1]


def held(count: int, seconds: float) -> PeerWork:
    def run(peer: PeerQueue, servers: Servers, folder: Path, quick: bool) -> Iterator[Figure]:
        length = min(seconds, 10.0) if quick else seconds
        full, most = 0.0, 0
        with _ground(peer, servers, folder) as ground, ExitStack() as stack:

            def ended() -> bool:
                nonlocal full, most
                full = max(full, running[0].resident_mib() or 0.0)
                reading = ground.reading()
                most = max(most, reading.running)
                return reading.ended >= count + greeted

            with ground.workers(1, peer.holder(count)) as running:
                greeted = _greet(ground, running)
                empty = running[0].resident_mib() or 0.0
                if "create" not in peer.lacks:
                    began = time.time()
                    ground.desk.begin("create", count=count, size=BATCH, limit=length + 60, wait=length)
                    ground.wait(ended, length * 3 + 120, running)
                    ground.desk.answer()
            if "create" in peer.lacks:
                # Its creator would be what is measured: it sends one by one.
                ground.desk.ask("fill", count=count, wait=length)
                ground.forget()
                greeted = 0
                running = stack.enter_context(ground.workers(1, peer.holder(count)))
                ground.wait(ended, length * 3 + 120, running)
                began = ground.reading().first_start
            took = ground.reading().last_end - began
        yield *figures.WAITED, length
        yield *figures.TOOK, took
        yield *figures.HELD, most
        yield *figures.RESIDENT, full
        yield *figures.EACH, (full - empty) * 1024 / count

    return run


def peer_create(size: int) -> PeerWork:
    def run(peer: PeerQueue, servers: Servers, folder: Path, quick: bool) -> Iterator[Figure]:
        pieces = (20 if quick else 100) if size > 1 else (300 if quick else 2000)
        with _ground(peer, servers, folder) as ground:
            ground.desk.ask("create", count=size, size=size, limit=10)
            made = ground.desk.ask("create", count=pieces * size, size=size, limit=8 if quick else 30)
        yield *figures.TASKS, made["made"] / made["seconds"]
        yield *figures.CREATOR_CPU, made["cpu_seconds"] / made["made"] * 1e6

    return run


def claim_beside(peer: PeerQueue, servers: Servers, folder: Path, quick: bool) -> Iterator[Figure]:
    with _ground(peer, servers, folder) as ground:
        medians = []
        for future in (0, 200_000 if quick else 1_000_000):
            if future:
                ground.desk.ask("fill", count=future, days=30)
                ground.settle()
            medians.append(_claim(ground, _CLAIMS))
    yield *figures.CLAIM_EMPTY, medians[0]
    yield *figures.CLAIM_FULL, medians[1]
    yield *figures.CLAIM_RATIO, medians[1] / medians[0]


def peer_churn(peer: PeerQueue, servers: Servers, folder: Path, quick: bool) -> Iterator[Figure]:
    seconds = 60.0 if quick else 600.0
    can_claim = "claim-future" not in peer.lacks
    early_claim = late_claim = None
    if can_claim:
        with _ground(peer, servers, folder) as ground:
            early_claim = _claim(ground)
    with _ground(peer, servers, folder) as ground:
        early: Churned | None = None
        pruned_at = 0.0
        with ground.workers(1, peer.worker) as running:
            greeted = _greet(ground, running)

            def each_turn(passed: float) -> None:
                nonlocal early, pruned_at
                if not running[0].is_running:
                    raise PeerFailed("its worker has ended")
                if early is None and passed >= seconds * figures.CHURN_START:
                    early = Churned(ground.size(), early_claim, running[0].resident_mib())
                if ground.place is not None and passed - pruned_at >= figures.PRUNE_SECONDS:
                    ground.desk.ask("prune")
                    pruned_at = passed

            made = keep_pace(
                lambda count: ground.desk.ask("create", count=count, size=count, limit=60),
                per_second=CHURN_RATE,
                seconds=seconds,
                each_turn=each_turn,
            )
            ended = ground.reading().ended - greeted
            size, resident = ground.size(), running[0].resident_mib()
        if can_claim:
            late_claim = _claim(ground, settled=False)
    yield *figures.ENDED, ended / seconds
    yield *figures.WAITING, made - ended
    if early is not None:
        yield from churn_figures("early", early)
    yield from churn_figures("at the end", Churned(size, late_claim, resident))


def _claim(ground: Ground, times: int = 5, *, settled: bool = True) -> float:
    """The median of some claims of 100 ready tasks, in milliseconds; nobody works on the claimed ones.

    Not settled is a table as churn leaves it, dead rows and all.
    """
    ground.desk.ask("fill", count=times * CLAIM + BATCH)
    if settled:
        ground.settle()
    return float(statistics.median(ground.desk.ask("claims", count=times, size=CLAIM, limit=_CLAIM_SECONDS)))


def _greet(ground: Ground, running: list[Process]) -> int:
    """Wait until the worker has done a task; gives the number of tasks."""
    ground.desk.ask("create", count=1, size=1, limit=10)
    ground.wait(lambda: ground.reading().ended > 0, _START_SECONDS, running)
    # What it does besides after a first task must not be taken for the next one.
    used: list[float] = []

    def rests() -> bool:
        used.append(_cpu(running))
        return len(used) > _LOOKS and used[-1] - used[-1 - _LOOKS] <= _RESTING_CPU

    ground.wait(rests, _START_SECONDS, running)
    return ground.reading().ended


def _cpu(running: list[Process]) -> float:
    return sum(worker.cpu_seconds() for worker in running)


#: Those of bench.WORKS that a peer may have.
WORKS: dict[str, PeerWork] = {
    "noop-1": peer_noop(1),
    "noop-2": peer_noop(2),
    "start": latency,
    "hold-2000": held(2000, 5.0),
    "hold-10000": held(10_000, 30.0),
    "create-one": peer_create(1),
    "create": peer_create(BATCH),
    "claim-future": claim_beside,
    "churn": peer_churn,
}
