"""Calls between services against real sockets: every outcome is translated and reported to the circuit once."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time

import pytest

from servicekit.circuits import Circuit, CircuitOpen, CircuitSettings
from servicekit.http_client import ANSWER_LIMIT, ServiceClient
from servicekit.observing import request_id
from servicekit.wire import deadline
from servicekit.wire.errors import BadGateway, DeadlineExceeded, Overloaded, Unavailable
from tests.support.certificates import Authority
from tests.support.loopback_server import LoopbackServer
from tests.support.ports import free_port
from tests.support.shortage import no_more_files
from tests.support.silent import silent
from tests.support.upstream import Close, Pause, ScriptedUpstream, answer, bad, good

TOTAL = 1.0  # seconds for one call in these tests
GENEROUS = 5.0  # no call may take this long, however slow the machine


class PumpsUnavailable(Unavailable):
    """The pumps are away."""

    code = "pumps_unavailable"


class Outcomes(Circuit):
    """A real circuit that also keeps the reports about its permits."""

    def __init__(self, **options) -> None:
        super().__init__("pumps", **options)
        self.reports: list[str] = []

    def _record(self, permit, outcome, seconds, reason) -> None:
        self.reports.append(outcome)
        super()._record(permit, outcome, seconds, reason)


@pytest.fixture
def upstream():
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def circuit():
    return Outcomes()


@pytest.fixture
def make_client(upstream, circuit):
    made: list[ServiceClient] = []

    def make(base_url: str | None = None, **options) -> ServiceClient:
        given = {"circuit": circuit, "unavailable": PumpsUnavailable, "pool_size": 2, "total_seconds": TOTAL} | options
        made.append(ServiceClient(base_url or upstream.url, **given))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client):
    return make_client()


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n" + body


def test_a_good_answer_gives_its_data_and_numbers_stay_exact(client, upstream, circuit):
    upstream.script(answer(200, '{"success": true, "data": {"name": "Насос", "price": 0.10}}'.encode()))
    data = client.get("/pumps/1?x=%20y")
    assert (data["name"], str(data["price"])) == ("Насос", "0.10")
    assert upstream.seen[0].line == b"GET /pumps/1?x=%20y HTTP/1.1"
    assert circuit.reports == ["success"]


def test_a_chunked_answer_is_put_together(client, upstream, circuit):
    upstream.script(chunked(b'{"success": true,', b' "data": [1]}') + b"0\r\n\r\n")
    assert client.get("/pumps") == [1]
    assert client.get("/pumps") == [1]
    assert circuit.reports == ["success", "success"]


def test_one_connection_serves_many_calls(client, upstream):
    for _ in range(5):
        client.get("/pumps")
    assert {seen.connection for seen in upstream.seen} == {upstream.seen[0].connection}


def test_a_404_is_none_and_a_success_for_the_circuit(client, upstream, circuit):
    upstream.script(bad(404, "pump_not_found"))
    for _ in range(30):
        assert client.get("/pumps/1") is None
    assert circuit.reports == ["success"] * 30
    assert circuit.snapshot().state == "closed"


def test_an_address_the_service_does_not_know_is_no_missing_resource(client, upstream, circuit):
    upstream.script(bad(404, "not_found"))
    with pytest.raises(BadGateway):
        client.get("/pumps/1")
    assert circuit.reports == ["success"]


@pytest.mark.parametrize(
    ("given", "raised", "report"),
    [
        (bad(400, "invalid_input"), PumpsUnavailable, "success"),
        (bad(429, "too_many_requests"), PumpsUnavailable, "neutral"),
        (bad(500, "internal_error"), PumpsUnavailable, "success"),
        (bad(502, "bad_upstream_answer"), PumpsUnavailable, "failure"),
        (bad(503, "database_unavailable"), PumpsUnavailable, "failure"),
        (bad(504, "database_too_slow"), PumpsUnavailable, "failure"),
        (bad(504, "deadline_exceeded"), DeadlineExceeded, "neutral"),
        (bad(503, "too_many_valves"), PumpsUnavailable, "neutral"),
        (bad(503, "circuit_open"), PumpsUnavailable, "neutral"),
        (bad(503, "overloaded"), PumpsUnavailable, "neutral"),
    ],
)
def test_an_error_in_the_envelope_is_translated_and_counted(client, upstream, circuit, given, raised, report):
    upstream.script(given)
    with pytest.raises(raised):
        client.get("/pumps")
    assert circuit.reports == [report]


@pytest.mark.parametrize(
    "given",
    [
        answer(200, b""),
        answer(200, b"<html>It works!</html>", media_type="text/html"),
        answer(200, b'{"data": {}}'),
        answer(200, b'{"success": true}'),
        answer(200, b'{"success": "true", "data": 1}'),
        answer(200, b'{"success": false, "error": {"code": "x", "message": "y"}}'),
        answer(200, b'[{"success": true}]'),
        answer(200, b'"success"'),
        answer(200, b"null"),
        answer(200, b'{"success": true, "data": NaN}'),
        answer(200, b'{"success": true, "data": 1, "data": 2}'),
        answer(200, b"[" * 10_000),
        answer(404, b"<html>Not Found</html>", media_type="text/html"),
        answer(404, b'{"success": true, "data": 1}'),
        answer(404, b'{"success": false, "error": "gone"}'),
        answer(404, b'{"success": false, "error": {"code": null}}'),
        answer(500, b"Internal Server Error", media_type="text/plain"),
        answer(503, b'{"success": true, "data": 1}'),
        answer(204),
        bad(421, "misdirected_request"),
        answer(200, gzip.compress(b'{"success": true, "data": 1}'), fields=[("Content-Encoding", "gzip")]),
        answer(200, gzip.compress(b"0" * 10_000_000), fields=[("Content-Encoding", "gzip")]),
    ],
)
def test_an_answer_that_is_no_envelope_is_a_bad_gateway_and_a_failure(client, upstream, circuit, given):
    upstream.script(given)
    with pytest.raises(BadGateway):
        client.get("/pumps")
    assert circuit.reports == ["failure"]


@pytest.mark.parametrize(
    "script",
    [
        [Close()],
        [b"SSH-2.0-OpenSSH_9.9\r\n", Close()],
        [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n", Close()],
        [answer(200, b'{"success": true', length=100), Close()],
        [chunked(b'{"success": true,'), Close()],
        [chunked() + b"zz\r\nnot a size", Close()],
        [answer(200, b" " * (ANSWER_LIMIT + 1))],
        [Pause(60)],
    ],
    ids=["closed", "not HTTP", "too many fields", "cut short", "cut chunks", "broken chunk", "endless",
         "silent"],
)  # fmt: skip
def test_a_broken_or_missing_answer_is_unavailable_and_one_failure(client, upstream, circuit, script):
    upstream.script(*script)
    began = time.monotonic()
    with pytest.raises(PumpsUnavailable) as caught:
        client.get("/pumps")
    assert time.monotonic() - began < GENEROUS
    assert circuit.reports == ["failure"]
    assert caught.value.headers == {"Retry-After": "1"}
    assert caught.value.__cause__ is not None


def test_half_a_head_is_a_bad_gateway_and_a_failure(client, upstream, circuit):
    upstream.script(b"HTTP/1.1 200 OK\r\nContent-Le", Close())
    with pytest.raises(BadGateway):
        client.get("/pumps")
    assert circuit.reports == ["failure"]


def test_a_refused_connection_is_unavailable_and_a_failure(make_client, circuit):
    with pytest.raises(PumpsUnavailable):
        make_client(f"http://127.0.0.1:{free_port()}").get("/pumps")
    assert circuit.reports == ["failure"]


def test_a_name_that_can_be_nobodys_is_unavailable_and_a_failure(make_client, circuit):
    with pytest.raises(PumpsUnavailable):
        make_client("http://pumps..example").get("/pumps")
    assert circuit.reports == ["failure"]


@pytest.fixture
def names(monkeypatch):
    """What the system answers for some names: addresses, or an event that it waits for first."""
    known: dict[str, list[str] | threading.Event] = {}
    system = socket.getaddrinfo

    def look_up(host, port, *args, **options):
        answer = known.get(host, [host])
        if isinstance(answer, threading.Event):
            answer.wait(10)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [entry for address in answer for entry in system(address, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def test_a_name_server_that_is_silent_costs_a_call_its_time_and_no_more(make_client, upstream, circuit, names):
    names["slow-pumps.test"] = released = threading.Event()
    names["pumps.test"] = ["127.0.0.1"]
    began = time.monotonic()
    try:
        with pytest.raises(PumpsUnavailable):
            make_client(f"http://slow-pumps.test:{upstream.port}").get("/pumps")
        assert time.monotonic() - began < GENEROUS
        assert make_client(f"http://pumps.test:{upstream.port}").get("/pumps") == {}
    finally:
        released.set()
    assert circuit.reports == ["failure", "success"]


@pytest.mark.parametrize("first", ["127.0.0.2", "127.0.0.3", "::1"], ids=["silent", "refusing", "other family"])
def test_one_address_of_two_is_enough(make_client, upstream, circuit, names, first):
    names[f"pumps-{first.replace(':', '')}.test"] = [first, "127.0.0.1"]
    client = make_client(f"http://pumps-{first.replace(':', '')}.test:{upstream.port}")
    with silent("127.0.0.2", upstream.port):
        assert client.get("/pumps") == {}
    assert circuit.reports == ["success"]
    assert upstream.seen[0].value("Host") == f"pumps-{first.replace(':', '')}.test:{upstream.port}"


class TlsPumps(LoopbackServer):
    """A service over TLS under the name pumps-over-tls.test."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self._context = authority.server("pumps-over-tls.test")

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(good({}))
        await writer.drain()
        await reader.read()


