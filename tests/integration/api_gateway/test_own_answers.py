"""The gateway's own answers: pages, methods, refusals of the parser, start and end of the process."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.gateway import ADMIN_TOKEN, GatewayProcess
from tests.support.markdown import CHECKOUT, Document
from tests.support.raw_http import RawAnswer, RawClient, read_answer
from tests.support.upstream import ScriptedUpstream, Wait, answer, good
from tests.support.waiting import eventually


class TestMethods:
    @pytest.mark.parametrize(
        ("target", "allow"),
        [
            ("/users", "GET, POST, HEAD, OPTIONS"),
            ("/api/v1/users/1", "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"),
            ("/users/1/details", "GET, HEAD, OPTIONS"),
            ("/health", "GET, HEAD, OPTIONS"),
            ("/admin/circuits/users", "POST, OPTIONS"),
        ],
    )
    def test_options_is_answered_here_and_another_method_is_a_405(
        self, client: RawClient, users: ScriptedUpstream, target: str, allow: str
    ) -> None:
        options = client.request("OPTIONS", target)
        assert (options.status, options.value("Allow"), options.body) == (204, allow, b"")
        refused = client.request("BREW", target, b"{}")
        assert (refused.status, refused.code, refused.value("Allow")) == (405, "method_not_allowed", allow)
        assert users.requests() == []

    def test_options_star_is_answered(self, client: RawClient) -> None:
        assert client.request("OPTIONS", "*").status == 204

    def test_a_preflight_of_a_known_origin_is_granted(self, client: RawClient) -> None:
        granted = client.request(
            "OPTIONS",
            "/users/1",
            fields=(("Origin", "https://app.example.com"), ("Access-Control-Request-Headers", "content-type")),
        )
        assert granted.value("Access-Control-Allow-Origin") == "https://app.example.com"
        assert granted.value("Access-Control-Allow-Methods") == "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"
        assert granted.value("Access-Control-Allow-Headers") == "content-type"

    @pytest.mark.parametrize("target", ["/users", "/health", "/nothing"])
    def test_answers_and_errors_may_be_read_by_a_known_origin_only(self, client: RawClient, target: str) -> None:
        known = client.get(target, ("Origin", "https://app.example.com"))
        assert known.values("Access-Control-Allow-Origin") == ["https://app.example.com"]
        assert client.get(target, ("Origin", "https://evil.example")).values("Access-Control-Allow-Origin") == []


class TestRefusals:
    @pytest.fixture
    def client(self, either: RawClient) -> RawClient:
        """Refusals are the same on fresh and on kept connections."""
        return either

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            pytest.param(b"GET /users HTTP/1.1\r\n\r\n", 400, id="no Host"),
            pytest.param(b"GET /users HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, id="two Hosts"),
            pytest.param(b"GET /users HTTP/1.1\r\nHost: a b\r\n\r\n", 400, id="a Host that is none"),
            pytest.param(b"nonsense\r\n\r\n", 400, id="no HTTP"),
            pytest.param(b"GET /users HTTP/1.1\nHost: a\n\n", 400, id="bare line feeds"),
            pytest.param(b"GET /users HTTP/1.1\r\nHost: a\r\nX: 1\r\n  folded\r\n\r\n", 400, id="a folded line"),
            pytest.param(b"GET /users HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400, id="space before the colon"),
            pytest.param(b"GET /\xd0\x91 HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="raw bytes in the target"),
            pytest.param(
                b"POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                400,
                id="two framings",
            ),
            pytest.param(b"POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, id="negative length"),
            pytest.param(
                b"POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\n" % (b"9" * 5000), 400, id="5000 digits"
            ),
            pytest.param(
                b"POST /users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
                400,
                id="no chunk size",
            ),
            pytest.param(
                b"POST /users HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow\r\n\r\n", 501, id="an unknown coding"
            ),
            pytest.param(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 9000), 414, id="a long target"),
            pytest.param(b"GET /users HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"a" * 9000), 431, id="a long field"),
            pytest.param(b"GET /users HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 200 + b"\r\n", 431, id="many fields"),
        ],
    )
    def test_a_request_that_breaks_http_is_refused_in_the_envelope(
        self, client: RawClient, users: ScriptedUpstream, data: bytes, status: int
    ) -> None:
        refused = client.send(data)
        assert refused.status == status
        assert refused.code
        assert refused.value("X-Request-ID")
        assert users.requests() == []

    def test_a_client_that_is_still_sending_what_was_refused_gets_the_refusal(self, client: RawClient) -> None:
        refused = client.send(b"POST /users HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"a" * 9000) + b"x" * 5_000_000)
        assert (refused.status, refused.value("Connection")) == (431, "close")
        assert refused.value("Date")

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"nonsense\r\n\r\n", 400),
            (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 9000), 414),
            (b"GET /users HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"a" * 9000), 431),
        ],
    )
    def test_a_refusal_of_the_parser_is_counted(self, client: RawClient, data: bytes, status: int) -> None:
        def counted() -> float:
            wanted = f'method="other",route="unmatched",service="api_gateway",status="{status}"'
            lines = client.get("/metrics").body.decode().splitlines()
            found = [line for line in lines if line.startswith(f"siteworks_http_requests_total{{{wanted}}}")]
            return float(found[0].rpartition(" ")[2]) if found else 0.0

        before = counted()
        assert client.send(data).status == status
        assert counted() == before + 1

    def test_a_websocket_upgrade_is_an_ordinary_request_here(self, client: RawClient) -> None:
        seen = client.get(
            "/users",
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        )
        assert seen.status == 200

    def test_a_slow_client_holds_nobody_up(self, client: RawClient) -> None:
        slow = [client.connect() for _ in range(50)]
        try:
            for number, connection in enumerate(slow):
                half = (
                    b"GET /users HT"
                    if number % 2
                    else b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"
                )
                connection.sendall(half)
            assert client.get("/users").seconds < 3
        finally:
            for connection in slow:
                connection.close()


class TestPages:
    def test_health_shows_every_circuit(self, client: RawClient) -> None:
        def when_well() -> dict[str, Any] | None:
            health: dict[str, Any] = client.get("/health").json
            assert health["success"] is True
            return health if health["data"]["status"] == "healthy" else None

        # A probe that was late tells of a service that is away, until the next one.
        health = eventually(when_well, what="everything to be well")
        assert health is not None
        assert sorted(health["data"]["upstreams"]) == ["events", "orders", "sites", "tasks", "users"]
        assert set(health["data"]["upstreams"]["users"]) == {
            "state",
            "generation",
            "failure_rate",
            "calls",
            "failures",
            "slow_share",
            "opened_at",
            "retry_in",
            "last_probe",
            "forced",
            "scope",
            "held_up",
        }

    def test_status_tells_version_uptime_processes_and_routes(self, client: RawClient) -> None:
        status = client.get("/status").json["data"]
        assert re.fullmatch(r"\d+\.\d+\.\d+", status["version"])
        assert status["uptime_seconds"] > 0
        client.send(b"GET /users HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        counted = client.get("/status").json["data"]
        assert counted["answers"]["200"] > status["answers"].get("200", 0)
        assert counted["answers"]["421"] == status["answers"].get("421", 0) + 1
        assert status["processes"][0]["pid"] > 0
        assert {"path": "/users", "methods": ["GET", "POST"], "upstream": "users"} in status["routes"]

    def test_a_head_may_have_what_the_page_about_the_api_says_and_no_more(self, client: RawClient) -> None:
        row = next(row for row in Document(CHECKOUT / "docs/http_api.md").rows("Limits") if row[0].endswith(" head"))
        first, other, fields = (int(number.replace(",", "")) for number in re.findall(r"[\d,]{3,}", row[1]))

        def status(line: str, *more: str) -> int:
            return client.send("\r\n".join((line, "Host: localhost", *more, "", "")).encode()).status

        for over, refused in ((0, 404), (1, 414)):
            assert status(f"GET {'/nothing'.ljust(first + over - len('GET  HTTP/1.1'), 'g')} HTTP/1.1") == refused
        for over, refused in ((0, 404), (1, 431)):
            assert status("GET /nothing HTTP/1.1", "X-A: ".ljust(other + over, "a")) == refused
            assert status("GET /nothing HTTP/1.1", *(f"X-{n}: 1" for n in range(fields + over - 1))) == refused

    @pytest.mark.parametrize("page", ["/", "/livez", "/readyz", "/health", "/status", "/openapi.json", "/swagger"])
    def test_every_page_answers_get_and_head(self, client: RawClient, page: str) -> None:
        whole = client.get(page, ("X-Request-ID", "mine"))
        assert whole.status == 200
        assert whole.values("X-Request-ID") == ["mine"]
        head = client.request("HEAD", page)
        assert (head.status, head.value("Content-Type")) == (200, whole.value("Content-Type"))

    @pytest.mark.parametrize(
        ("accept", "kind"),
        [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
            ("text/html", "text/html; charset=utf-8"),
            ("*/*", "application/json"),
            ("application/json, text/html;q=0.5", "application/json"),
            ("text/html;q=0", "application/json"),
            ("image/png", "application/json"),
            (None, "application/json"),
        ],
    )
    def test_the_first_address_is_a_page_for_people_and_json_for_programs(
        self, client: RawClient, accept: str | None, kind: str
    ) -> None:
        seen = client.get("/", *([] if accept is None else [("Accept", accept)]))
        assert (seen.status, seen.value("Content-Type"), seen.value("Vary")) == (200, kind, "Accept")
        if kind == "application/json":
            assert all(client.get(link).status == 200 for link in seen.json["data"]["links"].values())

    def test_the_first_page_is_whole_in_itself_and_runs_nothing_but_its_own_script(self, client: RawClient) -> None:
        page = client.get("/", ("Accept", "text/html"))
        text = page.body.decode()
        policy = dict(rule.split(" ", 1) for rule in (page.value("Content-Security-Policy") or "").split("; "))
        for element in ("script", "style"):
            (inline,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
            assert policy[f"{element}-src"] == f"'sha256-{digest}'"
        assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
        assert not re.findall(r'(?:src|href)="(?!/|data:)|\s(?:style|on\w+)=', text)
        for link in re.findall(r'href="(/[^"]*)"', text):
            assert client.get(link).status == 200, link
        # What a screen reader goes by.
        assert '<html lang="en">' in text
        assert [text.count(f"<{name}") for name in ("title>", "main>", "h1>", "nav ")] == [1, 1, 1, 1]
        assert 'role="status"' in text

    def test_swagger_needs_no_outside_address_and_no_inline_script(self, client: RawClient) -> None:
        page = client.get("/swagger")
        text = page.body.decode()
        assert "http" not in text.replace("http-equiv", "")
        assert "<script>" not in text
        assert "default-src 'none'" in (page.value("Content-Security-Policy") or "")
        for asset in re.findall(r'(?:src|href)="([^"]+)"', text):
            seen = client.get(asset)
            assert (seen.status, bool(seen.body)) == (200, True), asset

    @pytest.mark.parametrize(
        "data",
        [
            *(
                pytest.param(b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (target, more), id=target.decode())
                for target, more in [
                    (b"/", b""),
                    (b"/", b"Accept: text/html\r\n"),
                    (b"/health", b""),
                    (b"/metrics", b""),
                    (b"/openapi.json", b""),
                    (b"/swagger", b""),
                    (b"/swagger/start.js", b""),
                    (b"/users/1/details", b""),
                    (b"/nothing", b""),
                    (b"/users/..", b""),
                ]
            ),
            pytest.param(b"nonsense\r\n\r\n", id="no HTTP"),
        ],
    )
    def test_nothing_of_its_own_is_framed_guessed_at_or_tells_where_it_was(
        self, client: RawClient, data: bytes
    ) -> None:
        seen = client.send(data)
        (policy,) = seen.values("Content-Security-Policy")
        assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
        assert seen.values("X-Content-Type-Options") == ["nosniff"]
        assert seen.values("Referrer-Policy") == ["no-referrer"]

    @pytest.mark.parametrize("file", ["..%2f..%2fsettings.py", "nothing.js", "index.html"])
    def test_nothing_else_is_served_from_there(self, client: RawClient, file: str) -> None:
        assert client.get(f"/swagger/{file}").status in (400, 404)

    def test_the_document_has_the_services_paths_and_keeps_them_when_one_goes_away(
        self, gateway: GatewayProcess, users: ScriptedUpstream
    ) -> None:
        document = {
            "paths": {"/users": {"get": {"operationId": "list_users"}}, "/internal": {"get": {}}},
            "components": {"schemas": {}},
        }
        users.script_path("/openapi.json", answer(200, json.dumps(document).encode()))

        def paths() -> set[str]:
            return set(gateway.client.get("/openapi.json").json["paths"])

        eventually(lambda: "/users" in paths(), what="the paths of users")
        assert {"/", "/health", "/status", "/admin/circuits/{name}"} <= paths()
        assert "/internal" not in paths()
        users.stop()
        assert "/users" in paths()

    def test_the_document_says_where_it_is_and_what_the_alias_is(self, client: RawClient) -> None:
        document = client.get("/openapi.json").json
        assert document["servers"] == [{"url": "/"}]
        assert "/api/v1" in document["info"]["description"]


def test_without_a_limit_no_field_tells_of_one(client: RawClient) -> None:
    seen = client.get("/users")
    assert (seen.values("RateLimit"), seen.values("RateLimit-Policy")) == ([], [])


def test_without_a_token_for_it_nobody_acts_as_somebody_and_is_told(client: RawClient) -> None:
    for path in ("/tasks", "/status", "/health"):
        refused = client.get(path, ("X-Act-As", "0d0e5a5e-6d3c-4c1c-9d55-0a1c5d1f7e21"))
        assert (refused.status, refused.code) == (403, "forbidden")
        assert "GATEWAY_TOKEN" in refused.json["error"]["message"]


def test_behind_a_proxy_services_learn_who_the_client_is_and_one_that_guesses_the_admin_token_is_put_off(
    tmp_path: Path,
) -> None:
    gateway = GatewayProcess(tmp_path / "log", TRUSTED_PROXIES="127.0.0.1")

    def force(token: str, client: str) -> RawAnswer:
        fields = (
            ("Authorization", f"Bearer {token}"),
            ("X-Forwarded-For", client),
            ("Content-Type", "application/json"),
        )
        return gateway.client.request("POST", "/admin/circuits/users", b'{"state": "auto"}', fields=fields)

    def told(*fields: tuple[str, str]) -> list[str]:
        assert gateway.client.get("/users", ("X-Real-IP", "6.6.6.6"), *fields).status == 200
        return gateway.upstreams["users"].requests()[-1].values("X-Real-IP")

    try:
        for forwarded, clients in (
            (("X-Forwarded-For", "6.6.6.6, 198.51.100.7"), ["198.51.100.7"]),
            (("X-Forwarded-For", "198.51.100.8, 127.0.0.1"), ["198.51.100.8"]),
            (("Forwarded", "for=198.51.100.9"), ["198.51.100.9"]),
            # Broken, or none: then it is the proxy.
            (("X-Forwarded-For", "198.51.100.7, nobody"), []),
            (("Forwarded", "for=_hidden"), []),
        ):
            assert told(forwarded) == clients, forwarded
        guesses = [force(f"guess {n}", f"2001:db8::{n}") for n in range(11)]
        assert [one.status for one in guesses] == [401] * 10 + [429]
        assert (guesses[-1].code, 0 < int(guesses[-1].value("Retry-After") or 0) <= 60) == ("too_many_requests", True)
        assert force(ADMIN_TOKEN, "2001:db8::ffff").status == 429
        assert force(ADMIN_TOKEN, "2001:db8:0:1::1").status == 200
    finally:
        gateway.stop()


def test_without_a_token_the_admin_route_is_closed(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "log", ADMIN_TOKEN="")
    try:
        refused = gateway.force("users", "open")
        assert (refused.status, refused.code) == (403, "forbidden")
    finally:
        gateway.stop()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway for what other tests would feel."""
    process = GatewayProcess(tmp_path_factory.mktemp("own") / "log")
    yield process
    process.stop()


