"""Circuits as a client and an operator meet them."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.raw_http import RawAnswer, RawClient
from tests.support.upstream import Close, Pause, ScriptedUpstream, Wait, answer, bad, good
from tests.support.waiting import eventually

#: What an answer that is not given at once takes: the gateway's own limit, in seconds.
TOTAL = 4.9


def break_circuit(client: RawClient) -> list[RawAnswer]:
    return [client.get("/users") for _ in range(5)]


class TestAway:
    def test_an_upstream_that_cannot_be_reached_is_a_503_that_names_it(
        self, client: RawClient, users: ScriptedUpstream
    ) -> None:
        users.stop()
        seen = client.get("/users")
        assert (seen.status, seen.code, seen.value("Retry-After")) == (503, "users_unavailable", "1")
        assert seen.seconds < TOTAL

    def test_after_five_failures_the_answer_comes_at_once_with_retry_after(
        self, gateway: GatewayProcess, users: ScriptedUpstream
    ) -> None:
        users.stop()
        answers, shown = gateway.opened(
            "users",
            lambda: ([*break_circuit(gateway.client), gateway.client.get("/users")], gateway.circuit("users")),
        )
        *before, seen = answers
        assert [one.code for one in before] == ["users_unavailable"] * 5
        assert (seen.status, seen.code) == (503, "circuit_open")
        assert seen.value("Retry-After") in ("1", "2")
        assert seen.seconds < TOTAL
        assert shown["opened_at"]
        assert 0 < float(str(shown["retry_in"])) <= 1.2

    def test_health_is_degraded_and_still_200(self, gateway: GatewayProcess, users: ScriptedUpstream) -> None:
        users.stop()
        break_circuit(gateway.client)
        health = gateway.client.get("/health")
        assert (health.status, health.json["data"]["status"]) == (200, "degraded")
        assert gateway.client.get("/readyz").status == 200

    def test_the_others_go_on(self, gateway: GatewayProcess, users: ScriptedUpstream) -> None:
        users.stop()
        break_circuit(gateway.client)
        assert gateway.client.get("/orders").status == 200
        assert gateway.client.get("/tasks").status == 200

    def test_it_heals_by_itself(self, gateway: GatewayProcess, users: ScriptedUpstream) -> None:
        users.stop()
        break_circuit(gateway.client)
        # Each failed trial makes the open time longer, so the prober, which asks every second or so, gets its turn.
        eventually(lambda: gateway.client.get("/users") and gateway.circuit("users")["last_probe"], what="a probe")
        users.start()
        eventually(lambda: gateway.client.get("/users").status == 200, what="the circuit to heal")
        assert gateway.circuit("users")["state"] == "closed"
        assert gateway.client.get("/health").json["data"]["status"] == "healthy"

    def test_what_happens_to_one_that_nobody_calls_shows_and_heals(
        self, gateway: GatewayProcess, users: ScriptedUpstream
    ) -> None:
        def status() -> str:
            return str(gateway.client.get("/health").json["data"]["status"])

        ready = re.compile(r'^siteworks_gateway_upstream_ready\{upstream="users"\} (\S+)$', re.MULTILINE)
        eventually(lambda: status() == "healthy", what="everything to be well")
        users.stop()
        eventually(lambda: status() == "degraded", timeout=20, what="users to be missed")
        shown = gateway.circuit("users")
        assert (shown["state"], shown["last_probe"]["ok"]) == ("closed", False)
        assert ready.findall(gateway.client.get("/metrics").body.decode()) == ["0.0"]
        users.start()
        eventually(lambda: status() == "healthy", timeout=20, what="users to be seen again")
        assert ready.findall(gateway.client.get("/metrics").body.decode()) == ["1.0"]

        # The last call that anybody made failed.
        users.stop()
        break_circuit(gateway.client)
        eventually(lambda: not gateway.circuit("users")["last_probe"]["ok"], timeout=20, what="a probe")
        users.start()
        eventually(lambda: status() == "healthy", timeout=20, what="the circuit to close")
        shown = gateway.circuit("users")
        assert (shown["state"], shown["last_probe"]["ok"], users.requests()) == ("closed", True, [])

    def test_health_shows_half_open_without_any_traffic(self, gateway: GatewayProcess, users: ScriptedUpstream) -> None:
        users.stop()
        break_circuit(gateway.client)
        eventually(lambda: gateway.circuit("users")["state"] == "half_open", what="half-open")


class TestWhatCounts:
    @pytest.mark.parametrize(
        ("step", "opens"),
        [
            (bad(503, "database_unavailable"), True),
            (bad(504, "too_slow"), True),
            (bad(404, "user_not_found"), False),
            (bad(429, "too_many_requests"), False),
            (bad(500, "internal_error"), False),
            (bad(503, "orders_unavailable"), False),
            (bad(504, "deadline_exceeded"), False),
        ],
    )
    def test_five_of_them(self, gateway: GatewayProcess, users: ScriptedUpstream, step: bytes, opens: bool) -> None:
        users.script(step)
        break_circuit(gateway.client)
        assert (gateway.circuit("users")["state"] != "closed") is opens

    def test_what_it_refuses_itself_counts_for_nobody(self, gateway: GatewayProcess, users: ScriptedUpstream) -> None:
        for target in ("/users/..", "/users/%ff"):
            gateway.client.get(target)
        gateway.client.request("PATCH", "/users")
        assert gateway.circuit("users")["calls"] == 0


class TestAdmin:
    def test_a_circuit_can_be_held_open_closed_and_let_go(
        self, gateway: GatewayProcess, users: ScriptedUpstream
    ) -> None:
        assert gateway.force("users", "open").json["data"]["forced"] is True
        assert gateway.client.get("/users").code == "circuit_open"
        gateway.force("users", "closed")
        users.script(bad(503, "database_unavailable"))
        for _ in range(30):
            assert gateway.client.get("/users").code == "database_unavailable"
        gateway.force("users", "auto")
        break_circuit(gateway.client)
        assert gateway.circuit("users")["state"] != "closed"

    @pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic a token for tests", "Bearer"])
    def test_without_the_token_it_is_a_401(self, client: RawClient, authorization: str | None) -> None:
        fields = () if authorization is None else (("Authorization", authorization),)
        seen = client.request("POST", "/admin/circuits/users", b'{"state": "open"}', fields=fields)
        assert (seen.status, seen.code, seen.value("WWW-Authenticate")) == (401, "unauthorized", "Bearer")

    def test_an_unknown_circuit_is_a_404(self, gateway: GatewayProcess) -> None:
        assert gateway.force("nobody", "open").status == 404

    def test_an_unknown_state_is_a_400(self, gateway: GatewayProcess) -> None:
        seen = gateway.force("users", "ajar")
        assert (seen.status, seen.json["error"]["details"][0]["field"]) == (400, "state")


class TestDetails:
    USER = good({"id": "1", "name": "Белов Ярослав"})
    ORDERS = good({"orders": [{"id": "7"}], "total": 1, "limit": 50, "offset": 0})

    def test_both_parts_are_asked_at_the_same_time_and_merged(
        self, client: RawClient, users: ScriptedUpstream, orders: ScriptedUpstream
    ) -> None:
        both_are_asked = threading.Event()
        users.script(Wait(both_are_asked), self.USER)
        orders.script(Wait(both_are_asked), self.ORDERS)
        with ThreadPoolExecutor(1) as person:
            asked = person.submit(client.get, "/users/1/details", ("X-Team", "blue"))
            users.wait_for(1)
            orders.wait_for(1)
            both_are_asked.set()
            seen = asked.result()
        assert seen.status == 200
        assert seen.json["data"] == {
            "user": {"id": "1", "name": "Белов Ярослав"},
            "orders": [{"id": "7"}],
            "orders_total": 1,
            "partial": False,
        }
        assert users.requests()[-1].target == "/users/1"
        assert orders.requests()[-1].target == "/orders?user_id=1&limit=50&offset=0"
        assert orders.requests()[-1].values("X-Team") == ["blue"]
        assert orders.requests()[-1].values("X-Request-ID") == seen.values("X-Request-ID")

    @pytest.mark.parametrize(
        "field",
        ["Accept: text/html", "Accept-Encoding: gzip", "Accept-Language: de", "A-IM: vcdiff", 'If-Match: "x"',
         "If-Modified-Since: Sat, 28 Nov 2026 08:00:00 GMT", 'If-None-Match: "x"', 'If-Range: "x"',
         "If-Unmodified-Since: Sat, 28 Nov 2026 08:00:00 GMT", "Range: bytes=0-9", "Content-Encoding: gzip",
         "Content-Type: text/csv", "Prefer: return=minimal", "Idempotency-Key: k"],
    )  # fmt: skip
    def test_the_parts_are_asked_for_json_in_full_and_plain_whatever_the_client_says_about_the_page(
        self, client: RawClient, users: ScriptedUpstream, orders: ScriptedUpstream, field: str
    ) -> None:
        users.script(self.USER)
        orders.script(self.ORDERS)
        name, _, value = field.partition(": ")
        assert client.get("/users/1/details", (name, value), ("X-Site", "7")).json["data"]["partial"] is False
        ours = {"Accept": ["application/json"], "Accept-Encoding": ["identity"]}
        for asked in (users.requests()[-1], orders.requests()[-1]):
            assert {one: asked.values(one) for one in {*ours, name}} == {name: [], **ours}
            assert asked.values("X-Site") == ["7"]

    def test_orders_down_is_a_partial_answer(
        self, client: RawClient, users: ScriptedUpstream, orders: ScriptedUpstream
    ) -> None:
        users.script(self.USER)
        orders.stop()
        data = client.get("/users/1/details").json["data"]
        assert (data["orders"], data["partial"]) == (None, True)
        assert data["missing"]["orders"]["code"] == "orders_unavailable"
        assert data["user"]["id"] == "1"

    def test_orders_too_slow_is_a_partial_answer_within_the_deadline(
        self, client: RawClient, users: ScriptedUpstream, orders: ScriptedUpstream
    ) -> None:
        users.script(self.USER)
        orders.script(Pause(20))
        seen = client.get("/users/1/details", ("X-Request-Timeout-Ms", "1000"))
        assert seen.json["data"]["missing"]["orders"]["code"] == "deadline_exceeded"
        assert seen.seconds < TOTAL

    def test_no_such_user_is_a_404(self, client: RawClient, users: ScriptedUpstream, orders: ScriptedUpstream) -> None:
        users.script(bad(404, "user_not_found"))
        orders.script(Pause(20))
        seen = client.get("/users/1/details")
        assert (seen.status, seen.code) == (404, "user_not_found")
        assert seen.seconds < TOTAL

    def test_users_down_is_a_503_then_an_open_circuit(self, gateway: GatewayProcess, users: ScriptedUpstream) -> None:
        users.stop()
        *before, seen = gateway.opened("users", lambda: [gateway.client.get("/users/1/details") for _ in range(6)])
        assert [one.code for one in before] == ["users_unavailable"] * 5
        assert (seen.status, seen.code) == (503, "circuit_open")
        assert seen.value("Retry-After")

    def test_the_pause_that_users_asks_for_is_handed_on(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(bad(503, "database_unavailable", fields=[("Retry-After", "7")]))
        seen = client.get("/users/1/details")
        assert (seen.status, seen.code, seen.value("Retry-After")) == (503, "database_unavailable", "7")

    def test_users_broken_is_a_502(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(b"nonsense\r\n\r\n")
        assert client.get("/users/1/details").code == "bad_upstream_answer"

    def test_users_too_slow_is_a_504(self, client: RawClient, users: ScriptedUpstream) -> None:
        users.script(Pause(20))
        seen = client.get("/users/1/details", ("X-Request-Timeout-Ms", "300"))
        assert (seen.status, seen.code) == (504, "deadline_exceeded")

    @pytest.mark.parametrize("broken", [b'{"success": true, "data": ', b"[1, 2", b"", b"\xff"])
    def test_json_that_is_none_is_never_passed_on(
        self, client: RawClient, users: ScriptedUpstream, orders: ScriptedUpstream, broken: bytes
    ) -> None:
        users.script(self.USER)
        orders.script(answer(200, broken))
        data = client.get("/users/1/details").json["data"]
        assert (data["user"]["id"], data["orders"], data["partial"]) == ("1", None, True)
        assert data["missing"]["orders"]["code"] == "bad_upstream_answer"
        users.script(answer(200, broken))
        assert client.get("/users/1/details").code == "bad_upstream_answer"

    def test_nobody_ever_gets_what_was_answered_to_somebody_else(
        self, client: RawClient, users: ScriptedUpstream, orders: ScriptedUpstream
    ) -> None:
        users.script(self.USER)
        orders.script(self.ORDERS)
        assert client.get("/users/1/details", ("Authorization", "Bearer one")).json["data"]["user"]["id"] == "1"
        users.script(bad(403, "forbidden"))
        assert client.get("/users/1/details", ("Authorization", "Bearer two")).code == "forbidden"
        users.script(self.USER)
        orders.script(bad(403, "forbidden"))
        data = client.get("/users/1/details", ("Authorization", "Bearer two")).json["data"]
        assert (data["orders"], data["missing"]["orders"]["code"]) == (None, "forbidden")
        users.stop()
        assert client.get("/users/1/details", ("Authorization", "Bearer one")).status == 503

    def test_many_at_once_get_their_own(
        self, client: RawClient, users: ScriptedUpstream, orders: ScriptedUpstream
    ) -> None:
        wanted = [str(number) for number in range(30)]
        for one in wanted:
            users.script_path(f"/users/{one}", Pause(0.05), good({"id": one}))
        orders.script(Pause(0.02), self.ORDERS)
        found: dict[str, str] = {}

        def ask(one: str) -> None:
            found[one] = client.get(f"/users/{one}/details").json["data"]["user"]["id"]

        threads = [threading.Thread(target=ask, args=(one,)) for one in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert found == {one: one for one in wanted}

    def test_head_has_the_length_and_no_body(
        self, client: RawClient, users: ScriptedUpstream, orders: ScriptedUpstream
    ) -> None:
        users.script(self.USER)
        orders.script(self.ORDERS)
        whole = client.get("/users/1/details")
        seen = client.request("HEAD", "/users/1/details")
        assert (seen.status, seen.value("Content-Length")) == (200, str(len(whole.body)))


def test_metrics_carry_templates_states_and_no_raw_paths(gateway: GatewayProcess) -> None:
    gateway.client.get("/users/018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f")
    gateway.client.get("/nowhere/at/all")
    text = gateway.client.get("/metrics").body.decode()
    assert 'route="/users/{id}"' in text
    assert 'siteworks_circuit_state{circuit="users",state="closed"} 1.0' in text
    assert "018f3c1e" not in text
    assert "nowhere" not in text


def line_of(gateway: GatewayProcess, request_id: str) -> dict[str, object]:
    def line() -> dict[str, object] | None:
        lines = [one for one in gateway.log.read_text().splitlines() if request_id in one]
        assert len(lines) <= 1
        return json.loads(lines[0]) if lines else None

    told = eventually(line, what="the log line")
    assert told is not None
    return told


def retries(gateway: GatewayProcess) -> float:
    found = re.search(
        r'^siteworks_gateway_retries_total\{upstream="users"\} (\S+)$',
        gateway.client.get("/metrics").body.decode(),
        re.MULTILINE,
    )
    return float(found[1]) if found else 0.0


def test_the_log_tells_how_often_a_request_was_sent(gateway: GatewayProcess, users: ScriptedUpstream) -> None:
    before = retries(gateway)
    users.scripts([good(1)], [Close()], [good(2)], [Close()], [Close()])
    gateway.client.get("/users", ("X-Request-ID", "sent-once"))
    gateway.client.get("/users", ("X-Request-ID", "sent-twice"))
    gateway.client.get("/users", ("X-Request-ID", "sent-in-vain"))
    gateway.force("users", "open")
    gateway.client.get("/users", ("X-Request-ID", "never-sent"))
    told = [line_of(gateway, one) for one in ("sent-once", "sent-twice", "sent-in-vain", "never-sent")]
    assert [one["attempts"] for one in told] == [1, 2, 2, 0]
    assert [one["status"] for one in told] == [200, 200, 502, 503]
    assert retries(gateway) == before + 2


def test_one_log_line_tells_about_one_request(gateway: GatewayProcess) -> None:
    made = gateway.client.get("/users/1?secret=x", ("X-Request-ID", "a-line-of-its-own"))
    assert made.status == 200
    told = line_of(gateway, "a-line-of-its-own")
    assert (told["method"], told["route"], told["path"], told["status"]) == ("GET", "/users/{id}", "/users/1", 200)
    assert (told["upstream"], told["circuit"], told["attempts"]) == ("users", "closed", 1)
    assert "secret" not in str(told)
