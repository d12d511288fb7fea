"""Made-up sites with their people, items and histories, and what each report must say of them: computed slowly and
plainly from what happened, apart from the service's SQL.

A report is here a mapping from each row's key (None for the total) to the sets of items that its figures count.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import create_engine, insert

from service_sites.tables import History, Location, Membership, Site, WorkItem

OPEN_STATES = ("open", "in_progress", "returned", "ready", "disputed")
LATE_STATES = ("open", "in_progress", "returned", "disputed")
#: While these last the ball is with the contractor, if there is one.
CONTRACTORS_STATES = ("open", "in_progress", "returned")
ORGANISATIONS = ("", "Альфа", "Beta; Söhne", '=HYPERLINK("http://evil")')
TYPES = ("", "crack", "-5", "leak")

Figures = dict[str, set[UUID]]
Report = dict[str | None, Figures]


@dataclass(frozen=True)
class PlainSite:
    id: UUID
    key: str
    zone: str
    #: From a place to the one that holds it.
    locations: dict[UUID, UUID | None] = field(default_factory=dict)

    def day_of(self, moment: datetime) -> date:
        return moment.astimezone(ZoneInfo(self.zone)).date()


@dataclass(frozen=True)
class Happening:
    """What happened, and the item afterwards."""

    at: datetime
    step: str
    before: str | None
    after: str
    organisation: str = ""
    #: The organisation before.
    was: str = ""
    due_on: date | None = None
    original_due_on: date | None = None
    resolution: str | None = None


@dataclass
class PlainItem:
    id: UUID
    site: PlainSite
    number: int
    author: UUID
    kind: str
    type: str
    root_cause: str
    severity: str | None
    location: UUID | None
    shown: bool
    assignee: UUID | None
    happened: list[Happening] = field(default_factory=list)

    @property
    def now(self) -> Happening:
        return self.happened[-1]

    @property
    def submitted_at(self) -> datetime | None:
        return next((one.at for one in self.happened if one.after in OPEN_STATES), None)

    def closings(self) -> Iterator[Happening]:
        return (one for one in self.happened if one.after == "closed" and one.before != "closed")

    def at_end_of(self, day: date) -> Happening | None:
        earlier = [one for one in self.happened if self.site.day_of(one.at) <= day]
        return earlier[-1] if earlier else None

    def is_late(self, now: datetime) -> bool:
        due_on = self.now.due_on
        return self.now.after in LATE_STATES and due_on is not None and due_on < self.site.day_of(now)


@dataclass(frozen=True)
class Viewer:
    """Who looks: everything, or by a role on some sites."""

    user_id: UUID
    #: By site: the role and the organisation; None: an administrator.
    roles: dict[UUID, tuple[str, str]] | None = None


@dataclass
class World:
    now: datetime
    sites: list[PlainSite]
    items: list[PlainItem]
    viewers: dict[str, Viewer]


# -- what the reports must say


@dataclass(frozen=True)
class Question:
    viewer: Viewer
    site: UUID | None = None
    first: date = date.min
    last: date = date.max
    by: str = ""


def _organisation_of(question: Question, site: PlainSite) -> str | None:
    """Whose rows are shown; None: everybody's. Raises LookupError for who may not see the report."""
    if question.viewer.roles is None:
        return None
    role, organisation = question.viewer.roles[site.id]
    if role == "customer":
        raise LookupError
    return organisation if role == "contractor" else None


def _items(world: World, question: Question) -> Iterator[PlainItem]:
    for item in world.items:
        if question.site not in (None, item.site.id) or item.now.after == "draft":
            continue
        try:
            only = _organisation_of(question, item.site)
        except LookupError:
            continue
        if only is None or (only != "" and item.now.organisation == only):
            yield item


def _happened_to(item: PlainItem, question: Question) -> Iterator[Happening]:
    """What happened in the period, while the organisation was that of whoever asks."""
    only = _organisation_of(question, item.site)
    for one in item.happened:
        if question.first <= item.site.day_of(one.at) <= question.last and only in (None, one.organisation):
            yield one


class _Counted:
    def __init__(self, *figures: str, rows: Iterable[str] = ()) -> None:
        self._figures = figures
        self._report: Report = {None: self._none(), **{key: self._none() for key in rows}}

    def _none(self) -> Figures:
        return {figure: set() for figure in self._figures}

    def add(self, item: PlainItem, keys: Iterable[str], *figures: str) -> None:
        for key in (*keys, None):
            for figure in figures:
                self._report.setdefault(key, self._none())[figure].add(item.id)

    @property
    def report(self) -> Report:
        return self._report


