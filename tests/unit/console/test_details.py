"""What the API says beside the fields of the console's forms, the console says in Russian."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest

from api_gateway.console import FOLDER
from service_orders.errors import TotalTooLarge, UnknownUser
from service_sites.domain.item import Resolution, WorkState
from service_sites.domain.people import Actor
from service_sites.domain.steps import Step, StepRequest, decide, misfit
from service_sites.errors import ReasonRequired, UnknownLocation, UnknownPerson
from service_tasks.domain.cron import BadTiming
from service_tasks.domain.schedule import Timing, check_timing, read_timezone
from service_tasks.errors import PayloadTooLarge, UserDeleted
from service_users.accounts.password_rules import weakness
from service_users.errors import EmailTaken
from servicekit.web.schemas import Body, Query, parse_body, parse_query
from servicekit.wire.errors import AppError
from tests.unit.service_sites.test_steps import TODAY, Item

_PATTERN = re.compile(r'^  \[/(\^.*\$)/, "(.*)"\],$', re.MULTILINE)
#: What somebody may type by mistake into a field of each of JSON's types.
WRONG: Mapping[str, tuple[Any, ...]] = {
    "string": (
        *("", " ", "a\u202eb", "x" * 20_000, "ABC", "a@b", "2026-2-3", "2026-02-30", "1066-10-14"),
        *("2026-02-30T00:00:00Z", "9999-12-31T00:00:00Z"),
    ),
    "integer": (-1000, 0.5, 10**12),
    "number": (-1000, 0.001, 10**12),
    "array": ([],),
}
#: A list of texts is typed, one a line.
LINES = ["", "x" * 600] * 30
#: What programs alone send.
NO_FORMS = {"GatewayReport", "TaskMessage"}
#: The console has no field for these, or boxes to tick.
NOT_TYPED = {"callback_url", "roles"}
#: What is typed into an address.
TYPED = {"q", "from", "to", "due_from", "due_to", "user_id", "task_type", "product"}


def models(of: type[Any]) -> Iterator[type[Any]]:
    """Those of the services."""
    root = FOLDER.parent
    for path in root.glob("service_*/**/[a-z]*.py"):
        if "schemas" in str(path):
            import_module(".".join(path.relative_to(root).with_suffix("").parts))
    for model in of.__subclasses__():
        yield from models(model)
        if model.__module__.startswith("service_") and model.__name__ not in NO_FORMS:
            yield model


def typed(field: Mapping[str, Any]) -> Iterator[Any]:
    """What may be typed into a field; nothing of what is chosen from a list."""
    if "enum" in field:
        return
    yield from WRONG.get(field.get("type", ""), ())
    if field.get("items", {}).get("type") == "string":
        yield LINES
    for one in field.get("anyOf", ()):
        yield from typed(one)


def refused(check: Callable[..., object], *given: Any, **more: Any) -> list[str]:
    try:
        found = check(*given, **more)
    except AppError as error:
        found = error
    except BadTiming as error:
        return [error.message]
    return [one.message for one in found.details] if isinstance(found, AppError) else []


def of_forms() -> Iterator[str]:
    for model in models(Body):
        for name, field in model.model_json_schema()["properties"].items():
            for value in typed(field) if name not in NOT_TYPED else ():
                yield from refused(parse_body, model, json.dumps({name: value}), "application/json")


def of_addresses() -> Iterator[str]:
    for model in models(Query):
        fields = TYPED & model.model_json_schema().get("properties", {}).keys()
        for name in fields:
            for value in WRONG["string"]:
                yield from refused(parse_query, model, urlencode({name: value}))
        if {"due_from", "due_to"} <= fields:
            yield from refused(parse_query, model, "due_from=2026-02-02&due_to=2026-02-01")


def of_steps() -> Iterator[str]:
    anybody = UUID(int=1)
    everything: dict[str, Any] = {
        "note": "done", "assignee_id": anybody, "organisation": "Masons", "due_on": TODAY, "duplicate_of": anybody,
        "resolution": Resolution.MISTAKE,
    }  # fmt: skip
    for step in Step:
        for more in ({}, everything, {"outcome": WorkState.VOID}, {"resolution": Resolution.DUPLICATE}):
            yield from refused(misfit, StepRequest(step, **more))
    who = Actor(anybody, "Ada", None, override=True)
    item = Item()
    late = {"reason": "Late"}
    twice = StepRequest(Step.VOID, resolution=Resolution.DUPLICATE, duplicate_of=anybody)
    for request, original in (
        (StepRequest(Step.ASSIGN, assignee_id=anybody), None),
        (StepRequest(Step.ASSIGN, organisation="Masons", due_on=TODAY), None),
        (StepRequest(Step.MOVE_DEADLINE, due_on=item.due_on, **late), None),
        (StepRequest(Step.MOVE_DEADLINE, due_on=TODAY - timedelta(days=1), **late), None),
        (twice, None),
        (twice, Item(id=anybody, state=WorkState.VOID)),
    ):
        said = refused(decide, item, request, who, TODAY, original=original)
        assert said, request
        yield from said


def of_schedules() -> Iterator[str]:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for timing in (
        *(Timing(cron, None, None, None, now) for cron in ("daily", "61 * * * *", "0 0 * * Monday", "0 0 30 2 *")),
        Timing(None, None, None, now, now),
        Timing(None, None, 60, None, now, starts_at=now, ends_at=now - timedelta(days=1)),
        Timing(None, None, 60, None, now, ends_at=now),
    ):
        said = refused(check_timing, timing, now)
        assert said, timing
        yield from said
    yield from refused(read_timezone, "Nowhere/City")


def of_others() -> Iterator[str]:
    for error in (
        UnknownUser(), TotalTooLarge("99999999.99"), ReasonRequired(), UnknownLocation(), UnknownPerson("email"),
        EmailTaken(), UserDeleted(), PayloadTooLarge(1_000_000),
    ):  # fmt: skip
        yield from (one.message for one in error.details)
    for password in ("short", "a" * 20):
        yield str(weakness(password))


@pytest.mark.parametrize("said", [of_forms, of_addresses, of_steps, of_schedules, of_others])
def test_what_is_wrong_with_a_field_is_said_in_russian(said: Callable[[], Iterable[str]]) -> None:
    text = (FOLDER / "lib" / "details.ru.js").read_text(encoding="utf-8")
    patterns = [(re.compile(pattern), words) for pattern, words in _PATTERN.findall(text)]
    assert len(patterns) == text.count("\n") - 4, "an entry is on more than one line"
    for pattern, words in patterns:
        assert {int(number) for number in re.findall(r"\$(\d)", words)} <= {*range(1, pattern.groups + 1)}, words
    messages = {*said()}
    assert len(messages) > 5
    assert {one for one in messages if not any(pattern.search(one) for pattern, _ in patterns)} == set()
