"""The open load: a fixed plan, and latencies that count from it."""

from __future__ import annotations

import asyncio
import contextlib

from benchmarks.open_load import LOST, OpenLoad, Summary, TimedRequest, summary

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def _against(
    behaviour: list[bytes | float | None],
    *,
    rate: float,
    seconds: float,
    patience: float,
    told: list[tuple[str, float]] | None = None,
    asks_before_the_end: int | None = None,
) -> Summary:
    """Load a server whose nth request is answered so: with bytes, never (None), or after a hold of everything.

    `told` takes the events. With `asks_before_the_end` the plan is ended at that request.
    """
    asked = 0
    held = asyncio.Event()
    held.set()
    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await answer(reader, writer)
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while await reader.readline():
            while await reader.readline() != b"\r\n":
                pass
            what = behaviour[min(asked, len(behaviour) - 1)]
            asked += 1
            if asked == asks_before_the_end:
                load.end()
            if isinstance(what, float):
                held.clear()
                asyncio.get_running_loop().call_later(what, held.set)
            await held.wait()
            if what is not None:
                writer.write(what if isinstance(what, bytes) else GOOD)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    events: list[tuple[str, float]] = [] if told is None else told
    load = OpenLoad(f"http://127.0.0.1:{port}/x", patience, lambda name, at: events.append((name, at)))
    try:
        return summary(await load.run(rate, seconds))
    finally:
        server.close()
        await asyncio.gather(*filter(None, serving))


def test_every_request_of_the_plan_is_sent_and_counted_by_status() -> None:
    bad = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    seen = asyncio.run(_against([bad, bad, GOOD], rate=100, seconds=0.2, patience=5))
    assert seen.answers == {200: 18, 503: 2}


def test_a_request_without_an_answer_is_lost_and_counts_with_the_patience() -> None:
    seen = asyncio.run(_against([None, GOOD], rate=100, seconds=0.1, patience=0.5))
    assert seen.answers == {LOST: 1, 200: 9}
    assert seen.worst == 500


def test_a_server_that_holds_everything_up_is_charged_for_every_request_of_that_time() -> None:
    seen = asyncio.run(_against([GOOD, 0.4, GOOD], rate=100, seconds=0.4, patience=5))
    # A load that waits for each answer would have seen one slow request, and a median of nothing.
    assert seen.p50 > 100
    assert seen.answers == {200: 40}


def test_it_tells_of_its_beginning_and_of_the_first_refusal_that_comes_at_once() -> None:
    bad = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    told: list[tuple[str, float]] = []
    asyncio.run(_against([GOOD, bad, GOOD, bad], rate=100, seconds=0.1, patience=5, told=told))
    assert [name for name, _ in told] == ["began", "refused"]
    assert told[0][1] < told[1][1]


def test_a_plan_that_is_ended_early_waits_for_what_is_under_way() -> None:
    seen = asyncio.run(_against([0.2, GOOD], rate=100, seconds=60, patience=5, asks_before_the_end=1))
    assert set(seen.answers) == {200}
    assert 0 < seen.answers[200] < 60 * 100


def test_two_of_two_hundred_exceed_the_99th_percentile() -> None:
    requests = [TimedRequest(due=0.0, late=0.001, seconds=number / 1000, status=200) for number in range(200, 0, -1)]
    seen = summary([*requests, TimedRequest(due=0.0, late=0.002, seconds=6.0, status=LOST)])
    assert (seen.p50, seen.p99, seen.worst, seen.late) == (101, 199, 6000, 2)