def _key(item: PlainItem, question: Question, one: Happening | None = None) -> str:
    day = item.site.day_of(one.at) if one is not None else date.min
    values: dict[str, Callable[[], str | None]] = {
        "site": lambda: str(item.site.id),
        "organisation": lambda: (one or item.now).organisation,
        "assignee": lambda: None if item.assignee is None else str(item.assignee),
        "severity": lambda: item.severity,
        "type": lambda: item.type,
        "root_cause": lambda: item.root_cause,
        "resolution": lambda: one.resolution if one is not None else None,
        "week": lambda: (day - timedelta(days=day.weekday())).isoformat(),
        "month": lambda: day.replace(day=1).isoformat(),
    }
    return values[question.by]() or ""


def contractors(world: World, question: Question) -> Report:
    counted = _Counted("open", "overdue", "awaiting_us")
    for item in _items(world, question):
        keys = [_key(item, question)]
        if item.now.after in OPEN_STATES:
            counted.add(item, keys, "open")
        if item.is_late(world.now):
            counted.add(item, keys, "overdue")
        if item.now.after == "ready":
            counted.add(item, keys, "awaiting_us")
    return counted.report


def ageing(world: World, question: Question) -> Report:
    counted = _Counted("days_0_7", "days_8_14", "days_15_30", "days_over_30")
    for item in _items(world, question):
        if item.now.after in OPEN_STATES and item.submitted_at is not None:
            days = (item.site.day_of(world.now) - item.site.day_of(item.submitted_at)).days
            figure = (
                "days_0_7" if days <= 7
                else "days_8_14" if days <= 14
                else "days_15_30" if days <= 30
                else "days_over_30"
            )  # fmt: skip
            counted.add(item, [_key(item, question)], figure)
    return counted.report


def burndown(world: World, question: Question) -> Report:
    """Without a total."""
    seen = [site for site in world.sites if question.site in (None, site.id) and _may(question, site)]
    last = min(question.last, max((site.day_of(world.now) for site in seen), default=date.min))
    days = [question.first + timedelta(days=one) for one in range((last - question.first).days + 1)]
    if question.by == "week":
        days = [day for day in days if day.weekday() == 6 or day == last]
    if question.by == "month":
        days = [day for day in days if (day + timedelta(days=1)).day == 1 or day == last]
    counted = _Counted("open", rows=[day.isoformat() for day in days])
    for item in _items(world, question):
        for day in days:
            then = item.at_end_of(day)
            if then is not None and then.after in OPEN_STATES:
                counted.add(item, [day.isoformat()], "open")
    del counted.report[None]
    return counted.report


def _may(question: Question, site: PlainSite) -> bool:
    try:
        _organisation_of(question, site)
    except LookupError:
        return False
    return True


def _closed(world: World, question: Question) -> Iterator[tuple[PlainItem, Happening]]:
    """What was closed when the period ended and was closed in it, with how."""
    for item in _items(world, question):
        then = item.at_end_of(question.last)
        if item.now.after == "void" or then is None or then.after != "closed":
            continue
        last = [one for one in item.closings() if item.site.day_of(one.at) <= question.last][-1]
        if last in list(_happened_to(item, question)):
            yield item, last


@dataclass
class Times:
    """How long, in days, by the key of a row."""

    closing: dict[str | None, list[float]] = field(default_factory=lambda: defaultdict(list))
    first_closing: dict[str | None, list[float]] = field(default_factory=lambda: defaultdict(list))
    contractors: dict[str | None, list[float]] = field(default_factory=lambda: defaultdict(list))


def _days(span: timedelta) -> float:
    return span.total_seconds() / 86400


def time_to_close(world: World, question: Question) -> tuple[Report, Times]:
    counted, times = _Counted("closed"), Times()
    for item, closed in _closed(world, question):
        key = _key(item, question, closed)
        counted.add(item, [key], "closed")
        began = item.submitted_at
        assert began is not None
        own = timedelta()
        for one, following in zip(item.happened, item.happened[1:], strict=False):
            if following.at <= closed.at and one.after in CONTRACTORS_STATES and one.organisation:
                own += following.at - one.at
        for each in (key, None):
            times.closing[each].append(_days(closed.at - began))
            times.first_closing[each].append(_days(next(item.closings()).at - began))
            times.contractors[each].append(_days(own))
    return counted.report, times


