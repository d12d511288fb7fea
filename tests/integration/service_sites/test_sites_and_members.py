"""Sites and their people over HTTP, on a real database."""

from __future__ import annotations

import threading
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from service_sites.use_cases.user_events import UserEvents
from servicekit.events.cloudevents import Event
from tests.support.postgres import ServiceDatabase
from tests.support.sites import Site, SitesSystem

NEW = {"key": "SOUTH", "name": "South", "time_zone": "Europe/Moscow", "manager": {"email": "MARA@example.com"}}
RIGHTS = {"Ed": "engineer", "Xi": "executive", "Cat": "customer", "Con": "contractor/Roofers"}


def tell(database: ServiceDatabase, type: str, user_id: UUID | None, **data: str) -> None:
    assert user_id is not None
    events = UserEvents()
    handler = getattr(events, type.removeprefix("user."))
    with database.database.transaction() as session:
        handler(session, Event(type=type, subject=user_id, data={"id": str(user_id), **data}))


def outbox(database: ServiceDatabase) -> list[tuple[str, str, bool]]:
    with database.database.transaction() as session:
        rows = session.execute(
            text("SELECT subject, data FROM outbox WHERE type = 'membership.changed' ORDER BY position")
        )
        return [(str(row.subject), row.data["user_id"], row.data["present"]) for row in rows]


def test_an_administrator_opens_a_site_whose_manager_changes_it_and_everybody_else_may_not(
    system: SitesSystem, sites_database: ServiceDatabase
) -> None:
    mara = system.caller("Mara")
    made = system.admin.ask("POST", "/sites", NEW)
    site = made.body
    path = f"/sites/{site['id']}"
    assert (made.status, made.headers["Location"]) == (201, path)
    assert site["deadline_rules"] == {"critical": 1, "significant": 10, "minor": None}
    assert (site["calendar"], site["role"]) == (None, None)
    assert outbox(sites_database) == [(site["id"], str(mara.user_id), True)]

    shown = mara.ask("GET", path)
    assert shown.body == {**site, "role": "manager"}
    assert shown.headers["ETag"] == system.auditor.ask("GET", path).headers["ETag"]
    changed = mara.data(
        "PUT", path, {"name": "The South", "deadline_rules": {"critical": 2}}, If_Match=shown.headers["ETag"]
    )
    assert changed["name"] == "The South"
    assert changed["deadline_rules"] == {"critical": 2, "significant": 10, "minor": None}
    assert mara.refusal("PUT", path, {"name": "x"}, If_Match=shown.headers["ETag"]) == (412, "precondition_failed")
    assert mara.data("PUT", path, changed)["updated_at"] == changed["updated_at"]
    assert mara.refusal("PUT", path, {**changed, "key": "EAST"}) == (400, "invalid_input")
    assert system.local.data("PUT", path, {"name": "South"})["name"] == "South"

    assert system.stranger.refusal("GET", path) == system.stranger.refusal("PUT", path, {}) == (404, "site_not_found")
    for refused in (mara, system.auditor, system.stranger):
        assert refused.refusal("POST", "/sites", NEW) == (403, "forbidden")
    assert system.auditor.refusal("PUT", path, {"name": "x"}) == (403, "forbidden")
    assert system.admin.refusal("POST", "/sites", NEW) == (409, "site_key_taken")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", "south"),
        ("key", "S"),
        ("name", " "),
        ("time_zone", "Europe/Moskau"),
        ("time_zone", "../../etc/passwd"),
        ("time_zone", ""),
        ("deadline_rules", {"critical": -1}),
        ("deadline_rules", {"tiny": 1}),
        ("manager", {}),
        ("manager", {"email": "mara@example.com", "user_id": str(uuid4())}),
        ("manager", {"email": "nobody@example.com"}),
        ("manager", {"user_id": str(uuid4())}),
    ],
)
def test_a_site_that_cannot_be_names_the_field_and_is_not_stored(
    system: SitesSystem, field: str, value: object
) -> None:
    system.caller("Mara")
    answer = system.admin.ask("POST", "/sites", {**NEW, field: value})
    assert answer.status == 400
    assert all(one["field"].startswith(field) for one in answer.body["details"])
    assert system.admin.data("GET", "/sites")["total"] == 0


