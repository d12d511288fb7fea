"""The short way takes strictly less than the parsers, and what it takes means the same."""

from __future__ import annotations

import gc
import random
import re
from dataclasses import dataclass, field
from typing import Any

import httptools
import pytest
from gunicorn.asgi.parser import CallbackRequest, ParseError, PythonProtocol

from servicekit.http_server import plain_head
from servicekit.http_server.request import RequestFields

PLAIN_REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"DELETE /users/1?x=%2f&y HTTP/1.1\r\nhost:a\r\nX-Empty:\r\nAccept: a\r\naccept: b\r\n\r\n",
    b"POST /users HTTP/1.1\r\nHost: a:1\r\nConnection: Keep-Alive\r\nCookie: c=\xff\t;\r\n\r\n",
    b'POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"a":"\r\n\r\n"}',
    b"PUT /users/1 HTTP/1.1\r\nHost: a\r\ncontent-length:3\r\n\r\nabc",
    b"DELETE /users/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a.b-c_d\r\nAccept: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nauthorization: Bearer a\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nX-A: Authorization: Bearer a\r\nHost: a\r\nAuthorization: Bearer b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Digest a=b, c=d\r\n\r\n",
    b"GET / HTTP/1.1\r\nAuthorization: Bearer a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nX-Request-ID: r-1\r\nTraceparent: 00-1-2-01\r\nVia: 1.1 b\r\n\r\n",
    b"PUT /a HTTP/1.1\r\nhost: a\r\nvia: 1.1 b\r\nx-request-id: r-1\r\nauthorization: Bearer a\r\n"
    b"content-length: 3\r\n\r\nabc",
    b"GET /a HTTP/1.1\r\nAuthorization: Bearer a\r\nHost: a\r\nx-request-id: 1\r\nAccept: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nAccept: a\r\nx-request-id: 1\r\naccept: b\r\nX-Request-ID: 2\r\n\r\n",
    b"GET /a HTTP/1.1\r\nAccept: a\r\nx-request-id: 1\r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nx-request-id: 1\r\nHost: a\r\n\r\n",
)

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
OWN = b"x-request-id: 1\r\n"
#: Each is for the parser to judge, whatever it says of it.
OTHER_REQUESTS = {
    "nothing": b"",
    "half a head": HEAD,
    "a head without its last line feed": HEAD + b"\r",
    # Python 3.11.2 takes `(…\r\n)*+\r\n` to match these.
    "half a head that ends in a value of spaces": HEAD + b"X: \r\n",
    "half a head that ends in a name": HEAD + b"X\r\n",
    "an empty line first": b"\r\n" + HEAD + b"\r\n",
    "two requests": HEAD + b"\r\n" + HEAD + b"\r\n",
    "something behind": HEAD + b"\r\nx",
    "half a body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
    "something behind a body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcd",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
    "a length of many digits": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0000000003\r\n\r\nabc",
    "a length and chunks": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    "a large body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + b"a" * 5000,
    "chunks": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two Hosts": HEAD + b"Host: b\r\n\r\n",
    "two types": HEAD + b"Content-Type: a\r\ncontent-type: b\r\n\r\n",
    "no field at all": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts, one of them among its own fields": HEAD + OWN + b"Host: b\r\n\r\n",
    "two lengths, one of them among its own fields": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
    + OWN
    + b"Content-Length: 3\r\n\r\nabc",
    "chunks, said among its own fields": HEAD + OWN + b"Transfer-Encoding: chunked\r\n\r\n",
    "no colon among its own fields": HEAD + OWN + b"X\r\n\r\n",
    "many fields with its own": HEAD + b"X: 1\r\n" * (plain_head.MAX_REQUEST_FIELDS - 1) + OWN + b"\r\n",
    "close": HEAD + b"Connection: close\r\n\r\n",
    "a list of options": HEAD + b"Connection: keep-alive, x-a\r\n\r\n",
    "an upgrade": HEAD + b"Upgrade: websocket\r\n\r\n",
    "settings of HTTP/2": HEAD + b"HTTP2-Settings: a\r\n\r\n",
    "an expectation": HEAD + b"Expect: 100-continue\r\n\r\n",
    "an underscore": HEAD + b"X_Forwarded_For: a\r\n\r\n",
    "a folded line behind a credential": HEAD + b"Authorization: Bearer a\r\n b\r\n\r\n",
    "a credential with a space at its end": HEAD + b"Authorization: Bearer a \r\n\r\n",
    "a credential and many fields": HEAD
    + b"X: 1\r\n" * (plain_head.MAX_REQUEST_FIELDS - 1)
    + b"Authorization: Bearer a\r\n\r\n",
    "a folded line": HEAD + b"X: 1\r\n  2\r\n\r\n",
    "space before the colon": HEAD + b"X : 1\r\n\r\n",
    "space at the end of a value": HEAD + b"X: 1 \r\n\r\n",
    "a tab at the end of a value": HEAD + b"X: 1\t\r\n\r\n",
    "a value of spaces": HEAD + b"X:  \r\n\r\n",
    "no colon": HEAD + b"X\r\n\r\n",
    "no name": HEAD + b": 1\r\n\r\n",
    "bytes in a name": HEAD + b"X\xff: 1\r\n\r\n",
    "NUL in a value": HEAD + b"X: \x00\r\n\r\n",
    "DEL in a value": HEAD + b"X: \x7f\r\n\r\n",
    "a bare CR in a value": HEAD + b"X: 1\r2\r\n\r\n",
    "a bare LF in a value": HEAD + b"X: 1\n2\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "an older version": b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    "another version": b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a long method": b"A" * 21 + b" / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "the absolute form": b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "the asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes in the target": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "a long head": HEAD + b"X: " + b"a" * plain_head.MAX_REQUEST + b"\r\n\r\n",
    "many fields": HEAD + b"X: 1\r\n" * plain_head.MAX_REQUEST_FIELDS + b"\r\n",
}


