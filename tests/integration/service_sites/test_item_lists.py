"""Every list of work items is the whole truth, cut down to what its reader may see."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert

from service_sites.domain.people import Actor, SiteRole
from service_sites.domain.visibility import sees
from service_sites.schemas.items import CUSTOMER_STATES
from service_sites.tables import Location, Membership, Site, WorkItem
from servicekit.web.lists import SortedList
from servicekit.wire.caseless import comparable
from tests.support.plans import nodes_of, selects_of
from tests.support.postgres import ServiceDatabase
from tests.support.sites import Caller, SitesSystem

NOW = datetime(2026, 3, 12, 11, 30, tzinfo=UTC)
#: The date of each site at that moment.
ZONES = {"Pacific/Auckland": date(2026, 3, 13), "America/Sao_Paulo": date(2026, 3, 12), "UTC": date(2026, 3, 12)}
FIRMS = ("", "Ромашка", "Лютик")
LATE = ("open", "in_progress", "returned", "disputed")
LAST = date(9999, 12, 31)
INNER = {"overdue", "unassigned", "assignee_id", "organisation", "type", "severity", "priority"}


@dataclass
class World:
    """Three sites, people with a different role on each, and all of the items."""

    system: SitesSystem
    sites: list[UUID]
    people: list[UUID]
    #: By site and person.
    members: dict[tuple[UUID, UUID], tuple[SiteRole, str]]
    items: list[Any]
    #: Those within each location.
    within: dict[str, set[UUID]]

    def ask(self, who: UUID | str, path: str) -> Any:
        caller = getattr(self.system, who) if isinstance(who, str) else Caller(self.system.app, who)
        answer = caller.ask("GET", path)
        assert answer.status in (200, 404), answer
        return answer.body if answer.status == 200 else None

    def actor(self, who: UUID | str, site: UUID) -> Actor | None:
        """Who somebody is on a site; None: none of its people."""
        if isinstance(who, str):
            return Actor(None, who, None, override=who != "auditor")
        role, firm = self.members.get((site, who), (None, ""))
        return None if role is None else Actor(who, "x", role, firm)


@pytest.fixture(scope="module")
def database(cloned_database: ServiceDatabase) -> ServiceDatabase:
    return cloned_database


@pytest.fixture(scope="module")
def world(database: ServiceDatabase) -> World:
    dice = random.Random(20261128)
    sites, people = [uuid4() for _ in ZONES], [uuid4() for _ in range(8)]
    members = {
        (site, person): (dice.choice(list(SiteRole)), dice.choice(FIRMS))
        for site in sites
        for person in people
        if dice.random() < 0.8
    }
    # Each role alone, and two roles on two sites.
    members |= {(sites[0], person): (role, "Ромашка") for person, role in zip(people, SiteRole, strict=False)}
    members |= {(sites[1], people[3]): (SiteRole.ENGINEER, ""), (sites[1], people[4]): (SiteRole.CONTRACTOR, "Лютик")}
    members |= {(sites[2], people[4]): (SiteRole.CONTRACTOR, "")}
    places = [(uuid4(), site) for site in sites for _ in range(2)]
    rooms = [(uuid4(), site, parent) for parent, site in places]
    items = [_item(dice, number, sites, people, places, rooms) for number in range(1, 181)]
    with database.database.transaction() as session:
        for number, (site, zone) in enumerate(zip(sites, ZONES, strict=True)):
            site_row = {"id": site, "key": f"AB{number}", "name": "x", "time_zone": zone, "calendar": None}
            site_row |= {"deadline_rules": {}, "next_number": 1000, "change_seq": 0}
            session.execute(insert(Site).values(**site_row, created_at=NOW, updated_at=NOW))
        for (site, person), (role, firm) in members.items():
            member = {"site_id": site, "user_id": person, "role": role.value, "organisation": firm, "position": ""}
            member |= {"name": "x", "disabled": False, "changed_seq": 0, "created_at": NOW, "updated_at": NOW}
            session.execute(insert(Membership).values(**member))
        for place, site in places:
            session.execute(insert(Location).values(id=place, site_id=site, name=str(place), position=1))
        for place, site, parent in rooms:
            session.execute(
                insert(Location).values(id=place, site_id=site, parent_id=parent, name=str(place), position=1)
            )
        session.execute(insert(WorkItem), [vars(item) for item in items])
    within = {str(place): {place, *(room for room, _, parent in rooms if parent == place)} for place, _ in places}
    return World(SitesSystem(database, clock=lambda: NOW), sites, people, members, items, within)


def _item(dice: random.Random, number: int, sites: Any, people: Any, places: Any, rooms: Any) -> SimpleNamespace:
    site = dice.choice(sites)
    state = dice.choice(("draft", *LATE, "ready", "closed", "void"))
    title = f"{dice.choice(('Трещина', 'Скол', 'Щель'))} {dice.randint(1, 30)}"
    where = [place for place, of, *_ in (*places, *rooms) if of == site]
    due_on = dice.choice((None, *(date(2026, 3, 12) + timedelta(days) for days in (-9, -1, 0, 1, 9))))
    created = NOW - timedelta(hours=dice.randint(0, 90))
    return SimpleNamespace(
        id=uuid4(), site_id=site, number=number, kind=dice.choice(("defect", "task", "customer_remark")), state=state,
        resolution={"closed": "fixed", "void": "mistake"}.get(state), title=title, description="тайна",
        type=dice.choice(("", "трещина")), subtype="", root_cause="", severity=dice.choice((None, "critical", "minor")),
        priority=dice.choice((None, 1, 4)), organisation=dice.choice(FIRMS), assignee_id=dice.choice((None, *people)),
        assignee_name="x", author_id=dice.choice((None, *people)), author_name="x",
        done_by_id=dice.choice((None, *people)), done_by_organisation=dice.choice(FIRMS), subject="",
        requirement_refs=["ГОСТ \"1\""], location_id=dice.choice((None, *where)), place="", axes="", due_on=due_on,
        original_due_on=due_on, created_at=created, updated_at=created, reopen_count=0, version=1, change_seq=number,
        closed_at=created if state == "closed" else None, visible_to_customer=dice.random() < 0.5, tags=["a"],
        created_digest=bytes(32), title_key=f"ab{sites.index(site)}-{number}\n{comparable(title)}",
    )  # fmt: skip


Filter = Callable[[World, Any, Actor], bool]


def _today(world: World, item: Any) -> date:
    return [*ZONES.values()][world.sites.index(item.site_id)]


def _late(world: World, item: Any) -> bool:
    return item.state in LATE and (item.due_on or LAST) < _today(world, item)


def _in_state(words: str) -> Filter:
    def has(world: World, item: Any, who: Actor) -> bool:
        told = {state for word in words.split(",") for state in CUSTOMER_STATES.get(word, ())}
        return item.state in (told if who.role is SiteRole.CUSTOMER else told | {*words.split(",")})

    return has


def _mine(world: World, item: Any, who: Actor) -> bool:
    if who.role is SiteRole.CUSTOMER:
        return who.is_person(item.author_id) and item.kind == "customer_remark"
    return who.is_person(item.assignee_id)


def _unassigned(world: World, item: Any, who: Actor) -> bool:
    return item.assignee_id is None and item.organisation == ""


def _registered_by(number: int) -> Filter:
    def has(world: World, item: Any, who: Actor) -> bool:
        person = world.people[number]
        return item.author_id == person and (who.role is not SiteRole.CUSTOMER or who.is_person(person))

    return has


def _has_text(part: str) -> Filter:
    def has(world: World, item: Any, who: Actor) -> bool:
        name, _, title = item.title_key.partition("\n")
        return part in title or (part in name and who.role is not SiteRole.CUSTOMER)

    return has


#: A query, with people by number, and which items it wants of those that somebody sees.
FILTERS: list[tuple[str, Filter]] = [
    ("", lambda world, item, who: True),
    ("state=open", _in_state("open")),
    ("state=open,returned,done", _in_state("open,returned,done")),
    ("state=accepted", _in_state("accepted")),
    ("overdue=true", lambda world, item, who: _late(world, item)),
    ("overdue=false", lambda world, item, who: not _late(world, item)),
    ("unassigned=true", _unassigned),
    ("unassigned=false", lambda world, item, who: not _unassigned(world, item, who)),
    ("mine=true", _mine),
    # Two that contradict each other, of which the planner makes nothing: for customers, and for all others.
    ("mine=true&kind=defect", lambda world, item, who: _mine(world, item, who) and item.kind == "defect"),
    (f"mine=true&assignee_id={uuid4()}", lambda world, item, who: False),
    (f"mine=true&assignee_id={uuid4()}&q=щель", lambda world, item, who: False),
    ("organisation=Ромашка", lambda world, item, who: item.organisation == "Ромашка"),
    ("kind=customer_remark", lambda world, item, who: item.kind == "customer_remark"),
    ("type=трещина&severity=minor", lambda world, item, who: (item.type, item.severity) == ("трещина", "minor")),
    ("priority=4", lambda world, item, who: item.priority == 4),
    ("due_from=2026-03-11&due_to=2026-03-12",
     lambda world, item, who: date(2026, 3, 11) <= (item.due_on or LAST) <= date(2026, 3, 12)),
    ("created_from=2026-03-10T00:00:00Z&created_to=2026-03-11T00:00:00Z",
     lambda world, item, who: datetime(2026, 3, 10, tzinfo=UTC) <= item.created_at < datetime(2026, 3, 11, tzinfo=UTC)),
    ("q=ТРЕЩИНА 1", _has_text("трещина 1")),
    ("q=AB1-1", _has_text("ab1-1")),
    ("state=open,in_progress&kind=defect&q=щ&mine=true",
     lambda world, item, who: _in_state("open,in_progress")(world, item, who) and item.kind == "defect"
     and _has_text("щ")(world, item, who) and _mine(world, item, who)),
    *((f"registered_by={{{number}}}", _registered_by(number)) for number in range(8)),
    ("registered_by={2}&q=щ&state=open,accepted",
     lambda world, item, who: _registered_by(2)(world, item, who) and _has_text("щ")(world, item, who)
     and _in_state("open,accepted")(world, item, who)),
]  # fmt: skip
SORTS: dict[str, Callable[[Any], Any]] = {
    "created_at": lambda item: item.created_at,
    "due_on": lambda item: item.due_on or LAST,
    "priority": lambda item: item.priority or 5,
    "number": lambda item: item.number,
}


def expected(world: World, who: UUID | str, site: UUID | None, query: str, wants: Filter, sort: str) -> list[str]:
    key = sort.removeprefix("-")
    names = {one.partition("=")[0] for one in query.split("&")}
    found = []
    for item in world.items:
        actor = world.actor(who, item.site_id)
        if actor is None or site not in (None, item.site_id) or not sees(item, actor) or not wants(world, item, actor):
            continue
        # What customers are not told, they cannot ask for.
        if actor.role is SiteRole.CUSTOMER and (names & INNER or key in ("priority", "number")):
            continue
        found.append(item)
    found.sort(key=lambda item: (SORTS[key](item), item.id), reverse=sort.startswith("-"))
    return [str(item.id) for item in found]


READERS = [*range(8), "local", "auditor"]


@pytest.mark.parametrize("reader", READERS)
def test_a_list_its_total_and_its_pages_are_what_its_reader_sees_of_all_items(world, reader):
    who = reader if isinstance(reader, str) else world.people[reader]
    dice = random.Random(str(reader))
    seen: dict[str, Any] = {}
    for query, wants in FILTERS:
        site = dice.choice((None, *world.sites)) if query else None
        sort = dice.choice([f"{minus}{key}" for key in SORTS for minus in ("", "-") if site or key != "number"])
        if not query:
            sort = "-created_at"
        where = "" if site is None else f"&site_id={site}"
        query = query.format(*world.people)
        path = f"/work-items?{query}&sort={sort}{where}&limit=100".replace("?&", "?")
        ids = expected(world, who, site, query, wants, sort)
        page = world.ask(who, path)
        rows = page["work_items"]
        while page["next"]:
            page = world.ask(who, f"{path}&after={page['next']}")
            rows += page["work_items"]
        assert [row["id"] for row in rows] == ids, path
        assert (page["total"], page["total_is_exact"]) == (len(ids), True), path
        seen |= {row["id"]: row for row in rows}
    # Each row is the item itself, with the steps that its reader may take; the others do not exist for them.
    for item in world.items:
        actor = world.actor(who, item.site_id)
        alone = world.ask(who, f"/work-items/{item.id}")
        assert (alone is not None) == (actor is not None and sees(item, actor))
        assert alone == seen.get(str(item.id))


@pytest.mark.parametrize("reader", [0, 3, 4, "local"])
def test_a_location_stands_for_all_within_it(world, reader):
    who = reader if isinstance(reader, str) else world.people[reader]
    for place, all_within in world.within.items():
        ids = expected(world, who, None, "", lambda world, item, actor: item.location_id in all_within, "-created_at")  # noqa: B023
        assert [row["id"] for row in world.ask(who, f"/work-items?location_id={place}&limit=100")["work_items"]] == ids
    assert world.ask(who, f"/work-items?location_id={uuid4()}")["total"] == 0


def test_a_contractor_without_an_organisation_finds_no_items_of_nobodys(world):
    who, site = world.people[4], world.sites[2]
    ids = expected(world, who, site, "", lambda world, item, actor: item.organisation == "", "-created_at")
    page = world.ask(who, f"/work-items?organisation=&site_id={site}")
    assert [row["id"] for row in page["work_items"]] == ids


def test_a_place_in_a_list_holds_though_items_come_and_go(world):
    path = "/work-items?sort=-due_on&limit=40"
    first = world.ask("local", path)
    second = world.ask("local", f"{path}&after={first['next']}")
    ids = [row["id"] for page in (first, second) for row in page["work_items"]]
    assert ids == [str(item.id) for item in sorted(world.items, key=lambda one: (one.due_on or LAST, one.id))][:-81:-1]


@pytest.fixture(scope="module")
def many(world, database) -> World:
    """Give six thousand more, on all sites and in all states."""
    names = [column.key for column in WorkItem.__table__.columns if column.computed is None]
    other = {
        "id": "gen_random_uuid()",
        "number": "1000 + n",
        "created_at": "created_at - n * interval '1 m'",
        "site_id": "(SELECT array_agg(id) FROM sites)[1 + n % 3]",
        "state": f"(ARRAY{[*LATE, 'ready']})[1 + n / 3 % 5]",
        "organisation": "'Org ' || n / 3 % 20",
        "due_on": "date '2026-01-01' + n % 100",
        "location_id": "NULL",
    }
    values = ", ".join(other.get(name, name) for name in names)
    database.administer(f"""
        INSERT INTO work_items ({", ".join(names)})
        SELECT {values} FROM (SELECT * FROM work_items WHERE state = 'open' LIMIT 1) one, generate_series(1, 6000) n;
        ANALYZE work_items""")
    return world


#: Indexes that have the order of a list; which of them is best depends on how many rows have the value.
NEWEST = {"ix_work_items_newest", "ix_work_items_site_newest"}
DUE = {"ix_work_items_due", "ix_work_items_site_due"}


@pytest.mark.parametrize(
    ("query", "indexes"),
    [
        ("", NEWEST),
        ("sort=due_on", DUE),
        ("sort=priority", {"ix_work_items_priority"}),
        ("site_id={site}", NEWEST),
        ("site_id={site}&state=open", NEWEST | {"ix_work_items_state"}),
        ("site_id={site}&organisation=Org 7", {"ix_work_items_organisation"}),
        ("site_id={site}&sort=-due_on", DUE),
        ("site_id={site}&sort=priority", {"ix_work_items_priority", "ix_work_items_site_priority"}),
        ("site_id={site}&sort=-number", {"uq_work_items_number"}),
        ("site_id={site}&sort=due_on&overdue=true", DUE | {"ix_work_items_late", "ix_work_items_site_late"}),
    ],
)
def test_a_page_is_read_from_an_index_of_its_order(many, database, query, indexes):
    path = f"/work-items?{query.format(site=many.sites[0])}&limit=3".replace("?&", "?")
    after = many.ask("local", path)["next"]
    with selects_of(database.database) as selects:
        many.ask("local", f"{path}&total=false")
        many.ask("local", f"{path}&total=false&after={after}")
    pages = [one for one in selects if "row_number" in one[0]]
    assert len(pages) == 2
    for statement, parameters in pages:
        nodes = nodes_of(database.database, statement, parameters)
        limit = nodes.index(("Limit", None))
        found = [node for node in nodes[limit : limit + 3] if node[0] == "Index Scan"]
        assert {index for _, index in found} & indexes, nodes


def test_a_contractors_items_of_a_type_are_estimated_though_they_work_for_nobody_on_one_site(many, monkeypatch):
    seen: list[list[float]] = []
    expected = SortedList._expected
    monkeypatch.setattr(SortedList, "_expected", lambda *given: seen.append([*expected(*given)]) or seen[-1])
    many.ask(many.people[4], "/work-items?type=трещина")
    [(whole, few)] = seen
    assert 0 < few < whole < math.inf
