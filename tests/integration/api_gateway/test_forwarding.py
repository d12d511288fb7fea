"""What travels through the gateway, byte by byte, both ways."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.raw_http import RawAnswer, RawClient, read_answer
from tests.support.upstream import Close, Pause, ScriptedUpstream, Wait, answer, bad, good
from tests.support.waiting import eventually

#: The gateway's own limit, in seconds, and how long an upstream says nothing that is to meet it.
TOTAL, SILENCE = 4.9, 20
ENVELOPE = json.dumps({"success": True, "data": {"a": 1}}).encode()


@pytest.fixture
def client(either: RawClient) -> RawClient:
    """Everything here holds on fresh and on kept connections."""
    return either


class TestTargets:
    @pytest.mark.parametrize(
        "target",
        [
            "/users?a=1&a=2&b",
            "/users?",
            "/users?q=%D0%91+%ff",
            "/users/a%3fadmin=1",
            "/users/a%23frag",
            "/users/a%20b",
            "/users/...",
            "/users/a;b=1",
        ],
    )
    def test_a_target_arrives_byte_for_byte(self, client: RawClient, users: ScriptedUpstream, target: str) -> None:
        assert client.get(target).status == 200
        assert users.requests()[-1].target == target

    def test_the_alias_leads_to_the_same_place(self, client: RawClient, users: ScriptedUpstream) -> None:
        assert client.get("/api/v1/users?limit=5").status == 200
        assert users.requests()[-1].target == "/users?limit=5"

    def test_the_absolute_form_is_understood(self, client: RawClient, users: ScriptedUpstream) -> None:
        assert client.get("http://localhost/users?a=1").status == 200
        assert users.requests()[-1].target == "/users?a=1"

    @pytest.mark.parametrize(
        "target",
        [
            "/users/..%2fadmin",
            "/users/%2e%2e/admin",
            "/users/x/../../admin",
            "/users/a%2fb",
            "/users/a%5cb",
            "/users/%00",
            "/users/%0d%0aX-Evil:1",
            "/users/%ff",
            "/users/%c0%ae%c0%ae",
            "/users/a#b",
        ],
    )
    def test_a_target_that_could_leave_its_route_is_a_400(
        self, client: RawClient, users: ScriptedUpstream, target: str
    ) -> None:
        refused = client.get(target)
        assert (refused.status, refused.code) == (400, "invalid_path")
        assert users.requests() == []

    @pytest.mark.parametrize(
        "target", ["//", "/nothing", "//users//1", "/users/", "/api/v1/health", "/api/v1", "/api/v1/"]
    )
    def test_what_leads_nowhere_is_a_404(self, client: RawClient, target: str) -> None:
        missing = client.get(target)
        assert (missing.status, missing.code) == (404, "not_found")

    @pytest.mark.parametrize(
        ("target", "upstream"),
        [
            ("/users", "users"),
            ("/orders", "orders"),
            ("/tasks", "tasks"),
            ("/task-types", "tasks"),
            ("/users/1/tasks", "tasks"),
        ],
    )
    def test_each_resource_has_its_upstream(
        self, gateway: GatewayProcess, client: RawClient, target: str, upstream: str
    ) -> None:
        assert client.get(target).status == 200
        assert {name: len(one.requests()) for name, one in gateway.upstreams.items()} == {
            name: int(name == upstream) for name in gateway.upstreams
        }


class TestFieldsUp:
    def test_hop_by_hop_fields_and_what_connection_names_stay_here(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        client.get(
            "/users",
            ("Connection", "close, X-Api-Key, X-Request-ID"),
            ("X-Api-Key", "secret"),
            ("TE", "trailers"),
            ("Upgrade", "websocket"),
            ("Proxy-Authorization", "Basic x"),
            ("Keep-Alive", "timeout=5"),
            ("Accept-Language", "de"),
        )
        seen = users.requests()[-1]
        for name in ("Connection", "X-Api-Key", "TE", "Upgrade", "Proxy-Authorization", "Keep-Alive"):
            assert seen.values(name) == []
        assert seen.values("Accept-Language") == ["de"]
        assert len(seen.values("X-Request-ID")) == 1

    def test_a_strangers_forwarded_fields_are_replaced(self, client: RawClient, users: ScriptedUpstream) -> None:
        client.get("/users", ("X-Forwarded-For", "6.6.6.6"), ("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6"))
        seen = users.requests()[-1]
        assert seen.values("X-Forwarded-For") == ["127.0.0.1"]
        assert seen.values("X-Forwarded-Host") == ["localhost"]
        assert seen.values("X-Forwarded-Proto") == ["http"]
        assert seen.values("Forwarded") == ["for=127.0.0.1;host=localhost;proto=http"]
        assert seen.values("X-Real-IP") == []
        assert seen.values("Via") == ["1.1 siteworks"]
        assert seen.values("Host") == [f"127.0.0.1:{users.port}"]

    def test_a_sane_request_id_is_kept_and_any_other_replaced(self, client: RawClient, users: ScriptedUpstream) -> None:
        kept = client.get("/users", ("X-Request-ID", "my-id.1"))
        assert kept.values("X-Request-ID") == ["my-id.1"]
        assert users.requests()[-1].values("X-Request-ID") == ["my-id.1"]
        made = client.get("/users", ("X-Request-ID", "bad id"))
        assert made.value("X-Request-ID") != "bad id"
        assert made.values("X-Request-ID") == users.requests()[-1].values("X-Request-ID")

    def test_a_valid_trace_passes_and_a_broken_one_is_made_anew(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        good_trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        client.get("/users", ("traceparent", good_trace))
        assert users.requests()[-1].values("traceparent") == [good_trace]
        client.get("/users", ("traceparent", "broken"))
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", users.requests()[-1].value("traceparent") or "")

    def test_no_cookie_of_one_client_reaches_another(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(good({}, fields=[("Set-Cookie", "session=first")]))
        client.get("/users")
        client.get("/users")
        assert users.requests()[-1].values("Cookie") == []

    def test_the_time_left_is_passed_on_and_a_client_may_only_shorten_it(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        for asked, most in (("2000", 2000), ("60000", 5000), ("soon", 5000)):
            seen = client.get("/users", ("X-Request-Timeout-Ms", asked))
            (passed,) = users.requests()[-1].values("X-Request-Timeout-Ms")
            assert most - 1000 * seen.seconds - 1 <= int(passed) <= most


class TestBodiesUp:
    def test_a_body_arrives_with_its_length(self, client: RawClient, users: ScriptedUpstream) -> None:
        client.request("POST", "/users", b'{"name": "\xd0\x91"}', fields=(("Content-Type", "application/json"),))
        seen = users.requests()[-1]
        assert seen.body == b'{"name": "\xd0\x91"}'
        assert seen.values("Content-Length") == [str(len(seen.body))]
        assert seen.values("Transfer-Encoding") == []

    def test_a_chunked_body_arrives_with_one_framing(self, client: RawClient, users: ScriptedUpstream) -> None:
        client.send(
            b"POST /users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n"
        )
        seen = users.requests()[-1]
        assert seen.body == b"abcde"
        assert seen.values("Content-Length") == ["5"]
        assert seen.values("Transfer-Encoding") == []

    def test_a_post_without_a_body_says_so(self, client: RawClient, tasks: ScriptedUpstream) -> None:
        client.request("POST", "/tasks")
        assert tasks.requests()[-1].values("Content-Length") == ["0"]

    def test_a_get_without_a_body_has_no_framing(self, client: RawClient, users: ScriptedUpstream) -> None:
        client.get("/users")
        assert users.requests()[-1].values("Content-Length") == []

    def test_expect_100_continue_is_met_here(self, client: RawClient, users: ScriptedUpstream) -> None:
        with client.connect() as connection:
            connection.sendall(
                b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            connection.sendall(b"{}")
            assert read_answer(connection).status == 200
        assert users.requests()[-1].values("Expect") == []

    @pytest.mark.parametrize("extra", [1, 100 * 1024 * 1024])
    def test_a_body_over_the_limit_is_a_413_even_for_one_still_sending(
        self, client: RawClient, users: ScriptedUpstream, extra: int
    ) -> None:
        size = 1024 * 1024 + extra
        with client.connect() as connection:
            connection.sendall(b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
            piece = b"x" * 65536
            for start in range(0, size, len(piece)):
                connection.sendall(piece[: min(len(piece), size - start)])
            refused = read_answer(connection)
        assert (refused.status, refused.code) == (413, "body_too_large")
        assert users.requests() == []

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            pytest.param(b"POST /nothing HTTP/1.1\r\nContent-Length: 9\r\n", 404, id="no such path"),
            pytest.param(b"POST /users/1/details HTTP/1.1\r\nContent-Length: 9\r\n", 405, id="no such method"),
            pytest.param(b"POST /users HTTP/1.1\r\nContent-Length: 9999999\r\n", 413, id="too large"),
            pytest.param(
                b"POST /users HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n",
                413,
                id="an expectation that is not met",
            ),
            pytest.param(b"POST /nothing HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", 404, id="chunks"),
            pytest.param(b"GET /health HTTP/1.1\r\nContent-Length: 9\r\n", 200, id="a page of ours"),
            pytest.param(b"OPTIONS /users HTTP/1.1\r\nContent-Length: 9\r\n", 204, id="no body in the answer"),
        ],
    )
    def test_an_answer_before_the_body_is_the_last_of_its_connection_and_says_so(
        self, client: RawClient, head: bytes, status: int
    ) -> None:
        with client.connect() as connection:
            connection.sendall(head + b"Host: localhost\r\n\r\n")
            seen = read_answer(connection)
            assert (seen.status, seen.values("Connection")) == (status, ["close"])
            assert connection.recv(1) == b""
            # Whatever comes now is neither a request nor a reason for a reset.
            connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1) == b""

    def test_a_body_that_nobody_reads_costs_no_connection_if_it_has_come(self, client: RawClient) -> None:
        with client.connect() as connection:
            for _ in range(2):
                refused = client.request("POST", "/nothing", b"12345", connection=connection)
                assert (refused.status, refused.values("Connection")) == (404, [])

    def test_a_chunked_body_over_the_limit_is_a_413(self, client: RawClient, users: ScriptedUpstream) -> None:
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        refused = client.send(
            b"POST /users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 17 + b"0\r\n\r\n"
        )
        assert (refused.status, refused.code) == (413, "body_too_large")
        assert users.requests() == []

    def test_a_body_of_exactly_the_limit_passes(self, client: RawClient, users: ScriptedUpstream) -> None:
        body = b"x" * 1024 * 1024
        assert client.request("POST", "/users", body).status == 200
        assert users.requests()[-1].body == body


class TestAnswers:
    def test_status_body_and_fields_come_back(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(good({"id": 1}, status=201, fields=[("Location", "/users/1"), ("X-Own", "ä")]))
        made = client.request("POST", "/users", b"{}")
        assert made.status == 201
        assert made.json == {"success": True, "data": {"id": 1}}
        assert made.value("Location") == "/users/1"
        assert made.value("Via") == "1.1 siteworks"
        assert made.value("X-Own") == "ä"

    def test_an_enveloped_error_comes_back_as_it_is(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(bad(409, "email_taken"))
        taken = client.request("POST", "/users", b"{}")
        assert (taken.status, taken.code) == (409, "email_taken")

    def test_several_cookies_stay_several(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(good({}, fields=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2, c")]))
        assert client.get("/users").values("Set-Cookie") == ["a=1", "b=2, c"]

    def test_hop_by_hop_fields_of_an_answer_stay_here(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(good({}, fields=[("Connection", "X-Inner"), ("X-Inner", "1"), ("Keep-Alive", "timeout=9")]))
        seen = client.get("/users")
        assert seen.values("X-Inner") == []
        assert seen.values("Keep-Alive") == []

    def test_interim_answers_are_skipped(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + good({"a": 1}))
        seen = client.get("/users")
        assert (seen.status, seen.json["data"], seen.values("Link")) == (200, {"a": 1}, [])

    def test_a_chunked_answer_comes_back_whole_with_one_framing(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        users.script(
            head, b"%x\r\n%b\r\n" % (5, ENVELOPE[:5]), b"%x\r\n%b\r\n0\r\n\r\n" % (len(ENVELOPE) - 5, ENVELOPE[5:])
        )
        seen = client.get("/users")
        assert seen.body == ENVELOPE
        assert seen.value("Content-Length") == str(len(ENVELOPE))

    def test_an_answer_that_ends_with_its_connection_comes_back(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        users.script(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + ENVELOPE, Close())
        assert client.get("/users").body == ENVELOPE

    def test_a_compressed_answer_comes_back_as_it_is(self, client: RawClient, users: ScriptedUpstream) -> None:
        packed = gzip.compress(ENVELOPE)
        users.script(answer(200, packed, fields=[("Content-Encoding", "gzip")]))
        seen = client.get("/users")
        assert (seen.body, seen.value("Content-Encoding")) == (packed, "gzip")

    def test_a_redirect_is_passed_on_not_followed(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(answer(302, b"<html>", media_type="text/html", fields=[("Location", f"{users.url}/internal?x=1")]))
        seen = client.get("/users")
        assert (seen.status, seen.value("Location"), seen.body) == (302, "/internal?x=1", b"")
        assert len(users.requests()) == 1

    @pytest.mark.parametrize("status", [204, 304])
    def test_an_answer_without_a_body_has_none(self, client: RawClient, users: ScriptedUpstream, status: int) -> None:
        users.script(answer(status, media_type=None))
        with client.connect() as connection:
            for _ in range(2):  # the connection stays usable
                seen = client.request("GET", "/users", connection=connection)
                assert (seen.status, seen.values("Content-Length"), seen.values("Transfer-Encoding")) == (
                    status,
                    [],
                    [],
                )

    def test_head_has_the_length_of_get_and_no_body(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(answer(200, b"", length=len(ENVELOPE)))
        with client.connect() as connection:
            for _ in range(2):
                seen = client.request("HEAD", "/users", connection=connection)
                assert (seen.status, seen.value("Content-Length")) == (200, str(len(ENVELOPE)))
        assert [one.line for one in users.requests()] == [b"HEAD /users HTTP/1.1"] * 2

    def test_csv_passes_by_its_media_type(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(answer(200, b"a,b\r\n1,2\r\n", media_type="text/csv; charset=utf-8"))
        seen = client.get("/users")
        assert (seen.status, seen.body) == (200, b"a,b\r\n1,2\r\n")

    def test_an_event_stream_passes_piece_by_piece(self, client: RawClient, users: ScriptedUpstream) -> None:
        go_on = threading.Event()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        users.script(head + b"data: 1\n\n", Wait(go_on), b"data: 2\n\n", Close())
        with client.connect() as connection:
            connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while b"data: 1\n\n" not in received:
                received += connection.recv(4096)
            assert b"data: 2" not in received
            go_on.set()
            while b"data: 2\n\n" not in received:
                received += connection.recv(4096)

    def test_pipelined_requests_are_answered_in_order(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.scripts([good(1)], [good(2)])
        with client.connect() as connection:
            connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
            stream = b""
            while stream.count(b'"data"') < 2:
                stream += connection.recv(4096)
        assert stream.index(b'"data": 1') < stream.index(b'"data": 2')

    @pytest.mark.parametrize("first", [b"", b"\r\n"], ids=["plain", "the whole way"])
    def test_what_comes_while_a_request_is_answered_waits_its_turn(
        self, client: RawClient, users: ScriptedUpstream, first: bytes
    ) -> None:
        go_on = threading.Event()
        users.scripts([Wait(go_on), good(1)], [good(2)], [good(3)])
        with client.connect() as connection:
            connection.sendall(first + b"GET /users?1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            users.wait_for(1)
            connection.sendall(
                b"GET /users?2 HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /users?3 HTTP/1.1\r\nHost: localhost\r\n"
            )
            connection.sendall(
                b"Content-Length: 2\r\n\r\n{}GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            go_on.set()
            stream = b""
            while piece := connection.recv(65536):
                stream += piece
        order = [stream.index(b'"data": %d' % number) for number in (1, 2, 3)]
        assert order == sorted(order)
        assert stream.count(b"HTTP/1.1 200 OK") == 4
        assert [seen.target for seen in users.requests()] == ["/users?1", "/users?2", "/users?3"]

    def test_a_stream_to_an_old_client_ends_with_its_connection(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        users.script(answer(200, b"a,b\n", media_type="text/csv"))
        with client.connect() as connection:
            connection.sendall(b"GET /users HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
            seen = read_answer(connection)
        assert (seen.status, seen.body) == (200, b"a,b\n")
        assert seen.values("Connection") == ["close"]
        assert seen.value("Transfer-Encoding") is None


class TestBrokenAnswers:
    @pytest.mark.parametrize(
        "steps",
        [
            pytest.param([answer(500, b"<h1>Oops</h1>", media_type="text/html")], id="a crash page"),
            pytest.param([answer(200, b"<h1>Hi</h1>", media_type="text/html")], id="a page where JSON belongs"),
            pytest.param([bad(421, "misdirected_request")], id="a service that is asked by a name it does not know"),
            pytest.param([answer(200, b'{"a": 1}')], id="JSON without envelope"),
            pytest.param([answer(200, ENVELOPE[:-1])], id="half an envelope"),
            pytest.param([answer(404, ENVELOPE)], id="an envelope against its status"),
            pytest.param([answer(200, ENVELOPE, length=1000), Close()], id="truncated"),
            pytest.param([b"HTTP/1.1 200 OK\r\nContent-Ty", Close()], id="truncated head"),
            pytest.param([Close()], id="no answer at all"),
            pytest.param([b"HELLO\r\n\r\n", Close()], id="no HTTP"),
            pytest.param(
                [
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
                    Close(),
                ],
                id="truncated chunk",
            ),
            pytest.param(
                [
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                ],
                id="two framings",
            ),
            pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"], id="two lengths"),
            pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"], id="a negative length"),
            pytest.param([b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"], id="a switch"),
            pytest.param([b"HTTP/1.1 200 OK\r\n" + b"X-A: %s\r\n" % (b"a" * 140_000)], id="a huge head"),
            pytest.param([b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 300 + b"\r\n"], id="too many fields"),
        ],
    )
    def test_it_becomes_a_502_that_counts(
        self, gateway: GatewayProcess, client: RawClient, users: ScriptedUpstream, steps: list[bytes]
    ) -> None:
        users.script(*steps)
        seen = client.get("/users")
        assert (seen.status, seen.code) == (502, "bad_upstream_answer")
        assert gateway.circuit("users")["failures"] == 1

    def test_bytes_after_an_answer_never_reach_the_next_client(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        users.scripts([good("mine") + good("smuggled")], [good("yours")])
        assert client.get("/users").json["data"] == "mine"
        assert client.get("/users").json["data"] == "yours"

    def test_a_body_after_head_never_reaches_the_next_client(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.scripts([good("smuggled")], [good("yours")])
        assert client.request("HEAD", "/users").status == 200
        assert client.get("/users").json["data"] == "yours"

    def test_a_stream_that_breaks_is_cut_off_not_ended(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(answer(200, b"a,b\r\n", media_type="text/csv", length=1000), Close())
        with pytest.raises(ConnectionError):
            client.get("/users")


END = b"0\r\n\r\n"
LARGE = b'{"success": true, "data": "\xd0\x96%b"}' % ("€".encode() * 400_000)
ASCII = b'{"success": true, "data": "%b"}' % (b"x" * 1_000_000)


def chunked(*pieces: bytes) -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)]


class TestLargeAnswers:
    @pytest.mark.parametrize("version", [b"1.1", b"1.0"])
    @pytest.mark.parametrize("framing", ["length", "chunks"])
    def test_one_comes_back_whole_with_one_framing_and_its_connection_is_kept(
        self, gateway: GatewayProcess, users: ScriptedUpstream, version: bytes, framing: str
    ) -> None:
        steps = [answer(200, LARGE)] if framing == "length" else [*chunked(LARGE[:99_999], LARGE[99_999:]), END]
        users.script(*steps)
        with gateway.client.connect() as connection:
            for _ in range(2):
                connection.sendall(b"GET /users HTTP/%b\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n" % version)
                seen = read_answer(connection)
                assert (seen.status, seen.body) == (200, LARGE)
                in_chunks = framing == "chunks" and version == b"1.1"
                assert seen.value("Content-Length") == (None if in_chunks else str(len(LARGE)))
                assert seen.values("Transfer-Encoding") == (["chunked"] if in_chunks else [])
        # Without those of probes.
        assert len({seen.connection for seen in users.requests()}) == 1
        shown = gateway.circuit("users")
        assert (shown["calls"], shown["failures"]) == (2, 0)

    def test_blanks_behind_it_are_part_of_it(self, gateway: GatewayProcess, users: ScriptedUpstream) -> None:
        users.script(answer(200, ASCII + b" " * 1000))
        assert gateway.client.get("/users").body == ASCII + b" " * 1000

    def test_its_beginning_is_here_before_its_end_exists(
        self, gateway: GatewayProcess, users: ScriptedUpstream
    ) -> None:
        go_on = threading.Event()
        users.script(answer(200, LARGE[:100_000], length=len(LARGE)), Wait(go_on), LARGE[100_000:])
        with gateway.client.connect() as connection:
            connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n")
            begun = b""
            while len(begun) < 100_000:
                begun += connection.recv(65536)
            assert gateway.circuit("users")["calls"] == 0
            go_on.set()
            while not begun.endswith(LARGE[-1000:]):
                begun += connection.recv(65536)
        assert begun.endswith(LARGE)
        eventually(lambda: gateway.circuit("users")["calls"] == 1, what="the outcome to count")

    @pytest.mark.parametrize(
        "steps",
        [
            pytest.param([answer(200, LARGE, length=len(LARGE) + 9), Close()], id="truncated"),
            pytest.param([*chunked(LARGE), Close()], id="without its last chunk"),
            pytest.param([*chunked(LARGE[:-1]), END], id="half an envelope in chunks"),
            pytest.param([answer(200, LARGE[:-1])], id="half an envelope"),
            pytest.param([answer(200, LARGE[:-4] + b'\xff"}')], id="not UTF-8"),
            pytest.param([answer(200, ASCII[:-4] + b'\xff"}')], id="not UTF-8 behind much ASCII"),
            pytest.param([answer(200, LARGE[:-1000], length=len(LARGE)), Pause(60)], id="silent"),
        ],
    )
    def test_one_that_breaks_after_its_beginning_is_cut_off_and_counts(
        self, gateway: GatewayProcess, users: ScriptedUpstream, steps: list[bytes]
    ) -> None:
        users.script(*steps)
        with pytest.raises(ConnectionError):
            gateway.client.get("/users")
        eventually(lambda: gateway.circuit("users")["failures"] == 1, what="the failure to count")

    def test_one_that_does_not_begin_as_an_envelope_is_a_502(
        self, gateway: GatewayProcess, users: ScriptedUpstream
    ) -> None:
        users.script(answer(200, b'{"success":false,"data":' + LARGE[25:]))
        seen = gateway.client.get("/users")
        assert (seen.status, seen.code) == (502, "bad_upstream_answer")
        assert gateway.circuit("users")["failures"] == 1


class TestTime:
    def test_silence_is_a_504_within_the_total(self, gateway: GatewayProcess, users: ScriptedUpstream) -> None:
        users.script(Pause(SILENCE))
        seen = gateway.client.get("/users")
        assert (seen.status, seen.code) == (504, "deadline_exceeded")
        assert TOTAL <= seen.seconds < SILENCE
        assert gateway.circuit("users")["failures"] in (1, 2, 3)

    def test_a_dripping_answer_is_a_504_within_the_total(
        self, gateway: GatewayProcess, users: ScriptedUpstream
    ) -> None:
        drip = [step for byte in ENVELOPE for step in (bytes([byte]), Pause(0.5))]
        users.script(answer(200, b"", length=len(ENVELOPE)), *drip)
        seen = gateway.client.get("/users")
        assert (seen.status, seen.code) == (504, "deadline_exceeded")
        assert TOTAL <= seen.seconds < 0.5 * len(ENVELOPE)

    def test_a_client_that_wants_it_sooner_gets_it_and_the_upstream_no_blame(
        self, gateway: GatewayProcess, users: ScriptedUpstream
    ) -> None:
        users.script(Pause(SILENCE))
        seen = gateway.client.get("/users", ("X-Request-Timeout-Ms", "300"))
        assert (seen.status, seen.code) == (504, "deadline_exceeded")
        assert 0.29 <= seen.seconds < TOTAL
        assert gateway.circuit("users")["calls"] == 0

    def test_no_time_at_all_is_not_sent(self, client: RawClient, users: ScriptedUpstream) -> None:
        assert client.get("/users", ("X-Request-Timeout-Ms", "0")).code == "deadline_exceeded"
        assert users.requests() == []

    def test_a_csv_stream_meets_the_total_too(self, gateway: GatewayProcess, users: ScriptedUpstream) -> None:
        users.script(answer(200, b"a,b\r\n", media_type="text/csv", length=1000), Pause(SILENCE))
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            gateway.client.get("/users")
        assert TOTAL <= time.monotonic() - began < SILENCE


class TestConnections:
    def test_a_connection_serves_many_requests(self, client: RawClient, users: ScriptedUpstream) -> None:
        for _ in range(5):
            assert client.get("/users").status == 200
        # Without those of probes.
        assert len({seen.connection for seen in users.requests()}) == 1

    @pytest.mark.parametrize("target", ["/users", "/health", "/nothing"])
    def test_an_old_client_is_told_that_its_connection_is_kept(self, client: RawClient, target: str) -> None:
        request = f"GET {target} HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n".encode()
        with client.connect() as connection:
            for _ in range(2):
                connection.sendall(request)
                assert read_answer(connection).values("Connection") == ["keep-alive"]
        assert client.send(f"GET {target} HTTP/1.0\r\n\r\n".encode()).values("Connection") == ["close"]

    @pytest.mark.parametrize(
        ("sent", "answers"),
        [
            pytest.param(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n", [b"200"], id="get"),
            pytest.param(
                b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", [b"200"], id="post"
            ),
            pytest.param(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", [b"200"], id="a page of ours"),
            pytest.param(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3, [b"200"] * 3, id="three at once"),
            pytest.param(
                b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\nGET /us", [b"200"], id="half a request behind"
            ),
            pytest.param(
                b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{}", [b"400"], id="half a body"
            ),
        ],
    )
    def test_a_client_that_closes_its_side_gets_the_answers_it_waits_for_then_the_end(
        self, client: RawClient, users: ScriptedUpstream, sent: bytes, answers: list[bytes]
    ) -> None:
        users.scripts([Pause(0.1), good("late")], [good("at once")])
        with client.connect() as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            seen = b""
            while piece := connection.recv(65536):
                seen += piece
        # Without those by which it is asked, on a busy machine, whether it is there.
        assert re.findall(rb"HTTP/1.1 ([2-5]\d+) ", seen) == answers

    def test_one_that_waits_for_long_is_asked_whether_it_is_there(
        self, gateway: GatewayProcess, users: ScriptedUpstream
    ) -> None:
        go_on = threading.Event()
        users.script(Wait(go_on), good("late"))
        with gateway.client.connect() as connection:
            connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            go_on.set()
            assert read_answer(connection).json["data"] == "late"
            assert connection.recv(1) == b""

    def test_a_get_on_a_connection_that_was_just_closed_is_healed(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        users.scripts([good(1)], [Close()], [good(2)])
        assert client.get("/users").json["data"] == 1
        assert client.get("/users").json["data"] == 2
        assert len(users.requests()) == 3

    def test_a_post_is_never_sent_twice(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.scripts([good(1)], [Close()], [good(2)])
        client.get("/users")
        assert client.request("POST", "/users", b"{}", fields=(("Idempotency-Key", "k"),)).status == 502
        assert [seen.value("Idempotency-Key") for seen in users.requests()] == [None, "k"]

    @pytest.mark.parametrize(
        ("method", "if_match", "status"),
        [("PUT", False, 200), ("PUT", True, 502), ("PATCH", False, 200), ("PATCH", True, 502), ("DELETE", True, 502)],
    )
    def test_a_change_that_asks_for_a_state_is_never_sent_twice(
        self, client: RawClient, users: ScriptedUpstream, method: str, if_match: bool, status: int
    ) -> None:
        users.scripts([good(1)], [Close()], [good(2)])
        client.get("/users")
        fields = (("If-Match", '"seen"'),) if if_match else ()
        assert client.request(method, "/users/1", b"{}", fields=fields).status == status
        sent = users.requests()[1:]
        assert len(sent) == (1 if if_match else 2)
        assert sent[0].value("If-Match") == ('"seen"' if if_match else None)

    def test_a_get_is_sent_again_only_once(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.scripts([good(1)], [Close()], [Close()], [good(2)])
        client.get("/users")
        assert client.get("/users").status == 502
        assert len(users.requests()) == 3

    def test_a_restarted_upstream_is_used_again_without_an_error(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        for _ in range(3):
            assert client.get("/users").status == 200
        users.stop()
        users.start()
        for _ in range(3):
            assert client.get("/users").status == 200

    def test_a_client_that_leaves_is_nobodys_failure(self, gateway: GatewayProcess, users: ScriptedUpstream) -> None:
        users.script(Pause(SILENCE))
        with gateway.client.connect() as connection:
            connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: users.requests(), what="the request to arrive")
        eventually(lambda: '"status": 499' in gateway.log.read_text(), what="the log line of a client that left")
        assert gateway.circuit("users")["calls"] == 0


def test_many_at_once_are_all_answered(client: RawClient, users: ScriptedUpstream) -> None:
    users.script(Pause(0.05), good("slow"))
    answers: list[RawAnswer] = []

    def ask() -> None:
        answers.append(client.get("/users"))

    threads = [threading.Thread(target=ask) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert {one.status: one.body for one in answers} == {200: good("slow").partition(b"\r\n\r\n")[2]}
