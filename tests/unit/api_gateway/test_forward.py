"""Whatever happens to a call, its trial and its place at the upstream are given back."""

from __future__ import annotations

import asyncio
import errno
from typing import Any, cast

import pytest

from api_gateway.forward import Call, Lane, Notes, forward, has_no_body, media_type_of
from api_gateway.limits import Bulkhead, RetryBudget
from api_gateway.route_table import Limits
from api_gateway.upstream import Upstream
from servicekit.circuits import Circuit
from servicekit.wire.errors import Overloaded


class Breaking:
    """An upstream whose client has a fault of its own, or whose caller is cancelled."""

    def __init__(self, error: BaseException) -> None:
        self.loop = asyncio.get_running_loop()
        self._error = error

    async def exchange(self, *_: Any, **__: Any) -> None:
        raise self._error


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOMEM, errno.ENOBUFS])
def test_what_this_process_has_run_out_of_is_not_held_against_the_service(number: int) -> None:
    circuit = Circuit("users")
    ends: list[str] = []

    async def main() -> None:
        upstream = cast(Upstream, Breaking(OSError(number, "as the system says")))
        lane = Lane(
            "users", upstream, circuit, Bulkhead(places=1), RetryBudget(), on_call=lambda *end: ends.append(end[1])
        )
        for _ in range(30):
            call = Call("GET", "/users", b"", None, Limits(), lane.upstream.loop.time() + 5, False)
            with pytest.raises(Overloaded):
                await forward(lane, call, Notes())

    asyncio.run(main())
    assert ends == ["neutral"] * 30
    assert (circuit.snapshot().state, circuit.snapshot().failures) == ("closed", 0)


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), asyncio.CancelledError(), MemoryError()])
def test_a_trial_that_ends_with_any_exception_gives_its_place_back(error: BaseException) -> None:
    circuit = Circuit("users")

    async def main() -> None:
        lane = Lane("users", cast(Upstream, Breaking(error)), circuit, Bulkhead(places=1), RetryBudget())
        for _ in range(5):
            circuit.acquire().failure(0.1, "timeout")
        circuit.note_probe(False)
        circuit.note_probe(True)
        for _ in range(5):
            call = Call("GET", "/users", b"", None, Limits(), lane.upstream.loop.time() + 5, False)
            with pytest.raises(type(error)):
                await forward(lane, call, Notes())
            assert lane.bulkhead.in_use == 0

    asyncio.run(main())
    assert circuit.snapshot().state == "half_open"
    assert all(circuit.acquire().is_trial for _ in range(2))


@pytest.mark.parametrize(
    ("content_type", "media_type"),
    [
        (b"application/json", "application/json"),
        (b"Application/JSON; charset=utf-8", "application/json"),
        (b"", ""),
        (None, ""),
    ],
)
def test_the_media_type_is_read_without_parameters(content_type: bytes | None, media_type: str) -> None:
    assert media_type_of(content_type) == media_type


@pytest.mark.parametrize(
    ("method", "status", "none"),
    [("GET", 200, False), ("HEAD", 200, True), ("HEAD", 404, True), ("DELETE", 204, True), ("GET", 304, True)],
)
def test_which_answers_have_no_body(method: str, status: int, none: bool) -> None:
    assert has_no_body(method, status) is none
