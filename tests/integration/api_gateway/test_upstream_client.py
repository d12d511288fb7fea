"""The HTTP client itself: what it tells apart, and what an answer costs."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from api_gateway.upstream import (
    EXPIRY_CHECK_SECONDS,
    MAX_CONNECTING,
    BrokenAnswer,
    ConnectFailed,
    ConnectionLost,
    Origin,
    Upstream,
    UpstreamAnswer,
    fetch,
)
from servicekit.wire.resolver import HostAddress
from tests.support.upstream import Close, Pause, ScriptedUpstream, Wait, answer, bad, good


@pytest.fixture
def service() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


async def get(upstream: Upstream, target: bytes = b"/x") -> UpstreamAnswer:
    return await upstream.exchange("GET", target, b"", None, connect=1)


def test_closing_an_unfinished_answer_costs_its_connection(service: ScriptedUpstream) -> None:
    service.scripts([answer(200, b"", length=5), Pause(5)], [answer(200, b"second")])

    async def main() -> bytes:
        upstream = Upstream("users", service.url)
        (await get(upstream)).close()
        second = await get(upstream)
        body = await second.read(100)
        upstream.close()
        return body

    assert asyncio.run(main()) == b"second"
    assert service.connections == 2


def test_a_probe_leaves_no_connection_for_anybody(service: ScriptedUpstream) -> None:
    async def main() -> None:
        upstream = Upstream("users", service.url)
        assert await fetch(upstream, b"/readyz", seconds=5) is not None
        await (await get(upstream)).read(100)
        upstream.close()

    asyncio.run(main())
    assert service.connections == 2


def test_an_answer_over_the_limit_is_broken(service: ScriptedUpstream) -> None:
    service.script(answer(200, b"x" * 1000))

    async def main() -> None:
        upstream = Upstream("users", service.url)
        got = await get(upstream)
        with pytest.raises(BrokenAnswer):
            await got.read(999)
        got.close()
        upstream.close()

    asyncio.run(main())


def test_a_reader_that_waits_holds_a_fast_upstream_back(service: ScriptedUpstream) -> None:
    body = b"x" * (4 * 1024 * 1024)
    service.script(answer(200, body))

    async def main() -> None:
        upstream = Upstream("users", service.url)
        got = await get(upstream)
        await asyncio.sleep(0)
        assert await got.read(len(body)) == body
        upstream.close()

    asyncio.run(main())


@pytest.mark.parametrize("ending", [Pause(5), answer(200, b"{}")], ids=["silence", "another answer"])
def test_an_answer_that_is_late_costs_its_connection(service: ScriptedUpstream, ending: bytes | Pause) -> None:
    late = threading.Event()
    service.scripts([Wait(late), ending], [answer(200, b"second")])

    async def main() -> bytes:
        upstream = Upstream("users", service.url)
        loop, clock = upstream.loop, upstream.loop.time
        first = upstream.exchange("GET", b"/x", b"", None, connect=1, until=loop.time() + 60)
        waiting = asyncio.create_task(first)
        await asyncio.to_thread(service.wait_for, 1)
        loop.time = lambda: clock() + 3600
        with pytest.raises(TimeoutError):
            await waiting
        loop.time = clock
        loop.call_later(EXPIRY_CHECK_SECONDS, late.set)
        second = await get(upstream)
        body = await second.read(100)
        upstream.close()
        return body

    assert asyncio.run(main()) == b"second"
    assert service.connections == 2


def test_a_body_that_is_late_ends_when_it_was_told_to_and_what_came_is_read_before(service: ScriptedUpstream) -> None:
    service.script(answer(200, b"abc", length=5), Pause(5))

    async def main() -> bytes:
        upstream = Upstream("users", service.url)
        loop = asyncio.get_running_loop()
        got = await upstream.exchange("GET", b"/x", b"", None, connect=1, until=loop.time() + 5)
        got.expire_at(loop.time() + 0.05)
        pieces = got.pieces()
        seen = await anext(pieces)
        with pytest.raises(TimeoutError):
            await anext(pieces)
        got.close()
        upstream.close()
        return seen

    assert asyncio.run(main()) == b"abc"


def test_an_answer_in_time_or_told_to_take_any_time_has_no_end(service: ScriptedUpstream) -> None:
    late = threading.Event()
    service.scripts([answer(200, b"whole")], [answer(200, b"ha", length=4), Wait(late), b"lf"])

    async def main() -> list[bytes | None]:
        upstream = Upstream("users", service.url)
        loop, clock = upstream.loop, upstream.loop.time
        first = await upstream.exchange("GET", b"/x", b"", None, connect=1, until=loop.time() + 60)
        second = await upstream.exchange("GET", b"/x", b"", None, connect=1, until=loop.time() + 60)
        second.expire_at(None)
        assert second.take(100) is None
        # An hour goes by at once, and whoever has a deadline is looked at before the rest is sent.
        loop.time = lambda: clock() + 3600
        loop.call_later(EXPIRY_CHECK_SECONDS, late.set)
        read: list[bytes | None] = [await second.read(100), first.take(4), first.take(5)]
        upstream.close()
        return read

    assert asyncio.run(main()) == [b"half", None, b"whole"]


def test_nobody_there_is_told_apart_from_nobody_answering(service: ScriptedUpstream) -> None:
    service.script(Close())

    async def main() -> None:
        upstream = Upstream("users", service.url)
        with pytest.raises(ConnectionLost) as lost:
            await get(upstream)
        assert not lost.value.reused
        service.stop()
        with pytest.raises(ConnectFailed):
            await get(upstream)
        upstream.close()

    asyncio.run(main())


def test_a_kept_connection_that_ended_is_told_as_reused(service: ScriptedUpstream) -> None:
    service.scripts([good(1)], [Close()])

    async def main() -> None:
        upstream = Upstream("users", service.url)
        await (await get(upstream)).read(100)
        with pytest.raises(ConnectionLost) as lost:
            await get(upstream)
        assert lost.value.reused
        upstream.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "prefix"),
    [
        ("http://127.0.0.1:8001", "127.0.0.1", 8001, b"127.0.0.1:8001", b""),
        ("http://service_users", "service_users", 80, b"service_users", b""),
        ("http://[::1]:8001", "::1", 8001, b"[::1]:8001", b""),
        ("https://users.example/inner/", "users.example", 443, b"users.example", b"/inner"),
    ],
)
def test_an_address_is_read_once(url: str, host: str, port: int, authority: bytes, prefix: bytes) -> None:
    origin = Origin.parse(url)
    assert (origin.host, origin.port, origin.authority, origin.prefix) == (host, port, authority, prefix)


@pytest.mark.parametrize(
    ("megabytes", "early"),
    [(32, bad(413, "body_too_large")), (1, bad(413, "body_too_large")), (32, good("first"))],
    ids=["unsent", "unread", "unsent, and no refusal"],
)
def test_a_connection_whose_request_was_answered_before_it_was_read_serves_nobody_else(
    megabytes: int, early: bytes
) -> None:
    # It answers the head alone, and says nothing of the connection.
    with ScriptedUpstream(reads_bodies=False) as service:
        service.scripts([early, Pause(5)], [good("second")])

        async def main() -> bytes:
            upstream = Upstream("users", service.url)
            first = await upstream.exchange("POST", b"/x", b"", bytes(megabytes * 1024 * 1024), connect=1)
            await first.read(1000)
            second = await upstream.exchange("GET", b"/x", b"", None, connect=1, until=upstream.loop.time() + 3)
            body = await second.read(1000)
            upstream.close()
            return body

        assert json.loads(asyncio.run(main()))["data"] == "second"
        assert service.connections == 2


def test_a_connection_whose_long_request_was_read_whole_is_kept(service: ScriptedUpstream) -> None:
    async def main() -> None:
        upstream = Upstream("users", service.url)
        for _ in range(5):
            got = await upstream.exchange("POST", b"/x", b"", bytes(4 * 1024 * 1024), connect=1)
            await got.read(1000)
        upstream.close()

    asyncio.run(main())
    assert service.connections == 1


def test_of_many_requests_at_once_only_so_many_connect_and_the_others_take_over_what_is_free(
    service: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> tuple[list[int], int]:
        upstream = Upstream("users", service.url)
        connect = upstream._connect_to
        first_ones_are_answered = asyncio.Event()
        begun = at_once = most = answered = 0

        async def counted(address: HostAddress) -> Any:
            nonlocal begun, at_once, most
            begun, at_once = begun + 1, at_once + 1
            most = max(most, at_once)
            if begun > MAX_CONNECTING:
                await first_ones_are_answered.wait()
            connection = await connect(address)
            at_once -= 1
            return connection

        monkeypatch.setattr(upstream, "_connect_to", counted)

        async def ask() -> int:
            nonlocal answered
            got = await upstream.exchange("GET", b"/x", b"", None, connect=60)
            await got.read(1000)
            answered += 1
            if answered == MAX_CONNECTING:
                first_ones_are_answered.set()
            return got.status

        statuses = await asyncio.gather(*(ask() for _ in range(4 * MAX_CONNECTING)))
        upstream.close()
        return statuses, most

    assert asyncio.run(main()) == ([200] * 4 * MAX_CONNECTING, MAX_CONNECTING)
    assert len(service.seen) == 4 * MAX_CONNECTING
    assert service.connections < 4 * MAX_CONNECTING


def test_whoever_waits_to_connect_waits_no_longer_than_its_deadline(service: ScriptedUpstream) -> None:
    async def main() -> None:
        upstream = Upstream("users", service.url)
        # As many as may connect at once, none of whom gets through.
        for _ in range(MAX_CONNECTING):
            await upstream._connecting.acquire()
        with pytest.raises(TimeoutError):
            await upstream.exchange("GET", b"/x", b"", None, connect=1, until=upstream.loop.time() + 0.05)
        upstream.close()

    asyncio.run(main())
    assert service.seen == []
