"""Streams pass piece by piece, clients that leave free what they held, and no request is lost at the end."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import psutil
import pytest

from tests.support.gateway import CHECKOUT, GatewayProcess
from tests.support.raw_http import RawAnswer, RawClient, read_answer
from tests.support.upstream import Close, Pause, ScriptedUpstream, Wait, answer, good
from tests.support.waiting import eventually

MIB = 1024 * 1024
GET = b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        data = connection.recv(65536)
        assert data, seen
        seen += data
    return seen


def worker_of(gateway: GatewayProcess) -> psutil.Process:
    return psutil.Process(gateway.client.get("/status").json["data"]["processes"][0]["pid"])


@pytest.mark.parametrize("framing", ["chunked", "until the end"])
def test_an_event_is_seen_before_the_next_one_exists(client: RawClient, users: ScriptedUpstream, framing: str) -> None:
    go_on = threading.Event()
    if framing == "chunked":
        users.script(EVENTS, chunk(b"data: 1\n\n"), Wait(go_on), chunk(b"data: 2\n\n") + b"0\r\n\r\n")
    else:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        users.script(head, b"data: 1\n\n", Wait(go_on), b"data: 2\n\n", Close())
    with client.connect() as connection:
        connection.sendall(GET)
        first = read_until(connection, b"data: 1\n\n")
        assert b"data: 2" not in first
        go_on.set()
        assert b"data: 2\n\n" in read_until(connection, b"\r\n0\r\n\r\n")


def test_a_download_waits_for_a_client_that_takes_its_time_and_costs_no_memory(
    gateway: GatewayProcess, users: ScriptedUpstream
) -> None:
    piece = b"x" * MIB
    size = 200 * MIB
    users.script(answer(200, b"", media_type="text/event-stream", length=size), *[piece] * 200)
    worker = worker_of(gateway)
    before, sent_before = worker.memory_info().rss, users.sent
    with gateway.client.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(GET)
        read_until(connection, b"xxx")
        # The upstream is held back: what it could send fills the buffers between, and no more.
        last = -1

        def stands_still() -> bool:
            nonlocal last
            last, previous = users.sent, last
            return last == previous

        eventually(stands_still, what="the upstream to be held back")
        assert users.sent - sent_before < 40 * MIB
        peak = worker.memory_info().rss
        left = size - 65536
        while left > 0:
            left -= len(connection.recv(MIB))
            peak = max(peak, worker.memory_info().rss)
    assert peak - before < 24 * MIB


class TestClientsThatLeave:
    def test_waiting_for_the_head_frees_the_upstream(self, gateway: GatewayProcess, users: ScriptedUpstream) -> None:
        users.script(Pause(60))
        with gateway.client.connect() as connection:
            connection.sendall(GET)
            users.wait_for(1)
        eventually(lambda: users.open == 0, timeout=3, what="the upstream connection to end")
        assert gateway.circuit("users")["calls"] == 0

    def test_sending_a_body_frees_nothing_since_nothing_was_taken(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        with client.connect() as connection:
            connection.sendall(b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n123")
        assert client.get("/users").status == 200
        assert [seen.line for seen in users.requests()] == [b"GET /users HTTP/1.1"]

    def test_in_the_middle_of_a_large_answer_frees_the_upstream_and_is_nobodys_failure(
        self, gateway: GatewayProcess, users: ScriptedUpstream
    ) -> None:
        users.script(answer(200, b'{"success":true,"data":"' + b"x" * 100_000, length=MIB), Pause(60))
        with gateway.client.connect() as connection:
            connection.sendall(GET)
            read_until(connection, b"xxx")
        eventually(lambda: users.open == 0, timeout=3, what="the upstream connection to end")
        assert gateway.circuit("users")["calls"] == 0

    def test_in_the_middle_of_a_stream_frees_the_upstream(
        self, gateway: GatewayProcess, users: ScriptedUpstream
    ) -> None:
        users.script(EVENTS, chunk(b"data: 1\n\n"), Pause(60))
        with gateway.client.connect() as connection:
            connection.sendall(GET)
            read_until(connection, b"data: 1")
        eventually(lambda: users.open == 0, timeout=3, what="the upstream connection to end")
        assert gateway.circuit("users")["failures"] == 0

    def test_in_the_middle_of_a_download_held_back_frees_the_upstream(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        users.script(answer(200, b"", media_type="text/event-stream", length=100 * MIB), *[b"x" * MIB] * 100)
        with client.connect() as connection:
            connection.sendall(GET)
            read_until(connection, b"xxx")
        eventually(lambda: users.open == 0, timeout=3, what="the upstream connection to end")

    def test_in_the_middle_of_details_frees_both(
        self, client: RawClient, users: ScriptedUpstream, orders: ScriptedUpstream
    ) -> None:
        users.script(Pause(60))
        orders.script(Pause(60))
        with client.connect() as connection:
            connection.sendall(b"GET /users/1/details HTTP/1.1\r\nHost: localhost\r\n\r\n")
            users.wait_for(1)
            orders.wait_for(1)
        eventually(lambda: users.open == orders.open == 0, timeout=3, what="both connections to end")

    def test_waiting_in_line_frees_the_place_in_the_line(self, tmp_path: Path) -> None:
        gateway = GatewayProcess(tmp_path / "log", constants=("_WAITING=1",), GATEWAY_UPSTREAM_CONNECTIONS="1")
        users = gateway.upstreams["users"]

        def waiting() -> float:
            text = gateway.client.get("/metrics").body.decode()
            line = next(
                line
                for line in text.splitlines()
                if line.startswith('siteworks_gateway_upstream_waiting{upstream="users"}')
            )
            return float(line.rpartition(" ")[2])

        try:
            go_on = threading.Event()
            users.scripts([Wait(go_on), good("first")], [good("third")])
            with gateway.client.connect() as first:
                first.sendall(GET)
                users.wait_for(1)
                with gateway.client.connect() as second:
                    second.sendall(b"GET /users?second HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    eventually(lambda: waiting() == 1, what="the second to wait")
                eventually(lambda: waiting() == 0, timeout=3, what="the second to be forgotten")
                with gateway.client.connect() as third:
                    third.sendall(b"GET /users?third HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    eventually(lambda: waiting() == 1, what="the third to wait")
                    go_on.set()
                    assert [read_answer(one).json["data"] for one in (first, third)] == ["first", "third"]
            assert [seen.target for seen in users.requests()] == ["/users", "/users?third"]
        finally:
            gateway.stop()


def test_a_client_that_closed_its_side_before_a_stream_began_gets_all_of_it(
    client: RawClient, users: ScriptedUpstream
) -> None:
    go_on = threading.Event()
    users.script(Wait(go_on), EVENTS, chunk(b"data: 1\n\n"), Pause(0.1), chunk(b"data: 2\n\n") + b"0\r\n\r\n")
    with client.connect() as connection:
        connection.sendall(GET)
        connection.shutdown(socket.SHUT_WR)
        go_on.set()
        assert read_answer(connection).body == b"data: 1\n\ndata: 2\n\n"
        assert connection.recv(1) == b""


class TestTheEnd:
    def test_sigterm_answers_what_is_under_way_refuses_what_is_new_and_ends(self, tmp_path: Path) -> None:
        own = GatewayProcess(tmp_path / "log")
        users = own.upstreams["users"]
        go_on = threading.Event()
        users.script(Wait(go_on), good("late"))
        waiting = [own.client.connect() for _ in range(50)]
        idle = own.client.connect()
        try:
            assert own.client.request("GET", "/health", connection=idle).status == 200
            for number, connection in enumerate(waiting):
                # With an empty line before it, gunicorn's parser reads it.
                connection.sendall(b"\r\n" + GET if number % 2 else GET)
            users.wait_for(50)
            own.process.send_signal(signal.SIGTERM)

            def refused() -> bool:
                try:
                    own.client.connect().close()
                except ConnectionRefusedError:
                    return True
                return False

            eventually(refused, what="new connections to be refused")
            assert own.process.poll() is None
            go_on.set()
            answers = [read_answer(one) for one in waiting]
            assert {one.json["data"] for one in answers} == {"late"}
            # Who would ask again on these connections is told not to.
            assert [one.values("Connection") for one in answers] == [["close"]] * 50
            assert [one.recv(1) for one in waiting] == [b""] * 50
            # It would wait half a minute for a request.
            assert own.process.wait(15) == 0
            assert idle.recv(1) == b""
        finally:
            for connection in (*waiting, idle):
                connection.close()
            own.stop()

    def test_sigterm_of_one_of_two_processes_answers_what_it_has_and_later_of_both_under_load_loses_no_request(
        self, tmp_path: Path
    ) -> None:
        own = GatewayProcess(tmp_path / "log", GATEWAY_PROCESSES="2")
        try:
            eventually(lambda: len(own.pids()) == 2, what="both processes")
            users = own.upstreams["users"]
            go_on = threading.Event()
            users.script(Wait(go_on), good("late"))
            before = own.pids()
            with own.alone(before[0]), own.client.connect() as waiting:
                waiting.sendall(GET)
                users.wait_for(1)
                os.kill(before[0], signal.SIGTERM)
                eventually(lambda: "Worker shutting down" in own.log.read_text(), what="it to be told")
                go_on.set()
                assert read_answer(waiting).json["data"] == "late"
            eventually(lambda: len(own.pids()) == 2 and before[0] not in own.pids(), timeout=20, what="another one")
            assert own.client.get("/users").status == 200

            users.reset()
            own.upstreams["users"].script(Pause(0.02), good("here"))
            answers: list[RawAnswer] = []
            failures: list[Exception] = []
            resets: list[ConnectionResetError] = []

            def ask() -> None:
                while True:
                    try:
                        answers.append(own.client.get("/users"))
                    except ConnectionRefusedError:
                        return  # nobody takes anything any more
                    except ConnectionResetError as error:
                        resets.append(error)
                    except Exception as error:  # whatever it is, the test shows it
                        failures.append(error)

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            eventually(lambda: len(answers) > 100, what="some load")
            own.process.send_signal(signal.SIGTERM)
            for thread in threads:
                thread.join(20)
            assert failures == []
            # The kernel resets a connection that is made between the last look at the port and its closing: there is no
            # closing it for new ones alone. More than one would be a gap.
            assert len(resets) <= 1
            assert {one.status for one in answers} == {200}
            # Whatever went up was answered, and nothing went up twice.
            assert len(own.upstreams["users"].requests()) == len(answers)
            assert own.process.wait(15) == 0
        finally:
            own.stop()

    def test_sigterm_while_a_second_process_begins_is_heard(self, tmp_path: Path) -> None:
        begins, go_on = tmp_path / "begins", tmp_path / "go on"
        conf = tmp_path / "slow.conf.py"
        conf.write_text(
            f"""
