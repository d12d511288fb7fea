"""A service as its container runs it, and its peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil
import yaml

from tests.support.ports import free_port
from tests.support.raw_http import RawAnswer, RawClient
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).resolve().parents[2]
_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}
JSON = (("Content-Type", "application/json"),)


@cache
def limit_of(container: str) -> int:
    """The memory limit of a container in docker-compose.yml, in bytes."""
    document = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8"))
    text: str = document["services"][container]["mem_limit"]
    return int(text[:-1]) * _UNITS[text[-1]]


def peak(pid: int) -> int:
    """Peak memory of a process in bytes; for gunicorn's master, that of its workers plus its private memory."""
    first = psutil.Process(pid)
    workers = first.children(recursive=True)
    if not workers:
        return _highest(pid)
    # Its memory shared with workers is counted there; its private memory does not vary.
    return first.memory_full_info().uss + sum(_highest(worker.pid) for worker in workers)


def _highest(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no VmHWM")


class Contained:
    """A running service, and its client."""

    def __init__(self, process: subprocess.Popen[bytes], client: RawClient, log: Path) -> None:
        self.process = process
        self.client = client
        self._log = log
        self.workers = self._workers()

    def _workers(self) -> set[int]:
        return {worker.pid for worker in psutil.Process(self.process.pid).children()}

    def at_once(self, *requests: Callable[[], RawAnswer]) -> Counter[int]:
        """Send them all at once. Each gets an enveloped answer: the data, or a refusal for its size."""
        with ThreadPoolExecutor(len(requests)) as threads:
            answers = [sent.result() for sent in [threads.submit(request) for request in requests]]
        for answer in answers:
            assert answer.status in (200, 201, 413, 503), answer
            assert answer.json["success"] is (answer.status < 400)
            if answer.status == 503:
                assert answer.code in ("overloaded", "too_many_passwords")
                assert answer.value("Retry-After") == "1"
        assert self._workers() == self.workers, self._log.read_text()[-2000:]
        return Counter(answer.status for answer in answers)

    def get(self, target: str) -> Callable[[], RawAnswer]:
        return lambda: self.client.get(target)

    def post(self, target: str, body: bytes) -> Callable[[], RawAnswer]:
        return lambda: self.client.request("POST", target, body, fields=JSON)


@contextmanager
def contained(package: str, log: Path, **settings: str) -> Iterator[Contained]:
    """Run a service under gunicorn as its image does."""
    client = RawClient(free_port(), timeout=60)
    bind = f"{package.removeprefix('service_').upper()}_BIND"
    environment = {**os.environ, **settings, bind: f"127.0.0.1:{client.port}"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "servicekit.web.serve", package.removeprefix("service_")],
            cwd=CHECKOUT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return client.get("/livez").status == 200
        except OSError:
            return False

    try:
        eventually(answers, timeout=30, what=f"{package} to answer")
        yield Contained(process, client, log)
    finally:
        process.terminate()
        process.wait(40)
