"""Event streams as clients see them: gateway, streaming process and PostgreSQL are the real ones."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from service_tasks.domain.task import Lease, Progress, Succeeded
from service_tasks.engine.ports import Offer
from servicekit.process.ids import new_id
from servicekit.process.lifecycle import allow_many_files
from tests.support.event_stream import Event, EventsProcess, EventStream, Reader
from tests.support.gateway import GatewayProcess
from tests.support.postgres import ServiceDatabase, TestServer
from tests.support.waiting import eventually

WATCHERS = 1000


@pytest.fixture(scope="module")
def tasks_database(postgres_server: TestServer) -> Iterator[ServiceDatabase]:
    yield from postgres_server.service_database("service_tasks")


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory, tasks_database: ServiceDatabase) -> Iterator[EventsProcess]:
    process = EventsProcess(tmp_path_factory.mktemp("events") / "log", tasks_database.url)
    yield process
    process.stop()


@pytest.fixture(scope="module")
def _gateway(tmp_path_factory: pytest.TempPathFactory, events: EventsProcess) -> Iterator[GatewayProcess]:
    """In front of the real event streams and of scripted services."""
    process = GatewayProcess(
        tmp_path_factory.mktemp("gateway") / "log",
        EVENTS_URL=events.url,
        GATEWAY_EVENT_STREAMS_PER_CLIENT=str(WATCHERS),
    )
    yield process
    process.stop()


@pytest.fixture
def gateway(_gateway: GatewayProcess) -> GatewayProcess:
    """With a closed circuit: a test that restarted the event streams may have left it open."""
    assert _gateway.force("events", "auto").status == 200
    return _gateway


class Client:
    """One of many watchers: comes back with its last id when its stream ends before the task does."""

    def __init__(self, port: int, task_id: UUID) -> None:
        self.port = port
        self.task_id = task_id
        self.seen: list[Event] = []
        self.statuses: list[int] = []
        self.open = asyncio.Event()
        self._reader = Reader()

    @property
    def has_ended(self) -> bool:
        return bool(self.seen) and self.seen[-1].name == "end"

    async def watch(self) -> None:
        while not self.has_ended:
            await self._once()
            # As a browser would, but without its patience; a refused one asks again.
            await asyncio.sleep(0 if self.has_ended else 0.3)

    async def _once(self) -> None:
        incoming, outgoing = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            last = "" if self._reader.last_id is None else f"Last-Event-ID: {self._reader.last_id}\r\n"
            outgoing.write(f"GET /tasks/{self.task_id}/events HTTP/1.1\r\nHost: localhost\r\n{last}\r\n".encode())
            head = await incoming.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            self.statuses.append(status)
            if status != 200:
                return
            assert b"text/event-stream" in head
            rest = ""
            while size := int(await incoming.readline(), 16):
                rest += (await incoming.readexactly(size)).decode()
                await incoming.readline()
                *lines, rest = rest.split("\n")
                for line in lines:
                    event = self._reader.line(line)
                    if event is not None:
                        self.seen.append(event)
                        self.open.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.statuses.append(0)
        finally:
            outgoing.close()


def started(bench, count: int) -> list[Lease]:
    """Leases of so many running tasks."""
    worker = bench.register()
    bench.keep_alive(worker)
    bench.sql(
        "INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, execute_at)"
        " SELECT id::uuid, 'ready', 'noop', '{}', 50, 3, now() FROM unnest(%s) AS id",
        [str(new_id()) for _ in range(count)],
    )
    return [task.lease for task in bench.engine.claim(worker, [Offer("noop", 600.0)], count)]


def percents(client: Client) -> list[int]:
    return [event.data["percent"] for event in client.seen if event.name == "progress"]


def test_a_thousand_watchers_see_progress_and_end_while_the_tasks_lane_answers(
    bench, events: EventsProcess, gateway: GatewayProcess
) -> None:
    allow_many_files()
    leases = started(bench, WATCHERS // 2)
    statuses: set[int] = set()
    enough = threading.Event()

    def use_the_other_lane() -> None:
        while not enough.is_set():
            statuses.add(gateway.client.get("/tasks").status)

    async def main() -> list[Client]:
        clients = [Client(gateway.port, lease.task_id) for lease in leases for _ in range(2)]
        async with asyncio.timeout(90):
            watching = [asyncio.create_task(client.watch()) for client in clients]
            for client in clients:
                await client.open.wait()
            assert await asyncio.to_thread(events.metric, "siteworks_task_watchers") == WATCHERS
            assert await asyncio.to_thread(events.metric, "siteworks_task_watched") == WATCHERS // 2
            reports = [Progress(lease, 50, "halfway") for lease in leases]
            await asyncio.to_thread(bench.engine.write_progress, reports)
            while not all(50 in percents(client) for client in clients):
                await asyncio.sleep(0.05)
            outcomes = [Succeeded(lease, '{"made": true}') for lease in leases]
            await asyncio.to_thread(bench.engine.write, outcomes, "a worker")
            await asyncio.gather(*watching)
        return clients

    other = threading.Thread(target=use_the_other_lane)
    other.start()
    try:
        clients = asyncio.run(main())
    finally:
        enough.set()
        other.join(20)
    for client in clients:
        assert client.statuses == [200]
        assert percents(client) == [0, 50, 100]
        assert client.seen[-1].data["result"] == {"made": True}
        assert {event.data["id"] for event in client.seen} == {str(client.task_id)}
    assert statuses == {200}
    assert gateway.circuit("tasks")["failures"] == gateway.circuit("events")["failures"] == 0
    eventually(lambda: events.metric("siteworks_task_watchers") == 0, what="everybody to be forgotten")


def test_a_restart_in_the_middle_costs_a_watcher_that_comes_back_nothing(
    bench, events: EventsProcess, gateway: GatewayProcess
) -> None:
    leases = started(bench, 20)

    async def main() -> list[Client]:
        clients = [Client(gateway.port, lease.task_id) for lease in leases for _ in range(2)]
        async with asyncio.timeout(60):
            watching = [asyncio.create_task(client.watch()) for client in clients]
            for client in clients:
                await client.open.wait()
            await asyncio.to_thread(bench.engine.write_progress, [Progress(lease, 30, None) for lease in leases])
            while not all(30 in percents(client) for client in clients):
                await asyncio.sleep(0.05)
            await asyncio.to_thread(events.stop)
            # While nobody streams.
            await asyncio.to_thread(bench.engine.write_progress, [Progress(lease, 60, None) for lease in leases])
            await asyncio.to_thread(events.restart)
            while not all(60 in percents(client) for client in clients):
                await asyncio.sleep(0.05)
            await asyncio.to_thread(bench.engine.write, [Succeeded(lease, "{}") for lease in leases], "a worker")
            await asyncio.gather(*watching)
        return clients

    for client in asyncio.run(main()):
        assert percents(client) == [0, 30, 60, 100]
        assert client.statuses[0] == client.statuses[-1] == 200
        assert set(client.statuses) <= {200, 503}
        ids = [int(event.id) for event in client.seen if event.id]
        assert ids == sorted(ids)


def test_errors_methods_and_the_alias_are_as_everywhere(bench, gateway: GatewayProcess) -> None:
    task_id = bench.add()
    path = f"/tasks/{task_id}/events"
    client = gateway.client
    assert client.get(f"/tasks/{uuid4()}/events").code == "task_not_found"
    assert (client.get("/tasks/7/events").status, client.get("/tasks/7/events").code) == (400, "invalid_input")
    options = client.request("OPTIONS", path)
    assert (options.status, options.value("allow")) == (204, "GET, HEAD, OPTIONS")
    refused = client.request("POST", path, b"")
    assert (refused.status, refused.code) == (405, "method_not_allowed")
    head = client.request("HEAD", f"/api/v1{path}")
    assert (head.status, head.value("content-type"), head.body) == (200, "text/event-stream", b"")


def places_taken(gateway: GatewayProcess) -> float:
    name = 'siteworks_gateway_upstream_requests{upstream="events"} '
    lines = gateway.client.get("/metrics").body.decode().splitlines()
    return float(next(line for line in lines if line.startswith(name)).removeprefix(name))


def test_a_stream_keeps_its_place_until_it_ends_and_one_too_many_is_refused(
    bench, events: EventsProcess, tmp_path: Path
) -> None:
    gateway = GatewayProcess(tmp_path / "small.log", EVENTS_URL=events.url, GATEWAY_EVENT_STREAMS="1")
    try:
        task_id = bench.add()
        with EventStream(gateway.port, task_id) as stream:
            next(stream)
            assert places_taken(gateway) == 1
            refused = gateway.client.get(f"/tasks/{task_id}/events")
            assert (refused.status, refused.code) == (503, "upstream_saturated")
            assert gateway.client.get("/tasks").status == 200
        eventually(lambda: places_taken(gateway) == 0, timeout=3, what="the place to be free")
        with EventStream(gateway.port, task_id) as stream:
            assert next(stream).name == "status"
    finally:
        gateway.stop()


def test_a_client_has_a_limited_number_of_streams_and_leaves_the_others_to_others(
    bench, events: EventsProcess, tmp_path: Path
) -> None:
    gateway = GatewayProcess(
        tmp_path / "log",
        EVENTS_URL=events.url,
        GATEWAY_EVENT_STREAMS_PER_CLIENT="2",
        TRUSTED_PROXIES="127.0.0.1",
    )
    task_id = bench.add()

    def watch(client: str) -> EventStream:
        return EventStream(gateway.port, task_id, forwarded_for=client)

    try:
        with watch("192.0.2.1") as one, watch("192.0.2.1"):
            with watch("192.0.2.1") as third:
                assert third.status == 429
                assert json.loads(third.answer.read())["error"]["code"] == "too_many_streams"
            with watch("192.0.2.2") as of_another:
                assert of_another.status == 200
            one.close()
            eventually(lambda: places_taken(gateway) == 1, what="the others to be forgotten")
            with watch("192.0.2.1") as again:
                assert (again.status, next(again).name) == (200, "status")
    finally:
        gateway.stop()


def test_the_streams_are_in_the_document_of_the_whole_system(gateway: GatewayProcess) -> None:
    def shown() -> dict | None:
        return gateway.client.get("/openapi.json").json["paths"].get("/tasks/{id}/events")

    described = eventually(shown, what="the path to be described")
    assert described is not None
    content = described["get"]["responses"]["200"]["content"]
    assert list(content) == ["text/event-stream"]
    assert described["get"]["tags"] == ["tasks"]


def test_a_gateway_told_to_stop_ends_its_streams_and_itself(bench, gateway: GatewayProcess) -> None:
    task_id = bench.add()
    with EventStream(gateway.port, task_id) as stream:
        next(stream), next(stream)
        gateway.process.send_signal(signal.SIGTERM)
        # Ended as it should be: a stream that is cut off would raise.
        assert list(stream) == []
    assert gateway.process.wait(15) == 0
