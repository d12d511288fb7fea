"""How each peer is configured, and why: the best that its documentation offers for the work, without less safety."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.installing import pins, python_environment
from benchmarks.tasks.figures import HAS_NONE
from benchmarks.tasks.peer import Command, PeerQueue

_HERE = Path(__file__).resolve().parent / "peers"
_REQUIREMENTS = _HERE / "requirements.txt"
_AWA_REQUIREMENTS = _HERE / "requirements-awa.txt"
_MODULES = "benchmarks.tasks.peers"
#: Nobody has creation over HTTP.
_NO_HTTP = {"create-http": HAS_NONE}
#: A broker pushes; its tasks for later sit in the memory of a worker, or in a queue where none is claimed.
_BROKER_LACKS = {**_NO_HTTP, "create": f"{HAS_NONE}: sends one by one", "claim-future": f"{HAS_NONE}: is pushed"}


def celery() -> PeerQueue:
    def command(*arguments: str, prefetch: int) -> Command:
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
        worker = ("python", "-P", "-m", "celery", "-A", f"{_MODULES}.celery_peer", "worker")
        return Command((*worker, *quiet, *arguments), {"BENCH_PREFETCH": str(prefetch)})

    return PeerQueue(
        name=_name("celery", "Celery"),
        programs=_programs(),
        module=f"{_MODULES}.celery_peer",
        on_rabbitmq=True,
        # A child of prefork costs a pipe both ways for each task; the pool without children is the fastest.
        worker=command("--pool", "solo", prefetch=500),
        holder=lambda count: command("--pool", "gevent", "--concurrency", str(count), prefetch=1),
        quick_fill=15_000,
        fill=60_000,
        lacks=_BROKER_LACKS,
    )


def dramatiq() -> PeerQueue:
    module = f"{_MODULES}.dramatiq_peer"

    def holder(count: int) -> Command:
        # A thread for each waiting task, or a greenlet; 10,000 threads are too many.
        return Command(("dramatiq-gevent", module, "--processes", "1", "--threads", str(count)))

    return PeerQueue(
        name=_name("dramatiq", "Dramatiq"),
        programs=_programs(),
        module=module,
        on_rabbitmq=True,
        worker=Command(("dramatiq", module, "--processes", "1", "--threads", "8"), {"dramatiq_queue_prefetch": "500"}),
        holder=holder,
        quick_fill=20_000,
        fill=100_000,
        lacks=_BROKER_LACKS,
    )


def procrastinate() -> PeerQueue:
    def command(concurrency: int) -> Command:
        program = ("python", "-P", "-m", "procrastinate", "--app", f"{_MODULES}.procrastinate_peer.app")
        # It would write two lines for each task.
        return Command((*program, "--log-level", "warning", "worker", "--concurrency", str(concurrency)))

    return PeerQueue(
        name=_name("procrastinate", "Procrastinate"),
        programs=_programs(),
        module=f"{_MODULES}.procrastinate_peer",
        on_rabbitmq=False,
        # It claims one at a time, so more than its connections can finish gains nothing.
        worker=command(10),
        holder=command,
        quick_fill=5_000,
        fill=30_000,
        lacks=_NO_HTTP,
    )


def pgqueuer() -> PeerQueue:
    def command(batch: int, most: int) -> Command:
        return Command(("python", "-P", "-m", f"{_MODULES}.pgqueuer_peer", str(batch), str(most)))

    return PeerQueue(
        name=_name("pgqueuer", "PgQueuer"),
        programs=_programs(),
        module=f"{_MODULES}.pgqueuer_peer",
        on_rabbitmq=False,
        worker=command(500, 2000),
        holder=lambda count: command(500, count),
        quick_fill=50_000,
        fill=200_000,
        lacks=_NO_HTTP,
    )


def awa() -> PeerQueue:
    programs = python_environment("tasks-awa", _AWA_REQUIREMENTS).parent
    module = f"{_MODULES}.awa_peer"

    def command(slots: int) -> Command:
        return Command(("python", "-P", "-m", module, str(slots)))

    return PeerQueue(
        name=f"awa {pins(_AWA_REQUIREMENTS)['awa-pg']}",
        programs=programs,
        module=module,
        on_rabbitmq=False,
        worker=command(500),
        holder=command,
        quick_fill=50_000,
        fill=200_000,
        lacks={**_NO_HTTP, "claim-future": "cannot be asked for a claim alone"},
    )


#: The first of them is what ratios refer to. Each raises Missing where it cannot be had.
PEERS: dict[str, Callable[[], PeerQueue]] = {
    "celery": celery,
    "dramatiq": dramatiq,
    "procrastinate": procrastinate,
    "pgqueuer": pgqueuer,
    "awa": awa,
}


def _programs() -> Path:
    return python_environment("tasks", _REQUIREMENTS).parent


def _name(package: str, called: str) -> str:
    return f"{called} {pins(_REQUIREMENTS)[package]}"
