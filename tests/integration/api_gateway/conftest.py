"""One gateway process for all tests of a file; each test finds it as good as new."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.raw_http import KeptClient, RawClient, WholeWayClient
from tests.support.upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def _process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway") / "log", CORS_ORIGINS="https://app.example.com")
    yield process
    process.stop()


@pytest.fixture
def gateway(_process: GatewayProcess) -> GatewayProcess:
    """The gateway, its circuits closed and its upstreams answering `{}`."""
    _process.reset()
    return _process


@pytest.fixture
def client(gateway: GatewayProcess) -> RawClient:
    return gateway.client


@pytest.fixture(params=["fresh", "kept", "the whole way"])
def either(request: pytest.FixtureRequest, gateway: GatewayProcess) -> RawClient:
    """A client on connections of its own, or on ones that have served before, on both sides of the gateway, or one
    whose requests are read by gunicorn's parser even if they are plain."""
    if request.param == "fresh":
        return gateway.client
    if request.param == "the whole way":
        return WholeWayClient(gateway.port)
    for upstream in gateway.upstreams.values():
        upstream.drop_connections()
    for target in ("/users", "/orders", "/tasks"):
        assert gateway.client.get(target).status == 200
    for upstream in gateway.upstreams.values():
        upstream.seen.clear()
    return KeptClient(gateway.port)


@pytest.fixture
def users(gateway: GatewayProcess) -> ScriptedUpstream:
    return gateway.upstreams["users"]


@pytest.fixture
def orders(gateway: GatewayProcess) -> ScriptedUpstream:
    return gateway.upstreams["orders"]


@pytest.fixture
def tasks(gateway: GatewayProcess) -> ScriptedUpstream:
    return gateway.upstreams["tasks"]
