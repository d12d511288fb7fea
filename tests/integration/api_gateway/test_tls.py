"""A gateway that holds a certificate itself."""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from servicekit.process.probe import problem_of
from tests.support.certificates import Authority
from tests.support.gateway import CHECKOUT, GatewayProcess
from tests.support.raw_http import RawClient, read_answer
from tests.support.upstream import Pause, ScriptedUpstream, answer, good
from tests.support.waiting import eventually

#: gunicorn's configuration of the gateway, which looks at its files and hangs up on silent clients much sooner.
IMPATIENT = f"""
exec(open({str(CHECKOUT / "api_gateway" / "gunicorn.conf.py")!r}).read())


def post_fork(server, worker):
    from servicekit.http_server import event_loop_worker

    event_loop_worker.HEAD_SECONDS = 4.0
    event_loop_worker.LOOK_SECONDS = 0.1
"""
LARGE = b'{"success": true, "data": "%b"}' % (b"x" * 3_000_000)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the gateway finds certificate and key."""
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def _process(authority: Authority, folder: Path) -> Iterator[GatewayProcess]:
    conf = folder / "impatient.conf.py"
    conf.write_text(IMPATIENT)
    certificate, key = authority.write_pair(folder, "localhost", "127.0.0.1")
    files = {"GATEWAY_TLS_CERT_FILE": str(certificate), "GATEWAY_TLS_KEY_FILE": str(key)}
    process = GatewayProcess(
        folder / "log", conf=conf, tls=authority.trusting, ALLOWED_HOSTS="api.example.com,192.0.2.1", **files
    )
    yield process
    process.stop()


def test_what_is_forwarded_says_https_and_comes_back_whole(client: RawClient, users: ScriptedUpstream) -> None:
    users.scripts([good(1)], [answer(200, LARGE)], [good(2)])
    with client.connect() as connection:
        assert client.request("POST", "/users", b"x" * 500_000, connection=connection).json["data"] == 1
        assert client.request("GET", "/users", connection=connection).body == LARGE
        assert client.request("GET", "/users", connection=connection).json["data"] == 2
    for seen in users.requests():
        assert seen.values("X-Forwarded-Proto") == ["https"]
        assert seen.values("Forwarded") == ["for=127.0.0.1;host=localhost;proto=https"]
    assert users.requests()[0].body == b"x" * 500_000


@pytest.mark.parametrize("target", ["/", "/health", "/status", "/metrics", "/openapi.json", "/swagger", "/readyz"])
def test_its_own_pages_are_there(client: RawClient, target: str) -> None:
    assert client.get(target).status == 200


@pytest.mark.parametrize("target", ["/users", "/health", "/nothing"])
@pytest.mark.parametrize(
    ("host", "kept_to_tls"),
    [
        ("api.example.com", True),
        ("API.example.com:443", True),
        ("localhost", False),
        ("192.0.2.1", False),
        ("[::1]", False),
    ],
)
def test_browsers_are_kept_to_tls_where_the_host_is_a_public_name(
    client: RawClient, target: str, host: str, kept_to_tls: bool
) -> None:
    seen = client.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert seen.values("Strict-Transport-Security") == (["max-age=31536000"] if kept_to_tls else [])


def test_plain_http_is_told_to_use_tls_and_hung_up_on(gateway: GatewayProcess) -> None:
    with RawClient(gateway.port).connect() as connection:
        connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n")
        seen = read_answer(connection)
        assert (seen.status, seen.code, seen.value("Connection")) == (400, "tls_required", "close")
        assert connection.recv(1) == b""
    assert gateway.upstreams["users"].requests() == []


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_1_2_is_spoken_and_nothing_older(gateway: GatewayProcess) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("DEFAULT@SECLEVEL=0")  # or the client itself would refuse
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert RawClient(gateway.port, tls=old).get("/livez").status == 200
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        RawClient(gateway.port, tls=old).connect()


def test_a_client_that_does_not_shake_hands_is_hung_up_on(gateway: GatewayProcess) -> None:
    client = RawClient(gateway.port)
    with client.connect() as silent, client.connect() as begun:
        begun.sendall(b"\x16\x03\x01")
        assert silent.recv(100) == b""
        assert begun.recv(100) == b""
    assert gateway.client.get("/livez").status == 200


def test_a_probe_asks_by_tls(gateway: GatewayProcess) -> None:
    assert problem_of(gateway.port) is None


def test_a_new_pair_serves_new_connections_and_a_wrong_one_changes_nothing(
    gateway: GatewayProcess, authority: Authority, folder: Path
) -> None:
    def served() -> object:
        with gateway.client.connect() as connection:
            assert isinstance(connection, ssl.SSLSocket)
            return (connection.getpeercert() or {})["serialNumber"]

    before = served()
    with gateway.client.connect() as kept:
        (folder / "key.pem").write_bytes(b"half a key")
        eventually(lambda: '"certificate_refused"' in gateway.log.read_text(), what="the wrong pair to be refused")
        assert served() == before
        authority.write_pair(folder, "localhost", "127.0.0.1")
        eventually(lambda: served() != before, what="the new pair to be served")
        assert gateway.client.request("GET", "/users", connection=kept).status == 200


def test_a_stop_answers_what_is_under_way(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.write_pair(tmp_path, "localhost")
    files = {"GATEWAY_TLS_CERT_FILE": str(certificate), "GATEWAY_TLS_KEY_FILE": str(key)}
    gateway = GatewayProcess(tmp_path / "log", tls=authority.trusting, **files)
    try:
        users = gateway.upstreams["users"]
        users.script(Pause(1), good("late"))
        with gateway.client.connect() as asking, gateway.client.connect():
            asking.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n")
            users.wait_for(1)
            gateway.process.send_signal(signal.SIGTERM)
            assert json.loads(read_answer(asking).body)["data"] == "late"
    finally:
        assert gateway.stop() == 0
