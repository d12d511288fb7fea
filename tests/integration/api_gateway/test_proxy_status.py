"""Proxy-Status (RFC 9209): who failed, and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.raw_http import RawClient
from tests.support.upstream import Close, Pause, ScriptedUpstream, answer, bad, good


@pytest.mark.parametrize(
    ("steps", "status", "told"),
    [
        pytest.param([Close()], 502, "error=connection_terminated; next-hop=users", id="no answer"),
        pytest.param(
            [answer(200, b"{", length=9), Close()],
            502,
            "error=http_response_incomplete; next-hop=users; received-status=200",
            id="cut off",
        ),
        pytest.param([b"HELLO\r\n\r\n"], 502, "error=http_protocol_error; next-hop=users", id="no HTTP"),
        pytest.param(
            [answer(500, b"Oops", media_type="text/html")],
            502,
            "error=http_protocol_error; next-hop=users; received-status=500",
            id="a crash page",
        ),
        pytest.param(
            [b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"],
            502,
            "error=http_protocol_error; next-hop=users",
            id="a switch",
        ),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 300 + b"\r\n"],
            502,
            "error=http_response_header_section_size; next-hop=users",
            id="many fields",
        ),
        pytest.param([Pause(20)], 504, "error=connection_read_timeout; next-hop=users", id="silence"),
        pytest.param(
            [answer(200, b"{", length=9), Pause(20)],
            504,
            "error=http_response_timeout; next-hop=users",
            id="half an answer",
        ),
    ],
)
def test_an_answer_made_here_says_what_went_wrong(
    client: RawClient, users: ScriptedUpstream, steps: list[bytes], status: int, told: str
) -> None:
    users.script(*steps)
    # In a hurry only where nothing more comes.
    seen = client.get("/users", *([("X-Request-Timeout-Ms", "1000")] if status == 504 else []))
    assert (seen.status, seen.values("Proxy-Status")) == (status, [f"siteworks; {told}"])


def test_nobody_listening_is_told(client: RawClient, users: ScriptedUpstream) -> None:
    users.stop()
    seen = client.get("/users")
    assert seen.code == "users_unavailable"
    assert seen.values("Proxy-Status") == ["siteworks; error=connection_refused; next-hop=users"]


@pytest.mark.parametrize("target", ["/users", "/users/1/details"])
def test_a_request_without_any_time_left_is_told(client: RawClient, users: ScriptedUpstream, target: str) -> None:
    seen = client.get(target, ("X-Request-Timeout-Ms", "0"))
    assert seen.code == "deadline_exceeded"
    assert seen.values("Proxy-Status") == ["siteworks; error=http_response_timeout; next-hop=users"]
    assert users.requests() == []


def test_an_open_circuit_is_told_with_the_time_to_wait(gateway: GatewayProcess) -> None:
    gateway.force("users", "open")
    seen = gateway.client.get("/users")
    assert seen.code == "circuit_open"
    assert int(seen.value("Retry-After") or 0) >= 1
    assert seen.values("Proxy-Status") == [
        'siteworks; error=destination_unavailable; next-hop=users; details="circuit open"'
    ]


def test_a_full_line_is_told(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "log", constants=("_WAITING=0",), GATEWAY_UPSTREAM_CONNECTIONS="1")
    try:
        gateway.upstreams["users"].script(Pause(20))
        with gateway.client.connect() as first:
            first.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n")
            gateway.upstreams["users"].wait_for(1)
            seen = gateway.client.get("/users")
    finally:
        gateway.stop()
    assert seen.code == "upstream_saturated"
    assert seen.values("Proxy-Status") == ["siteworks; error=connection_limit_reached; next-hop=users"]


def test_the_users_part_of_details_is_told_too(client: RawClient, users: ScriptedUpstream) -> None:
    users.script(answer(302, media_type=None, fields=[("Location", "/elsewhere")]))
    seen = client.get("/users/1/details")
    assert seen.code == "bad_upstream_answer"
    assert seen.values("Proxy-Status") == ["siteworks; error=http_protocol_error; next-hop=users; received-status=302"]


@pytest.mark.parametrize("script", [good({}), bad(404, "user_not_found"), bad(503, "database_unavailable")])
def test_a_passed_answer_has_none_not_even_one_the_service_made_up(
    client: RawClient, users: ScriptedUpstream, script: bytes
) -> None:
    users.script(script.replace(b"\r\n", b"\r\nProxy-Status: siteworks; error=proxy_internal_error\r\n", 1))
    assert client.get("/users").values("Proxy-Status") == []


@pytest.mark.parametrize("target", ["/nothing", "/users/%00", "/health"])
def test_an_answer_that_has_nothing_to_do_with_a_service_has_none(client: RawClient, target: str) -> None:
    assert client.get(target).values("Proxy-Status") == []
