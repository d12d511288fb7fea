"""Upstreams that are names: slow name servers, several addresses, and addresses that change."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api_gateway.upstream import ConnectFailed, Upstream
from servicekit.wire.resolver import HostAddress
from tests.support.certificates import Authority
from tests.support.gateway import UPSTREAMS, GatewayServer
from tests.support.ports import free_port
from tests.support.silent import silent
from tests.support.upstream import ScriptedUpstream, good

LIVE = HostAddress(socket.AF_INET, "127.0.0.1")
SILENT = HostAddress(socket.AF_INET, "127.0.0.2")
REFUSING = HostAddress(socket.AF_INET, "127.0.0.3")
OTHER_FAMILY = HostAddress(socket.AF_INET6, "::1")


class Names:
    """A name server: gives its answers one after the other, the last one for ever. An event is waited for."""

    def __init__(self, *answers: Sequence[HostAddress] | Exception | threading.Event) -> None:
        self._answers = list(answers)

    def __call__(self, host: str, port: int) -> Sequence[HostAddress]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, threading.Event):
            answer.wait(10)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def service() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream, silent(SILENT.host, upstream.port):
        yield upstream


def ask(service: ScriptedUpstream, names: Names) -> list[HostAddress]:
    """Ask the service by name; the addresses in the order in which the next connection will try them."""

    async def main() -> list[HostAddress]:
        upstream = Upstream("users", f"http://users.test:{service.port}", resolve=names)
        answer = await upstream.exchange("GET", b"/x", b"", None, connect=1)
        assert answer.status == 200
        answer.close()
        upstream.close()
        return upstream._resolver.addresses()[0]

    return asyncio.run(main())


@pytest.mark.parametrize(
    "addresses",
    [[SILENT, LIVE], [OTHER_FAMILY, LIVE], [REFUSING, LIVE], [LIVE, SILENT], [REFUSING, SILENT, OTHER_FAMILY, LIVE]],
    ids=["silent", "other family", "refusing", "the first", "the last of four"],
)
def test_one_address_of_several_is_enough_and_is_the_first_the_next_time(
    service: ScriptedUpstream, addresses: list[HostAddress]
) -> None:
    assert ask(service, Names(addresses))[0] == LIVE
    assert service.connections == 1


@pytest.mark.parametrize("before", [SILENT, REFUSING], ids=["silent", "refusing"])
def test_a_host_that_has_moved_is_found_within_the_connect_limit(
    service: ScriptedUpstream, before: HostAddress
) -> None:
    names = Names([before], [LIVE])

    async def main() -> int:
        upstream = Upstream("users", f"http://users.test:{service.port}", resolve=names)
        upstream._resolver.addresses()[1].result(5)  # type: ignore[union-attr]  # the first look-up
        upstream._resolver._began_at -= 2  # a while ago
        answer = await upstream.exchange("GET", b"/x", b"", None, connect=1)
        answer.close()
        upstream.close()
        return answer.status

    assert asyncio.run(main()) == 200


@pytest.mark.parametrize(
    "fault",
    [socket.gaierror(socket.EAI_AGAIN, "no answer"), threading.Event()],
    ids=["the name server fails", "the name server is silent"],
)
def test_the_last_answer_is_used_while_there_is_no_newer_one(
    service: ScriptedUpstream, fault: Exception | threading.Event
) -> None:
    async def main() -> None:
        upstream = Upstream("users", f"http://users.test:{service.port}", resolve=Names([LIVE], fault))
        for _ in range(3):
            answer = await upstream.exchange("GET", b"/x", b"", None, connect=1, fresh=True)
            answer.close()
            upstream._resolver._answered_at -= 60
        upstream.close()

    try:
        asyncio.run(main())
    finally:
        if isinstance(fault, threading.Event):
            fault.set()
    assert service.connections == 3


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ([REFUSING], "connection_refused"),
        ([OTHER_FAMILY, REFUSING], "connection_refused"),
        ([SILENT], "connection_timeout"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "dns_error"),
        (threading.Event(), "dns_timeout"),
    ],
    ids=["refused", "refused twice", "silent", "no such name", "no name server"],
)
def test_a_host_that_cannot_be_reached_is_told_within_the_limit(
    service: ScriptedUpstream, answer: Sequence[HostAddress] | Exception | threading.Event, fault: str
) -> None:
    began = time.monotonic()
    try:
        with pytest.raises(ConnectFailed) as failed:
            ask(service, Names(answer))
    finally:
        if isinstance(answer, threading.Event):
            answer.set()
    assert failed.value.proxy_error == fault
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("host", ["users.test", "others.test"])
def test_over_tls_the_name_is_verified_whatever_the_address(host: str) -> None:
    authority = Authority()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(good({}))
        await writer.drain()
        await reader.read()
        writer.close()

    async def main() -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=authority.server("users.test"))
        async with server:
            port = server.sockets[0].getsockname()[1]
            upstream = Upstream("users", f"https://{host}:{port}", resolve=Names([REFUSING, LIVE]))
            upstream._tls = authority.trusting
            answer = await upstream.exchange("GET", b"/x", b"", None, connect=1)
            await answer.read(100)
            upstream.close()
            return answer.status

    if host == "users.test":
        assert asyncio.run(main()) == 200
    else:
        with pytest.raises(ConnectFailed) as failed:
            asyncio.run(main())
        assert failed.value.proxy_error == "tls_certificate_error"


def test_a_name_server_that_is_silent_about_one_service_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    conf = tmp_path / "gunicorn.conf.py"
    own = (Path(__file__).resolve().parents[3] / "api_gateway" / "gunicorn.conf.py").read_text(encoding="utf-8")
    replaced = """
import socket, threading
_getaddrinfo = socket.getaddrinfo

def _without_users(host, *args, **kwargs):
    if host == "users.test":
        threading.Event().wait()
    return _getaddrinfo("127.0.0.1" if str(host).endswith(".test") else host, *args, **kwargs)

socket.getaddrinfo = _without_users
"""
    conf.write_text(own + replaced, encoding="utf-8")
    port = free_port()
    with ScriptedUpstream(port=port) as service:
        urls = {name: f"http://{name}.test:{port}" for name in UPSTREAMS}
        gateway = GatewayServer(tmp_path / "log", urls, conf=conf)
        try:
            with ThreadPoolExecutor(20) as people:
                answers = list(people.map(gateway.client.get, ["/users"] * 20))
            # Whoever asked for users is gone, the look-up of it is not.
            assert [gateway.client.get(path).status for path in ("/orders", "/tasks")] == [200, 200]
            assert {(one.status, one.code) for one in answers} <= {(503, "users_unavailable"), (503, "circuit_open")}
            assert "error=dns_timeout" in str([one.value("Proxy-Status") for one in answers])
        finally:
            began = time.monotonic()
            assert gateway.stop() == 0
        assert time.monotonic() - began < 10
        assert service.requests()
