"""Lists of work items: of one site or several, each row as its reader may see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    Date,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY

from service_sites.domain.people import SiteRole
from service_sites.persistence.item_rows import REMARK, Facts, with_steps, writer
from service_sites.persistence.items import SUBMITTED, Condition, overdue, visible_inside, visible_to, works_for
from service_sites.persistence.reports import Counted
from service_sites.persistence.sites import today_at
from service_sites.schemas.items import (
    CUSTOMER_STATES,
    INNER_FILTERS,
    WorkItemQuery,
)
from service_sites.tables import Location, Membership, Site, WorkItem
from servicekit.database.engine import Database, Prepared
from servicekit.database.statement import Statement, containing
from servicekit.database.trigrams import sought
from servicekit.identity.reach import Reach
from servicekit.web.lists import Filters, Found, SortedList
from servicekit.web.paging import Sorting
from servicekit.wire.caseless import comparable

SORTING = Sorting(
    WorkItem.id, WorkItem.created_at, due_on=WorkItem.due_key, priority=WorkItem.priority_key, number=WorkItem.number
)
#: To sort by what customers are not told.
_INNER_SORTS = ("priority", "number")
_USER = bindparam("user_id", type_=Uuid())
#: To look through ten thousand, which are some 500 bytes each and lie in no order of priority, takes 50 ms.
_MOST = 2_000
_NO_DATE = literal_column("'9999-12-31'::date", Date())
_IS_NOBODYS = and_(WorkItem.assignee_id.is_(None), WorkItem.organisation == literal_column("''"))


class _Group(NamedTuple):
    """Sites on which the reader sees alike."""

    role: SiteRole
    #: Only a contractor's matters.
    organisation: str
    sites: list[UUID]


_MEMBERSHIP: list[Any] = [Membership.site_id, Membership.role, Membership.organisation]
_MEMBERSHIPS = Statement(
    select(*_MEMBERSHIP)
    .where(Membership.user_id == bindparam("reach", type_=Uuid()))
    .order_by(Membership.role, Membership.organisation)
)
_PLANNED_MEMBERSHIPS = Prepared.of("memberships_of", _MEMBERSHIPS.text, **_MEMBERSHIPS.types())
_TODAY = Statement(select(today_at(Site.time_zone).label("today")).where(Site.id == bindparam("site_id")))
_LOCATION: list[Any] = [Location.id, Location.site_id]
_below = select(*_LOCATION).where(Location.id == bindparam("location_id")).cte("below", recursive=True)
_children = select(*_LOCATION).where(Location.site_id == _below.c.site_id, Location.parent_id == _below.c.id)
# OFFSET has an index asked for each, where all locations of all sites would be read for each level.
_child = _children.offset(literal_column("0")).lateral("child")
_below = _below.union_all(select(_child.c.id, _child.c.site_id).select_from(_below).join(_child, true()))
_ids = func.array_agg(cast(_below.c.id, Text))
_LOCATIONS = Statement(select(_below.c.site_id, _ids.label("ids")).group_by(_below.c.site_id))
_PLANNED_LOCATIONS = Prepared.of("locations_below", _LOCATIONS.text, **_LOCATIONS.types())


def search(
    database: Database,
    query: WorkItemQuery,
    user_id: UUID | None,
    now: datetime,
    permitted: Callable[[Facts], str],
    may_change: bool,
    counted: tuple[Counted, Mapping[str, Any]] | None = None,
    *,
    reach: Reach,
) -> Found | None:
    """Return one page of the matching items that somebody sees; None if there can be none.

    `permitted` gives the JSON of the steps that the reader may take, who changes nothing unless `may_change`. `counted`
    are the only items that match, by a condition on parameters. Raises `Invalid` as `Sorting.place` and
    `SortedList.find` do.
    """
    place = SORTING.place(query)
    located = []
    if query.location_id is not None:
        located = database.rows(_LOCATIONS, {"location_id": query.location_id}, prepared=_PLANNED_LOCATIONS)
    sites = {one for one in (query.site_id, *(row.site_id for row in located)) if one is not None}
    if len(sites) > 1 or (query.location_id is not None and not located):
        return None
    query = query.model_copy(update={"site_id": next(iter(sites), None)})
    groups = None if reach.owner is None else _groups(database, query, reach)
    if groups == [] or (query.mine and user_id is None):
        return None
    values = _values(database, query, now)
    if located:
        values["locations"] = located[0].ids
    for number, group in enumerate(groups or ()):
        values |= {f"sites{number}": group.sites, f"organisation{number}": group.organisation}
    one_site = query.site_id is not None or (groups is not None and [len(group.sites) for group in groups] == [1])
    if one_site and groups:
        values["site_id"] = groups[0].sites[0]
    given = [name for name, value in values.items() if value is not None]
    listed = _list(
        query.sort,
        bool(place),
        query.total,
        one_site,
        None if groups is None else tuple((one.role, _sight(one, query)) for one in groups),
        None if counted is None else counted[0],
        *given,
    )
    if counted is not None:
        values |= counted[1]
    found = listed.find(database, query, {**values, **place, "user_id": user_id, "now": now, "may_change": may_change})
    return found._replace(rows=with_steps(found.rows.encoded_json, permitted))


def _groups(database: Database, query: WorkItemQuery, reach: Reach) -> list[_Group]:
    """The sites whose items the reader sees, if any of these can be in the list."""
    rows = database.rows(_MEMBERSHIPS, {"reach": reach.owner}, prepared=_PLANNED_MEMBERSHIPS)
    found: dict[tuple[SiteRole, str], list[UUID]] = {}
    for row in rows:
        role = SiteRole(row.role)
        if query.site_id not in (None, row.site_id):
            continue
        if role is not SiteRole.CUSTOMER or _is_for_customers(query, reach.owner):
            found.setdefault((role, row.organisation if role is SiteRole.CONTRACTOR else ""), []).append(row.site_id)
    return [_Group(role, organisation, sites) for (role, organisation), sites in found.items()]


def _sight(group: _Group, query: WorkItemQuery) -> SiteRole:
    """The role whose condition tells what is seen: of their own organisation's items a contractor sees all."""
    # An empty name is nobody's.
    is_own = group.organisation != "" and query.organisation == group.organisation
    return SiteRole.ENGINEER if is_own else group.role


