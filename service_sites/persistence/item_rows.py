"""Work items as JSON that PostgreSQL writes, each as its reader may see it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Boolean,
    ColumnElement,
    FromClause,
    Integer,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSON

from service_sites.domain.item import ItemKind
from service_sites.domain.people import SiteRole
from service_sites.persistence.items import closed_on, overdue
from service_sites.persistence.sites import today_at
from service_sites.schemas.items import CUSTOMER_STATES, CustomerWorkItemView, WorkItemView
from service_sites.tables import Location, Membership, Site
from servicekit.web.lists import RowWriter
from servicekit.web.sql_encoders import sql_encoder_of
from servicekit.wire.envelope import Written

REMARK = literal_column(f"'{ItemKind.CUSTOMER_REMARK}'", Text())
_USER = bindparam("user_id", type_=Uuid())
_QUOTE = literal_column("'\"'", Text())
#: Stands before and behind the code of the permitted steps. JSON never has it.
_MARK = "\x01"


class Facts(NamedTuple):
    """All that decides which steps somebody may take on an item, and that a statement can tell of it."""

    state: str
    kind: str
    #: The reader's on its site; empty: none.
    role: str
    is_author: bool
    is_assignee: bool
    is_responsible_organisation: bool
    did_report: bool
    organisation_did_report: bool


@cache
def writer(roles: frozenset[SiteRole] | None) -> RowWriter:
    """Writes each row as a reader with these roles on their sites sees it, or one who sees everything."""

    def row(page: FromClause) -> ColumnElement[str]:
        columns = page.c
        location = select(Location.name).where(Location.id == columns.location_id).scalar_subquery()
        inner = {
            **{name: columns[name] for name in WorkItemView.model_fields if name in columns},
            "key": func.concat(Site.key, literal_column("'-'"), columns.number, type_=Text()),
            "assignee": _person(columns.assignee_id, columns.assignee_name),
            "author": _person(columns.author_id, columns.author_name),
            "location": location,
            "overdue": overdue(today_at(Site.time_zone), columns),
            "permitted_steps": _facts(columns),
        }
        if roles is not None and SiteRole.CONTRACTOR in roles:
            is_contractor = Membership.role == literal_column(f"'{SiteRole.CONTRACTOR}'")
            inner["duplicate_of"] = case((is_contractor, null()), else_=columns.duplicate_of)
            theirs = or_(columns.done_by_id == _USER, columns.done_by_organisation == _employer())
            is_hidden = and_(is_contractor, not_(func.coalesce(theirs, literal_column("false"))))
            inner["done_by_id"] = case((is_hidden, null()), else_=columns.done_by_id)
            inner["done_by_organisation"] = case((is_hidden, literal_column("''")), else_=columns.done_by_organisation)
        if roles is None or SiteRole.CUSTOMER not in roles:
            return sql_encoder_of(WorkItemView, inner)
        words: list[Any] = [
            (columns.state.in_([literal_column(f"'{state}'", Text()) for state in states]), literal_column(f"'{word}'"))
            for word, states in CUSTOMER_STATES.items()
        ]
        is_own = and_(columns.author_id == _USER, columns.kind == REMARK)
        told = {
            **{name: columns[name] for name in CustomerWorkItemView.model_fields if name in columns},
            "description": case((is_own, columns.description), else_=null()),
            "place": case((is_own, columns.place), else_=null()),
            "location": location,
            "state": case(*words),
            "done_on": case(
                (columns.state == literal_column("'closed'"), closed_on(Site.time_zone, columns)), else_=null()
            ),
            "editable": func.coalesce(
                and_(is_own, columns.state == literal_column("'draft'"), bindparam("may_change", type_=Boolean())),
                literal_column("false"),
            ),
        }
        customers = sql_encoder_of(CustomerWorkItemView, told)
        if roles == {SiteRole.CUSTOMER}:
            return customers
        is_customer = Membership.role == literal_column(f"'{SiteRole.CUSTOMER}'")
        return case((is_customer, customers), else_=sql_encoder_of(WorkItemView, inner))

    return RowWriter(row, _with_reader)


def _with_reader(page: FromClause) -> FromClause:
    """With the site of each item, and its reader's membership there."""
    is_reader = and_(Membership.site_id == page.c.site_id, Membership.user_id == _USER)
    return page.join(Site, Site.id == page.c.site_id).outerjoin(Membership, is_reader)


def _person(user_id: Any, name: Any) -> ColumnElement[Any]:
    """JSON of a `PersonView`, or null for nobody."""
    quoted = func.coalesce(func.concat(_QUOTE, user_id, _QUOTE), literal_column("'null'"))
    known = case((user_id.is_(None), literal_column("'null'")), else_=quoted)
    written = func.concat(
        literal_column("""'{"id":'"""),
        known,
        literal_column("""',"name":'"""),
        func.to_json(name),
        literal_column("'}'"),
    )
    nobody = and_(user_id.is_(None), name == literal_column("''"))
    return type_coerce(case((nobody, literal_column("'null'")), else_=written), JSON)


def _employer() -> ColumnElement[Any]:
    """The reader's organisation; an empty name is nobody's."""
    return func.nullif(Membership.organisation, literal_column("''"))


def _facts(columns: Any) -> ColumnElement[Any]:
    """`Facts` of a row and its reader, between two marks."""
    facts = (
        columns.author_id == _USER,
        columns.assignee_id == _USER,
        columns.organisation == _employer(),
        columns.done_by_id == _USER,
        columns.done_by_organisation == _employer(),
    )
    written = [cast(cast(func.coalesce(one, literal_column("false")), Integer), Text) for one in facts]
    role = func.coalesce(Membership.role, literal_column("''"))
    mark, comma = literal_column(f"chr({ord(_MARK)})", Text()), literal_column("','", Text())
    parts = [part for one in (columns.state, columns.kind, role, *written) for part in (one, comma)]
    return type_coerce(func.concat(mark, *parts[:-1], mark), JSON)


def with_steps(written: str, permitted: Callable[[Facts], str]) -> Written:
    """Items as they were written, with the JSON of the steps that their reader may take on each."""
    parts = written.split(_MARK)
    parts[1::2] = [permitted(_read(code)) for code in parts[1::2]]
    return Written("".join(parts))


@cache
def _read(code: str) -> Facts:
    state, kind, role, *facts = code.split(",")
    return Facts(state, kind, role, *(one == "1" for one in facts))