def quantile(values: list[float], part: float) -> float | None:
    """With linear interpolation between the neighbours."""
    if not values:
        return None
    place = part * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    ordered = sorted(values)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def on_time(world: World, question: Question) -> Report:
    counted = _Counted("closed", "with_original_date", "by_original_date", "with_final_date", "by_final_date")
    for item, closed in _closed(world, question):
        figures = ["closed"]
        day = item.site.day_of(closed.at)
        for name, due_on in (("original", closed.original_due_on), ("final", closed.due_on)):
            if due_on is not None:
                figures.append(f"with_{name}_date")
                if day <= due_on:
                    figures.append(f"by_{name}_date")
        counted.add(item, [_key(item, question, closed)], *figures)
    return counted.report


def returns(world: World, question: Question) -> Report:
    counted = _Counted("reported_done", "returned", "closed", "reopened")
    for item in _items(world, question):
        if item.now.after == "void":
            continue
        for one in _happened_to(item, question):
            figure = {
                ("ready", "returned"): "returned",
                ("closed", "open"): "reopened",
            }.get((one.before or "", one.after))
            if one.before != one.after and one.after in ("ready", "closed"):
                figure = "reported_done" if one.after == "ready" else "closed"
            if figure is not None:
                counted.add(item, [_key(item, question, one)], figure)
    return counted.report


def counts(world: World, question: Question) -> Report:
    counted = _Counted("items", "open", "overdue", "closed")
    for item in _items(world, question):
        if item.now.after == "void" or item.submitted_at is None:
            continue
        if not question.first <= item.site.day_of(item.submitted_at) <= question.last:
            continue
        if question.by == "location":
            keys, place = [], item.location
            while place is not None:
                keys.append(str(place))
                place = item.site.locations[place]
            keys = keys or [""]
        else:
            keys = [_key(item, question)]
        figures = ["items", "open" if item.now.after in OPEN_STATES else "closed"]
        if item.is_late(world.now):
            figures.append("overdue")
        counted.add(item, keys, *figures)
    return counted.report


def progress(world: World, question: Question) -> Report:
    counted = _Counted("items", "closed")
    for item in world.items:
        if question.site not in (None, item.site.id) or item.now.after == "void":
            continue
        role = "admin" if question.viewer.roles is None else question.viewer.roles.get(item.site.id, ("",))[0]
        remarked = item.kind == "customer_remark" or item.now.after == "draft"
        own = role == "customer" and item.author == question.viewer.user_id and remarked
        if role in ("", "contractor") or not (own or (item.shown and item.now.after != "draft")):
            continue
        began = item.submitted_at or item.happened[0].at
        closed = [one.at for one in item.closings()][-1:] if item.now.after == "closed" else []
        for figure, moment in [("items", began), *(("closed", one) for one in closed)]:
            happening = replace(item.now, at=moment)
            counted.add(item, [_key(item, question, happening)], figure)
    return counted.report


# -- making them up


ZONES = ("Atlantic/Azores", "America/St_Johns", "Asia/Kamchatka")
#: When summer time ended on the Azores: the hour after midnight came twice.
DOUBLED_HOUR = datetime(2025, 10, 26, 1, tzinfo=UTC)


