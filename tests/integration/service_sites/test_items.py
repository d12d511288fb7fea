"""Work items as the people of a site make, change, read and delete them, on a real database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

from service_sites.persistence import members
from service_sites.persistence.sites import begin
from service_sites.schemas.items import CustomerWorkItemView
from servicekit.process.clock import utc_now
from tests.support.postgres import ServiceDatabase
from tests.support.sites import OURS, PEOPLE, THEIRS, Reply, Site, SitesSystem
from tests.support.waiting import eventually

SOON = (datetime.now(UTC).date() + timedelta(days=30)).isoformat()
STATES = ("draft", "open", "in_progress", "ready", "returned", "disputed", "closed", "void")
RESOLUTIONS = {"closed": "'fixed'", "void": "'mistake'"}


@pytest.fixture
def site(cloned_database: ServiceDatabase) -> Site:
    """Give a site of its own."""
    return SitesSystem(cloned_database).site(people=PEOPLE)


def post(site: Site, who: str = "Анна", **fields: Any) -> Reply:
    return site[who].ask("POST", f"/sites/{site.id}/work-items", {"title": "Трещина", **fields})


def create(site: Site, who: str = "Анна", **fields: Any) -> dict[str, Any]:
    made = post(site, who, **fields)
    assert made.status == 201, made
    return made.body


def remark(site: Site, **fields: Any) -> dict[str, Any]:
    return create(site, "Дина", kind="customer_remark", **fields)


def get(site: Site, who: str, item: dict[str, Any]) -> Reply:
    return site[who].ask("GET", f"/work-items/{item['id']}")


def put(site: Site, who: str, item: dict[str, Any], if_match: str | None = "*", **fields: Any) -> Reply:
    return site[who].ask("PUT", f"/work-items/{item['id']}", fields, If_Match=if_match)


def listed(site: Site, who: str, query: str = "") -> list[dict[str, Any]]:
    found = site[who].ask("GET", f"/work-items?site_id={site.id}&{query}")
    assert found.status == 200, found
    return found.body["work_items"]


def move(site: Site, item: dict[str, Any], state: str) -> None:
    """Set a state as if steps had led there."""
    resolution = RESOLUTIONS.get(state, "NULL")
    site.database.administer(
        f"UPDATE work_items SET state = '{state}', resolution = {resolution} WHERE id = '{item['id']}'"
    )


def set_columns(site: Site, item: dict[str, Any], assignments: str) -> None:
    site.database.administer(f"UPDATE work_items SET {assignments} WHERE id = '{item['id']}'")


def history(site: Site, item: dict[str, Any]) -> list[Any]:
    return site.rows("SELECT * FROM history WHERE item_id = %(id)s ORDER BY seq", id=item["id"])


def test_fifty_items_made_at_once_have_fifty_numbers_and_as_many_changes(site):
    with ThreadPoolExecutor(10) as threads:
        made = list(threads.map(lambda number: post(site, title=f"Трещина {number}"), range(50)))

    assert [one.status for one in made] == [201] * 50
    assert sorted(one.body["number"] for one in made) == list(range(1, 51))
    assert {one.body["key"] for one in made} == {f"{made[0].body['key'].partition('-')[0]}-{n}" for n in range(1, 51)}
    changes = site.rows("SELECT change_seq FROM history WHERE site_id = %(id)s ORDER BY seq", id=site.id)
    assert [row.change_seq for row in changes] == list(range(1, 51))


def test_the_same_put_eight_times_at_once_makes_one_item(site):
    item_id = str(uuid4())
    body = {"site_id": str(site.id), "title": "Трещина", "tags": ["a"]}

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: site["Анна"].ask("PUT", f"/work-items/{item_id}", body), range(8)))

    assert sorted(one.status for one in answers) == [200] * 7 + [201]
    assert [one.headers.get("Idempotency-Replayed") for one in answers].count("true") == 7
    assert {one.body["number"] for one in answers} == {1}
    assert len(listed(site, "Анна")) == len(history(site, answers[0].body)) == 1


def test_a_repeated_post_with_its_key_makes_one_item_and_no_gap_in_the_numbers(site):
    def ask(_: int) -> Reply:
        body = {"title": "Трещина"}
        return site["Анна"].ask("POST", f"/sites/{site.id}/work-items", body, Idempotency_Key="k1")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))

    assert {one.status for one in answers} == {201}
    assert {one.body["id"] for one in answers} == {answers[0].body["id"]}
    assert create(site)["number"] == 2
    other = site["Анна"].ask("POST", f"/sites/{site.id}/work-items", {"title": "x"}, Idempotency_Key="k1")
    assert (other.status, other.code) == (409, "idempotency_key_reused")
    elsewhere = site.system.site(people=PEOPLE)
    asked = [
        site["local"].ask("POST", f"/sites/{one.id}/work-items", {"title": "x", "reason": "y"}, Idempotency_Key="k2")
        for one in (site, elsewhere)
    ]
    assert (asked[0].status, asked[1].code) == (201, "idempotency_key_reused")


def test_a_put_needs_what_was_seen_and_an_identical_one_is_answered_again_whatever_others_did(site):
    path = f"/work-items/{uuid4()}"
    body = {"site_id": str(site.id), "title": "Трещина", "severity": "minor"}
    made = site["Анна"].ask("PUT", path, body)
    assert (made.status, made.headers["Location"], made.headers["ETag"]) == (201, path, '"1"')

    assert site["Анна"].ask("PUT", path, {**body, "title": "x"}).code == "precondition_required"
    assert site["Вера"].ask("PUT", path, body).code == "precondition_required"
    assert site["Вера"].ask("PUT", path, {"priority": 2}, If_Match='"1"').body["version"] == 2
    again = site["Анна"].ask("PUT", path, dict(reversed(body.items())))
    assert (again.status, again.body["priority"], again.headers["ETag"]) == (200, 2, '"2"')
    # What GET shows may be sent back whole, and changes nothing.
    whole = site["Анна"].ask("PUT", path, again.body, If_Match='"2"')
    assert (whole.status, whole.body) == (200, again.body)
    assert len(history(site, again.body)) == 2


def test_of_two_who_edit_the_second_is_told_who_changed_what_and_nothing_is_lost(site):
    item = create(site, description="по оси 3")
    assert put(site, "Борис", item, '"1"', title="Дыра", severity="critical").status == 200

    stale = put(site, "Вера", item, '"1"', title="Щель", description="x")

    assert (stale.status, stale.code, stale.headers["ETag"]) == (412, "precondition_failed", '"2"')
    assert [detail["field"] for detail in stale.body["details"]] == ["title", "severity"]
    assert all(detail["message"].startswith("changed by Борис (engineer) at 20") for detail in stale.body["details"])
    assert stale.body["present"] == get(site, "Вера", item).body
    assert (stale.body["present"]["title"], stale.body["present"]["description"]) == ("Дыра", "по оси 3")


#: Who wants to change which fields of an item in which state, made by whom; what they are answered.
RIGHTS: list[tuple[str, str, str, dict[str, Any], int, str]] = [
    ("Анна", "Анна", "open", {"title": "x", "severity": "minor", "tags": ["a"]}, 200, ""),
    ("Анна", "Борис", "returned", {"description": "x"}, 200, ""),
    ("Анна", "Анна", "open", {"priority": 1}, 403, "forbidden"),
    ("Анна", "Анна", "open", {"visible_to_customer": False}, 403, "forbidden"),
    ("Вера", "Анна", "open", {"priority": 1, "visible_to_customer": False, "root_cause": "x"}, 200, ""),
    ("Глеб", "Анна", "open", {"title": "x"}, 403, "forbidden"),
    ("Егор", "Анна", "open", {"title": "x"}, 403, "forbidden"),
    ("Зоя", "Анна", "open", {"title": "x"}, 404, "work_item_not_found"),
    ("Дина", "Анна", "open", {"title": "x"}, 403, "forbidden"),
    ("stranger", "Анна", "open", {"title": "x"}, 404, "work_item_not_found"),
    ("auditor", "Анна", "open", {"title": "x"}, 403, "forbidden"),
    ("admin", "Анна", "open", {"title": "x"}, 403, "reason_required"),
    ("admin", "Анна", "open", {"title": "x", "reason": "по звонку"}, 200, ""),
    ("Вера", "Анна", "open", {"due_on": SOON}, 400, "invalid_input"),
    ("Вера", "Анна", "open", {"organisation": THEIRS}, 400, "invalid_input"),
    ("Вера", "Анна", "closed", {"title": "x"}, 409, "step_not_possible"),
    ("Вера", "Анна", "closed", {"visible_to_customer": False}, 200, ""),
    ("Вера", "Анна", "void", {"severity": "minor"}, 409, "step_not_possible"),
    ("Анна", "Анна", "draft", {"priority": 1, "due_on": SOON, "visible_to_customer": True}, 200, ""),
    ("Борис", "Анна", "draft", {"title": "x"}, 404, "work_item_not_found"),
    ("Вера", "Анна", "draft", {"title": "x"}, 404, "work_item_not_found"),
    ("Дина", "Дина", "draft", {"title": "x", "place": "кухня"}, 200, ""),
    ("Дина", "Дина", "draft", {"severity": "minor"}, 403, "forbidden"),
    ("Дина", "Дина", "open", {"title": "x"}, 409, "step_not_possible"),
    ("Дина", "Дина", "open", {"severity": "minor"}, 403, "forbidden"),
    ("admin", "Дина", "draft", {"title": "x", "reason": "по звонку"}, 200, ""),
    ("Вера", "Дина", "draft", {"severity": "minor", "priority": 4}, 200, ""),
    ("Анна", "Дина", "draft", {"title": "x"}, 404, "work_item_not_found"),
    ("Анна", "Анна", "open", {"kind": "task"}, 400, "invalid_input"),
    ("Анна", "Анна", "open", {"pin_x": 0.5}, 400, "invalid_input"),
    ("Анна", "Анна", "open", {"location_id": str(uuid4())}, 400, "invalid_input"),
]


@pytest.mark.parametrize(("who", "author", "state", "fields", "status", "code"), RIGHTS)
def test_a_field_is_changed_by_whom_the_table_says(site, who, author, state, fields, status, code):
    item = remark(site) if author == "Дина" else create(site, author, draft=True, organisation=OURS)
    set_columns(site, item, f"organisation = '{OURS}', visible_to_customer = {str(state != 'draft').lower()}")
    move(site, item, state)

    answer = put(site, who, item, **fields)

    assert (answer.status, "" if status == 200 else answer.code) == (status, code), answer
    told = history(site, item)[1:]
    if status == 200:
        (entry,) = told
        assert (entry.step, entry.actor_name, entry.override) == (
            "changed",
            "Root" if who == "admin" else who,
            who == "admin",
        )
        assert entry.changes.keys() == fields.keys() - {"reason"}
        assert all(entry.changes[name][1] == value for name, value in fields.items() if name != "reason")
    else:
        assert told == []
        if status in (400, 403) and who not in ("auditor", "admin"):
            assert answer.body["details"][0]["field"] in (*fields, "pin_y")


#: Who makes an item with which fields; what they are answered, and its state.
MAKERS: list[tuple[str, dict[str, Any], int, str]] = [
    ("Анна", {}, 201, "open"),
    ("Вера", {"kind": "task", "priority": 1, "draft": True}, 201, "draft"),
    ("Дина", {"kind": "customer_remark", "description": "x", "place": "кухня"}, 201, "accepted"),
    ("Дина", {"kind": "customer_remark", "priority": 1}, 403, "forbidden"),
    ("Дина", {"kind": "defect"}, 403, "forbidden"),
    ("Анна", {"kind": "customer_remark"}, 403, "forbidden"),
    ("Глеб", {}, 403, "forbidden"),
    ("Егор", {}, 403, "forbidden"),
    ("auditor", {}, 403, "forbidden"),
    ("admin", {}, 403, "reason_required"),
    ("local", {"reason": "импорт"}, 201, "open"),
    ("stranger", {}, 404, "site_not_found"),
    ("Анна", {"due_on": "2020-01-01"}, 400, "invalid_input"),
    ("Анна", {"due_on": "2020-01-01", "draft": True}, 201, "draft"),
    # A year that is still being typed, and the last of all dates, which sorts as none.
    ("Анна", {"due_on": "0202-12-01", "draft": True}, 400, "invalid_input"),
    ("Анна", {"due_on": "9999-12-31"}, 400, "invalid_input"),
    ("Анна", {"latitude": 55.75}, 400, "invalid_input"),
    ("Анна", {"organisation": "\u0958" * 101}, 400, "invalid_input"),  # two characters each in NFC
    ("admin", {"reason": " "}, 400, "invalid_input"),
]


@pytest.mark.parametrize(("who", "fields", "status", "said"), MAKERS)
def test_an_item_is_made_by_whom_the_table_says_and_takes_no_number_otherwise(site, who, fields, status, said):
    made = post(site, who, **fields)

    assert (made.status, made.body["state"] if status == 201 else made.code) == (status, said), made
    assert create(site)["number"] == (2 if status == 201 else 1)


def test_a_new_item_is_due_by_the_rules_of_its_site_unless_somebody_says(cloned_database):
    # A Friday evening in Moscow; on Saturday they work, on Monday they do not.
    system = SitesSystem(cloned_database, clock=lambda: datetime(2025, 10, 31, 20, tzinfo=UTC))
    site = system.site(people=PEOPLE, deadline_rules={"critical": 2})
    site.database.administer(
        f"INSERT INTO calendar_days VALUES ('{site.id}', '2025-11-01', true), ('{site.id}', '2025-11-03', false)"
    )

    assert create(site, severity="critical")["due_on"] == "2025-11-04"
    assert create(site, severity="critical", due_on="2025-12-31")["original_due_on"] == "2025-12-31"
    assert create(site, severity="minor")["due_on"] is None
    draft = create(site, severity="critical", draft=True)
    assert (draft["due_on"], draft["original_due_on"], draft["submitted_at"]) == (None, None, None)


def test_a_draft_names_who_should_do_it(site):
    draft = create(site, draft=True, assignee_id=str(site.ids["Егор"]))
    assert (draft["assignee"]["name"], draft["organisation"]) == ("Егор", OURS)
    changed = put(site, "Анна", draft, assignee_id=str(site.ids["Зоя"]), organisation="ИП").body
    assert (changed["assignee"]["name"], changed["organisation"]) == ("Зоя", "ИП")
    assert put(site, "Анна", draft, assignee_id=None).body["assignee"] is None
    for wrong in ("Дина", "stranger"):
        refused = put(site, "Анна", draft, assignee_id=str(site.ids[wrong]))
        assert (refused.status, refused.body["details"][0]["field"]) == (400, "assignee_id")


@pytest.mark.parametrize(
    ("gone", "method", "status", "code"),
    [
        ("Анна", "POST", 404, "site_not_found"),
        ("Анна", "PUT", 404, "work_item_not_found"),
        ("Егор", "POST", 400, "invalid_input"),
        ("Егор", "PUT", 400, "invalid_input"),
    ],
)
def test_whoever_leaves_while_a_new_item_waits_neither_makes_it_nor_has_it_to_do(site, gone, method, status, code):
    path = f"/sites/{site.id}/work-items" if method == "POST" else f"/work-items/{uuid4()}"
    body = {"title": "Трещина", "assignee_id": str(site.ids["Егор"])}
    body |= {} if method == "POST" else {"site_id": str(site.id)}
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as threads:
        with site.database.database.transaction() as session:
            begin(session, site.id, utc_now())
            members.remove(session, site.id, site.ids[gone])
            answer = threads.submit(site["Анна"].ask, method, path, body)
            eventually(lambda: site.rows(waiting), what="an item that waits for its site")
        refused = answer.result(10)

    assert (refused.status, refused.code) == (status, code), refused
    assert listed(site, "admin") == []


def test_a_deleted_draft_is_gone_for_those_who_saw_it_and_its_number_and_id_come_never_again(site):
    path, body = f"/work-items/{uuid4()}", {"site_id": str(site.id), "title": "Трещина", "draft": True}
    item = site["Анна"].ask("PUT", path, body).body
    assert site["Анна"].ask("DELETE", path).code == "precondition_required"
    for never_seen in ('"7"', '"0"'):
        assert site["Анна"].ask("DELETE", path, If_Match=never_seen).code == "precondition_failed"
    assert site["admin"].ask("DELETE", path, If_Match="*").code == "reason_required"

    assert site["Анна"].ask("DELETE", path, If_Match='"1"').body["title"] == "Трещина"

    gone = site.rows("SELECT * FROM removals WHERE site_id = %(id)s ORDER BY audience", id=site.id)
    told = [(item["id"], audience, 2) for audience in ("all", f"user:{site.ids['Анна']}")]
    assert [(str(row.item_id), row.audience, row.change_seq) for row in gone] == told
    assert [(row.step, row.to_state) for row in history(site, item)] == [("created", "draft"), ("deleted", None)]
    # A late repetition of a phone's.
    assert site["Анна"].ask("PUT", path, body).code == "work_item_not_found"
    assert create(site)["number"] == 2
    assert site["Вера"].ask("DELETE", f"/work-items/{create(site)['id']}", If_Match="*").code == "step_not_possible"


def test_whoever_loses_sight_of_an_item_finds_it_among_the_removals(site):
    item = create(site)
    put(site, "Вера", item, visible_to_customer=True)
    assert get(site, "Дина", item).status == 200

    put(site, "Вера", item, visible_to_customer=False)

    assert get(site, "Дина", item).code == "work_item_not_found"
    (gone,) = site.rows("SELECT * FROM removals WHERE site_id = %(id)s", id=site.id)
    assert (gone.audience, gone.change_seq) == ("customer", 3)


@pytest.mark.parametrize(("zone", "late"), [("America/Sao_Paulo", False), ("Pacific/Auckland", True)])
def test_a_deadline_is_the_same_date_everywhere_and_has_passed_when_that_day_has_at_the_site(
    cloned_database, zone, late
):
    now = [datetime(2026, 3, 12, 0, tzinfo=UTC)]
    site = SitesSystem(cloned_database, clock=lambda: now[0]).site(people=PEOPLE, time_zone=zone)
    item = create(site, due_on="2026-03-12")
    assert (item["due_on"], item["overdue"]) == ("2026-03-12", False)

    # In New Zealand it is half past midnight.
    now[0] = datetime(2026, 3, 12, 11, 30, tzinfo=UTC)

    for shown in (get(site, "Вера", item).body, listed(site, "Вера")[0]):
        assert (shown["due_on"], shown["overdue"]) == ("2026-03-12", late)
    # It was done in time, and the date passes.
    set_columns(site, item, "state = 'closed', resolution = 'fixed', closed_at = '2026-03-11T10:00:00Z'")
    assert not get(site, "Вера", item).body["overdue"]


def test_what_is_overdue_is_the_same_in_an_item_a_list_and_a_filter(cloned_database):
    site = SitesSystem(cloned_database, clock=lambda: datetime(2026, 3, 12, 12, tzinfo=UTC)).site(people=PEOPLE)
    late: dict[str, bool] = {}
    for state in STATES:
        for due_on in ("2026-03-11", "2026-03-12", None):
            item = create(site)
            set_columns(site, item, f"due_on = nullif('{due_on}', 'None')::date")
            move(site, item, state)
            late[item["id"]] = due_on == "2026-03-11" and state in ("open", "in_progress", "returned", "disputed")
    seen = {one["id"]: one["overdue"] for one in listed(site, "admin")}

    assert seen == late
    assert {one["id"]: get(site, "admin", one).body["overdue"] for one in listed(site, "admin")} == late
    for sort in ("-created_at", "due_on", "-due_on"):
        found = {
            word: {one["id"] for one in listed(site, "admin", f"sort={sort}&overdue={word}")}
            for word in ("true", "false")
        }
        assert found["true"] == {item_id for item_id, is_late in late.items() if is_late}
        assert found["false"] == late.keys() - found["true"]
        without_site = site["admin"].ask("GET", f"/work-items?overdue=true&sort={sort}").body["work_items"]
        assert {one["id"] for one in without_site} >= found["true"]
    assert len(listed(site, "Анна", "overdue=true")) == 4


def test_a_person_who_left_is_still_named_and_an_edit_assigns_nobody_else(site):
    item = create(site, draft=True, assignee_id=str(site.ids["Егор"]))
    move(site, item, "open")
    set_columns(site, item, "assignee_id = NULL")

    changed = put(site, "Вера", item, title="Дыра").body

    assert changed["assignee"] == {"id": None, "name": "Егор"} == listed(site, "Вера")[0]["assignee"]


#: All that a customer is told, by the state of the item.
TOLD = {
    "open": "accepted",
    "in_progress": "in_work",
    "returned": "in_work",
    "ready": "in_work",
    "disputed": "in_work",
    "closed": "done",
}


@pytest.mark.parametrize("state", STATES)
def test_a_customer_is_told_three_words_and_nothing_between_the_lines(site, state):
    site.database.administer(f"INSERT INTO locations VALUES ('{uuid4()}', '{site.id}', NULL, 'Корпус 1', 1)")
    (location,) = site.rows("SELECT id FROM locations WHERE site_id = %(id)s", id=site.id)
    item = create(site, location_id=str(location.id), description="тайна", severity="critical", tags=["тайна"],
                  due_on=SOON, visible_to_customer=True, draft=True, organisation=OURS)  # fmt: skip
    set_columns(site, item, "closed_at = '2026-03-11T22:00:00Z'")
    move(site, item, state)

    answer = get(site, "Дина", item)

    if state not in TOLD:
        assert (answer.code, listed(site, "Дина")) == ("work_item_not_found", [])
        return
    assert answer.body == {
        "id": item["id"],
        "site_id": str(site.id),
        "kind": "defect",
        "title": "Трещина",
        "description": None,
        "place": None,
        "location_id": item["location_id"],
        "location": "Корпус 1",
        "state": TOLD[state],
        "created_at": item["created_at"],
        "due_on": SOON,
        # In Moscow it was past midnight.
        "done_on": "2026-03-12" if state == "closed" else None,
        "editable": False,
    }
    assert listed(site, "Дина") == listed(site, "Дина", f"state={TOLD[state]}&q=трещ") == [answer.body]
    assert set(answer.body) == set(CustomerWorkItemView.model_fields)
    # What they are not told they cannot find out by asking for it, either.
    for probe in (
        f"state={state}",
        "severity=critical",
        "overdue=false",
        f"organisation={OURS}",
        f"q={item['key']}",
        "sort=number",
        "sort=priority",
    ):
        found = site["Дина"].ask("GET", f"/work-items?site_id={site.id}&{probe}").body
        assert (found["work_items"], found["total"], found["next"]) == ([], 0, None), probe
    # Nor by saying what it may be.
    for name, right, wrong in (
        ("severity", "critical", "minor"),
        ("tags", ["тайна"], []),
        ("description", "тайна", ""),
    ):
        told = [put(site, "Дина", item, **{name: value}) for value in (right, wrong)]
        assert told[0].status in (403, 409)
        assert (told[0].status, told[0].body["message"]) == (told[1].status, told[1].body["message"]), name
    assert site["Дина"].ask("DELETE", f"/work-items/{item['id']}", If_Match="*").body["message"] == (
        "Only a draft can be deleted."
    )
    assert site["Дина"].ask("GET", f"/work-items/{item['id']}/history").code == "forbidden"


def test_a_customer_sees_the_text_of_their_own_remark_only(site):
    mine = remark(site, description="дует", place="кухня")
    assert (mine["description"], mine["place"], mine["editable"]) == ("дует", "кухня", True)
    assert listed(site, "Дина", "mine=true") == [mine]
    assert site["Дина"].ask("PUT", f"/work-items/{mine['id']}", mine, If_Match="*").body == mine
    set_columns(site, mine, f"author_id = '{uuid4()}', visible_to_customer = true, state = 'open'")
    for shown in (get(site, "Дина", mine).body, listed(site, "Дина")[0]):
        assert (shown["description"], shown["place"], shown["editable"]) == (None, None, False)


def test_a_customer_changes_what_they_have_seen_and_is_not_told_by_whom_it_was_changed(site):
    mine = remark(site)
    seen = get(site, "Дина", mine).headers["ETag"]
    # What a customer is not told of does not make their copy stale.
    assert put(site, "Вера", mine, priority=1).status == 200
    assert put(site, "Дина", mine, seen, title="Дует").status == 200

    stale = put(site, "Дина", mine, seen, title="Сквозит")

    assert (stale.status, "details" in stale.body) == (412, False)
    assert stale.body["present"] == get(site, "Дина", mine).body
    assert [row.step for row in history(site, mine)] == ["created", "changed", "changed"]


@pytest.mark.parametrize("state", STATES)
def test_a_customer_may_correct_what_they_are_told_that_they_may(site, state):
    mine, other = remark(site), create(site, visible_to_customer=True, draft=True)
    for item in (mine, other):
        move(site, item, state)
        found = {one["id"]: one for one in listed(site, "Дина")}.get(item["id"])
        may = found is not None and found["editable"]
        assert may is (item is mine and state == "draft")
        for name in ("title", "description", "place"):
            answer = put(site, "Дина", item, **{name: f"{name} теперь"})
            assert answer.status == 200 if may else answer.status in (403, 404, 409), answer
            assert not may or answer.body[name] == f"{name} теперь"


def test_history_tells_all_with_names_as_they_were_and_a_contractor_what_concerns_them(site):
    item = create(site, draft=True, organisation=THEIRS)
    move(site, item, "open")
    put(site, "Вера", item, title="Дыра", priority=1)
    set_columns(site, item, f"organisation = '{OURS}'")
    put(site, "Вера", item, priority=2, severity="minor")
    put(site, "Вера", item, priority=3)
    site.database.administer("UPDATE memberships SET name = 'Вера П.', role = 'executive' WHERE name = 'Вера'")

    def told(who: str, query: str = "") -> list[tuple[str, str, dict[str, Any]]]:
        answer = site[who].ask("GET", f"/work-items/{item['id']}/history?{query}")
        assert answer.status == 200, answer
        return [(one["step"], one["actor"]["name"], one["changes"]) for one in answer.body["history"]]

    everything = [
        ("created", "Анна", {}),
        ("changed", "Вера", {"title": ["Трещина", "Дыра"], "priority": [None, 1]}),
        ("changed", "Вера", {"priority": [1, 2], "severity": [None, "minor"]}),
        ("changed", "Вера", {"priority": [2, 3]}),
    ]
    assert told("Анна") == told("auditor") == told("local") == everything
    assert told("Егор") == everything[2:] == told("Жанна")
    for who, employer in (("Анна", "Технадзор"), ("Егор", None)):
        last = site[who].ask("GET", f"/work-items/{item['id']}/history").body["history"][-1]
        assert last["actor"]["organisation"] == employer
    assert site["Зоя"].ask("GET", f"/work-items/{item['id']}/history").code == "work_item_not_found"
    first = site["Анна"].ask("GET", f"/work-items/{item['id']}/history?limit=3").body
    assert len(first["history"]) == 3
    assert told("Анна", f"limit=3&after={first['next']}") == everything[3:]
    assert site["Анна"].ask("GET", f"/work-items/{item['id']}/history?limit=4").body["next"] is None


def test_an_assignees_history_begins_when_the_item_came_to_them_or_with_the_item(site):
    theirs = {"assignee_id": str(site.ids["Егор"]), "organisation": THEIRS}
    item, draft = create(site, **theirs), create(site, draft=True, assignee_id=str(site.ids["Зоя"]))
    put(site, "Анна", draft, title="Щель")
    put(site, "Анна", draft, **theirs)
    move(site, draft, "open")
    for one in (item, draft):
        put(site, "Вера", one, title="Дыра", priority=1)

    for one, first in ((item, "created"), (draft, "changed")):
        told = site["Егор"].ask("GET", f"/work-items/{one['id']}/history").body["history"]
        assert (len(told), told[0]["step"]) == (2, first)
        assert {*told[1]["changes"]} == {"title", "priority"}
    # Nor whose it was before.
    for who, before in (("Егор", None), ("Анна", "Зоя")):
        told = site[who].ask("GET", f"/work-items/{draft['id']}/history?after=2").body["history"]
        assert told[0]["changes"]["assignee_name"] == [before, "Егор"]


def test_an_item_is_found_by_a_plan_that_its_connection_keeps_or_has_forgotten(site):
    item = create(site)
    plans = "SELECT count(*) FROM pg_prepared_statements WHERE name = 'find_work_item'"
    assert get(site, "Анна", item).status == 200
    assert site.rows(plans)[0].count == 1
    site.rows("DEALLOCATE ALL")
    assert [get(site, who, item).status for who in ("Анна", "Зоя", "auditor", "Анна")] == [200, 404, 200, 200]
    assert site.rows(plans)[0].count == 1


@pytest.mark.parametrize(
    "statement",
    ["UPDATE history SET reason = 'x'", "DELETE FROM history", "TRUNCATE history", "DELETE FROM comments"],
)
def test_the_service_itself_cannot_alter_what_happened(site, statement):
    create(site)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        site.rows(statement)
