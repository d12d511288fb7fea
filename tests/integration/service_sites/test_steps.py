"""Steps of work items as the people of a site take them, on a real database."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import ProgrammingError

from service_sites.domain.steps import Step
from service_sites.persistence.sites import begin
from service_sites.schemas.steps import BulkStepBody, StepBody
from service_sites.use_cases.leaving import leave
from service_sites.use_cases.steps import Steps
from service_sites.use_cases.user_events import UserEvents
from servicekit.database.engine import Database
from servicekit.events.cloudevents import Event
from servicekit.process.clock import utc_now
from servicekit.web.preconditions import IfMatch
from servicekit.wire.errors import Unavailable
from tests.support.postgres import ServiceDatabase
from tests.support.sites import OURS, PEOPLE, THEIRS, Reply, Site, SitesSystem


@pytest.fixture(scope="module")
def database(cloned_database: ServiceDatabase) -> ServiceDatabase:
    return cloned_database


@pytest.fixture(scope="module")
def site(database: ServiceDatabase) -> Site:
    """Give a site of its own, on which each test makes its own items."""
    return SitesSystem(database).site(people=PEOPLE)


def create(site: Site, who: str = "Анна", **fields: Any) -> dict[str, Any]:
    kind = "customer_remark" if PEOPLE[who].startswith("customer") else "defect"
    made = site[who].ask("POST", f"/sites/{site.id}/work-items", {"kind": kind, "title": "Трещина", **fields})
    assert made.status == 201, made
    return made.body


def take(site: Site, who: str, item: dict[str, Any], step: str, **fields: Any) -> Reply:
    """Take a step of an item as it was seen."""
    body = {"step": step, "op_id": str(uuid4()), **fields}
    # A customer is not told a version.
    seen = f'"{item["version"]}"' if "version" in item else "*"
    return site[who].ask("POST", f"/work-items/{item['id']}/steps", body, If_Match=seen)


def taken(site: Site, who: str, item: dict[str, Any], step: str, **fields: Any) -> dict[str, Any]:
    reply = take(site, who, item, step, **fields)
    assert reply.status == 200, (who, step, reply)
    return reply.body


def history_of(site: Site, item: dict[str, Any]) -> list[Any]:
    return site.rows("SELECT * FROM history WHERE item_id = CAST(%(id)s AS uuid) ORDER BY seq", id=item["id"])


def row_of(site: Site, item: dict[str, Any]) -> Any:
    (row,) = site.rows("SELECT * FROM work_items WHERE id = CAST(%(id)s AS uuid)", id=item["id"])
    return row


def folded(history: list[Any]) -> dict[str, Any]:
    """An item as its history tells it."""
    item: dict[str, Any] = {"reopen_count": 0, "first_closed_at": None, "closed_at": None, "done_by_id": None}
    with_contractors = timedelta()
    for before, row in zip([None, *history], history, strict=False):
        assert row.from_state == item.get("state")
        if before is not None and before.to_state in ("open", "in_progress", "returned") and before.organisation:
            with_contractors += row.at - before.at
        assert row.contractor_seconds == pytest.approx(with_contractors.total_seconds())
        item |= {
            "state": row.to_state,
            "organisation": row.organisation,
            "assignee_name": row.assignee_name,
            "due_on": row.due_on,
            "original_due_on": row.original_due_on,
            "resolution": row.resolution,
            "version": row.version,
            "change_seq": row.change_seq,
        }
        item["reopen_count"] += row.step == "reopen"
        if row.to_state == "closed" and row.from_state != "closed":
            item["closed_at"] = row.at
            item["first_closed_at"] = item["first_closed_at"] or row.at
        elif row.step == "reopen":
            item["closed_at"] = None
        if row.step == "report_done":
            item["done_by_id"] = row.actor_id
        elif row.step in ("return", "reopen"):
            item["done_by_id"] = None
    return item


def require_history_equals_state(site: Site, item: dict[str, Any]) -> list[Any]:
    history, row = history_of(site, item), row_of(site, item)
    told = folded(history)
    assert told == {name: getattr(row, name) for name in told}
    assert [one.version for one in history] == [*range(1, row.version + 1)]
    assert all(one.change_seq < other.change_seq and one.at <= other.at for one, other in pairwise(history))
    assert row.assignee_id is None or row.assignee_name
    return history


def test_a_defect_goes_from_its_registration_to_its_acceptance(site):
    defect = create(site, due_on="2199-12-01")
    assert (defect["state"], defect["permitted_steps"]) == ("open", [])
    defect = taken(
        site, "Вера", defect, "assign", assignee_id=str(site.ids["Егор"]), due_on="2199-12-12", reason="Мороз"
    )
    assert defect["assignee"] == {"id": str(site.ids["Егор"]), "name": "Егор"}
    assert (defect["due_on"], defect["original_due_on"]) == ("2199-12-12", "2199-12-01")
    defect = taken(site, "Егор", defect, "start")
    defect = taken(site, "Егор", defect, "report_done", note="Заделано")
    assert take(site, "Егор", defect, "accept").status == 403
    defect = taken(site, "Анна", defect, "return", reason="Видна щель")
    defect = taken(site, "Жанна", defect, "report_done", note="Теперь да")
    assert defect["permitted_steps"] == []
    defect = taken(site, "Анна", defect, "accept")
    assert (defect["state"], defect["resolution"], defect["version"]) == ("closed", "fixed", 7)
    told = require_history_equals_state(site, defect)
    assert [(one.step, one.actor_name, one.actor_role, one.reason or one.note) for one in told] == [
        ("created", "Анна", "engineer", ""),
        ("assign", "Вера", "manager", "Мороз"),
        ("start", "Егор", "contractor", ""),
        ("report_done", "Егор", "contractor", "Заделано"),
        ("return", "Анна", "engineer", "Видна щель"),
        ("report_done", "Жанна", "contractor", "Теперь да"),
        ("accept", "Анна", "engineer", ""),
    ]


def test_a_step_says_what_its_taker_has_seen_and_whoever_comes_second_is_told_what_changed(site):
    item = create(site)
    body = {"step": "assign", "op_id": str(uuid4()), "organisation": OURS}
    assert site["Вера"].ask("POST", f"/work-items/{item['id']}/steps", body).code == "precondition_required"
    after = taken(site, "Вера", item, "assign", organisation=OURS)
    late = take(site, "Вера", item, "assign", organisation=THEIRS)
    assert (late.status, late.code, late.headers["ETag"]) == (412, "precondition_failed", '"2"')
    assert late.body["present"] == after
    assert {one["field"] for one in late.body["details"]} == {"organisation"}
    assert "Вера (manager)" in late.body["details"][0]["message"]


def test_a_repeated_operation_is_answered_as_before_and_takes_no_second_step(site):
    item = create(
        site, pin_x=0.5, pin_y=0.25, latitude=55.75, longitude=37.6, tags=["кровля"], occurred_at="2026-03-01T09:30:00Z"
    )
    body = {"step": "assign", "op_id": str(uuid4()), "organisation": OURS}
    path = f"/work-items/{item['id']}/steps"
    first = site["Вера"].ask("POST", path, body, If_Match='"1"')
    taken(site, "Егор", first.body, "start")
    again = site["Вера"].ask("POST", path, body, If_Match='"1"')
    assert (again.status, again.raw, again.headers["ETag"]) == (200, first.raw, '"2"')
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    other = site["Вера"].ask("POST", path, {**body, "organisation": THEIRS}, If_Match='"1"')
    another = site["Анна"].ask("POST", path, body, If_Match='"1"')
    assert {(reply.status, reply.code) for reply in (other, another)} == {(409, "op_id_reused")}
    assert [one.step for one in history_of(site, item)] == ["created", "assign", "start"]


def test_a_refused_operation_may_be_tried_again(site):
    item = create(site)
    body = {"step": "start", "op_id": str(uuid4())}
    path = f"/work-items/{item['id']}/steps"
    taken(site, "Вера", item, "assign", organisation=OURS)
    assert site["Егор"].ask("POST", path, body, If_Match='"1"').status == 412
    assert site["Егор"].ask("POST", path, body, If_Match='"2"').body["state"] == "in_progress"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"step": "fly"}, {"step"}),
        ({"step": "start", "op_id": "1"}, {"op_id"}),
        ({"step": "start", "due_on": "2199-01-01", "note": "x"}, {"due_on", "note"}),
        ({"step": "return", "reason": " \n"}, {"reason"}),
        ({"step": "report_done", "note": "\u202e\u200b"}, {"note"}),
        ({"step": "return", "reason": "x" * 2001}, {"reason"}),
        ({"step": "return", "reason": "\u0958" * 1001}, {"reason"}),  # two characters each in NFC
        ({"step": "reopen", "due_on": "12.03.2026"}, {"due_on"}),
        ({"step": "move_deadline", "reason": "x", "due_on": "9999-12-31"}, {"due_on"}),
        ({"step": "reopen"}, {"due_on", "reason"}),
        ({"step": "void", "resolution": "fixed"}, {"resolution"}),
        ({"step": "assign", "organisation": "a\u202eb"}, {"organisation"}),
        ({"step": "start", "colour": "red"}, {"colour"}),
    ],
)
def test_whatever_no_item_can_take_is_refused_by_field(site, fields, named):
    reply = site["Вера"].ask("POST", f"/work-items/{uuid4()}/steps", {"op_id": str(uuid4()), **fields}, If_Match='"1"')
    assert (reply.status, {one["field"] for one in reply.body["details"]}) == (400, named)


def test_what_somebody_cannot_see_they_cannot_step_and_keep_nobody_waiting(site):
    item = taken(site, "Вера", create(site), "assign", organisation=OURS)
    before = site.rows("SELECT change_seq FROM sites WHERE id = %(id)s", id=site.id)
    for who in ("Зоя", "Дина", "stranger"):
        assert take(site, who, item, "start").code == "work_item_not_found"
    assert site.rows("SELECT change_seq FROM sites WHERE id = %(id)s", id=site.id) == before


def test_an_administrator_takes_any_step_with_a_reason_which_history_marks(site):
    item = create(site)
    assert take(site, "admin", item, "assign", organisation=OURS).code == "reason_required"
    assert take(site, "auditor", item, "assign", organisation=OURS, reason="x").status == 403
    for who in ("admin", "local"):
        item = taken(site, who, item, "assign", organisation=OURS, reason="Так надо")
        last = history_of(site, item)[-1]
        assert (last.override, last.actor_id, last.actor_role) == (True, site.ids.get(who), "")


def test_a_step_of_many_items_has_an_outcome_for_each_and_one_batch(site):
    """Three forbidden among them are three named failures."""
    items = [create(site) for _ in range(5)]
    hidden = create(site, draft=True)
    closed = taken(site, "Вера", create(site), "accept_as_is")
    gone = {"id": str(uuid4()), "version": 1}
    taken(site, "Вера", items[0], "assign", organisation=THEIRS)
    every = [
        {"id": one["id"], "version": one["version"], "op_id": str(uuid4())} for one in (*items, hidden, closed, gone)
    ]
    body = {"step": "assign", "assignee_id": str(site.ids["Зоя"]), "items": every}
    reply = site["Вера"].ask("POST", "/work-items/steps", body)
    assert (reply.status, reply.body["taken"], reply.body["refused"]) == (200, 4, 4)
    statuses = [(one["status"], one["error"] and one["error"]["code"]) for one in reply.body["items"]]
    lost = (404, "work_item_not_found")
    assert statuses == [(412, "precondition_failed"), *[(200, None)] * 4, lost, (409, "step_not_possible"), lost]
    told = [history_of(site, item)[-1] for item in items[1:]]
    assert {str(one.batch_id) for one in told} == {reply.body["batch_id"]}
    again = site["Вера"].ask("POST", "/work-items/steps", body)
    assert [one["replayed"] for one in again.body["items"]] == [False, *[True] * 4, False, False, False]
    # The same operation by itself is the same operation.
    one = {"step": "assign", "assignee_id": str(site.ids["Зоя"]), "op_id": every[1]["op_id"]}
    alone = site["Вера"].ask("POST", f"/work-items/{every[1]['id']}/steps", one, If_Match='"1"')
    assert (alone.body["version"], alone.headers["Idempotency-Replayed"]) == (2, "true")


def seen(site: Site, who: str, item: dict[str, Any]) -> dict[str, Any] | None:
    """An item as somebody sees it, if they do."""
    reply = site[who].ask("GET", f"/work-items/{item['id']}")
    assert reply.status in (200, 404)
    return reply.body if reply.status == 200 else None


def fields_for(site: Site, step: str, chance: random.Random) -> dict[str, Any]:
    later = str(date(2150, 1, 1) + timedelta(days=chance.randrange(10_000)))
    to = {"assignee_id": str(site.ids[chance.choice(["Анна", "Егор", "Жанна", "Зоя"])])}
    fields = {
        "assign": chance.choice([to, to | {"organisation": THEIRS, "due_on": later}, {"organisation": OURS}]),
        "move_deadline": {"due_on": later},
        "reopen": {"due_on": later},
        "report_done": {"note": "Сделано"},
        "settle": chance.choice([{"outcome": "open"}, {"outcome": "void", "resolution": "no_defect"}]),
        "void": {"resolution": "mistake"},
    }
    return {"reason": "Так надо", **fields.get(step, {})}


# Shrinking would take minutes, and say little.
FEW = settings(max_examples=8, phases=[Phase.generate])


@FEW
@given(st.randoms(use_true_random=False), st.sampled_from(["Анна", "Вера", "Дина"]), st.booleans())
def test_what_people_are_shown_they_may_do_and_history_tells_all_of_it(site, chance, author, draft):
    item = create(site, author, **({} if author == "Дина" else {"draft": draft}))
    steps = 1
    for _ in range(20):
        who = chance.choice([*PEOPLE, "admin", "local"])
        view = seen(site, who, item)
        permitted = [] if view is None else view.get("permitted_steps", [])
        step = chance.choice(permitted) if permitted and chance.random() < 0.8 else chance.choice([*Step]).value
        reply = take(site, who, view or {"id": item["id"]}, step, **fields_for(site, step, chance))
        assert (reply.status == 200) is (step in permitted), (who, step, reply)
        assert reply.status in ((200, 403, 409) if view else (404,))
        steps += reply.status == 200
    assert len(require_history_equals_state(site, item)) == steps


@settings(FEW, max_examples=4)
@given(st.integers(0, 2**32))
def test_people_who_work_at_the_same_time_never_lose_a_step(site, seed):
    items = [taken(site, "Вера", create(site), "assign", organisation=OURS) for _ in range(2)]

    def work(number: int) -> Counter[str]:
        chance, done = random.Random(seed + number), Counter[str]()
        for _ in range(12):
            item, who = chance.choice(items), chance.choice(["Анна", "Борис", "Вера", "Егор", "Жанна", "admin"])
            view = seen(site, who, item)
            if view is not None and view["permitted_steps"]:
                step = chance.choice(view["permitted_steps"])
                reply = take(site, who, view, step, **fields_for(site, step, chance))
                # Somebody may have been faster, and taken it from them.
                assert reply.status in (200, 412, 404), reply
                done[item["id"]] += reply.status == 200
        return done

    with ThreadPoolExecutor(4) as pool:
        done = sum(pool.map(work, range(4)), Counter())
    for item in items:
        assert len(require_history_equals_state(site, item)) == 2 + done[item["id"]]


def test_no_step_is_lost_or_taken_twice_while_connections_are_killed(site, database):
    item = create(site)
    # Of whoever is in the middle of something.
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
    )
    statuses: Counter[int] = Counter()
    taken_op_ids: list[str] = []
    ended = threading.Event()

    def work(_: int) -> None:
        for _ in range(200):
            body = {"step": "assign", "op_id": str(uuid4()), "organisation": OURS}
            status = 0
            while status != 200:
                try:
                    version = row_of(site, item).version
                except Unavailable:
                    continue
                reply = site["Вера"].ask("POST", f"/work-items/{item['id']}/steps", body, If_Match=f'"{version}"')
                status = reply.status
                assert status in (200, 412, 503), reply
                statuses[status] += 1
            taken_op_ids.append(body["op_id"])
            if statuses[503] >= 10:
                return

    def interrupt() -> None:
        while not ended.wait(0.01):
            database.administer(kill)

    with ThreadPoolExecutor(4) as pool:
        interrupting = pool.submit(interrupt)
        try:
            [*pool.map(work, range(3))]
        finally:
            ended.set()
        interrupting.result()
    assert statuses[503] >= 10
    told = require_history_equals_state(site, item)
    assert sorted(str(one.op_id) for one in told[1:]) == sorted(taken_op_ids)


def test_a_step_undoes_no_change_that_its_taker_has_not_seen(site):
    item = create(site)
    path = f"/work-items/{item['id']}"
    described = site["Борис"].ask("PUT", path, {"description": "По всей стене"}, If_Match='"1"')
    assert described.status == 200
    late = take(site, "Вера", item, "accept_as_is")
    assert (late.status, {one["field"] for one in late.body["details"]}) == (412, {"description"})
    closed = taken(site, "Вера", late.body["present"], "accept_as_is")
    assert closed["description"] == "По всей стене"
    # And the other way round.
    assert site["Борис"].ask("PUT", path, {"description": "Нет"}, If_Match='"2"').status == 412
    assert [one.version for one in require_history_equals_state(site, item)] == [1, 2, 3]


def test_without_its_row_of_history_no_step_is_taken(site, database):
    item = create(site)
    steps = Steps(database.database)
    wanted = StepBody(step="assign", op_id=uuid4(), organisation=OURS)
    database.administer("REVOKE INSERT ON history FROM sites")
    try:
        with pytest.raises(ProgrammingError):
            steps.take(UUID(item["id"]), wanted, IfMatch('"1"'), site["Вера"].principal)
    finally:
        database.administer("GRANT INSERT ON history TO sites")
    assert (row_of(site, item).version, len(history_of(site, item))) == (1, 1)
    assert taken(site, "Вера", item, "assign", organisation=OURS)["version"] == 2


def test_an_item_that_was_reopened_has_no_time_of_closing_until_it_is_closed_again(site):
    first = taken(site, "Вера", create(site), "accept_as_is")
    reopened = taken(site, "Анна", first, "reopen", reason="Опять течёт", due_on="2199-01-01")
    assert (reopened["state"], reopened["closed_at"], reopened["resolution"]) == ("open", None, None)
    assert (reopened["first_closed_at"], reopened["reopen_count"]) == (first["closed_at"], 1)
    again = taken(site, "Вера", reopened, "accept_as_is")
    assert again["closed_at"] > first["closed_at"] == again["first_closed_at"]


def test_a_phones_clock_a_month_ahead_orders_nothing(site):
    ahead = f"{utc_now() + timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}"
    early = create(site, occurred_at=ahead)
    early = taken(site, "Вера", early, "accept_as_is", phone_at=ahead)
    late = create(site)
    assert early["created_at"] < early["closed_at"] < late["created_at"] < ahead
    assert history_of(site, early)[-1].phone_at > history_of(site, early)[-1].at


@pytest.mark.parametrize(
    ("zone", "due", "last_moment"),
    [
        ("America/Sao_Paulo", "2026-03-12", datetime(2026, 3, 13, 2, 59, tzinfo=UTC)),  # UTC−3
        ("Etc/GMT-12", "2026-03-12", datetime(2026, 3, 12, 11, 59, tzinfo=UTC)),  # UTC+12
        # The last Sunday of March: the day has 23 hours, and ends at UTC+2.
        ("Europe/Berlin", "2026-03-29", datetime(2026, 3, 29, 21, 59, tzinfo=UTC)),
    ],
)
def test_a_date_is_one_at_the_site_and_late_when_it_has_passed_there(database, zone, due, last_moment):
    """Wherever its readers are; what was closed in time never becomes late."""
    now = [datetime(2026, 3, 1, 12, tzinfo=UTC)]
    site = SitesSystem(database, clock=lambda: now[0]).site(people=PEOPLE, time_zone=zone)
    item, done = (create(site, due_on=due) for _ in range(2))
    done = taken(site, "Вера", done, "accept_as_is")
    now[0] = last_moment
    late = create(site)
    late = taken(site, "Вера", late, "move_deadline", due_on=due, reason="Сегодня")
    for who in ("Анна", "Борис", "Вера"):
        assert (seen(site, who, item)["due_on"], seen(site, who, item)["overdue"]) == (due, False)
    now[0] = last_moment + timedelta(minutes=1)
    refused = take(site, "Вера", create(site), "move_deadline", due_on=due, reason="Вчера")
    assert (refused.status, refused.body["details"][0]["field"]) == (400, "due_on")
    assert [seen(site, "Анна", one)["overdue"] for one in (item, late, done)] == [True, True, False]


def test_what_is_due_in_two_working_days_is_due_after_the_days_off_and_those_that_were_moved(database):
    """1 November 2025, a Saturday, is worked in Russia, and Monday the 3rd is not; the site itself works on
    Sunday the 2nd."""
    system = SitesSystem(database, clock=lambda: datetime(2025, 10, 31, 12, tzinfo=UTC))
    site = system.site(people=PEOPLE, calendar="RU", deadline_rules={"significant": 2, "minor": None})
    draft = create(site, severity="significant", draft=True)
    assert (draft["due_on"], taken(site, "Анна", draft, "submit")["due_on"]) == (None, "2025-11-05")
    database.administer(f"INSERT INTO calendar_days VALUES ('{site.id}', '2025-11-02', true)")
    assert create(site, severity="significant")["due_on"] == "2025-11-02"
    remark = site["Вера"].ask("GET", f"/work-items/{create(site, 'Дина')['id']}").body
    rated = site["Вера"].ask("PUT", f"/work-items/{remark['id']}", {"severity": "significant"}, If_Match='"1"').body
    assert taken(site, "Вера", rated, "admit")["due_on"] == "2025-11-02"
    assert create(site, severity="minor")["due_on"] is None


@pytest.mark.parametrize("how", ["deleted", "disabled", "updated", "removed"])
def test_whoever_leaves_is_off_their_work_and_still_named(database, how):
    site = SitesSystem(database).site(people=PEOPLE)
    to = {"assignee_id": str(site.ids["Егор"])}
    item, closed, other = (taken(site, "Вера", create(site), "assign", **to) for _ in range(3))
    closed = taken(site, "Вера", closed, "accept_as_is")
    other = taken(site, "Вера", other, "assign", assignee_id=str(site.ids["Зоя"]))
    watching = "SELECT count(*) FROM watchers WHERE user_id = %(id)s"
    database.administer(f"INSERT INTO watchers VALUES ('{item['id']}', '{site.ids['Егор']}', now())")
    with database.database.transaction() as session:
        if how == "removed":
            leave(session, site.id, site.ids["Егор"], utc_now())
        else:
            # An auditor changes nothing.
            data = {"id": str(site.ids["Егор"]), "name": "Егор", "roles": ["user", "auditor"]}
            event = Event(f"user.{how}", site.ids["Егор"], data)
            getattr(UserEvents(), how)(session, event)
    # A disabled account may be enabled again.
    assert site.rows(watching, id=site.ids["Егор"])[0].count == (0 if how == "deleted" else 1)
    stays = how in ("removed", "updated")
    left = seen(site, "Вера", item)
    assert left["assignee"] == {"id": None, "name": "Егор"}
    last = require_history_equals_state(site, item)[-1]
    told = (last.step, last.actor_name, last.actor_role, last.actor_organisation)
    assert told == ("person_left", "Егор", "contractor", OURS)
    assert last.changes == {"assignee_id": [str(site.ids["Егор"]), None]}
    assert [row_of(site, one).version for one in (closed, other)] == [closed["version"], other["version"]]
    # Whoever edits it assigns nobody.
    edited = site["Анна"].ask("PUT", f"/work-items/{item['id']}", {"title": "Щель"}, If_Match='"3"').body
    assert edited["assignee"] == left["assignee"]
    assert take(site, "Вера", edited, "assign", **to).status == (200 if stays else 400)
    assert taken(site, "Вера", seen(site, "Вера", item), "assign", organisation=THEIRS)["assignee"] is None
    reopened = taken(site, "Анна", closed, "reopen", reason="Опять течёт", due_on="2199-01-01")
    assert reopened["assignee"] == {"id": to["assignee_id"] if stays else None, "name": "Егор"}
    require_history_equals_state(site, closed)


def test_while_somebody_holds_a_site_its_steps_are_refused_in_time_and_may_be_sent_again(site, database):
    impatient = Database(database.url, application_name="tests", pool_size=2, lock_timeout_ms=50)
    items = [create(site) for _ in range(3)]
    every = [{"id": one["id"], "version": 1, "op_id": str(uuid4())} for one in items]
    body = BulkStepBody.model_validate({"step": "assign", "organisation": OURS, "items": every})
    steps, vera = Steps(impatient), site["Вера"].principal
    with database.database.transaction() as session:
        begin(session, site.id, utc_now())
        outcomes = steps.take_each(body, vera)
    # The others are not tried: that would take as long for each.
    assert [(one.status, one.error.code) for one in outcomes.items] == [(503, "overloaded")] * 3
    assert [row_of(site, one).version for one in items] == [1, 1, 1]
    assert steps.take_each(body, vera).taken == 3
    impatient.dispose()
