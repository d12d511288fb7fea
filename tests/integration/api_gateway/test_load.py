"""Too much: of one client, and for the process itself."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.waiting import eventually

_PAGE = ("Origin", "https://app.example.com")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Each test is other clients."""
    gateway = GatewayProcess(
        tmp_path_factory.mktemp("gateway") / "log",
        GATEWAY_RATE_LIMIT="3/600", TRUSTED_PROXIES="127.0.0.0/8", CORS_ORIGINS=_PAGE[1],
    )  # fmt: skip
    yield gateway
    gateway.stop()


class TestQuota:
    def test_a_client_that_asks_too_often_is_refused_with_all_the_fields(self, gateway: GatewayProcess) -> None:
        began = time.monotonic()
        seen = [gateway.client.get(target) for target in ("/users", "/nothing", "/orders", "/users")]
        assert [one.status for one in seen] == [200, 404, 200, 429]
        assert {one.value("RateLimit-Policy") for one in seen} == {'"default";q=3;w=600'}
        told = [re.fullmatch(r'"default";r=(\d);t=(\d+)', one.value("RateLimit") or "") for one in seen]
        assert [one and one[1] for one in told] == ["2", "1", "0", "0"]
        assert all(
            told_in_time(one and one[2], most, began) for one, most in zip(told, (200, 400, 600, 200), strict=True)
        )
        assert seen[-1].code == "too_many_requests"
        assert told_in_time(seen[-1].value("Retry-After"), 200, began)
        assert seen[-1].value("Proxy-Status") is None
        assert len(gateway.upstreams["users"].requests()) == 1

    def test_a_preflight_costs_nothing_and_a_page_may_read_its_429(self, gateway: GatewayProcess) -> None:
        fields = (_PAGE, ("Access-Control-Request-Method", "GET"), ("X-Forwarded-For", "4.4.4.4"))
        began = time.monotonic()
        seen = [
            gateway.client.request(method, "/users", fields=fields)
            for method in ("OPTIONS", "OPTIONS", "GET", "OPTIONS", "GET", "OPTIONS", "GET", "GET")
        ]
        assert [one.status for one in seen] == [204, 204, 200, 204, 200, 204, 200, 429]
        assert {one.value("Access-Control-Allow-Origin") for one in seen} == {_PAGE[1]}
        assert told_in_time(seen[-1].value("Retry-After"), 200, began)
        assert "Retry-After" in (seen[-1].value("Access-Control-Expose-Headers") or "")

    def test_clients_behind_a_trusted_proxy_are_told_apart_and_pages_are_free(self, gateway: GatewayProcess) -> None:
        before = refusals(gateway)
        for client in ("2.2.2.2", "3.3.3.3"):
            for _ in range(3):
                assert gateway.client.get("/users", ("X-Forwarded-For", f"6.6.6.6, {client}")).status == 200
            assert gateway.client.get("/users", ("X-Forwarded-For", client)).status == 429
        for page in ("/health", "/livez", "/metrics", "/swagger"):
            assert gateway.client.get(page).values("RateLimit") == []
        assert refusals(gateway) == before + 2


def told_in_time(seconds: str | None, most: int, began: float) -> bool:
    """Whether these are the seconds left of so many that began to pass then."""
    return most - (time.monotonic() - began) <= int(seconds or 0) <= most


def refusals(gateway: GatewayProcess) -> float:
    series = 'siteworks_gateway_refusals_total{code="too_many_requests",upstream=""} '
    lines = gateway.client.get("/metrics").body.decode().splitlines()
    return sum(float(line.removeprefix(series)) for line in lines if line.startswith(series))


def test_a_gateway_that_is_late_refuses_new_requests_and_still_shows_its_pages(tmp_path: Path) -> None:
    # No appointment is kept to the microsecond, so this gateway always is.
    gateway = GatewayProcess(tmp_path / "log", constants=("_LONGEST_LAG_SECONDS=0.000001",))
    try:
        eventually(lambda: gateway.client.get("/users").status == 503, what="the gateway to be late")
        before = len(gateway.upstreams["users"].requests())
        refused = gateway.client.get("/users")
        assert (refused.status, refused.code, refused.value("Retry-After")) == (503, "overloaded", "1")
        assert refused.values("Proxy-Status") == ["siteworks; error=proxy_internal_error"]
        assert len(gateway.upstreams["users"].requests()) == before
        # A preflight: its page could not read the refusal.
        assert gateway.client.request("OPTIONS", "/users").status == 204
        assert gateway.client.get("/health").status == 200
        assert 'code="overloaded"' in gateway.client.get("/metrics").body.decode()
        assert gateway.force("users", "auto").status == 200
    finally:
        gateway.stop()