exec(open({str(CHECKOUT / "api_gateway" / "gunicorn.conf.py")!r}).read())
graceful_timeout = 600

def post_worker_init(worker):
    import pathlib, time
    if worker.age == 2:
        pathlib.Path({str(begins)!r}).touch()
        while not pathlib.Path({str(go_on)!r}).exists():
            time.sleep(0.01)
"""
        )
        own = GatewayProcess(tmp_path / "log", conf=conf, GATEWAY_PROCESSES="2")
        try:
            eventually(begins.exists, timeout=20, what="the second to begin")
            own.process.send_signal(signal.SIGTERM)
            eventually(lambda: "Worker exiting" in own.log.read_text(), what="the first to end")
            go_on.touch()
            assert own.process.wait(20) == 0
        finally:
            go_on.touch()
            own.stop()

    def test_not_one_request_is_lost_while_the_workers_are_replaced(self, gateway: GatewayProcess) -> None:
        gateway.upstreams["users"].script(Pause(0.02), good("here"))
        answers: list[RawAnswer] = []
        failures: list[Exception] = []
        enough = threading.Event()

        def ask() -> None:
            while not enough.is_set():
                try:
                    answers.append(gateway.client.get("/users"))
                except Exception as error:  # whatever it is, the test shows it
                    failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                old = worker_of(gateway)
                gateway.process.send_signal(signal.SIGHUP)
                eventually(lambda: not old.is_running(), timeout=20, what="the old worker to end")  # noqa: B023  # called at once
                assert worker_of(gateway) != old
        finally:
            enough.set()
            for thread in threads:
                thread.join(20)
        assert failures == []
        assert {one.status for one in answers} == {200}
