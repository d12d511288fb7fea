"""Pages in a browser and the services behind the gateway."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from api_gateway.route_table import RouteTable
from tests.support.gateway import GatewayProcess
from tests.support.raw_http import RawClient
from tests.support.upstream import ScriptedUpstream, good

KNOWN = "https://app.example.com"


def test_nothing_that_a_page_of_others_sends_reaches_a_service(either: RawClient, tasks: ScriptedUpstream) -> None:
    refused = [
        either.request("POST", "/tasks", fields=(("Origin", "https://evil.example"),)),
        either.request("POST", "/tasks", fields=(("Sec-Fetch-Site", "cross-site"),)),
        either.request("POST", "/api/v1/tasks", b"", fields=(("Origin", "null"),)),
        either.request("POST", "/tasks", b"{}", fields=(("Origin", "http://localhost:3000"),)),
        either.send(b"POST /tasks HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        either.send(b"GET /tasks HTTP/1.1\r\nHost: evil.example:8000\r\nSec-Fetch-Site: same-origin\r\n\r\n"),
    ]
    assert [(one.status, one.code) for one in refused] == [(403, "foreign_page")] * 4 + [
        (421, "misdirected_request")
    ] * 2
    assert tasks.requests() == []


def test_what_was_judged_here_is_not_judged_again(either: RawClient, tasks: ScriptedUpstream) -> None:
    for origin in (KNOWN, "http://localhost"):
        told = (("Origin", origin), ("Sec-Fetch-Site", "cross-site" if origin == KNOWN else "same-origin"))
        assert either.request("POST", "/tasks", fields=told).status == 200
        seen = tasks.requests()[-1]
        assert (seen.values("Origin"), seen.values("Sec-Fetch-Site")) == ([], [])


def test_the_verdict_on_one_method_is_not_that_on_another(client: RawClient, tasks: ScriptedUpstream) -> None:
    with client.connect() as connection:
        for method, status in (("GET", 200), ("POST", 403), ("GET", 200), ("DELETE", 403)):
            fields = (("Sec-Fetch-Site", "cross-site"),)
            assert client.request(method, "/tasks/1", fields=fields, connection=connection).status == status
    assert [seen.line.partition(b" ")[0] for seen in tasks.requests()] == [b"GET", b"GET"]


def test_a_page_may_read_why_it_was_refused_only_if_it_is_known(client: RawClient) -> None:
    assert client.get("/nothing", ("Origin", KNOWN)).value("Access-Control-Allow-Origin") == KNOWN
    assert client.get("/nothing", ("Origin", "https://evil.example")).values("Access-Control-Allow-Origin") == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(f"GET /{'a' * 9000} HTTP/1.1\r\nHost: localhost\r\nOrigin: {KNOWN}\r\n\r\n", 414, id="its line"),
        pytest.param(f"GET /{'a' * 9000}", 414, id="its line, the only thing that has come"),
        pytest.param(f"GET / HTTP/1.1\r\norigin:{KNOWN}\r\nX: {'a' * 9000}\r\n\r\n", 431, id="a field behind Origin"),
        pytest.param(f"GET / HTTP/1.1\r\nX: {'a' * 9000}\r\nOrigin: {KNOWN}\r\n\r\n", 431, id="a field before Origin"),
        pytest.param(f"GET / HTTP/1.1\r\nOrigin: {KNOWN}\r\nX : 1\r\n\r\n", 400, id="no field"),
        pytest.param(
            f"POST /users HTTP/1.1\r\nHost: localhost\r\nOrigin: {KNOWN}\r\nTransfer-Encoding: cow\r\n\r\n",
            501,
            id="a coding",
        ),
    ],
)
def test_a_known_page_may_read_what_the_parser_refuses(client: RawClient, head: str, status: int) -> None:
    refused = client.send(head.encode())
    assert (refused.status, refused.values("Access-Control-Allow-Origin")) == (status, [KNOWN])
    assert refused.values("Vary") == ["Origin"]
    if KNOWN in head:
        foreign = client.send(head.replace(KNOWN, "https://evil.example").encode())
        assert (foreign.status, foreign.values("Access-Control-Allow-Origin")) == (status, [])


def test_a_services_own_cors_fields_are_not_added_to_ours(client: RawClient, users: ScriptedUpstream) -> None:
    named = [
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", "X-Inside"),
    ]
    users.script(good({}, fields=named))
    seen = client.get("/users", ("Origin", KNOWN))
    assert seen.values("Access-Control-Allow-Origin") == [KNOWN]
    assert seen.values("Access-Control-Allow-Credentials") == []
    assert "X-Inside" not in (seen.value("Access-Control-Expose-Headers") or "")
    assert client.get("/users", ("Origin", "https://evil.example")).values("Access-Control-Allow-Origin") == []


def test_a_client_without_a_host_is_no_browser(client: RawClient) -> None:
    assert client.send(b"GET /users HTTP/1.0\r\n\r\n").status == 200
    assert client.send(b"GET /users HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n").status == 400


@pytest.fixture
def behind_a_proxy(tmp_path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path / "log", TRUSTED_PROXIES="127.0.0.1", ALLOWED_HOSTS="api.example.com")
    yield process
    process.stop()


def test_a_believed_proxy_says_how_the_browser_called_us(
    behind_a_proxy: GatewayProcess, client: RawClient, tasks: ScriptedUpstream
) -> None:
    own, named = ("Origin", "https://api.example.com"), ("X-Forwarded-Host", "api.example.com")
    evil = ("X-Forwarded-Host", "evil.example")
    proxied = behind_a_proxy.client
    assert proxied.request("POST", "/tasks", fields=(own,)).status == 403
    assert proxied.request("POST", "/tasks", fields=(own, named)).status == 200
    assert proxied.request("POST", "/tasks", fields=(own, named, evil)).status == 421
    assert proxied.get("/tasks", evil).status == 421
    # One that is not believed says nothing.
    assert client.request("POST", "/tasks", fields=(own, named)).status == 403
    assert client.get("/tasks", evil).status == 200


@pytest.fixture(scope="module")
def read_only(tmp_path_factory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("log") / "log", CONSOLE_READ_ONLY="true", CORS_ORIGINS=KNOWN)
    yield process
    process.stop()


#: How a request of a page of our own differs from a program's, in browsers of today, and in those of yesterday.
OWN_PAGE = ((("Sec-Fetch-Site", "same-origin"),), (("Origin", "http://localhost"),))


def test_where_the_console_only_shows_every_get_of_its_pages_works_and_no_write_does(read_only: GatewayProcess) -> None:
    client, refused = read_only.client, {}
    for route in RouteTable().routes:
        path = re.sub(r"\{\w+\}", "01a22511-414b-7515-b3e8-1f4abb623721", route.template)
        for method, fields in itertools.product(route.methods, OWN_PAGE):
            answer = client.request(method, path, b"{}" if method != "GET" else None, fields=fields)
            refused.setdefault((method, route.template), set()).add(b'"console_read_only"' in answer.body)
    of_logins = {
        ("POST", f"/auth/{what}")
        for what in (
            "login", "login/code", "refresh", "logout", "logout-all", "oidc/start", "forgot", "reset", "email/confirm",
        )
    } | {("PUT", "/auth/password"), ("PATCH", "/auth/password")}  # fmt: skip
    assert {row for row, was in refused.items() if was != {True} and row[0] != "GET"} == of_logins
    assert {row for row, was in refused.items() if was != {False} and row[0] == "GET"} == set()
    assert 'data-mode="read-only"' in client.get("/console").body.decode()


def test_where_the_console_only_shows_programs_and_other_known_pages_still_write(read_only: GatewayProcess) -> None:
    for fields in ((), (("Origin", KNOWN), ("Sec-Fetch-Site", "cross-site"))):
        assert read_only.client.request("POST", "/tasks", b"{}", fields=fields).status == 200