def _is_for_customers(query: WorkItemQuery, customer: UUID | None) -> bool:
    """Whether a list shows nothing of a customer's items but what they are told: what it leaves out tells, too."""
    if any(getattr(query, name) is not None for name in INNER_FILTERS) or query.registered_by not in (None, customer):
        return False
    return query.sort.removeprefix("-") not in _INNER_SORTS and (query.state is None or bool(_told_states(query.state)))


def _told_states(words: str) -> list[str]:
    return [state for word in words.split(",") for state in CUSTOMER_STATES.get(word, ())]  # type: ignore[call-overload]


def _values(database: Database, query: WorkItemQuery, now: datetime) -> dict[str, Any]:
    """The parameters of the filters, None for those that are not given."""
    values: dict[str, Any] = {
        name: getattr(query, name)
        for name in ("site_id", "assignee_id", "organisation", "kind", "type", "severity", "priority", "due_from")
    }
    values |= {name: getattr(query, name) for name in ("registered_by", "due_to", "created_from", "created_to")}
    values["mine"] = True if query.mine else None
    values["unassigned" if query.unassigned else "assigned"] = None if query.unassigned is None else True
    values["late" if query.overdue else "not_late"] = None if query.overdue is None else True
    if query.overdue is not None and query.site_id is not None:
        values["today"] = next(
            (row.today for row in database.rows(_TODAY, {"site_id": query.site_id, "now": now})), None
        )
    if query.state is not None:
        told = _told_states(query.state)
        states = [*dict.fromkeys([*told, *(word for word in query.state.split(",") if word not in CUSTOMER_STATES)])]
        values |= {"state": states[0]} if len(states) == 1 else {"states": states}
        values["told_states"] = told
        values["no_drafts"] = None if "draft" in states else True
    if query.q:
        part = comparable(query.q)
        values |= {"part": containing(part), "part_of_title": f"%\n{containing(part)}", **sought(part)}
    return values


def _like(name: str) -> Condition:
    condition: Condition = WorkItem.title_key.like(bindparam(name, type_=Text), escape="/")
    return condition


def _equal(name: str, column: Any) -> Condition:
    condition: Condition = column == bindparam(name, type_=column.type)
    return condition


def _among(name: str, column: Any) -> Condition:
    condition: Condition = column == any_(cast(bindparam(name), ARRAY(column.type)))
    return condition