def make_up(seed: int, *, items: int = 90) -> World:
    """Half a year of a few sites, summer time's beginning and end in it."""
    chance = random.Random(seed)

    def an_id() -> UUID:
        return UUID(int=chance.getrandbits(128), version=4)

    begins = datetime(2025, 9, 1, tzinfo=UTC)
    ends = datetime(2026, 4, 20, 9, 30, tzinfo=UTC)
    made: list[PlainSite] = []
    for number, zone in enumerate(ZONES):
        site = PlainSite(an_id(), f"S{number}X", zone)
        for _ in range(5):
            site.locations[an_id()] = chance.choice([None, *site.locations])
        made.append(site)
    people = {name: an_id() for name in ("manager", "contractor", "customer", "mixed", "admin")}
    viewers = {
        "admin": Viewer(people["admin"]),
        "manager": Viewer(people["manager"], {site.id: ("manager", "") for site in made[:2]}),
        "contractor": Viewer(people["contractor"], {site.id: ("contractor", ORGANISATIONS[1]) for site in made}),
        "customer": Viewer(people["customer"], {site.id: ("customer", "") for site in made}),
        "mixed": Viewer(
            people["mixed"],
            {
                site.id: role
                for site, role in zip(
                    made, [("executive", ""), ("contractor", ORGANISATIONS[2]), ("customer", "")], strict=False
                )
            },
        ),
    }
    world = World(ends, made, [], viewers)
    for number in range(items):
        site = chance.choice(made)
        item = PlainItem(
            id=an_id(),
            site=site,
            number=number + 1,
            author=chance.choice([people["customer"], people["manager"], an_id()]),
            kind=chance.choice(["defect", "defect", "task", "customer_remark"]),
            type=chance.choice(TYPES),
            root_cause=chance.choice(["", "hurry"]),
            severity=chance.choice([None, "critical", "minor"]),
            location=chance.choice([None, *site.locations]),
            shown=chance.random() < 0.4,
            assignee=chance.choice([None, people["manager"], people["contractor"]]),
        )
        _live(item, begins, ends, chance)
        world.items.append(item)
    return world


_NEXT = {
    "draft": ["open"],
    "open": ["in_progress", "in_progress", "ready", "disputed", "closed", "void", "open"],
    "in_progress": ["ready", "ready", "ready", "disputed", "in_progress"],
    "returned": ["in_progress", "ready", "void", "returned"],
    "ready": ["closed", "closed", "returned", "ready"],
    "disputed": ["open", "void", "closed"],
    "closed": ["open"],
}


def _live(item: PlainItem, begins: datetime, ends: datetime, chance: random.Random) -> None:
    moment = _some_time(item.site, begins + timedelta(minutes=chance.randrange(190 * 24 * 60)), chance)
    if chance.random() < 0.1:
        moment = DOUBLED_HOUR - timedelta(minutes=chance.randrange(1, 60))
    first = chance.choice(["draft", "open", "open"])
    due_on = item.site.day_of(moment) + timedelta(days=chance.randrange(30)) if chance.random() < 0.8 else None
    now = Happening(moment, "created", None, first, due_on=due_on, original_due_on=due_on)
    while moment <= ends:
        item.happened.append(now)
        if now.after == "void" or (now.after in ("closed", "draft") and chance.random() < 0.25):
            return
        gap = timedelta(minutes=chance.choice([1, 600, 3000, 9000, 20_000]) * chance.random() + 1)
        if now.after == "closed":
            gap *= 6
        moment = max(_some_time(item.site, now.at + gap, chance), now.at + timedelta(seconds=1))
        after = chance.choice(_NEXT[now.after])
        if now.after == after:
            # Nothing but its person or its date changes.
            step, changed = chance.choice(["assign", "move_deadline", "person_left", "changed"]), {}
            if step == "assign":
                changed = {"organisation": chance.choice(ORGANISATIONS)}
            if step == "move_deadline":
                moved = item.site.day_of(moment) + timedelta(days=chance.randrange(30))
                changed = {"due_on": moved, "original_due_on": now.original_due_on or moved}
            now = replace(now, at=moment, step=step, before=after, was=now.organisation, **changed)
            continue
        resolution = (
            chance.choice(["duplicate", "no_defect", "mistake"]) if after == "void"
            else "fixed" if after == "closed" and now.after == "ready"
            else "accepted_as_is" if after == "closed"
            else None
        )  # fmt: skip
        changed = {}
        if now.after == "closed":
            changed = {"due_on": item.site.day_of(moment) + timedelta(days=chance.randrange(20))}
            changed["original_due_on"] = now.original_due_on or changed["due_on"]
        now = replace(
            now, at=moment, step=_STEPS.get((now.after, after), _INTO.get(after, "")), before=now.after, after=after,
            was=now.organisation, resolution=resolution, **changed,
        )  # fmt: skip


_STEPS = {
    ("draft", "open"): "submit",
    ("closed", "open"): "reopen",
    ("disputed", "open"): "settle",
    ("disputed", "void"): "settle",
    ("ready", "closed"): "accept",
}
_INTO = {
    "in_progress": "start",
    "ready": "report_done",
    "returned": "return",
    "disputed": "dispute",
    "closed": "accept_as_is",
    "void": "void",
}