@pytest.mark.parametrize(
    ("host", "trusts", "report"),
    [
        ("pumps-over-tls.test", True, "success"),
        ("pumps-of-others.test", True, "failure"),
        ("pumps-over-tls.test", False, "failure"),
    ],
    ids=["good", "another's certificate", "an authority that nobody knows"],
)
def test_over_tls_the_name_is_verified_whatever_the_address(
    make_client, circuit, names, tmp_path, host, trusts, report, monkeypatch
):
    names[host] = ["127.0.0.3", "127.0.0.1"]
    authority = Authority()
    with TlsPumps(authority) as pumps:
        if trusts:
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path)))
        client = make_client(f"https://{host}:{pumps.port}", total_seconds=GENEROUS)
        if report == "success":
            assert client.get("/pumps") == {}
        else:
            with pytest.raises(PumpsUnavailable):
                client.get("/pumps")
        client.close()
    assert circuit.reports == [report]


def test_without_a_file_to_connect_with_nobody_else_is_blamed(client, upstream, circuit):
    with no_more_files():
        for _ in range(30):
            with pytest.raises(Overloaded):
                client.get("/pumps")
    assert circuit.reports == ["neutral"] * 30
    assert client.get("/pumps") == {}


def test_without_a_file_to_look_a_name_up_nobody_else_is_blamed(make_client, upstream, circuit):
    client = make_client(f"http://localhost:{upstream.port}")
    with no_more_files(), pytest.raises(Overloaded):
        client.get("/pumps")
    assert circuit.reports == ["neutral"]


