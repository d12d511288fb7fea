"""The places and calendars of sites over HTTP, on a real database."""

from __future__ import annotations

from datetime import date, timedelta
from uuid import uuid4

import pytest

from service_sites.use_cases import places
from tests.support.sites import Caller, Site, SitesSystem

RIGHTS = {"Ed": "engineer", "Xi": "executive", "Cat": "customer", "Con": "contractor/Roofers"}


def add(site: Site, name: str, parent: str | None = None, **more: object) -> str:
    made = site["Mara"].data("POST", f"{site.path}/locations", {"name": name, "parent_id": parent, **more})
    return str(made["id"])


def fault(caller: Caller, method: str, path: str, body: object) -> tuple[int, str]:
    answer = caller.ask(method, path, body)
    return answer.status, answer.body["details"][0]["field"]


def test_locations_make_a_tree_without_cycles_eight_levels_deep_on_one_site(system: SitesSystem) -> None:
    site, other = system.site("NORTH"), system.site("SOUTH")
    levels = [add(site, "1")]
    for number in range(2, 9):
        levels.append(add(site, str(number), levels[-1]))
    mara, path = site["Mara"], f"{site.path}/locations"
    foreign = add(other, "elsewhere")

    for parent in (levels[-1], foreign, str(uuid4())):
        assert fault(mara, "POST", path, {"name": "x", "parent_id": parent}) == (400, "parent_id")
    top = f"{path}/{levels[0]}"
    for parent in (*levels, foreign):
        assert fault(mara, "PUT", top, {"parent_id": parent}) == (400, "parent_id"), "within itself, or elsewhere"
    wing = add(site, "wing")
    assert fault(mara, "PUT", top, {"parent_id": wing}) == (400, "parent_id"), "nine levels"
    assert mara.data("PUT", f"{path}/{levels[4]}", {"parent_id": wing})["parent_id"] == wing
    assert mara.data("PUT", f"{path}/{levels[4]}", {"parent_id": None, "position": 7})["position"] == 7
    assert mara.refusal("PUT", f"{other.path}/locations/{levels[0]}", {"name": "x"}) == (404, "location_not_found")
    assert mara.refusal("DELETE", f"{other.path}/locations/{levels[0]}") == (404, "location_not_found")


def test_siblings_have_names_of_their_own_and_an_order_and_everybody_sees_them(system: SitesSystem) -> None:
    site = system.site(people=RIGHTS)
    house = add(site, "house", position=2)
    add(site, "room", house)
    add(site, "yard", position=1)
    add(site, "house", house, position=1)
    path = f"{site.path}/locations"
    for name, parent in (("  house ", None), ("room", house)):
        refused = site["Mara"].refusal("POST", path, {"name": name, "parent_id": parent})
        assert refused == (409, "location_name_taken")
    for name in ("Mara", *RIGHTS):
        shown = site[name].data("GET", path)["locations"]
        assert [one["name"] for one in shown] == ["room", "house", "yard", "house"]
    for name in RIGHTS:
        assert site[name].refusal("POST", path, {"name": "x"}) == (403, "forbidden")
        assert site[name].refusal("DELETE", f"{path}/{house}") == (403, "forbidden")
    assert system.stranger.refusal("GET", path) == (404, "site_not_found")


