"""Creation over HTTP: the task service behind the gateway, one process each, and one client with one connection."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection

from benchmarks.gateway import subjects as gateways
from benchmarks.processes import Process, free_port
from benchmarks.report import CHECKOUT
from benchmarks.tasks import figures
from benchmarks.tasks.figures import Figure
from benchmarks.tasks.subjects import TaskPlace

_LARGEST = 10_000


def _metric(of: tuple[str, str], size: int) -> tuple[str, str]:
    return f"{of[0]}, {size:,} in a request", of[1]


MAIN = _metric(figures.TASKS, figures.BATCH)


def create(place: TaskPlace, quick: bool) -> Iterator[Figure]:
    port = free_port()
    with ExitStack() as stack:
        service = Process(
            [sys.executable, "-P", "-m", "servicekit.web.serve", "tasks"],
            port=port,
            output=place.folder / "service.log",
            on=None,
            cwd=CHECKOUT,
            environment={
                "TASKS_DATABASE_URL": place.url,
                "TASKS_BIND": f"127.0.0.1:{port}",
                "AUTH": "off",
                "PYTHONPATH": str(CHECKOUT),
            },
        )
        stack.callback(service.stop)
        subject = gateways.ours(settings={"TASKS_URL": f"http://127.0.0.1:{port}"})
        assert subject.start is not None
        gateway, gateway_port = subject.start(gateways.GatewayPlace(place.folder, None, free_port(), free_port()))
        stack.callback(gateway.stop)
        # Not requests, which would take as long as the gateway.
        client = stack.enter_context(closing(HTTPConnection("127.0.0.1", gateway_port, timeout=60)))
        for size in (1, figures.BATCH, _LARGEST):
            times = _times(size, quick)
            task = {"task_type": "noop"}
            path = "/tasks" if size == 1 else "/tasks/batch"
            body = json.dumps(task if size == 1 else {"tasks": [task] * size})
            _post(client, path, body)
            used = service.cpu_seconds() + gateway.cpu_seconds()
            began = time.monotonic()
            for _ in range(times):
                _post(client, path, body)
            took = time.monotonic() - began
            used = service.cpu_seconds() + gateway.cpu_seconds() - used
            yield *_metric(figures.TASKS, size), times * size / took
            yield *_metric(figures.HTTP_CPU, size), used / (times * size) * 1e6


def _times(size: int, quick: bool) -> int:
    return max((20_000 if quick else 200_000) // size, 2) if size > 1 else (200 if quick else 2000)


def _post(client: HTTPConnection, path: str, body: str) -> None:
    client.request("POST", path, body, {"Content-Type": "application/json"})
    answer = client.getresponse()
    said = answer.read()
    if answer.status != 201:
        raise RuntimeError(f"POST {path}: {answer.status} {said[:200]!r}")