def test_clients_that_come_while_the_worker_is_busy_wait_to_be_accepted(own: GatewayProcess) -> None:
    (worker,) = own.pids()
    waiting = []
    try:
        os.kill(worker, signal.SIGSTOP)
        try:
            # More than the backlog that asyncio listens with; one too many would be told to come again in a second.
            for _ in range(300):
                waiting.append(socket.create_connection(("127.0.0.1", own.port), timeout=0.9))
                waiting[-1].sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n")
        finally:
            os.kill(worker, signal.SIGCONT)
        for connection in waiting:
            connection.settimeout(15)
            assert read_answer(connection).status == 200
    finally:
        for connection in waiting:
            connection.close()


def test_a_killed_worker_is_replaced(own: GatewayProcess) -> None:
    (first,) = own.pids()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: own.pids() not in ([], [first]), timeout=20, what="a new worker")


def test_a_process_whose_master_was_killed_ends_with_the_answers_under_way(own: GatewayProcess) -> None:
    own.reset()
    (pid,) = own.pids()
    worker = psutil.Process(pid)
    try:
        go_on = threading.Event()
        own.upstreams["users"].script(Wait(go_on), good("late"))
        with own.client.connect() as kept:
            kept.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n")
            own.upstreams["users"].wait_for(1)
            own.process.kill()
            eventually(lambda: "Worker shutting down" in own.log.read_text(), what="it to see that")
            go_on.set()
            last = read_answer(kept)
            assert (last.json["data"], last.value("connection")) == ("late", "close")
            assert kept.recv(1) == b""
        worker.wait(10)
    finally:
        own.process.wait()
        if worker.is_running():
            worker.kill()


def test_a_wrong_setting_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"USERS_URL"):
        GatewayProcess(tmp_path / "log", USERS_URL="nonsense")