def test_somebody_sees_the_sites_they_work_on_and_whoever_reads_everything_all(system: SitesSystem) -> None:
    north, south = system.site("NORTH", {"Ed": "engineer"}), system.site("SOUTH")
    assert [one["key"] for one in north["Ed"].data("GET", "/sites")["sites"]] == ["NORTH"]
    assert [one["role"] for one in south["Mara"].data("GET", "/sites")["sites"]] == ["manager", "manager"]
    assert system.auditor.data("GET", "/sites?limit=1&offset=1") | {"sites": 0} == {
        "total": 2, "limit": 1, "offset": 1, "sites": 0
    }  # fmt: skip
    assert system.stranger.data("GET", "/sites") == {"sites": [], "total": 0, "limit": 50, "offset": 0}


def test_managers_add_people_by_exact_address_or_id_and_users_hears_of_it(
    system: SitesSystem, sites_database: ServiceDatabase
) -> None:
    site = system.site()
    mara, ed = site["Mara"], system.caller("Ed")
    body = {
        "email": "Ed@Example.com",
        "role": "engineer",
        "organisation": "  Стро\u0438\u0306  ",
        "position": "foreman",
    }
    added = mara.ask("POST", f"{site.path}/members", body)
    assert added.status == 201
    assert added.body | {"created_at": 0, "updated_at": 0} == {
        "user_id": str(ed.user_id), "name": "Ed", "role": "engineer", "organisation": "Строй", "position": "foreman",
        "disabled": False, "created_at": 0, "updated_at": 0,
    }  # fmt: skip
    assert mara.refusal("POST", f"{site.path}/members", body) == (409, "member_exists")
    assert ed.data("GET", site.path)["role"] == "engineer"

    asked = system.directory.asked
    for caller, status in ((ed, 403), (system.stranger, 404), (system.auditor, 403)):
        # Alike for addresses that exist and for others: they are not even looked for.
        for email in ("eye@example.com", "nobody@example.com"):
            refused = caller.refusal("POST", f"{site.path}/members", {"email": email, "role": "engineer"})
            assert refused[0] == status
    assert system.directory.asked == asked
    assert mara.refusal("POST", f"{site.path}/members", {"email": "no@example.com", "role": "engineer"}) == (
        400, "person_not_found"
    )  # fmt: skip

    mara.data("DELETE", f"{site.path}/members/{ed.user_id}")
    assert ed.refusal("GET", site.path) == (404, "site_not_found")
    assert outbox(sites_database) == [(str(site.id), str(ed.user_id), present) for present in (True, False)]


def test_while_users_are_away_nobody_is_added_and_nothing_stored(system: SitesSystem) -> None:
    site = system.site()
    system.directory.is_away = True
    body = {"email": "root@example.com", "role": "engineer"}
    assert site["Mara"].refusal("POST", f"{site.path}/members", body) == (503, "users_unavailable")
    assert system.admin.refusal("POST", "/sites", NEW) == (503, "users_unavailable")
    assert (system.admin.data("GET", "/sites")["total"], site["Mara"].data("GET", f"{site.path}/members")["total"]) == (
        1,
        1,
    )


def test_customers_and_contractors_are_shown_who_the_others_are_and_not_whom_they_work_for(system: SitesSystem) -> None:
    site = system.site(people=RIGHTS | {"Ed": "engineer/Watchers"})
    for name, sees in (("Mara", True), ("Ed", True), ("Xi", True), ("Cat", False), ("Con", False)):
        page = site[name].data("GET", f"{site.path}/members")
        assert [one["name"] for one in page["members"]] == ["Cat", "Con", "Ed", "Mara", "Xi"]
        shown = {one["name"]: one["organisation"] for one in page["members"]}
        assert shown["Ed"] == ("Watchers" if sees else None)
        assert shown[name] is not None
    assert system.stranger.refusal("GET", f"{site.path}/members") == (404, "site_not_found")