def test_a_location_is_removed_when_nothing_is_in_it_and_as_it_was_seen(
    system: SitesSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = system.site()
    house = add(site, "house")
    room = add(site, "room", house)
    mara, path = site["Mara"], f"{site.path}/locations"
    assert mara.refusal("DELETE", f"{path}/{house}") == (409, "location_in_use")
    shed = add(site, "shed")
    mara.data("POST", f"{site.path}/work-items", {"kind": "defect", "title": "a crack", "location_id": shed})
    assert mara.refusal("DELETE", f"{path}/{shed}") == (409, "location_in_use")
    seen = mara.ask("PUT", f"{path}/{room}", {"name": "hall"}).headers["ETag"]
    mara.data("PUT", f"{path}/{room}", {"name": "lobby"}, If_Match=seen)
    assert mara.refusal("DELETE", f"{path}/{room}", None, If_Match=seen) == (412, "precondition_failed")
    assert mara.data("DELETE", f"{path}/{room}")["name"] == "lobby"
    assert mara.data("DELETE", f"{path}/{house}")["id"] == house
    monkeypatch.setattr(places, "MOST_LOCATIONS", 0)
    assert mara.refusal("POST", path, {"name": "x"}) == (409, "too_many_locations")


def days(caller: Caller, site: Site, first: str, last: str) -> dict[str, tuple[bool, bool]]:
    found = caller.data("GET", f"{site.path}/calendar?from={first}&to={last}")["days"]
    return {one["day"]: (one["works"], one["is_exception"]) for one in found}


def test_a_site_keeps_the_days_of_its_country_with_those_that_were_moved_and_its_own_exceptions(
    system: SitesSystem,
) -> None:
    russian, plain = system.site("RU1", calendar="RU", people=RIGHTS), system.site("PLAIN")
    assert days(russian["Cat"], russian, "2025-11-01", "2025-11-04") == {
        "2025-11-01": (True, False), "2025-11-02": (False, False), "2025-11-03": (False, False),
        "2025-11-04": (False, False),
    }  # fmt: skip
    assert [one[0] for one in days(plain["Mara"], plain, "2025-11-01", "2025-11-04").values()] == [
        False,
        False,
        True,
        True,
    ]
    mara, path = russian["Mara"], f"{russian.path}/calendar"
    for day, works in (("2025-11-03", True), ("2025-11-05", False), ("2025-11-05", False)):
        assert mara.data("PUT", f"{path}/{day}", {"works": works})["is_exception"]
    assert days(mara, russian, "2025-11-03", "2025-11-05") == {
        "2025-11-03": (True, True), "2025-11-04": (False, False), "2025-11-05": (False, True)
    }  # fmt: skip
    assert mara.data("DELETE", f"{path}/2025-11-05") == {
        "day": "2025-11-05", "works": True, "holiday": None, "is_exception": False
    }  # fmt: skip
    assert mara.refusal("DELETE", f"{path}/2025-11-05") == (404, "calendar_day_not_found")
    told = mara.data("GET", f"{path}?from=2025-11-04&to=2025-11-04")["days"][0]["holiday"]
    assert told == "День народного единства"
    for name in RIGHTS:
        assert russian[name].refusal("PUT", f"{path}/2025-11-05", {"works": True}) == (403, "forbidden")
    assert fault(system.admin, "POST", "/sites", {
        "key": "XX", "name": "x", "time_zone": "UTC", "calendar": "XX", "manager": {"email": "mara@example.com"}
    }) == (400, "calendar")  # fmt: skip


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=2025-02-30", "from"),
        ("from=1899-12-31", "from"),
        ("to=2200-01-01", "to"),
        ("from=2025-11-02&to=2025-11-01", "to"),
        ("from=2025-01-01&to=2026-02-05", "to"),
        ("to=2199-12-31", "to"),
        ("from_=2025-01-01", "from_"),
    ],
)
def test_a_calendar_says_which_of_its_bounds_is_wrong(system: SitesSystem, query: str, field: str) -> None:
    site = system.site()
    assert fault(site["Mara"], "GET", f"{site.path}/calendar?{query}", None) == (400, field)


def test_a_calendar_begins_today_at_the_site_and_ends_with_its_last_day(system: SitesSystem) -> None:
    far = system.site(time_zone="Pacific/Kiritimati")
    near = system.site("SOUTH", time_zone="Pacific/Pago_Pago")
    first = [
        date.fromisoformat(site["Mara"].data("GET", f"{site.path}/calendar")["days"][0]["day"]) for site in (far, near)
    ]
    assert first[0] - first[1] in (timedelta(days=1), timedelta(days=2)), "25 hours apart"
    assert len(far["Mara"].data("GET", f"{far.path}/calendar?from=2199-12-30")["days"]) == 2
    for day in ("2025-02-30", "1899-12-31", "x"):
        assert fault(far["Mara"], "PUT", f"{far.path}/calendar/{day}", {"works": True}) == (400, "day")
