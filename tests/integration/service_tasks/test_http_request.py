"""Requests to real servers on loopback: what goes out, what is kept, and where nobody gets."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Sequence

import pytest

from service_tasks.domain.task import State
from service_tasks.task_types import GiveUp, RetryAfter
from service_tasks.task_types.http_exchange import RequestFailed, exchange
from service_tasks.task_types.http_message import HttpRequest, HttpResponse
from service_tasks.task_types.http_request import MAX_RESPONSE_BYTES, HttpRequestSettings, http_request
from tests.support.certificates import Authority
from tests.support.shortage import no_more_files
from tests.support.upstream import Close, Pause, ScriptedUpstream, answer


@pytest.fixture
def upstream():
    with ScriptedUpstream() as upstream:
        yield upstream


def settings_for(hosts: str, networks: str = "", **more) -> HttpRequestSettings:
    return HttpRequestSettings(http_request_allowed_hosts=hosts, private_networks=networks, _env_file=None, **more)


class Names:
    """A DNS of the test: what each name answers, once after the other; the last answer stays."""

    def __init__(self, **answers: Sequence[str]) -> None:
        self._answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int):
        self.asked.append(host)
        found = self._answers[host]
        return [ipaddress.ip_address(found.pop(0) if len(found) > 1 else found[0])]


async def exchange_under(settings: HttpRequestSettings, request: HttpRequest, **options) -> HttpResponse:
    options = {"max_bytes": MAX_RESPONSE_BYTES, **options}
    return await exchange(request, settings.destinations, idempotency_key="the-task", **options)


def ask(payload: dict, settings: HttpRequestSettings, **options) -> HttpResponse:
    request = HttpRequest.model_validate(payload)
    return asyncio.run(exchange_under(settings, request, **options))


def ask_upstream(
    upstream: ScriptedUpstream, path: str = "/", *, limit: int = MAX_RESPONSE_BYTES, **payload
) -> HttpResponse:
    allowed = settings_for(f"127.0.0.1:{upstream.port}")
    return ask({"url": upstream.url + path, **payload}, allowed, max_bytes=limit)


# What goes out


def test_a_request_goes_out_as_it_was_written(upstream):
    ask_upstream(
        upstream, "/a%2Fb/?q=%D0%B1&x=1#part", method="PUT", body="бетон", headers={"X-Site": "7", "Accept": "a/b"}
    )

    (seen,) = upstream.requests()
    assert seen.line == b"PUT /a%2Fb/?q=%D0%B1&x=1 HTTP/1.1"
    assert seen.body.decode() == "бетон"
    assert seen.value("Host") == f"127.0.0.1:{upstream.port}"
    assert (seen.value("X-Site"), seen.value("Accept")) == ("7", "a/b")
    assert seen.value("Content-Type") == "text/plain; charset=utf-8"
    assert (seen.value("User-Agent") or "").startswith("Siteworks/")
    assert seen.value("Accept-Encoding") == "identity"
    assert seen.value("Idempotency-Key") is None


def test_json_is_sent_as_json_and_a_post_carries_the_id_of_its_task(upstream):
    ask_upstream(upstream, method="POST", json={"имя": ["Белов", None, 1.5]})

    (seen,) = upstream.requests()
    assert json.loads(seen.body) == {"имя": ["Белов", None, 1.5]}
    assert seen.value("Content-Type") == "application/json"
    assert seen.value("Idempotency-Key") == "the-task"


def test_a_callers_own_fields_win(upstream):
    ask_upstream(upstream, method="POST", json=1, headers={"idempotency-key": "own", "content-type": "a/b+json"})

    (seen,) = upstream.requests()
    assert seen.values("Idempotency-Key") == ["own"]
    assert seen.values("Content-Type") == ["a/b+json"]


def test_neither_proxies_of_the_environment_nor_netrc_nor_cookies_are_used(upstream, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    upstream.scripts(
        [answer(302, fields=[("Location", "/next"), ("Set-Cookie", "a=1")])],
        [answer(200, fields=[("Set-Cookie", "b=2")])],
    )

    got = ask_upstream(upstream)

    first, second = upstream.requests()
    assert (first.value("Authorization"), second.value("Cookie")) == (None, None)
    assert "set-cookie" not in got.headers


def test_names_that_are_never_found_keep_no_other_from_being_found_nor_the_worker_from_ending(upstream, monkeypatch):
    released, system = threading.Event(), socket.getaddrinfo
    found: list[str] = []

    def look_up(host, *args, **options):
        if host.startswith("slow"):
            released.wait(20)
            found.append(host)
        return system("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    allowed = settings_for("*.pumps.example", "127.0.0.0/8")

    async def main() -> int:
        slow = [
            asyncio.create_task(
                exchange_under(allowed, HttpRequest.model_validate({"url": f"http://slow{number}.pumps.example/"}))
            )
            for number in range(40)
        ]
        await asyncio.sleep(0)
        request = HttpRequest.model_validate({"url": f"http://quick.pumps.example:{upstream.port}/"})
        got = await exchange_under(settings_for(f"quick.pumps.example:{upstream.port}", "127.0.0.0/8"), request)
        for asking in slow:
            asking.cancel()
        await asyncio.wait(slow)
        return got.status

    try:
        assert asyncio.run(main()) == 200
        # Neither waited for a slow one.
        assert found == []
    finally:
        released.set()


def test_without_a_file_to_connect_with_it_waits_for_one(upstream):
    names = Names(pumps_example=["127.0.0.1"])
    allowed = settings_for(f"pumps.example:{upstream.port}", "127.0.0.0/8")
    request = HttpRequest.model_validate({"url": f"http://pumps.example:{upstream.port}/"})

    async def main() -> HttpResponse:
        with no_more_files():
            asking = asyncio.create_task(exchange_under(allowed, request, resolve=names))
            async with asyncio.timeout(10):
                while len(names.asked) < 2 and not asking.done():
                    await asyncio.sleep(0.01)
        return await asking

    assert asyncio.run(main()).status == 200
    assert len(upstream.requests()) == 1


# What is kept


def test_the_answer_is_kept_with_its_fields(upstream):
    upstream.script(answer(201, '{"имя": "Кран"}'.encode(), fields=[("X-Site", "7"), ("X-Two", "a"), ("x-two", "b")]))

    got = ask_upstream(upstream, "/cranes")

    assert (got.status, got.url, got.body) == (201, f"{upstream.url}/cranes", '{"имя": "Кран"}')
    assert (got.base64, got.truncated) == (False, False)
    assert (got.headers["x-site"], got.headers["x-two"]) == ("7", "a, b")


@pytest.mark.parametrize(
    ("body", "media_type", "text"),
    [
        ("бетон".encode("cp1251"), "text/plain; charset=windows-1251", "бетон"),
        ("бетон".encode(), None, "бетон"),
        (b"<a/>", "application/atom+xml", "<a/>"),
        (b"\x89PNG", "image/png", None),
        (b"plain", "application/octet-stream", None),
        (b"\xff\xfe", "text/plain", None),
        (b"nul \x00", "text/plain", None),
        (b"x\x9c\x03\x00", "text/plain; charset=zlib", None),
        (b"hello", "text/plain; charset=no-such", None),
        (b"", "image/png", ""),
    ],
)
def test_what_is_no_text_is_kept_in_base64(upstream, body, media_type, text):
    upstream.script(answer(200, body, media_type=media_type))

    got = ask_upstream(upstream)

    assert got.base64 is (text is None)
    assert (base64.b64decode(got.body) if got.base64 else got.body) == (body if text is None else text)


def test_a_compressed_body_that_nobody_asked_for_is_not_unpacked(upstream):
    upstream.script(answer(200, b"\x1f\x8b-packed", media_type="text/plain", fields=[("Content-Encoding", "gzip")]))

    got = ask_upstream(upstream)

    assert (got.base64, base64.b64decode(got.body)) == (True, b"\x1f\x8b-packed")


def test_of_a_long_body_the_beginning_is_kept_and_the_rest_not_waited_for(upstream):
    # "б" has two bytes: the cut goes through the middle of one.
    upstream.script(answer(200, "б".encode() * 50_000, media_type="text/plain", length=10**9), Pause(30))

    got = ask_upstream(upstream, limit=1001)

    assert (got.body, got.truncated, got.base64) == ("б" * 500, True, False)


def test_header_fields_are_kept_up_to_a_limit(upstream):
    upstream.script(answer(200, fields=[(f"X-{number}", "v" * 4000) for number in range(8)]))

    kept = ask_upstream(upstream).headers

    assert 3 <= sum(name.startswith("x-") for name in kept) <= 4


# What fails and how


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
def test_a_refusal_fails_the_task_and_says_why(upstream, status):
    upstream.script(answer(status, b'{"message":\n "no such crane"}'))

    with pytest.raises(GiveUp, match=f"the answer was {status} Some Reason: {{.*no such crane"):
        ask_upstream(upstream)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_that_may_change_is_asked_for_again(upstream, status):
    upstream.script(answer(status))

    with pytest.raises(RequestFailed, match=f"the answer was {status}"):
        ask_upstream(upstream)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(upstream, status):
    upstream.script(answer(status, fields=[("Retry-After", "77")]))

    with pytest.raises(RetryAfter, match=f"the answer was {status}") as asked:
        ask_upstream(upstream)
    assert asked.value.seconds == 77


@pytest.mark.parametrize(
    "steps",
    [
        [Close()],
        [answer(200, b"short", length=100), Close()],
        [b"what is this?\r\n\r\n", Close()],
        [b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"],
    ],
)
def test_a_broken_answer_is_asked_for_again(upstream, steps):
    upstream.script(*steps)

    with pytest.raises(RequestFailed):
        ask_upstream(upstream)


def test_a_server_that_is_away_is_asked_again(upstream):
    upstream.stop()

    with pytest.raises(RequestFailed):
        ask_upstream(upstream)


def test_the_time_limit_holds_for_everything_together(upstream):
    upstream.script(answer(200, b"x", length=100), Pause(30))

    with pytest.raises(RequestFailed, match=r"within 0\.3 seconds"):
        ask_upstream(upstream, timeout=0.3)


def test_a_name_that_does_not_resolve_is_asked_for_again(monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    with pytest.raises(RequestFailed, match=r"cannot resolve crane\.test: Temporary failure"):
        ask({"url": "http://crane.test/"}, settings_for("crane.test"))


# Where nobody gets


def test_a_host_that_is_not_listed_is_not_even_looked_up():
    names = Names()

    with pytest.raises(GiveUp, match=r"HTTP_REQUEST_ALLOWED_HOSTS does not name other\.test:80"):
        ask({"url": "http://other.test/"}, settings_for("crane.test"), resolve=names)
    assert names.asked == []


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_listed_name_that_points_inside_is_not_connected_to(upstream, address):
    names = Names(crane_test=[address])

    with pytest.raises(GiveUp, match="lies in no public network"):
        ask({"url": f"http://crane.test:{upstream.port}/"}, settings_for(f"crane.test:{upstream.port}"), resolve=names)
    assert upstream.connections == 0


def test_a_name_inside_is_connected_to_when_its_network_is_named(upstream):
    names = Names(crane_test=["127.0.0.1"])
    allowed = settings_for(f"crane.test:{upstream.port}", "127.0.0.0/8")

    assert ask({"url": f"http://crane.test:{upstream.port}/"}, allowed, resolve=names).status == 200
    (seen,) = upstream.requests()
    assert seen.value("Host") == f"crane.test:{upstream.port}"


def test_the_name_is_resolved_once_so_a_second_answer_cannot_lead_elsewhere(upstream):
    # The first answer is the one that was looked at; with a second look-up the connection would go to 127.0.0.2.
    names = Names(crane_test=["127.0.0.1", "127.0.0.2"])
    allowed = settings_for(f"crane.test:{upstream.port}", "127.0.0.1/32")

    assert ask({"url": f"http://crane.test:{upstream.port}/"}, allowed, resolve=names).status == 200
    assert names.asked == ["crane.test"]


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost", "017700000001"])
def test_other_ways_to_write_loopback_lead_nowhere(upstream, host):
    with pytest.raises(GiveUp):
        ask({"url": f"http://{host}:{upstream.port}/"}, settings_for(f"{host}:{upstream.port}"))
    assert upstream.connections == 0


# Redirects


def test_redirects_are_followed_and_the_last_answer_kept(upstream):
    upstream.scripts(
        [answer(301, fields=[("Location", "/two")])],
        [answer(307, fields=[("Location", "three?x=1#y")])],
        [answer(200, b"{}")],
    )

    got = ask_upstream(upstream, "/one")

    assert (got.status, got.url) == (200, f"{upstream.url}/three?x=1")
    assert [seen.target for seen in upstream.requests()] == ["/one", "/two", "/three?x=1"]


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (303, "POST", b"GET", b""),
        (302, "POST", b"GET", b""),
        (301, "PUT", b"PUT", b"concrete"),
        (307, "POST", b"POST", b"concrete"),
        (308, "DELETE", b"DELETE", b"concrete"),
    ],
)
def test_a_redirect_changes_the_method_as_the_standard_says(upstream, status, method, then, body):
    upstream.scripts([answer(status, fields=[("Location", "/two")])], [answer(200)])

    ask_upstream(upstream, method=method, body="concrete")

    second = upstream.requests()[1]
    assert (second.line.split(b" ")[0], second.body) == (then, body)


def test_a_redirect_to_a_host_that_is_not_listed_is_not_followed(upstream):
    with ScriptedUpstream() as secret:
        upstream.script(answer(302, fields=[("Location", f"{secret.url}/admin")]))

        with pytest.raises(GiveUp, match="HTTP_REQUEST_ALLOWED_HOSTS does not name"):
            ask_upstream(upstream)
        assert secret.connections == 0


def test_the_address_behind_a_redirect_is_looked_at_too(upstream):
    upstream.script(answer(302, fields=[("Location", f"http://inside.test:{upstream.port}/")]))
    names = Names(crane_test=["127.0.0.1"], inside_test=["127.0.0.2"])
    allowed = settings_for(f"crane.test:{upstream.port},inside.test:{upstream.port}", "127.0.0.1/32")

    with pytest.raises(GiveUp, match=r"inside\.test lies in no public network"):
        ask({"url": f"http://crane.test:{upstream.port}/"}, allowed, resolve=names)
    assert len(upstream.requests()) == 1


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/", "http://user:word@127.0.0.1/", "http://[", "file:///etc/passwd"]
)
def test_a_redirect_to_something_else_than_plain_http_fails_the_task(upstream, location):
    upstream.script(answer(302, fields=[("Location", location)]))

    with pytest.raises(GiveUp):
        ask_upstream(upstream)


def test_secrets_do_not_follow_a_redirect_to_another_origin(upstream):
    with ScriptedUpstream() as other:
        upstream.scripts([answer(307, fields=[("Location", f"{other.url}/")])])
        allowed = settings_for(f"127.0.0.1:{upstream.port},127.0.0.1:{other.port}")
        secrets = {"Authorization": "Bearer secret", "Cookie": "a=b", "X-Api-Key": "secret", "Accept": "a/b"}

        ask({"url": upstream.url, "headers": secrets}, allowed)

        (seen,) = other.requests()
        assert [seen.value(name) for name in secrets] == [None, None, None, "a/b"]


def test_a_circle_of_redirects_ends_as_the_answer_it_is(upstream):
    upstream.script(answer(302, fields=[("Location", "/again")]))

    assert ask_upstream(upstream, max_redirects=3).status == 302
    assert len(upstream.requests()) == 4
    assert ask_upstream(upstream, max_redirects=0).status == 302


# TLS


def test_the_certificate_is_verified_and_its_name_too():
    authority = Authority()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(200, b"{}"))
        await writer.drain()
        writer.close()

    async def ask_as(name: str, trust: ssl.SSLContext | None) -> HttpResponse:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=authority.server("crane.test"))
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await exchange_under(
                settings_for(f"{name}:{port}", "127.0.0.1/32"),
                HttpRequest(url=f"https://{name}:{port}/"),
                resolve=Names(crane_test=["127.0.0.1"], other_test=["127.0.0.1"]),
                tls=trust,
            )

    assert asyncio.run(ask_as("crane.test", authority.trusting)).status == 200
    with pytest.raises(RequestFailed, match=r"(?i)certificate"):
        asyncio.run(ask_as("other.test", authority.trusting))
    with pytest.raises(RequestFailed, match=r"(?i)certificate"):
        asyncio.run(ask_as("crane.test", None))


# In a worker


def test_a_worker_runs_requests_and_keeps_their_answers(bench, start_worker, upstream):
    upstream.scripts([answer(503, fields=[("Retry-After", "0")])], [answer(200, b'{"free": true}')])
    start_worker(http_request.with_settings(settings_for(f"127.0.0.1:{upstream.port}")))

    payload = json.dumps({"url": f"{upstream.url}/crane", "method": "POST", "json": {"hours": 2}})
    task_id = bench.add("http_request", payload=payload)
    task = bench.wait_for(task_id, State.COMPLETED)

    result = json.loads(task.result or "")
    assert (task.attempts, result["status"], result["body"]) == (2, 200, '{"free": true}')
    assert [seen.value("Idempotency-Key") for seen in upstream.requests()] == [str(task_id)] * 2
