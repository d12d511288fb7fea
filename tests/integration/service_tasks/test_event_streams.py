"""Event streams: the real process on a real PostgreSQL, without a gateway in front."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from service_tasks.domain.task import AttemptError, FailedForGood, Progress, Succeeded
from service_tasks.persistence.task_store import LARGEST_IN_LIST
from servicekit.identity.reach import Reach
from servicekit.process.ids import new_id
from tests.integration.service_tasks.conftest import Bench
from tests.support.event_stream import EventsProcess, EventStream
from tests.support.postgres import ServiceDatabase, TestServer
from tests.support.raw_http import read_answer
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def tasks_database(postgres_server: TestServer) -> Iterator[ServiceDatabase]:
    yield from postgres_server.service_database("service_tasks")


@pytest.fixture
def bench(tasks_database: ServiceDatabase) -> Iterator[Bench]:
    """Leaves no task behind."""
    made = Bench(tasks_database.database)
    yield made
    made.sql("DELETE FROM tasks")


@pytest.fixture
def start_events(tmp_path: Path, tasks_database) -> Iterator[Callable[..., EventsProcess]]:
    started: list[EventsProcess] = []

    def start(*constants: str, **settings: str) -> EventsProcess:
        process = EventsProcess(
            tmp_path / f"events-{len(started)}.log", tasks_database.url, constants=constants, **settings
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()


@pytest.fixture(scope="module")
def _process(tmp_path_factory: pytest.TempPathFactory, tasks_database: ServiceDatabase) -> Iterator[EventsProcess]:
    process = EventsProcess(tmp_path_factory.mktemp("events") / "log", tasks_database.url)
    yield process
    process.stop()


@pytest.fixture
def events(_process: EventsProcess) -> EventsProcess:
    """One process for all tests that need no other settings; each finds it without watchers."""
    eventually(lambda: _process.metric("siteworks_task_watchers") == 0, what="the watchers of before to be forgotten")
    return _process


class Running:
    """A task in the hands of a worker."""

    def __init__(self, bench) -> None:
        self.bench = bench
        self.id: UUID = bench.add()
        self.worker = bench.register()
        bench.keep_alive(self.worker)
        (self.claimed,) = bench.claim(self.worker)
        assert self.claimed.lease.task_id == self.id

    def progress(self, percent: int, message: str | None = None) -> None:
        self.bench.engine.write_progress([Progress(self.claimed.lease, percent, message)])

    def complete(self, result: str = "{}") -> None:
        assert self.bench.engine.write([Succeeded(self.claimed.lease, result)], "a worker")

    def fail(self) -> None:
        error = AttemptError("ValueError", "no crane")
        assert self.bench.engine.write([FailedForGood(self.claimed.lease, error)], "a worker")


@pytest.fixture
def running(bench) -> Running:
    return Running(bench)


def names(stream: EventStream) -> list[str]:
    return [event.name for event in stream]


def test_a_stream_begins_with_the_present_state_and_tells_what_changes_until_the_end(
    bench, events: EventsProcess
) -> None:
    task_id = bench.add()
    worker = bench.register()
    with events.watch(task_id) as stream:
        assert stream.status == 200
        assert stream.answer.getheader("Content-Type") == "text/event-stream"
        assert stream.answer.getheader("X-Request-ID")
        first, progress = next(stream), next(stream)
        assert (first.name, first.data["id"], first.data["status"], first.data["attempts"]) == (
            "status", str(task_id), "pending", 0
        )  # fmt: skip
        assert (progress.name, progress.data) == ("progress", {"id": str(task_id), "percent": 0, "message": None})
        assert stream.reader.retry == 3000

        (claimed,) = bench.claim(worker)
        started = next(stream)
        assert (started.name, started.data["status"], started.data["attempts"]) == ("status", "processing", 1)
        bench.engine.write_progress([Progress(claimed.lease, 40, "наполовину\nготово")])
        half = next(stream)
        assert (half.name, half.data["percent"], half.data["message"]) == ("progress", 40, "наполовину\nготово")
        bench.engine.write([Succeeded(claimed.lease, '{"made": 3}')], "a worker")
        status, progress, end = list(stream)
        assert (status.name, status.data["status"]) == ("status", "completed")
        assert (progress.name, progress.data["percent"]) == ("progress", 100)
        assert end.name == "end"
        assert (end.data["status"], end.data["result"], end.data["omitted"]) == ("completed", {"made": 3}, [])
        assert end.data["result_url"] == f"/tasks/{task_id}/result"
    ids = [int(event.id) for event in (progress, end) if event.id]
    assert int(half.id or 0) < ids[-1]


class TestTheEnd:
    def test_of_a_task_that_has_ended_already_comes_at_once(self, running: Running, events: EventsProcess) -> None:
        running.fail()
        with events.watch(running.id) as stream:
            status, progress, end = list(stream)
        assert (status.data["status"], progress.data["percent"]) == ("failed", 0)
        assert (end.name, end.data["status"], end.data["error"], end.data["result"]) == (
            "end", "failed", "no crane", None
        )  # fmt: skip

    def test_leaves_a_large_result_out_and_says_where_it_is(self, running: Running, events: EventsProcess) -> None:
        running.complete(json.dumps("x" * LARGEST_IN_LIST))
        with events.watch(running.id) as stream:
            end = list(stream)[-1]
        assert (end.data["result"], end.data["omitted"]) == (None, ["result"])
        assert end.data["result_url"] == f"/tasks/{running.id}/result"

    def test_of_a_purged_task_says_so(self, running: Running, events: EventsProcess) -> None:
        with events.watch(running.id) as stream:
            next(stream), next(stream)
            running.bench.store.purge(running.id, reach=Reach.all())
            (end,) = list(stream)
        assert (end.name, end.data["status"], end.data["result_url"]) == ("end", "purged", None)

    def test_is_told_when_a_task_is_cancelled_without_waiting_for_the_next_look(
        self, running: Running, start_events
    ) -> None:
        before = connections(running.bench, saying="LISTEN%")
        events = start_events("_POLL_SECONDS=10")
        eventually(lambda: connections(running.bench, saying="LISTEN%") == before + 1, what="the process to listen")
        with events.watch(running.id, timeout=5) as stream:
            next(stream), next(stream)
            running.bench.store.cancel(running.id, reach=Reach.all())
            assert names(stream) == ["status", "end"]


def connections(bench: Bench, *, saying: str = "%") -> int:
    """How many event streams have to the database, or of those the ones that said this last."""
    counted = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'task_events' AND query LIKE %s"
    return int(bench.sql(counted, saying)[0][0])


class TestComingBack:
    def test_with_the_last_id_brings_what_changed_since(self, running: Running, events: EventsProcess) -> None:
        with events.watch(running.id) as stream:
            next(stream)
            seen = next(stream).id
        running.progress(70, "nearly")
        with events.watch(running.id, last_event_id=seen) as stream:
            assert (next(stream).name, next(stream).data["percent"]) == ("status", 70)

    def test_without_news_waits_for_them(self, running: Running, events: EventsProcess) -> None:
        with events.watch(running.id) as stream:
            next(stream)
            seen = next(stream).id
        with events.watch(running.id, last_event_id=seen) as stream:
            while stream.read_line() != ": nothing new":
                pass
            running.progress(70)
            event = next(stream)
        assert (event.name, event.data["percent"]) == ("progress", 70)

    def test_after_the_end_is_204_so_that_a_browser_stays_away(self, running: Running, events: EventsProcess) -> None:
        running.complete()
        with events.watch(running.id) as stream:
            seen = list(stream)[-1].id
        with events.watch(running.id, last_event_id=seen) as stream:
            assert (stream.status, stream.answer.read()) == (204, b"")

    @pytest.mark.parametrize("strange", ["", "x", "-1", "1.5", "9" * 40, "²"])
    def test_with_an_id_that_is_not_ours_begins_anew(
        self, running: Running, events: EventsProcess, strange: str
    ) -> None:
        with events.watch(running.id, last_event_id=strange.encode("utf-8").decode("latin-1")) as stream:
            assert [next(stream).name, next(stream).name] == ["status", "progress"]

    def test_cut_off_between_the_events_of_one_change_brings_all_of_them_again(
        self, running: Running, events: EventsProcess
    ) -> None:
        with events.watch(running.id) as stream:
            assert next(stream).id is None
            assert next(stream).id is not None


class TestRefusals:
    def test_of_a_task_that_is_not_there(self, events: EventsProcess) -> None:
        answer = events.client.get(f"/tasks/{uuid4()}/events")
        assert (answer.status, answer.code) == (404, "task_not_found")

    def test_of_a_bad_id(self, events: EventsProcess) -> None:
        answer = events.client.get("/tasks/7/events")
        assert (answer.status, answer.code) == (400, "invalid_input")
        assert answer.json["error"]["details"][0]["field"] == "id"

    def test_of_another_method(self, running: Running, events: EventsProcess) -> None:
        answer = events.client.request("POST", f"/tasks/{running.id}/events", b"")
        assert (answer.status, answer.code, answer.value("allow")) == (405, "method_not_allowed", "GET, HEAD")

    def test_of_another_path(self, events: EventsProcess) -> None:
        assert events.client.get("/tasks").code == "not_found"

    def test_of_work_whose_time_is_gone(self, running: Running, events: EventsProcess) -> None:
        answer = events.client.get(f"/tasks/{running.id}/events", ("X-Request-Timeout-Ms", "0"))
        assert (answer.status, answer.code) == (504, "deadline_exceeded")

    def test_of_what_breaks_http_are_in_the_envelope(self, events: EventsProcess) -> None:
        for sent, status, code in (
            (b"GET /livez HTTP/1.1\r\n\r\n", 400, "bad_request"),
            (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX : 1\r\n\r\n", 400, "bad_request"),
            (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "uri_too_long"),
        ):
            with events.client.connect() as connection:
                connection.sendall(sent)
                answer = read_answer(connection)
            assert (answer.status, answer.code) == (status, code)
            assert answer.value("x-request-id")

    def test_of_one_watcher_too_many(self, running: Running, start_events) -> None:
        events = start_events(EVENTS_WATCHERS="1")
        with events.watch(running.id) as stream:
            next(stream)
            answer = events.client.get(f"/tasks/{running.id}/events")
            assert (answer.status, answer.code, answer.value("retry-after")) == (503, "too_many_watchers", "1")
        eventually(lambda: events.metric("siteworks_task_watchers") == 0, what="the place to be free")
        with events.watch(running.id) as stream:
            assert stream.status == 200


def test_head_tells_what_get_would_and_ends(running: Running, events: EventsProcess) -> None:
    answer = events.client.request("HEAD", f"/tasks/{running.id}/events")
    assert (answer.status, answer.value("content-type"), answer.body) == (200, "text/event-stream", b"")
    assert events.client.request("HEAD", f"/tasks/{new_id()}/events").status == 404
    assert events.metric("siteworks_task_watchers") == 0


def test_a_stream_without_news_says_that_it_lives(running: Running, start_events) -> None:
    events = start_events("_KEEP_ALIVE_SECONDS=0.1")
    with events.watch(running.id) as stream:
        next(stream), next(stream)
        while stream.reader.comments < 3:
            stream.read_line()


class TestTheCost:
    def test_is_one_statement_for_all_watchers_and_none_without(self, bench, start_events) -> None:
        before = connections(bench)
        events = start_events("_POLL_SECONDS=0.2")
        ids = [bench.add() for _ in range(20)]
        assert events.metric("siteworks_task_looks_total") == 0
        with ExitStack() as stack:
            streams = [stack.enter_context(events.watch(task_id)) for task_id in ids for _ in range(3)]
            for stream in streams:
                assert next(stream).name == "status"
            assert (events.metric("siteworks_task_watchers"), events.metric("siteworks_task_watched")) == (60, 20)
            looks = events.metric("siteworks_task_looks_total")
            # One look shows the changes of all.
            bench.sql("UPDATE tasks SET progress_percent = 50, updated_at = now()")
            for stream in streams:
                while (event := next(stream)).data.get("percent") != 50:
                    assert event.name == "progress"
            assert events.metric("siteworks_task_looks_total") - looks < 60
            assert connections(bench) - before <= 3
        for metric in ("siteworks_task_watchers", "siteworks_task_watched"):
            eventually(lambda metric=metric: events.metric(metric) == 0, what="everybody to be forgotten")

    def test_ends_with_a_client_that_leaves(self, running: Running, events: EventsProcess) -> None:
        with events.watch(running.id) as stream:
            next(stream)
            assert events.metric("siteworks_task_watchers") == 1
        eventually(lambda: events.metric("siteworks_task_watchers") == 0, timeout=3, what="the watcher to be forgotten")

    def test_of_a_watcher_that_reads_late_is_borne_by_nobody_else_and_it_gets_to_the_end(
        self, running: Running, start_events
    ) -> None:
        events = start_events("_POLL_SECONDS=0.05")
        lazy = socket.socket()
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.settimeout(15)
        with lazy:
            lazy.connect(("127.0.0.1", events.port))
            lazy.sendall(f"GET /tasks/{running.id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            with events.watch(running.id) as quick:
                next(quick), next(quick)
                for percent in range(1, 40):
                    running.progress(percent, "x" * 200)
                    while next(quick).data["percent"] != percent:
                        pass
                running.complete()
                assert list(quick)[-1].name == "end"
            text = b""
            while b"event: end" not in text:
                data = lazy.recv(65536)
                assert data, text[-1000:]
                text += data
        assert text.index(b'"status":"completed"') < text.index(b"event: end")


class TestTheProcess:
    def test_told_to_stop_ends_its_streams_saying_when_to_come_back(
        self, running: Running, events: EventsProcess
    ) -> None:
        with events.watch(running.id) as stream:
            next(stream)
            seen = next(stream).id
            events.process.send_signal(signal.SIGTERM)
            assert list(stream) == []
            assert 2000 <= (stream.reader.retry or 0) <= 6000
        assert events.process.wait(5) == 0
        running.progress(60)
        events.restart()
        with events.watch(running.id, last_event_id=seen) as stream:
            assert [next(stream).name, next(stream).data["percent"]] == ["status", 60]

    def test_tells_whether_it_is_ready_and_what_it_answers(self, events: EventsProcess) -> None:
        assert events.client.get("/livez").json["data"] == {"status": "alive", "service": "task_events"}
        assert events.client.get("/readyz").json["data"]["checks"] == {"database": "ok"}
        described = events.client.get("/openapi.json").json["paths"]["/tasks/{id}/events"]["get"]
        assert "text/event-stream" in described["responses"]["200"]["content"]


class TestAnOutage:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[TestServer]:
        """A server of its own, because these tests stop it."""
        server = TestServer(tmp_path / "server")
        server.start()
        yield server
        server.stop()

    def test_leaves_streams_open_refuses_new_ones_and_goes_on_afterwards(
        self, server: TestServer, tmp_path: Path
    ) -> None:
        for database in server.service_database("service_tasks"):
            running = Running(Bench(database.database))
            other = running.bench.add()
            events = EventsProcess(tmp_path / "log", database.url, constants=("_KEEP_ALIVE_SECONDS=0.2",))
            try:
                with events.watch(running.id) as stream:
                    next(stream), next(stream)
                    server.stop()
                    heard = stream.reader.comments
                    while stream.reader.comments < heard + 3:
                        stream.read_line()
                    refused = events.client.get(f"/tasks/{other}/events")
                    assert (refused.status, refused.code) == (503, "database_unavailable")
                    assert refused.value("retry-after")
                    assert events.client.get("/readyz").status == 503
                    server.start()
                    running.progress(80)
                    event = next(stream)
                    assert (event.name, event.data["percent"]) == ("progress", 80)
                    with events.watch(other) as another:
                        assert another.status == 200
                assert events.process.poll() is None
            finally:
                events.stop()