def _some_time(site: PlainSite, moment: datetime, chance: random.Random) -> datetime:
    """The moment, or one beside the local midnight or in its doubled hour."""
    if chance.random() < 0.5:
        return moment
    zone = ZoneInfo(site.zone)
    midnight = datetime.combine(moment.astimezone(zone).date(), time(), zone)
    return midnight.astimezone(UTC) + timedelta(seconds=chance.choice([-1, 0, 1, -1800, -3600, 3599]))


# -- storing them


def store(url: str, world: World) -> None:
    """Write them into a database of sites, as its owner or superuser."""
    engine = create_engine(url)
    began = datetime(2025, 1, 1, tzinfo=UTC)
    with engine.begin() as connection:
        connection.execute(
            insert(Site),
            [
                {
                    "id": site.id, "key": site.key, "name": f"Site {site.key}", "time_zone": site.zone,
                    "calendar": None, "deadline_rules": {}, "next_number": len(world.items) + 1,
                    "change_seq": len(world.items) + 1, "created_at": began, "updated_at": began,
                }
                for site in world.sites
            ],
        )  # fmt: skip
        connection.execute(
            insert(Membership),
            [
                {
                    "site_id": site, "user_id": viewer.user_id, "role": role, "organisation": organisation,
                    "position": "", "name": name, "disabled": False, "changed_seq": 1, "created_at": began,
                    "updated_at": began,
                }
                for name, viewer in world.viewers.items()
                for site, (role, organisation) in (viewer.roles or {}).items()
            ],
        )  # fmt: skip
        for site in world.sites:
            for position, (place, parent) in enumerate(site.locations.items()):
                row = {"id": place, "site_id": site.id, "parent_id": parent, "name": f"Place {position}"}
                connection.execute(insert(Location), {**row, "position": position})
        connection.execute(insert(WorkItem), [_item_row(item) for item in world.items])
        rows = [row for item in world.items for row in _history_rows(item)]
        connection.execute(insert(History), sorted(rows, key=lambda row: row["at"]))
    engine.dispose()


def _item_row(item: PlainItem) -> dict[str, Any]:
    closings = [one.at for one in item.closings()]
    now = item.now
    return {
        "id": item.id, "site_id": item.site.id, "number": item.number, "kind": item.kind, "state": now.after,
        "resolution": now.resolution, "title": f"Item {item.number}", "title_key": f"item {item.number}",
        "description": "", "type": item.type, "subtype": "", "root_cause": item.root_cause, "severity": item.severity,
        "priority": None, "organisation": now.organisation, "assignee_id": item.assignee, "assignee_name": "",
        "author_id": item.author, "author_name": "Author", "done_by_id": None, "done_by_organisation": "",
        "subject": "", "requirement_refs": [], "location_id": item.location, "place": "", "axes": "",
        "due_on": now.due_on, "original_due_on": now.original_due_on, "occurred_at": None,
        "created_at": item.happened[0].at, "updated_at": now.at, "submitted_at": item.submitted_at,
        "first_closed_at": closings[0] if closings else None,
        "closed_at": closings[-1] if now.after == "closed" else None,
        "reopen_count": sum(one.step == "reopen" for one in item.happened), "version": len(item.happened),
        "change_seq": item.number, "visible_to_customer": item.shown, "tags": [], "duplicate_of": None,
        "created_digest": bytes(32),
    }  # fmt: skip


def _history_rows(item: PlainItem) -> Iterator[dict[str, Any]]:
    own = timedelta()
    for number, one in enumerate(item.happened):
        changes = {} if one.was == one.organisation else {"organisation": [one.was, one.organisation]}
        before = item.happened[number - 1] if number else None
        if before is not None and before.after in CONTRACTORS_STATES and before.organisation:
            own += one.at - before.at
        yield {
            "site_id": item.site.id, "item_id": item.id, "change_seq": item.number, "version": number + 1,
            "step": one.step, "from_state": one.before, "to_state": one.after, "organisation": one.organisation,
            "assignee_name": "", "due_on": one.due_on, "original_due_on": one.original_due_on,
            "resolution": one.resolution, "visible_to_customer": item.shown, "changes": changes, "reason": "",
            "note": "", "actor_id": None, "actor_name": "Somebody", "actor_role": "manager", "actor_organisation": "",
            "actor_position": "", "override": False, "at": one.at, "phone_at": None, "op_id": None, "batch_id": None,
            "contractor_seconds": own.total_seconds(),
        }  # fmt: skip
