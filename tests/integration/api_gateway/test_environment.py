"""Nothing in the environment of the gateway's process changes what a service sees."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.api_gateway.test_traps import PASSED, Row, exact, get
from tests.support.gateway import GatewayProcess
from tests.support.raw_http import KeptClient, RawClient
from tests.support.upstream import ScriptedUpstream, bad


@pytest.fixture(scope="module")
def proxy() -> Iterator[ScriptedUpstream]:
    """Takes what is meant for somebody else, if anybody sends it."""
    with ScriptedUpstream() as proxy:
        proxy.script(bad(502, "through_a_proxy"))
        yield proxy


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, proxy: ScriptedUpstream) -> Iterator[GatewayProcess]:
    home = tmp_path_factory.mktemp("home")
    for name in (".netrc", "_netrc"):
        (home / name).write_text(
            "machine 127.0.0.1 login netrc password hunter2\ndefault login netrc password hunter2\n"
        )
        (home / name).chmod(0o600)
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    process = GatewayProcess(
        home / "log",
        HOME=str(home),
        NETRC=str(home / ".netrc"),
        NO_PROXY="",
        no_proxy="",
        **dict.fromkeys(names, proxy.url),
    )
    yield process
    process.stop()


@pytest.fixture(params=["fresh", "kept"])
def client(request: pytest.FixtureRequest, process: GatewayProcess) -> RawClient:
    process.reset()
    if request.param == "fresh":
        return process.client
    assert process.client.get("/users").status == 200
    process.upstreams["users"].seen.clear()
    return KeptClient(process.port)


@pytest.mark.parametrize("row", PASSED, ids=lambda row: row.name)
def test_the_upstream_sees_the_same_bytes(
    client: RawClient, process: GatewayProcess, proxy: ScriptedUpstream, row: Row
) -> None:
    users = process.upstreams["users"]
    assert client.send(row.sent).status == 200
    assert [exact(seen, users) for seen in users.requests()] == [row.seen]
    assert proxy.seen == []


def test_no_authorization_is_passed_the_clients_own_or_another(client: RawClient, process: GatewayProcess) -> None:
    client.send(get(b"/users", b"Authorization: Bearer t\r\n"))
    client.send(get(b"/users"))
    assert [seen.values("Authorization") for seen in process.upstreams["users"].requests()] == [[], []]


def test_its_own_questions_do_not_go_astray_either(process: GatewayProcess, proxy: ScriptedUpstream) -> None:
    assert process.client.get("/openapi.json").status == 200
    (asked,) = process.upstreams["users"].requests("/openapi.json")
    assert asked.values("Authorization") == []
    assert proxy.seen == []