def by_gunicorn(data: bytes) -> tuple[CallbackRequest, bytes] | None:
    """The request that `data` consists of, and its body; None if it is refused, needs more, or is not all of it."""
    pieces: list[bytes] = []
    parser = PythonProtocol(on_body=pieces.append)
    try:
        parser.feed(data)
        if not parser.is_complete or parser.remaining():
            return None
        return CallbackRequest.from_parser(parser), b"".join(pieces)
    except ParseError:
        return None


def same(plain: plain_head.PlainRequest, request_and_body: tuple[Any, bytes]) -> bool:
    theirs, body = request_and_body
    return bool(
        (plain.method, plain.uri, plain.version) == (theirs.method, theirs.uri, theirs.version)
        and plain.fields.pairs == theirs.headers_bytes
        and (plain.should_close(), plain.may_upgrade()) == (theirs.should_close(), theirs.may_upgrade())
        and not theirs.chunked
        and (plain.body.length or 0) == theirs.content_length
        and plain.body._whole == body
        and not theirs._expect_100_continue
    )


@pytest.mark.parametrize("data", PLAIN_REQUESTS)
def test_a_plain_request_is_what_gunicorn_reads(data: bytes) -> None:
    plain = plain_head.read_request(data)
    assert plain is not None
    theirs = by_gunicorn(data)
    assert theirs is not None
    assert same(plain, theirs)
    assert plain.raw == data


@pytest.mark.parametrize("name", OTHER_REQUESTS)
def test_any_other_request_is_for_the_parser(name: str) -> None:
    assert plain_head.read_request(OTHER_REQUESTS[name]) is None


def test_requests_that_differ_by_their_credentials_share_the_rest_and_no_credential_is_kept() -> None:
    first, second, other = (
        plain_head.read_request(b"GET /a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nAccept: %b\r\n\r\n" % pair)
        for pair in ((b"one", b"a"), (b"two", b"a"), (b"two", b"b"))
    )
    assert first is not None
    assert second is not None
    assert other is not None
    assert first.fields.get(b"authorization") == "Bearer one"
    assert second.fields.pairs == [(b"host", b"a"), (b"authorization", b"Bearer two"), (b"accept", b"a")]
    assert second.fields.first[b"authorization"] == b"Bearer two"
    assert first.fields.common is second.fields.common is not other.fields.common
    assert first.fields.common.pairs == [(b"host", b"a"), (b"accept", b"a")]


