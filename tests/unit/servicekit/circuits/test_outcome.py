"""How answers count for a circuit, whoever asks: the gateway and the services judge by the same table."""

from __future__ import annotations

import pytest

from servicekit.circuits import outcome_of
from servicekit.process.services import Service, services


@pytest.mark.parametrize(
    ("status", "code", "counts"),
    [
        (200, None, "success"),
        (201, None, "success"),
        (204, None, "success"),
        (302, None, "success"),
        (400, "invalid_input", "success"),
        (404, "user_not_found", "success"),
        (409, "email_taken", "success"),
        (429, "too_many_requests", "neutral"),
        (500, "internal_error", "success"),  # one request's bug, well answered
        (502, "bad_upstream_answer", "failure"),
        (503, "database_unavailable", "failure"),
        (503, "not_ready", "failure"),
        (503, None, "failure"),
        (504, None, "failure"),
        (503, "users_unavailable", "neutral"),  # orders is well, users is not
        (503, "circuit_open", "neutral"),
        (504, "deadline_exceeded", "neutral"),
        (503, "too_many_passwords", "neutral"),  # an honest refusal
        (503, "too_many_watchers", "neutral"),
        (503, "overloaded", "neutral"),
        (503, "orders_unavailable", "failure"),  # orders says so of itself
        (503, "pumps_unavailable", "failure"),  # a part of its own: there is no such service
        (421, "misdirected_request", "failure"),
    ],
)
def test_how_an_answer_of_orders_counts(status: int, code: str | None, counts: str) -> None:
    assert outcome_of(status, "orders", code) == counts


def test_a_further_row_in_the_table_is_another_that_may_be_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {**services(), "pumps": Service("pumps", "service_pumps", 8050, ())}
    monkeypatch.setattr("servicekit.circuits.outcome.services", lambda: rows)
    assert outcome_of(503, "orders", "pumps_unavailable") == "neutral"
    assert outcome_of(503, "pumps", "pumps_unavailable") == "failure"
    assert outcome_of(503, "pumps", "orders_unavailable") == "neutral"