def test_only_managers_change_people_and_what_changes_their_sight_is_numbered(
    system: SitesSystem, sites_database: ServiceDatabase
) -> None:
    site = system.site(people=RIGHTS)
    con = f"{site.path}/members/{site['Con'].user_id}"

    def numbers() -> tuple[int, int]:
        with sites_database.database.transaction() as session:
            return tuple(
                session.execute(
                    text(
                        "SELECT change_seq, changed_seq FROM sites JOIN memberships ON site_id = id WHERE user_id = :id"
                    ),
                    {"id": site["Con"].user_id},
                ).one()
            )

    for name in RIGHTS:
        assert site[name].refusal("PUT", con, {"position": "boss"}) == (403, "forbidden")
    _, before = numbers()
    site["Mara"].data("PUT", con, {"position": "boss"})
    assert numbers()[1] == before
    site["Mara"].data("PUT", con, {"organisation": "Masons"})
    assert numbers()[0] == numbers()[1] > before
    work = site["Mara"].data("POST", f"{site.path}/work-items", {"title": "Crack"})
    given = {"step": "assign", "op_id": str(uuid4()), "assignee_id": str(site["Con"].user_id)}
    site["Mara"].data("POST", f"/work-items/{work['id']}/steps", given, If_Match='"1"')
    site["Mara"].data("PUT", con, {"role": "customer"})
    # Customers are given no work.
    assert site["Mara"].data("GET", f"/work-items/{work['id']}")["assignee"] == {"id": None, "name": "Con"}
    assert site["Mara"].refusal("PUT", f"{site.path}/members/{uuid4()}", {}) == (404, "member_not_found")
    assert site["Mara"].refusal("PUT", con, {"role": "boss"}) == (400, "invalid_input")
    etag = system.admin.ask("PUT", con, {"position": "none"}).headers["ETag"]
    assert system.admin.refusal("DELETE", con, None, If_Match='"old"') == (412, "precondition_failed")
    assert system.admin.ask("DELETE", con, None, If_Match=etag).status == 200


def test_people_leave_by_themselves_but_the_last_manager_who_may_log_in_does_not(
    system: SitesSystem, sites_database: ServiceDatabase
) -> None:
    site = system.site(people={"Mara": "manager", "Ed": "engineer", "Max": "manager"})
    own = {name: f"{site.path}/members/{site[name].user_id}" for name in ("Mara", "Ed", "Max")}
    assert site["Ed"].ask("DELETE", own["Ed"]).status == 200
    tell(sites_database, "user.disabled", site["Max"].user_id)
    for method, body in (("DELETE", None), ("PUT", {"role": "engineer"})):
        for caller in (site["Mara"], system.admin):
            assert caller.refusal(method, own["Mara"], body) == (409, "last_manager")
    # They have no say any more.
    assert site["Mara"].ask("DELETE", own["Max"]).status == 200


def leave(site: Site, name: str, start: threading.Barrier, statuses: list[int]) -> None:
    start.wait(5)
    statuses.append(site[name].ask("DELETE", f"{site.path}/members/{site[name].user_id}").status)


def test_of_two_managers_who_leave_at_once_one_stays(system: SitesSystem) -> None:
    for number in range(5):
        site, start, statuses = (
            system.site(f"S{number}", dict.fromkeys(("Mara", "Max"), "manager")),
            threading.Barrier(2),
            list[int](),
        )
        threads = [threading.Thread(target=leave, args=(site, name, start, statuses)) for name in ("Mara", "Max")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sorted(statuses) == [200, 409]


def test_people_are_shown_as_their_accounts_are_and_those_deleted_are_not_added_again(
    system: SitesSystem, sites_database: ServiceDatabase
) -> None:
    site = system.site(people={"Ed": "engineer"})
    ed = site["Ed"].user_id
    tell(sites_database, "user.updated", ed, name="Edward")
    tell(sites_database, "user.disabled", ed)
    (shown,) = (one for one in site["Mara"].data("GET", f"{site.path}/members")["members"] if one["role"] == "engineer")
    assert (shown["name"], shown["disabled"]) == ("Edward", True)
    tell(sites_database, "user.enabled", ed)
    assert not any(one["disabled"] for one in site["Mara"].data("GET", f"{site.path}/members")["members"])
    tell(sites_database, "user.deleted", ed)
    assert site["Mara"].data("GET", f"{site.path}/members")["total"] == 1
    # The directory may still know them for a moment.
    for body in ({"email": "ed@example.com"}, {"user_id": str(ed)}):
        refused = site["Mara"].refusal("POST", f"{site.path}/members", {**body, "role": "engineer"})
        assert refused == (400, "person_not_found")
    assert system.admin.refusal("POST", "/sites", {**NEW, "manager": {"user_id": str(ed)}}) == (400, "person_not_found")
