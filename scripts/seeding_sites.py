"""Two building sites with six months of work on them.

The clock of a service runs forward only, so this is not done over HTTP: the use cases of the service take every step at
its time in the past, in the database of the instance on this machine.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from service_sites.app import CONSTRAINTS
from service_sites.errors import SiteKeyTaken
from service_sites.schemas.items import WorkItemPut
from service_sites.schemas.members import MemberCreate
from service_sites.schemas.places import LocationCreate
from service_sites.schemas.sites import DeadlineRules, PersonNamed, SiteCreate
from service_sites.schemas.steps import StepBody
from service_sites.use_cases.items import WorkItems
from service_sites.use_cases.members import Members
from service_sites.use_cases.places import Places
from service_sites.use_cases.sites import Sites
from service_sites.use_cases.steps import Steps
from service_sites.users_client import Person
from servicekit.database.engine import Database
from servicekit.identity.principal import LOCAL, Principal
from servicekit.identity.roles import Role
from servicekit.web.preconditions import ANY_STATE, IfMatch

ITEMS = 300
_DAYS = 180
_NAMESPACE = UUID("01a2246a-8071-7672-83cd-0d9340094c8d")
_SEEN = IfMatch("*")


class SitePlan(NamedTuple):
    """A site, and its people: their places in the list of users, their role and organisation."""

    key: str
    name: str
    time_zone: str
    calendar: str | None
    people: Sequence[tuple[int, str, str]]


PLANS = (
    SitePlan(
        "TOWER", "Tower A", "Europe/Moscow", "RU",
        [(0, "manager", "Технадзор"), (1, "engineer", "Технадзор"), (2, "engineer", "Технадзор"),
         (20, "executive", "Технадзор"), (25, "customer", "Casa Nueva"), (9, "contractor", "ООО «Монтаж»"),
         (13, "contractor", "ООО «Монтаж»"), (18, "contractor", "Фасад-Строй")],
    ),
    SitePlan(
        "HARBOUR", "Harbour hall", "Asia/Tokyo", "JP",
        [(5, "manager", "みなと建設"), (7, "engineer", "みなと建設"), (12, "engineer", "みなと建設"),
         (20, "executive", "みなと建設"), (28, "customer", "Harbour Ltd"), (6, "contractor", "鉄骨工業"),
         (15, "contractor", "Electra"), (17, "contractor", "Electra")],
    ),
)  # fmt: skip
PLACES = {"Корпус 1": ("Подвал", "Этаж 1", "Этаж 2", "Кровля"), "Hall B": ("Ground floor", "Gallery")}
#: (title, type)
DEFECTS = (
    ("Трещина над окном", "concrete"),
    ("Нет гидроизоляции примыкания", "waterproofing"),
    ("Rebar cover below 25 mm", "concrete"),
    ("Cable tray without earthing", "electrical"),
    ("外壁タイルの浮き", "facade"),
    ("Дверь не закрывается", "finishing"),
    ("Railing loose on the landing", "safety"),
    ("Протечка стояка", "plumbing"),
)
TASKS = ("Hand over the as-built drawings", "Очистить захватку", "足場の点検")
REMARKS = ("Сквозит из окна", "The lift is noisy", "壁紙の剥がれ")


class _People:
    """The users who were made, as the use cases ask for them."""

    def __init__(self, people: Sequence[Person]) -> None:
        self._by_id = {person.id: person for person in people}

    def find(self, *, email: str | None = None, id: UUID | None = None) -> Person | None:
        return None if id is None else self._by_id.get(id)


class _Act(NamedTuple):
    """What happens to an item so many days after what happened before."""

    days: float
    who: UUID
    #: None: the item is made.
    step: dict[str, Any] | None
    #: When the work is due, in days from then.
    due: int | None = None


class _History:
    """Takes the steps of all items of a site in the order of their times."""

    def __init__(self, database: Database, seed: int, now: datetime) -> None:
        self.now = self._end = now
        self._items = WorkItems(database, clock=lambda: self.now)
        self._steps = Steps(database, clock=lambda: self.now)
        self._seed = seed

    def run(self, site_id: UUID, stories: Sequence[tuple[datetime, WorkItemPut, list[_Act]]]) -> tuple[int, int]:
        """Return how many items there are, and how many of these were there before."""
        waiting = [(begins, number, 0) for number, (begins, _, _) in enumerate(stories)]
        heapq.heapify(waiting)
        there = 0
        while waiting:
            self.now, number, index = heapq.heappop(waiting)
            _, body, acts = stories[number]
            act = acts[index]
            item_id = uuid5(_NAMESPACE, f"{self._seed} {site_id} {number}")
            caller = Principal(act.who, Role.USER)
            if act.step is None:
                _, is_new = self._items.put(item_id, body, ANY_STATE, caller)
                there += not is_new
                if not is_new:
                    continue
            else:
                due = {} if act.due is None else {"due_on": self.now.date() + timedelta(act.due)}
                op_id = uuid5(item_id, str(index))
                self._steps.take(item_id, StepBody.model_validate({"op_id": op_id, **act.step, **due}), _SEEN, caller)
            if index + 1 < len(acts):
                later = self.now + timedelta(acts[index + 1].days)
                if later < self._end:
                    heapq.heappush(waiting, (later, number, index + 1))
        return len(stories), there


def fill(
    url: str, people: Sequence[Person], seed: int, *, items: int = ITEMS, now: datetime | None = None
) -> tuple[int, int]:
    """Make the sites and their items; return how many items there are, and how many of these were there before.

    `url` is the database of sites, and `people` are users in the order of `scripts.seeding.PEOPLE`.
    """
    end = now or datetime.now(UTC)
    # With its constraints, of which a second run meets the site's key.
    database = Database(url, application_name="seeding", pool_size=2 * len(PLANS), constraints=CONSTRAINTS)

    def make(plan: SitePlan) -> tuple[int, int]:
        chance = random.Random(f"{seed} {plan.key}")
        members = [(people[place], role, firm) for place, role, firm in plan.people]
        site_id, places = _open(database, plan, members, seed, end - timedelta(_DAYS + 1))
        stories = _stories(chance, members, places, site_id, end, items // len(PLANS))
        return _History(database, seed, end).run(site_id, sorted(stories, key=lambda story: story[0]))

    try:
        with ThreadPoolExecutor(len(PLANS)) as threads:
            counts = list(threads.map(make, PLANS))
    finally:
        database.dispose()
    return sum(made for made, _ in counts), sum(there for _, there in counts)


def _open(
    database: Database, plan: SitePlan, members: Sequence[tuple[Person, str, str]], seed: int, opened: datetime
) -> tuple[UUID, list[UUID]]:
    """The site and its locations, made now or before."""
    directory = _People([person for person, _, _ in members])
    key = plan.key if seed == 1 else f"{plan.key[0]}{seed % 10**8}"
    (manager, _, firm), *others = members
    named = PersonNamed(user_id=manager.id, organisation=firm)
    wanted = SiteCreate(
        key=key, name=plan.name, time_zone=plan.time_zone, calendar=plan.calendar, manager=named,
        deadline_rules=DeadlineRules(critical=2, significant=10, minor=20),
    )  # fmt: skip
    places = Places(database)
    try:
        site_id = Sites(database, directory, clock=lambda: opened).create(wanted, LOCAL).id
    except SiteKeyTaken:
        ((site_id,),) = database.once("SELECT id FROM sites WHERE key = %(key)s", {"key": key})
    else:
        joining = Members(database, directory, clock=lambda: opened)
        for person, role, firm in others:
            joining.add(
                site_id, MemberCreate.model_validate({"user_id": person.id, "role": role, "organisation": firm}), LOCAL
            )
        for building, rooms in PLACES.items():
            parent = places.create(site_id, LocationCreate(name=building), LOCAL).id
            for room in rooms:
                places.create(site_id, LocationCreate(name=room, parent_id=parent), LOCAL)
    return site_id, [place.id for place in places.all(site_id, LOCAL).locations]


def _stories(
    chance: random.Random,
    members: Sequence[tuple[Person, str, str]],
    places: Sequence[UUID],
    site_id: UUID,
    now: datetime,
    items: int,
) -> Iterator[tuple[datetime, WorkItemPut, list[_Act]]]:
    """When each item is made, as what, and what becomes of it."""
    by_role = {role: [person.id for person, is_a, _ in members if is_a == role] for _, role, _ in members}
    manager, customer = by_role["manager"][0], by_role["customer"][0]
    for number in range(items):
        begins = now - timedelta(_DAYS * chance.random() ** 1.4, hours=1)
        engineer, worker = chance.choice(by_role["engineer"]), chance.choice(by_role["contractor"])
        place = chance.choice(places)
        fields: dict[str, Any]
        if number % 10 == 9:
            fields = {"kind": "customer_remark", "title": chance.choice(REMARKS)}
            acts = [_Act(0, customer, None), _Act(1, manager, {"step": "admit"})]
        elif number % 10 == 8:
            title = f"{chance.choice(TASKS)} {number + 1}"
            fields = {"kind": "task", "title": title, "visible_to_customer": True}
            acts = [_Act(0, manager, None)]
        else:
            title, kind = chance.choice(DEFECTS)
            severity = chance.choices(("critical", "significant", "minor"), (1, 4, 5))[0]
            fields = {"title": title, "type": kind, "severity": severity, "visible_to_customer": chance.random() < 0.4}
            acts = [_Act(0, engineer, None)]
        body = WorkItemPut.model_validate({"site_id": site_id, "location_id": place, **fields})
        yield begins, body, [*acts, *_work(chance, manager, engineer, worker)]


def _work(chance: random.Random, manager: UUID, engineer: UUID, worker: UUID) -> Iterator[_Act]:
    """What becomes of an item that is open."""
    day = chance.uniform
    if chance.random() < 0.05:
        yield _Act(day(1, 5), manager, {"step": "void", "resolution": chance.choice(("no_defect", "mistake"))})
        return
    assigned = {"step": "assign", "assignee_id": worker, "reason": "Agreed with the contractor"}
    yield _Act(day(0.2, 4), manager, assigned, chance.randint(7, 30))
    if chance.random() < 0.08:
        yield _Act(day(1, 3), worker, {"step": "dispute", "reason": "Не по нашему проекту"})
        yield _Act(day(1, 4), manager, {"step": "settle", "outcome": "open"})
    if chance.random() < 0.15:
        moved = {"step": "move_deadline", "reason": "The delivery is late"}
        yield _Act(day(1, 5), manager, moved, chance.randint(31, 45))
    yield _Act(day(1, 9), worker, {"step": "start"})
    while True:
        yield _Act(day(1, 14), worker, {"step": "report_done", "note": "Исправлено, снимки у прораба"})
        if chance.random() > 0.25:
            break
        yield _Act(day(0.5, 4), engineer, {"step": "return", "reason": "The joint is still open"})
    yield _Act(day(0.5, 14), engineer, {"step": "accept"})
    if chance.random() < 0.06:
        yield _Act(day(5, 30), engineer, {"step": "reopen", "reason": "Снова протекает"}, 14)
        yield _Act(day(1, 6), worker, {"step": "start"})
