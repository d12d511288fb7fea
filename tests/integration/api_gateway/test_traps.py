"""The traps every proxy meets: what goes in, and the exact bytes that the upstream sees. Fresh and kept connections."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.raw_http import RawClient, read_answer
from tests.support.upstream import Close, Pause, ScriptedUpstream, Seen, Step, answer, bad, good
from tests.support.waiting import eventually

ENVELOPE = b'{"success": true, "data": "\xd0\x91"}'
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#: What the gateway adds to every request, as `exact` shows it.
OURS = (
    b"x-forwarded-for: 127.0.0.1\r\nx-forwarded-host: localhost\r\nx-forwarded-proto: http\r\n"
    b"forwarded: for=127.0.0.1;host=localhost;proto=http\r\nvia: 1.1 siteworks\r\nx-request-id: ID\r\n"
    b"traceparent: TRACE\r\nx-request-timeout-ms: TIME"
)


def exact(seen: Seen, users: ScriptedUpstream) -> bytes:
    """Every byte the upstream saw; only what is new each time is named instead."""
    head = seen.head.replace(b"127.0.0.1:%d" % users.port, b"UPSTREAM")
    head = re.sub(rb"traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00", b"traceparent: TRACE", head)
    head = re.sub(rb"x-request-timeout-ms: (?:[1-4][0-9]{3}|5000)\b", b"x-request-timeout-ms: TIME", head)
    head = re.sub(rb"x-request-id: [0-9a-f]{32}", b"x-request-id: ID", head)
    return head + b"\r\n\r\n" + seen.body


@dataclass(frozen=True)
class Row:
    """`sent` is a request; what arrived of it is its `line`, the fields `passed`, ours, and the `tail`."""

    name: str
    sent: bytes
    line: bytes
    passed: bytes = b""
    tail: bytes = b"\r\n\r\n"

    @property
    def seen(self) -> bytes:
        """The whole of it, as `exact` shows it."""
        return self.line + b"\r\nhost: UPSTREAM\r\n" + self.passed + OURS + self.tail


def get(target: bytes, fields: bytes = b"") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n"


def post(fields: bytes, body: bytes) -> bytes:
    return b"POST /users HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n" + body


POST = b"POST /users HTTP/1.1"
PASSED = (
    # Targets travel byte for byte.
    Row("encoded question mark", get(b"/users/a%3fadmin=1"), b"GET /users/a%3fadmin=1 HTTP/1.1"),
    Row("encoded number sign", get(b"/users/a%23frag"), b"GET /users/a%23frag HTTP/1.1"),
    Row("encoded in lower and upper case", get(b"/users/%e2%82%AC"), b"GET /users/%e2%82%AC HTTP/1.1"),
    Row("encoded twice", get(b"/users/%252e%252e"), b"GET /users/%252e%252e HTTP/1.1"),
    Row("dots that lead nowhere", get(b"/users/..."), b"GET /users/... HTTP/1.1"),
    Row("a query with everything", get(b"/users?a=1&a=2&b"), b"GET /users?a=1&a=2&b HTTP/1.1"),
    Row("a query with dots", get(b"/users?q=../..%2f"), b"GET /users?q=../..%2f HTTP/1.1"),
    Row("a bare question mark", get(b"/users?"), b"GET /users? HTTP/1.1"),
    Row("plus and semicolon", get(b"/users?q=a+b;c"), b"GET /users?q=a+b;c HTTP/1.1"),
    Row(
        "the absolute form, whose host counts",
        b"GET http://LOCALHOST/users?x=1 HTTP/1.1\r\nHost: other.example\r\n\r\n",
        b"GET /users?x=1 HTTP/1.1",
    ),
    Row("the alias", get(b"/api/v1/users?x=%2f"), b"GET /users?x=%2f HTTP/1.1"),
    # One framing.
    Row(
        "chunked",
        post(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"),
        POST,
        tail=b"\r\ncontent-length: 5\r\n\r\nabcde",
    ),
    Row("a length", post(b"Content-Length: 3\r\n", b"abc"), POST, tail=b"\r\ncontent-length: 3\r\n\r\nabc"),
    Row("the length zero", post(b"Content-Length: 0\r\n", b""), POST, tail=b"\r\ncontent-length: 0\r\n\r\n"),
    Row("no body", post(b"", b""), POST, tail=b"\r\ncontent-length: 0\r\n\r\n"),
    Row(
        "a body that looks like a request",
        post(b"Content-Length: 26\r\n", b"GET /admin HTTP/1.1\r\nX: 1\r\n"[:26]),
        POST,
        tail=b"\r\ncontent-length: 26\r\n\r\n" + b"GET /admin HTTP/1.1\r\nX: 1\r\n"[:26],
    ),
    # Fields.
    Row(
        "hop-by-hop and what Connection names",
        get(
            b"/users",
            b"Connection: X-Api-Key, x-REQUEST-id\r\nX-Api-Key: k\r\nTE: trailers\r\nUpgrade: websocket\r\n"
            b"Proxy-Authorization: Basic x\r\nKEEP-ALIVE: timeout=5\r\nProxy-Connection: close\r\n"
            b"HTTP2-Settings: x\r\nTrailer: x\r\nProxy-Authenticate: x\r\n",
        ),
        b"GET /users HTTP/1.1",
    ),
    Row(
        "forwarded fields of a stranger",
        get(
            b"/users",
            b"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Host: evil\r\n"
            b"X_Forwarded_For: 6.6.6.6\r\nX-Forwarded-Prefix: /x\r\nX-Original-URL: /admin\r\n"
            b"X-Forwarded-Proto: https\r\nX-Rewrite-Url: /admin\r\nX-Forwarded-Port: 1\r\n",
        ),
        b"GET /users HTTP/1.1",
    ),
    Row(
        "what belongs to the upstream",
        get(b"/users", b"Authorization: Bearer t\r\nCookie: a=1; b=2\r\nX-Own: 1\r\nx-own: \xe4\r\nAccept: */*\r\n"),
        b"GET /users HTTP/1.1",
        passed=b"cookie: a=1; b=2\r\nx-own: 1\r\nx-own: \xe4\r\naccept: */*\r\n",
    ),
    Row(
        "an expectation",
        post(b"Expect: 100-continue\r\nContent-Length: 2\r\n", b"{}"),
        POST,
        tail=b"\r\ncontent-length: 2\r\n\r\n{}",
    ),
    Row(
        "a trace that is none",
        get(b"/users", b"traceparent: 00-zz-1-01\r\ntracestate: a=1\r\n"),
        b"GET /users HTTP/1.1",
    ),
)


@pytest.mark.parametrize("row", PASSED, ids=lambda row: row.name)
def test_the_upstream_sees_exactly_this(either: RawClient, users: ScriptedUpstream, row: Row) -> None:
    assert either.send(row.sent).status == 200
    assert [exact(seen, users) for seen in users.requests()] == [row.seen]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(get(b"/users/..%2fadmin"), id="encoded slash after dots"),
        pytest.param(get(b"/users/%2e%2e/admin"), id="encoded dots"),
        pytest.param(get(b"/users/.%2e/admin"), id="half encoded dots"),
        pytest.param(get(b"/users/x/../../admin"), id="dots"),
        pytest.param(get(b"/users/a%2fb"), id="encoded slash"),
        pytest.param(get(b"/users/a%2Fb"), id="encoded slash in upper case"),
        pytest.param(get(b"/users/a%5cb"), id="encoded backslash"),
        pytest.param(get(b"/users/%00"), id="NUL"),
        pytest.param(get(b"/users/%0d%0aX:1"), id="a line break"),
        pytest.param(get(b"//users//1"), id="empty segments"),
        pytest.param(get(b"/users/"), id="an empty segment at the end"),
        pytest.param(b"GET /users HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n", id="two Hosts"),
        pytest.param(b"GET /users HTTP/1.1\r\nHost: a, b\r\n\r\n", id="two Hosts in one"),
        *(
            pytest.param(
                post(b"%b: a\r\n%b: b\r\nContent-Length: 2\r\n" % (name, name.lower()), b"{}"), id=f"two of {name!r}"
            )
            for name in (b"Authorization", b"Content-Type", b"Idempotency-Key", b"X-Act-As")
        ),
        pytest.param(get(b"http://other.example/users"), id="a strange host in the target"),
        pytest.param(get(b"http:///users"), id="no host in the target"),
        pytest.param(get(b"http://localhost/users/../admin"), id="dots behind a host"),
        pytest.param(get(b"ftp://localhost/users"), id="another scheme"),
        pytest.param(b"GET http://localhost/users HTTP/1.1\r\n\r\n", id="no Host beside the target's"),
        pytest.param(get(b"http://a@localhost/users"), id="somebody in the target"),
        pytest.param(post(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), id="two framings"),
        pytest.param(post(b"Content-Length: 1\r\nContent-Length: 2\r\n", b"ab"), id="two lengths"),
        pytest.param(post(b"Content-Length: +1\r\n", b"a"), id="a length with a sign"),
        pytest.param(post(b"Content-Length: -1\r\n", b""), id="a negative length"),
        pytest.param(post(b"Content-Length: 0x1\r\n", b"a"), id="a length in another base"),
        pytest.param(post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), id="chunked twice"),
        pytest.param(post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), id="a coding beside the chunks"),
        pytest.param(post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), id="space before the colon"),
        pytest.param(post(b"Transfer-Encoding: chunked\r\n", b"-1\r\n\r\n"), id="a negative chunk"),
        pytest.param(post(b"Transfer-Encoding: chunked\r\n", b"0x1\r\na\r\n0\r\n\r\n"), id="a chunk in another base"),
    ],
)
def test_the_upstream_sees_nothing_of_this(either: RawClient, users: ScriptedUpstream, sent: bytes) -> None:
    refused = either.send(sent)
    assert 400 <= refused.status < 500 or refused.status == 501
    assert refused.code
    assert users.requests() == []


def test_a_valid_trace_and_its_state_pass(either: RawClient, users: ScriptedUpstream) -> None:
    either.get("/users", ("traceparent", TRACE), ("tracestate", "a=1"))
    (seen,) = users.requests()
    assert (seen.values("traceparent"), seen.values("tracestate")) == ([TRACE], ["a=1"])


def test_close_in_a_list_of_options_closes(either: RawClient) -> None:
    with either.connect() as connection:
        connection.sendall(get(b"/users", b"Connection: X-Api-Key, Close\r\n"))
        assert read_answer(connection).status == 200
        assert connection.recv(1) == b""


def test_two_requests_in_one_segment_are_two_requests(either: RawClient, users: ScriptedUpstream) -> None:
    users.scripts([good(1)], [good(2)])
    with either.connect() as connection:
        connection.sendall(post(b"Content-Length: 2\r\n", b"{}") + get(b"/users?second"))
        seen = b""
        while seen.count(b'"data"') < 2:
            seen += connection.recv(65536)
    assert [exact(one, users).split(b"\r\n")[0] for one in users.requests()] == [POST, b"GET /users?second HTTP/1.1"]


@pytest.mark.parametrize(
    ("steps", "status", "fields", "body"),
    [
        pytest.param(
            [answer(200, b"\x1f\x8b", fields=[("Content-Encoding", "gzip"), ("ETag", '"1"')])],
            200,
            [("content-encoding", "gzip"), ("etag", '"1"'), ("content-length", "2")],
            b"\x1f\x8b",
            id="compressed",
        ),
        pytest.param(
            [answer(200, ENVELOPE, fields=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/, x")])],
            200,
            [("set-cookie", "a=1"), ("set-cookie", "b=2; Path=/, x"), ("content-length", str(len(ENVELOPE)))],
            ENVELOPE,
            id="two cookies",
        ),
        pytest.param(
            [answer(302, b"<html>", media_type="text/html", fields=[("Location", "/internal")])],
            302,
            [("location", "/internal"), ("content-length", "0")],
            b"",
            id="a redirect",
        ),
        pytest.param(
            [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(200, ENVELOPE)],
            200,
            [("content-length", str(len(ENVELOPE)))],
            ENVELOPE,
            id="a hint before",
        ),
        pytest.param(
            [
                answer(
                    200,
                    ENVELOPE,
                    fields=[("connection", "X-Inner"), ("X-INNER", "1"), ("Upgrade", "h2c"), ("Trailer", "x")],
                )
            ],
            200,
            [("content-length", str(len(ENVELOPE)))],
            ENVELOPE,
            id="hop-by-hop",
        ),
        pytest.param([bad(404, "user_not_found")], 404, None, None, id="an error"),
        pytest.param([answer(200, ENVELOPE[:-1], length=len(ENVELOPE)), Close()], 502, None, None, id="truncated"),
        pytest.param([Close()], 502, None, None, id="no answer"),
        pytest.param([answer(200, ENVELOPE)[:20], Close()], 502, None, None, id="half a head"),
        pytest.param([answer(200, ENVELOPE[:-1])], 502, None, None, id="half an envelope"),
        pytest.param([answer(500, b"<h1>", media_type="text/html")], 502, None, None, id="a crash page"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
            502,
            None,
            None,
            id="two framings",
        ),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"], 502, None, None, id="a negative length"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"], 502, None, None, id="two lengths"
        ),
        pytest.param([b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 300 + b"\r\n"], 502, None, None, id="300 fields"),
        pytest.param([b"HTTP/1.1 200 OK\r\nX-A: %s\r\n\r\n" % (b"a" * 140_000)], 502, None, None, id="a huge field"),
        pytest.param([answer(200, b"x" * (33 * 1024 * 1024))], 502, None, None, id="far too large"),
    ],
)
def test_the_client_sees_exactly_this(
    either: RawClient,
    users: ScriptedUpstream,
    steps: list[Step],
    status: int,
    fields: list[tuple[str, str]] | None,
    body: bytes | None,
) -> None:
    users.script(*steps)
    seen = either.get("/users")
    assert seen.status == status
    own = ("content-type", "date", "server", "via", "x-request-id", "connection", "vary")
    if fields is None:
        assert json.loads(seen.body)["success"] is False
    else:
        assert [(name, value) for name, value in seen.fields if name not in own] == fields
        assert seen.body == body


def test_an_answer_that_drips_ends_at_the_limit_of_the_whole_exchange(
    either: RawClient, users: ScriptedUpstream
) -> None:
    # Each byte comes well within any limit for a byte; all of them together take four times what the client gives.
    drip = [step for byte in ENVELOPE for step in (bytes([byte]), Pause(0.1))]
    users.script(answer(200, b"", length=len(ENVELOPE)), *drip)
    seen = either.get("/users", ("X-Request-Timeout-Ms", "500"))
    assert (seen.status, seen.code) == (504, "deadline_exceeded")
    eventually(lambda: users.open == 0, what="the connection to be given up")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(post(b"Content-Length: 1048577\r\n", b""), id="told"),
        pytest.param(
            post(b"Transfer-Encoding: chunked\r\n", b"20000\r\n" + b"x" * 0x20000 + b"\r\n")
            + (b"20000\r\n" + b"x" * 0x20000 + b"\r\n") * 8,
            id="chunked",
        ),
    ],
)
def test_a_body_over_the_limit_is_refused_unseen(either: RawClient, users: ScriptedUpstream, sent: bytes) -> None:
    refused = either.send(sent)
    assert (refused.status, refused.code) == (413, "body_too_large")
    assert users.requests() == []


def test_clients_that_dawdle_hold_nobody_up(
    either: RawClient, gateway: GatewayProcess, users: ScriptedUpstream
) -> None:
    """More of them than any number of threads, in the head and in the body, on connections of both kinds."""
    with contextlib.ExitStack() as stack:
        for half in (b"GET /users HTTP/1.1\r\nHost: localhost\r\nX-", post(b"Content-Length: 10\r\n", b"{")):
            for _ in range(50):
                stack.enter_context(either.connect()).sendall(half)
        assert [gateway.client.get("/users").status for _ in range(10)] == [200] * 10
        # None of theirs has come to its end, and none has gone up.
        assert len(users.requests()) == 10


def test_a_request_meets_a_kept_connection_that_the_service_has_just_closed(
    either: RawClient, users: ScriptedUpstream
) -> None:
    users.scripts([good(1)], [Close()], [good(2)], [Close()], [good(3)])
    assert either.get("/users").json["data"] == 1
    assert either.get("/users").json["data"] == 2
    assert either.send(post(b"Content-Length: 2\r\n", b"{}")).code == "bad_upstream_answer"
    assert [exact(seen, users).split(b"\r\n")[0] for seen in users.requests()] == [b"GET /users HTTP/1.1"] * 3 + [POST]


def test_head_tells_the_upstreams_length(either: RawClient, users: ScriptedUpstream) -> None:
    users.script(answer(200, b"", length=1234))
    seen = either.request("HEAD", "/users")
    assert (seen.status, seen.values("Content-Length"), seen.body) == (200, ["1234"], b"")
    assert exact(users.requests()[0], users).startswith(b"HEAD /users HTTP/1.1\r\nhost: UPSTREAM\r\n")


def test_a_cookie_of_one_client_is_never_sent_for_another(either: RawClient, users: ScriptedUpstream) -> None:
    users.script(good({}, fields=[("Set-Cookie", "session=first; Path=/")]))
    for _ in range(2):
        assert either.get("/users").status == 200
    assert [seen.values("Cookie") for seen in users.requests()] == [[], []]