def test_requests_share_the_fields_before_what_is_their_own_and_none_of_that_is_kept() -> None:
    first, second = (
        plain_head.read_request(
            b"GET /a HTTP/1.1\r\nhost: a\r\nvia: b\r\nx-request-id: %b\r\nauthorization: Bearer %b\r\n\r\n" % pair
        )
        for pair in ((b"1", b"one"), (b"2", b"two"))
    )
    assert first is not None
    assert second is not None
    assert first.fields.shared is second.fields.shared
    assert first.fields.shared.pairs == [(b"host", b"a"), (b"via", b"b")]
    assert second.fields.own == [(b"x-request-id", b"2"), (b"authorization", b"Bearer two")]
    # What the gateway keeps for requests of equal fields is not kept for these.
    assert second.fields.common is second.fields


@pytest.mark.parametrize("data", [data for data in PLAIN_REQUESTS if not data.endswith(b"\r\n\r\n")])
def test_a_plain_request_lacks_its_body_once_its_head_is_here_and_until_a_byte_more_is(data: bytes) -> None:
    behind = data.index(b"\r\n\r\n") + 4
    assert [end for end in range(len(data) + 1) if plain_head.lacks_body(data[:end])] == [behind]


@pytest.mark.parametrize("name", OTHER_REQUESTS)
def test_no_other_request_lacks_its_body(name: str) -> None:
    assert not plain_head.lacks_body(OTHER_REQUESTS[name])


def test_a_request_without_its_empty_line_is_not_taken_whatever_the_regular_expressions_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plain_head, "_LINES", re.compile(rb".*", re.DOTALL))
    assert plain_head.read_request(b"POST /tasks HTTP/1.1\r\nHost: a\r\nX-Empty: \r\n") is None
    assert plain_head.read_request(b"POST /tasks HTTP/1.1\r\nHost: a\r\nX-Some: 1\r\n") is None


def mutations(seeds: tuple[bytes, ...], rounds: int) -> Any:
    """The seeds with some bytes changed, dropped, doubled or put in, the same ones in every run."""
    chance = random.Random(20)
    pieces = [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"\xff", b"0", b"_", b",", b"close", b"Host: b\r\n"]
    pieces += [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"\r\n\r\n"]
    for number in range(rounds):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data) + 1)
            end = min(at + chance.choice((0, 0, 1, 1, 4)), len(data))
            data[at:end] = chance.choice((b"", bytes([chance.randrange(256)]), chance.choice(pieces), data[at:end] * 2))
        yield bytes(data)


def test_of_many_broken_requests_it_takes_only_what_gunicorn_takes_and_reads_the_same() -> None:
    taken = 0
    for data in mutations(PLAIN_REQUESTS, 20_000):
        plain = plain_head.read_request(data)
        if plain is not None:
            taken += 1
            theirs = by_gunicorn(data)
            assert theirs is not None, data
            assert same(plain, theirs), data
    assert taken > 1000


@dataclass
class Read:
    """What httptools makes of an answer."""

    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    heads: int = 0
    complete: int = 0
    goes_on: bool = False
    parser: Any = None

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value or b""))

    def on_headers_complete(self) -> None:
        self.heads += 1

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1
        self.goes_on = self.parser.should_keep_alive()