@lru_cache(maxsize=500)
def _list(
    sort: str,
    continued: bool,
    counted: bool,
    one_site: bool,
    seen_as: tuple[tuple[SiteRole, SiteRole], ...] | None,
    counted_in: Counted | None,
    *given: str,
) -> SortedList:
    names = {*given}
    roles, sights = (None, ()) if seen_as is None else zip(*seen_as, strict=True)
    key = sort.removeprefix("-")
    filters = Filters(most=_MOST)
    if one_site:
        filters.ordered.append(_equal("site_id", WorkItem.site_id))
    is_customer = [] if roles is None else [role is SiteRole.CUSTOMER for role in roles]
    mixed = any(is_customer) and not all(is_customer)
    # An index that has the order of time for each value of a column gives only the rows of one value.
    leading = ("organisation", "state") if one_site and key == "created_at" and not any(is_customer) else ()
    lead = next((name for name in leading if name in names), None)
    for name in ("organisation", "assignee_id", "kind", "type", "severity"):
        if name in names:
            (filters.ordered if name == lead else filters.others).append(_equal(name, getattr(WorkItem, name)))
    if counted_in is not None:
        filters.others.append(counted_in.condition)
        filters.whole = True
    if "priority" in names:
        filters.others.append(_equal("priority", WorkItem.priority_key))
    if "unassigned" in names:
        (filters.ordered if key == "due_on" else filters.others).append(_IS_NOBODYS)
    if "assigned" in names:
        filters.others.append(not_(_IS_NOBODYS))
    if "registered_by" in names:
        filters.others.append(_equal("registered_by", WorkItem.author_id))
    if "locations" in names:
        filters.others.append(_among("locations", WorkItem.location_id))
    # How many are late depends on their state, and locations are too many for statistics of each.
    filters.vague = bool(names & {"locations", "late"})
    (filters.ordered if key == "created_at" else filters.others).extend(SORTING.filters(names))
    (filters.ordered if key == "due_on" else filters.others).extend(_due(names))
    if "part" in names:
        filters.part = _like("part_of_title" if any(is_customer) else "part")
        if mixed:
            inside = [_among(f"sites{number}", WorkItem.site_id) for number, one in enumerate(is_customer) if not one]
            filters.part = or_(filters.part, and_(_like("part"), or_(*inside)))
        filters.trigrams = func.trigrams(WorkItem.title_key)
    if not mixed:
        asked = _asked(names, customer=any(is_customer))
        (filters.ordered if lead == "state" else filters.others).extend(asked)
    if roles is not None:
        numbers = range(len(sights))
        on_sites = [[] if one_site else [_among(f"sites{number}", WorkItem.site_id)] for number in numbers]
        employers = [bindparam(f"organisation{number}", type_=Text()) for number in numbers]
        seen = [
            and_(
                *on,
                visible_to(role, _USER, employer),
                *(_asked(names, customer=role is SiteRole.CUSTOMER) if mixed else ()),
            )
            for role, on, employer in zip(sights, on_sites, employers, strict=True)
        ]
        if "type" in names and "organisation" not in names:
            # Each company does its own kinds of work: of such pairs there are statistics.
            filters.known = [
                and_(*filters.all_ordered, *filters.others, *on, SUBMITTED, works_for(employer))
                for role, on, employer in zip(sights, on_sites, employers, strict=True)
                if role is SiteRole.CONTRACTOR
            ]
        # These see nearly everything; for the others an index gives what is theirs.
        nearly_all = one_site and sights[0] not in (SiteRole.CONTRACTOR, SiteRole.CUSTOMER)
        if not nearly_all:
            filters.others.append(or_(*seen))
        elif "no_drafts" not in names:
            # Drafts are all that is hidden from them.
            filters.either = visible_inside(sights[0], _USER)
    if filters.others:
        # An index of one of the others gives no more rows than it must.
        filters.others = [*filters.all_ordered, *filters.others]
    rows = writer(None if roles is None else frozenset(roles))
    return SortedList(WorkItem, rows, SORTING, sort, filters, continued=continued, counted=counted)


def _asked(names: set[str], *, customer: bool) -> list[Condition]:
    """The filters that differ for customers, who know other words and are assigned no work."""
    conditions: list[Condition] = []
    if customer:
        if names & {"state", "states"}:
            conditions.append(_among("told_states", WorkItem.state))
        if "mine" in names:
            conditions += [_equal("user_id", WorkItem.author_id), WorkItem.kind == REMARK]
        return conditions
    if "state" in names:
        conditions.append(_equal("state", WorkItem.state))
    if "states" in names:
        conditions.append(_among("states", WorkItem.state))
    if "mine" in names:
        conditions.append(_equal("user_id", WorkItem.assignee_id))
    return conditions


def _due(names: set[str]) -> list[Condition]:
    # Of the key alone, so that an index passes over what has no date: the last of all dates stands for none.
    conditions: list[Condition] = [WorkItem.due_key < _NO_DATE] if names & {"due_from", "due_to"} else []
    if "due_from" in names:
        conditions.append(WorkItem.due_key >= bindparam("due_from", type_=Date()))
    if "due_to" in names:
        conditions.append(WorkItem.due_key <= bindparam("due_to", type_=Date()))
    if "today" in names:
        late = [overdue(bindparam("today", type_=Date()))]
    else:
        # No site is further ahead or behind; an index serves, and between the two each site's own date decides.
        ahead, behind = (today_at(literal_column(f"'Etc/GMT{hours}'", Text())) for hours in ("-14", "+12"))
        today = select(today_at(Site.time_zone)).where(Site.id == WorkItem.site_id).scalar_subquery()
        late = [overdue(ahead), or_(WorkItem.due_key < behind, WorkItem.due_key < today)]
    if "late" in names:
        conditions += late
    if "not_late" in names:
        conditions.append(not_(and_(*late)))
    return conditions