@pytest.mark.parametrize(
    "drip",
    [
        [b"HTTP/1.1 200 OK\r\n"] + [b"X-Slow: drip\r\n", Pause(0.1)] * 90,
        [answer(200, b"", length=1000)] + [b" ", Pause(0.1)] * 90,
        [chunked()] + [b"1\r\n \r\n", Pause(0.1)] * 90,
    ],
    ids=["fields", "body", "chunks"],
)
def test_an_answer_that_drips_ends_at_the_deadline(client, upstream, circuit, drip):
    upstream.script(*drip)
    began = time.monotonic()
    with pytest.raises(PumpsUnavailable):
        client.get("/pumps")
    assert TOTAL <= time.monotonic() - began < GENEROUS
    assert circuit.reports == ["failure"]


def test_five_failures_open_the_circuit_and_then_no_connection_is_made(make_client, upstream):
    client = make_client(circuit=Circuit("pumps", settings=CircuitSettings(open_seconds=30, jitter=0)))
    upstream.script(bad(503, "database_unavailable"))
    for _ in range(5):
        with pytest.raises(PumpsUnavailable):
            client.get("/pumps")
    upstream.script(good({}))
    for _ in range(20):
        with pytest.raises(PumpsUnavailable) as caught:
            client.get("/pumps")
        assert isinstance(caught.value.__cause__, CircuitOpen)
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 30
    assert len(upstream.seen) == 5


def test_a_circuit_heals_when_the_service_is_back(make_client, upstream):
    now = [0.0]
    circuit = Circuit("pumps", clock=lambda: now[0], settings=CircuitSettings(open_seconds=1, jitter=0))
    client = make_client(circuit=circuit)
    upstream.script(bad(503, "database_unavailable"))
    for _ in range(5):
        with pytest.raises(PumpsUnavailable):
            client.get("/pumps")
    assert circuit.snapshot().state == "open"
    upstream.script(good("back"))
    now[0] = 2.0
    assert client.get("/pumps") == "back"
    assert circuit.snapshot().state == "closed"


def test_a_kept_connection_that_was_closed_is_asked_again_on_a_fresh_one(client, upstream, circuit):
    upstream.scripts([good(1)], [Close()], [good(2)])
    assert client.get("/pumps") == 1
    assert client.get("/pumps") == 2
    assert circuit.reports == ["success", "success"]
    assert len(upstream.seen) == 3