def by_httptools(data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
    """The one answer that `data` consists of, on a connection that goes on."""
    read = Read()
    parser = read.parser = httptools.HttpResponseParser(read)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    if (read.heads, read.complete) != (1, 1) or not read.goes_on:
        return None
    return parser.get_status_code(), read.fields, read.body


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PLAIN_ANSWERS = (
    ANSWER + b"Content-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 404 Not Found\r\nServer:gunicorn\r\nConnection: keep-alive\r\nSet-Cookie: a=1\r\nset-cookie: b=\xff\r\n"
    b"Content-Length: 4\r\n\r\nHTTP",
    b"HTTP/1.1 500 \r\nX:\r\nContent-Length: 0\r\n\r\n",
    ANSWER + b"X-Request-ID: 1\r\nDate: Sat, 21 Nov 2026 05:00:00 GMT\r\ncontent-length: 7\r\n\r\n\r\n\r\n{}\n",
)
OTHER_ANSWERS = {
    "nothing": b"",
    "half a head": ANSWER,
    "no length": ANSWER + b"\r\n{}",
    "less body": ANSWER + b"Content-Length: 3\r\n\r\n{}",
    "more body": ANSWER + b"Content-Length: 1\r\n\r\n{}",
    "two lengths": ANSWER + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a signed length": ANSWER + b"Content-Length: +2\r\n\r\n{}",
    "a list of lengths": ANSWER + b"Content-Length: 2, 2\r\n\r\n{}",
    "chunks": ANSWER + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "both framings": ANSWER + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
    "close": ANSWER + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
    "an upgrade": ANSWER + b"Upgrade: x\r\nContent-Length: 2\r\n\r\n{}",
    "an interim answer first": b"HTTP/1.1 103 Early Hints\r\n\r\n" + ANSWER + b"Content-Length: 2\r\n\r\n{}",
    "an older version": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",
    "a strange status": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a folded line": ANSWER + b"X: 1\r\n 2\r\nContent-Length: 2\r\n\r\n{}",
    "a bare line feed": ANSWER + b"X: 1\nContent-Length: 2\r\n\r\n{}",
    "a bare CR": ANSWER + b"X: 1\rY: 2\r\nContent-Length: 2\r\n\r\n{}",
    "many fields": ANSWER + b"X: 1\r\n" * plain_head.MAX_ANSWER_FIELDS + b"Content-Length: 2\r\n\r\n{}",
    "a long head": ANSWER + b"X: " + b"a" * plain_head.MAX_ANSWER_HEAD + b"\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("data", PLAIN_ANSWERS)
def test_a_plain_answer_is_what_httptools_reads(data: bytes) -> None:
    assert plain_head.read_answer(data) is not None
    assert plain_head.read_answer(data) == by_httptools(data)


@pytest.mark.parametrize("name", OTHER_ANSWERS)
def test_any_other_answer_is_for_httptools(name: str) -> None:
    assert plain_head.read_answer(OTHER_ANSWERS[name]) is None


def test_of_many_broken_answers_it_takes_only_what_httptools_takes_and_reads_the_same() -> None:
    taken = 0
    for data in mutations(PLAIN_ANSWERS, 20_000):
        plain = plain_head.read_answer(data)
        if plain is not None and plain[0] not in (204, 304):  # these have no body whatever their fields say
            taken += 1
            assert plain == by_httptools(data), data
    assert taken > 1000


def test_a_head_that_does_not_match_is_given_up_at_once() -> None:
    """Possessive patterns: no head makes them try again and again."""
    for bad in (b"X" * 4000, b"X: " + b"a \t" * 1300, b"X:\r\n" * 40 + b"\x00", b"a:" * 2000):
        assert plain_head.read_request(HEAD + bad + b"\r\n\r\n"[:3]) is None


def test_fields_are_gone_with_their_request_instead_of_waiting_for_the_garbage_collector() -> None:
    count = lambda: sum(type(one) is RequestFields for one in gc.get_objects())  # noqa: E731
    plain_head._request_fields.cache_clear()
    gc.collect()
    gc.disable()
    try:
        before = count()
        for number in range(2000):
            # As the gateway sends it, and as clients with a field of their own.
            own = b"x-request-id: %d\r\n" % number
            for fields in (b"host: a\r\n" + own, b"Host: a\r\nAccept: %d\r\n" % number):
                assert plain_head.read_request(b"GET / HTTP/1.1\r\n" + fields + b"\r\n") is not None
        assert count() - before <= 1024, "only the cached ones"
    finally:
        gc.enable()