def test_a_redirect_is_not_followed(client, upstream, circuit):
    with ScriptedUpstream() as elsewhere:
        body = b'{"success": true, "data": 1}'
        upstream.script(answer(302, body, fields=[("Location", f"{elsewhere.url}/pumps")]))
        with pytest.raises(BadGateway):
            client.get("/pumps")
        assert elsewhere.seen == []
    assert len(upstream.seen) == 1
    assert circuit.reports == ["failure"]


@pytest.mark.parametrize("location", ["http://[::1", "\xff\xfe", "//", "http://x:y/", "?"])
def test_a_redirect_to_nonsense_is_a_bad_gateway_too(client, upstream, circuit, location):
    upstream.script(answer(302, b"", fields=[("Location", location)]))
    with pytest.raises(BadGateway):
        client.get("/pumps")
    assert circuit.reports == ["failure"]


def test_cookies_are_not_kept(client, upstream):
    upstream.script(good({}, fields=[("Set-Cookie", "session=1; Path=/"), ("Set-Cookie", "b=2")]))
    client.get("/pumps")
    client.get("/pumps")
    assert [seen.value("Cookie") for seen in upstream.seen] == [None, None]


def test_proxies_and_passwords_of_the_environment_are_ignored(client, upstream, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert client.get("/pumps") == {}
    assert upstream.seen[0].value("Authorization") is None


def test_whoever_caused_a_call_is_named_by_their_token_in_that_call_alone(client, upstream):
    client.get("/pumps", token="a.b.c")
    client.get("/pumps")
    assert [seen.value("Authorization") for seen in upstream.seen] == ["Bearer a.b.c", None]


@pytest.mark.parametrize(
    ("given", "result", "report"),
    [
        (answer(200, b'{"keys":[]}'), b'{"keys":[]}', "success"),
        (answer(200, b""), b"", "success"),
        (bad(404, "not_found"), PumpsUnavailable, "success"),
        (bad(503, "database_unavailable"), PumpsUnavailable, "failure"),
        (answer(404, b"no envelope"), BadGateway, "failure"),
        (answer(302, b"", fields=[("Location", "http://127.0.0.1:1/")]), BadGateway, "failure"),
        (Close(), PumpsUnavailable, "failure"),
    ],
    ids=range(7),
)
def test_a_document_is_given_unread_and_anything_else_is_an_error(client, upstream, circuit, given, result, report):
    upstream.script(given)
    if isinstance(result, bytes):
        assert client.document("/keys") == result
    else:
        with pytest.raises(result):
            client.document("/keys")
    assert circuit.reports == [report]


def test_the_request_id_and_the_remaining_time_are_passed_on(client, upstream):
    with request_id.use("r-1"), deadline.within(0.9):
        client.get("/pumps")
    with request_id.use("r-2"):
        client.get("/pumps")
    first, second = upstream.seen
    assert (first.values("X-Request-ID"), second.values("X-Request-ID")) == (["r-1"], ["r-2"])
    assert 0 <= int(first.value("X-Request-Timeout-Ms")) <= 900
    assert int(second.value("X-Request-Timeout-Ms")) <= 1000 * TOTAL
    assert first.values("Accept-Encoding") == ["identity"]


def test_a_request_whose_time_is_gone_asks_nobody(client, upstream, circuit):
    with deadline.within(0), pytest.raises(DeadlineExceeded):
        client.get("/pumps")
    assert upstream.seen == []
    assert circuit.reports == []


def test_a_caller_in_a_hurry_is_told_so_and_does_not_count_against_the_service(client, upstream, circuit):
    upstream.script(Pause(30))
    while len(circuit.reports) < 6:  # none is told of a call whose time was over before it began
        with deadline.within(0.02), pytest.raises(DeadlineExceeded):
            client.get("/pumps")
    assert circuit.reports == ["neutral"] * 6
    assert circuit.snapshot().state == "closed"


def test_an_interrupted_call_gives_its_permit_back(make_client, circuit, monkeypatch):
    client = make_client()

    def interrupted(*_):
        raise SystemExit

    monkeypatch.setattr(client, "_once", interrupted)
    with pytest.raises(SystemExit):
        client.get("/pumps")
    assert circuit.reports == ["neutral"]


def test_more_threads_than_connections_wait_their_turn(client, upstream, circuit):
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(client.get("/pumps"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS)
    assert results == [{}] * 12
    assert len({seen.connection for seen in upstream.seen}) <= 2
    assert circuit.reports == ["success"] * 12
