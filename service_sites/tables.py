"""The tables of sites, their people and their work. Every constraint has a name, so that its violation becomes a domain
error."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    Date,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from servicekit.database.trigrams import define_trigrams
from servicekit.events.inbox import define_inbox
from servicekit.events.outbox import define_outbox
from servicekit.events.tombstones import define_tombstones
from servicekit.web.idempotency import define_idempotency_keys


class Base(DeclarativeBase):
    """Holds this service's metadata."""

    metadata = MetaData()
    type_annotation_map = {  # noqa: RUF012 # as SQLAlchemy wants it
        str: Text,
        datetime: DateTime(timezone=True),
        date: Date,
        UUID: Uuid,
        bytes: LargeBinary,
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
    }


define_outbox(Base.metadata)
define_inbox(Base.metadata)
define_tombstones(Base.metadata)
define_idempotency_keys(Base.metadata)
define_trigrams(Base.metadata, "title_key")


class Site(Base):
    """One building site. It is never deleted."""

    __tablename__ = "sites"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: The beginning of its items' names, such as ABC in ABC-17.
    key: Mapped[str]
    name: Mapped[str]
    #: Of the IANA database.
    time_zone: Mapped[str]
    #: The country of its holidays (ISO 3166-1 alpha-2); null: Monday to Friday are worked, whatever the date.
    calendar: Mapped[str | None]
    #: Within how many working days a work item is due, by its severity, unless somebody says; null: no day.
    deadline_rules: Mapped[dict[str, Any]]
    #: Of the next work item.
    next_number: Mapped[int] = mapped_column(Integer)
    #: Of the last change to its items or people. Taken under this row's lock, so that changes commit in its order.
    change_seq: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("key", name="uq_sites_key"),
        CheckConstraint("key ~ '^[A-Z][A-Z0-9]{1,9}$'", name="ck_sites_key"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_sites_name"),
        CheckConstraint("char_length(time_zone) BETWEEN 1 AND 64", name="ck_sites_time_zone"),
        CheckConstraint("calendar ~ '^[A-Z]{2}$'", name="ck_sites_calendar"),
        CheckConstraint("jsonb_typeof(deadline_rules) = 'object'", name="ck_sites_deadline_rules"),
        CheckConstraint("next_number >= 1", name="ck_sites_next_number"),
        CheckConstraint("change_seq >= 0", name="ck_sites_change_seq"),
    )


class Membership(Base):
    """One person on one site. Their account is in another service's database."""

    __tablename__ = "memberships"

    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", name="fk_memberships_site_id"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    role: Mapped[str]
    #: Whom they work for; empty: nobody named.
    organisation: Mapped[str]
    position: Mapped[str]
    #: As their account had it last.
    name: Mapped[str]
    #: Whether their account is.
    disabled: Mapped[bool]
    #: The site's `change_seq` when their rights changed last: who knows less begins anew.
    changed_seq: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(
            "role IN ('engineer', 'manager', 'executive', 'customer', 'contractor')", name="ck_memberships_role"
        ),
        CheckConstraint("char_length(organisation) <= 200", name="ck_memberships_organisation"),
        CheckConstraint("char_length(position) <= 200", name="ck_memberships_position"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_memberships_name"),
        Index("ix_memberships_user", "user_id"),
    )


class Location(Base):
    """A place on a site, in a tree."""

    __tablename__ = "locations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", name="fk_locations_site_id"))
    parent_id: Mapped[UUID | None]
    name: Mapped[str]
    #: Among its siblings.
    position: Mapped[int] = mapped_column(Integer)

    __table_args__ = (
        # What refers to a location says its site too, so that it cannot be one of another site.
        UniqueConstraint("site_id", "id", name="uq_locations_site"),
        UniqueConstraint("site_id", "parent_id", "name", name="uq_locations_name", postgresql_nulls_not_distinct=True),
        ForeignKeyConstraint(
            ["site_id", "parent_id"], ["locations.site_id", "locations.id"], name="fk_locations_parent_id"
        ),
        CheckConstraint("parent_id <> id", name="ck_locations_parent_id"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_locations_name"),
    )


class CalendarDay(Base):
    """An exception to a site's calendar."""

    __tablename__ = "calendar_days"

    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", name="fk_calendar_days_site_id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    works: Mapped[bool]


_NEWEST = (text("created_at DESC"), text("id DESC"))
#: persistence/items.py says the same.
_CAN_BE_LATE = text("state IN ('open', 'in_progress', 'returned', 'disputed')")
#: persistence/item_lists.py says the same.
_IS_NOBODYS = text("assignee_id IS NULL AND organisation = ''")


class WorkItem(Base):
    """A defect, a task, or a customer's remark."""

    __tablename__ = "work_items"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", name="fk_work_items_site_id"))
    number: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str]
    state: Mapped[str]
    resolution: Mapped[str | None]
    title: Mapped[str]
    description: Mapped[str]
    type: Mapped[str]
    subtype: Mapped[str]
    root_cause: Mapped[str]
    severity: Mapped[str | None]
    priority: Mapped[int | None] = mapped_column(SmallInteger)
    #: Who is responsible; empty: nobody named.
    organisation: Mapped[str]
    assignee_id: Mapped[UUID | None]
    #: Stays when the person goes.
    assignee_name: Mapped[str]
    author_id: Mapped[UUID | None]
    author_name: Mapped[str]
    #: Who reported it done last.
    done_by_id: Mapped[UUID | None]
    done_by_organisation: Mapped[str]
    subject: Mapped[str]
    requirement_refs: Mapped[list[str]]
    location_id: Mapped[UUID | None]
    place: Mapped[str]
    axes: Mapped[str]
    plan_version_id: Mapped[UUID | None]
    pin_x: Mapped[Decimal | None] = mapped_column(Numeric(6, 5))
    pin_y: Mapped[Decimal | None] = mapped_column(Numeric(6, 5))
    latitude: Mapped[Decimal | None] = mapped_column(Numeric(8, 6))
    longitude: Mapped[Decimal | None] = mapped_column(Numeric(9, 6))
    due_on: Mapped[date | None]
    original_due_on: Mapped[date | None]
    #: By a phone's clock; `created_at` is by ours.
    occurred_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    submitted_at: Mapped[datetime | None]
    first_closed_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    reopen_count: Mapped[int] = mapped_column(Integer)
    #: Of its fields and steps, from 1.
    version: Mapped[int] = mapped_column(Integer)
    #: Of its last change.
    change_seq: Mapped[int] = mapped_column(BigInteger)
    visible_to_customer: Mapped[bool]
    tags: Mapped[list[str]]
    duplicate_of: Mapped[UUID | None]
    #: SHA-256 of the body that made it.
    created_digest: Mapped[bytes]
    #: Its name on the site and, on a line of its own, its title, as they are searched (servicekit.wire.caseless). Not
    #: read with an item.
    title_key: Mapped[str] = mapped_column(Text(collation="C"), deferred=True)
    #: For sorting: those without a date, and those without a priority, come last.
    due_key: Mapped[date] = mapped_column(
        Computed("coalesce(due_on, '9999-12-31'::date)", persisted=True), deferred=True
    )
    priority_key: Mapped[int] = mapped_column(
        SmallInteger, Computed("coalesce(priority, 5::smallint)", persisted=True), deferred=True
    )

    __table_args__ = (
        UniqueConstraint("site_id", "number", name="uq_work_items_number"),
        ForeignKeyConstraint(
            ["site_id", "location_id"], ["locations.site_id", "locations.id"], name="fk_work_items_location_id"
        ),
        CheckConstraint("number >= 1", name="ck_work_items_number"),
        CheckConstraint("kind IN ('defect', 'task', 'customer_remark')", name="ck_work_items_kind"),
        CheckConstraint(
            "state IN ('draft', 'open', 'in_progress', 'ready', 'returned', 'disputed', 'closed', 'void')",
            name="ck_work_items_state",
        ),
        CheckConstraint(
            "CASE state WHEN 'closed' THEN coalesce(resolution IN ('fixed', 'accepted_as_is'), false)"
            " WHEN 'void' THEN coalesce(resolution IN ('duplicate', 'no_defect', 'mistake'), false)"
            " ELSE resolution IS NULL END",
            name="ck_work_items_resolution",
        ),
        CheckConstraint("char_length(title) BETWEEN 1 AND 255", name="ck_work_items_title"),
        CheckConstraint("char_length(description) <= 10000", name="ck_work_items_description"),
        CheckConstraint("char_length(type) <= 100", name="ck_work_items_type"),
        CheckConstraint("char_length(subtype) <= 100", name="ck_work_items_subtype"),
        CheckConstraint("char_length(root_cause) <= 100", name="ck_work_items_root_cause"),
        CheckConstraint("severity IN ('critical', 'significant', 'minor')", name="ck_work_items_severity"),
        CheckConstraint("priority BETWEEN 1 AND 4", name="ck_work_items_priority"),
        CheckConstraint("char_length(organisation) <= 200", name="ck_work_items_organisation"),
        CheckConstraint("char_length(subject) <= 500", name="ck_work_items_subject"),
        CheckConstraint("cardinality(requirement_refs) <= 20", name="ck_work_items_requirement_refs"),
        CheckConstraint("char_length(place) <= 500", name="ck_work_items_place"),
        CheckConstraint("char_length(axes) <= 100", name="ck_work_items_axes"),
        CheckConstraint(
            "(pin_x IS NULL) = (pin_y IS NULL) AND pin_x BETWEEN 0 AND 1 AND pin_y BETWEEN 0 AND 1",
            name="ck_work_items_pin",
        ),
        CheckConstraint(
            "(latitude IS NULL) = (longitude IS NULL) AND latitude BETWEEN -90 AND 90"
            " AND longitude BETWEEN -180 AND 180",
            name="ck_work_items_position",
        ),
        CheckConstraint("reopen_count >= 0", name="ck_work_items_reopen_count"),
        CheckConstraint("version >= 1", name="ck_work_items_version"),
        CheckConstraint("cardinality(tags) <= 20", name="ck_work_items_tags"),
        CheckConstraint("octet_length(created_digest) = 32", name="ck_work_items_created_digest"),
        Index("ix_work_items_newest", *_NEWEST),
        Index("ix_work_items_due", "due_key", "id"),
        Index("ix_work_items_priority", "priority_key", "id"),
        Index("ix_work_items_late", "due_key", "id", postgresql_where=_CAN_BE_LATE),
        Index("ix_work_items_unassigned", "due_key", "id", "site_id", "state", postgresql_where=_IS_NOBODYS),
        Index("ix_work_items_site_newest", "site_id", *_NEWEST),
        # With the state, so that it tells by itself how many are not drafts; with the organisation, for contractors.
        Index("ix_work_items_site_due", "site_id", "due_key", "id", "organisation", "state"),
        Index("ix_work_items_site_priority", "site_id", "priority_key", "id"),
        Index("ix_work_items_site_late", "site_id", "due_key", "id", postgresql_where=_CAN_BE_LATE),
        Index("ix_work_items_site_changes", "site_id", "change_seq"),
        Index("ix_work_items_site_visible", "site_id", *_NEWEST, postgresql_where=text("visible_to_customer")),
        # The value first, so that they serve a search of all sites too.
        Index("ix_work_items_state", "state", "site_id", *_NEWEST),
        Index("ix_work_items_organisation", "organisation", "site_id", *_NEWEST),
        # By it those of a contractor's items are found that are asked for. It is an eighth of the one above.
        Index(
            "ix_work_items_organisation_state",
            *("organisation", "state", "site_id", "kind", "type", "severity", "priority_key"),
        ),
        Index("ix_work_items_type", "type", "site_id", "severity"),
        Index("ix_work_items_severity", "severity", "site_id"),
        Index("ix_work_items_kind", "kind", "site_id", "visible_to_customer"),
        # With the organisation, for contractors.
        Index(
            "ix_work_items_assignee",
            *("assignee_id", "site_id", "organisation", "state"),
            postgresql_where=text("assignee_id IS NOT NULL"),
        ),
        Index("ix_work_items_author", "author_id", "site_id", "organisation"),
        Index("ix_work_items_location", "location_id", "state", "organisation", "visible_to_customer"),
        # For the reports on what was closed, which read it in the order of the items.
        Index(
            "ix_work_items_reports",
            "id",
            postgresql_include=["site_id", "state", "organisation", "submitted_at", "first_closed_at"],
        ),
        Index("ix_work_items_trigrams", text("trigrams(title_key)"), postgresql_using="gin"),
    )


_IS_OPENING = (
    "coalesce(from_state IN ('open', 'in_progress', 'ready', 'returned', 'disputed'), false)"
    " <> coalesce(to_state IN ('open', 'in_progress', 'ready', 'returned', 'disputed'), false)"
)


class History(Base):
    """What happened to a work item, who did it, and what they were then. The service can only add to it."""

    __tablename__ = "history"

    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    site_id: Mapped[UUID]
    item_id: Mapped[UUID]
    change_seq: Mapped[int] = mapped_column(BigInteger)
    #: This and what follows are the item's, as it is afterwards.
    version: Mapped[int] = mapped_column(Integer)
    step: Mapped[str]
    from_state: Mapped[str | None]
    to_state: Mapped[str | None]
    organisation: Mapped[str]
    assignee_name: Mapped[str]
    due_on: Mapped[date | None]
    original_due_on: Mapped[date | None]
    resolution: Mapped[str | None]
    visible_to_customer: Mapped[bool]
    #: By field: what it was, and what it is.
    changes: Mapped[dict[str, Any]]
    reason: Mapped[str]
    note: Mapped[str]
    actor_id: Mapped[UUID | None]
    actor_name: Mapped[str]
    actor_role: Mapped[str]
    actor_organisation: Mapped[str]
    actor_position: Mapped[str]
    #: Whether an administrator did what no role on the site allowed them.
    override: Mapped[bool]
    at: Mapped[datetime]
    phone_at: Mapped[datetime | None]
    op_id: Mapped[UUID | None]
    batch_id: Mapped[UUID | None]
    #: How long the item had been with contractors by then, in seconds: while their organisation was responsible and had
    #: neither reported it done nor disputed it.
    contractor_seconds: Mapped[float] = mapped_column(Double)

    __table_args__ = (
        CheckConstraint("char_length(step) BETWEEN 1 AND 30", name="ck_history_step"),
        CheckConstraint("jsonb_typeof(changes) = 'object'", name="ck_history_changes"),
        CheckConstraint("char_length(reason) <= 2000", name="ck_history_reason"),
        CheckConstraint("char_length(note) <= 2000", name="ck_history_note"),
        Index("ix_history_item", "item_id", "version"),
        # For the reports (persistence/reports.sql). Their rows have all that these read.
        Index(
            "ix_history_reports",
            "site_id",
            "at",
            postgresql_include=["item_id", "to_state", "organisation"],
            postgresql_where=text("from_state IS DISTINCT FROM to_state AND to_state IN ('ready', 'returned')"),
        ),
        Index(
            "ix_history_openings",
            "site_id",
            "at",
            postgresql_include=["item_id", "to_state"],
            postgresql_where=text(_IS_OPENING),
        ),
        Index(
            "ix_history_closings",
            "site_id",
            "at",
            postgresql_include=[
                "seq",
                "item_id",
                "to_state",
                "organisation",
                "resolution",
                "due_on",
                "original_due_on",
                "contractor_seconds",
            ],
            postgresql_where=text(f"{_IS_OPENING} AND (to_state = 'closed' OR from_state = 'closed')"),
        ),
    )


class Removal(Base):
    """A work item that some can no longer see: `all` (who may read everything), `customer`, `manager`,
    `organisation:NAME` or `user:ID`."""

    __tablename__ = "removals"

    site_id: Mapped[UUID] = mapped_column(primary_key=True)
    change_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    item_id: Mapped[UUID] = mapped_column(primary_key=True)
    audience: Mapped[str] = mapped_column(primary_key=True)

    __table_args__ = (
        CheckConstraint(
            "audience IN ('all', 'customer', 'manager') OR audience ~ '^(organisation|user):.'",
            name="ck_removals_audience",
        ),
    )


class Operation(Base):
    """The answer to a step or a comment, given again to whoever repeats the request."""

    __tablename__ = "operations"

    op_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID | None]
    #: SHA-256 of the request.
    digest: Mapped[bytes]
    answer: Mapped[bytes]
    created_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="ck_operations_digest"),
        Index("ix_operations_created_at", "created_at"),
    )


class Comment(Base):
    """What somebody said of a work item, and to whom."""

    __tablename__ = "comments"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    item_id: Mapped[UUID] = mapped_column(ForeignKey("work_items.id", name="fk_comments_item_id", ondelete="CASCADE"))
    site_id: Mapped[UUID]
    change_seq: Mapped[int] = mapped_column(BigInteger)
    author_id: Mapped[UUID | None]
    author_name: Mapped[str]
    author_role: Mapped[str]
    author_organisation: Mapped[str]
    audience: Mapped[str]
    text: Mapped[str]
    created_at: Mapped[datetime]
    edited_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("audience IN ('internal', 'parties', 'customer')", name="ck_comments_audience"),
        CheckConstraint("char_length(text) BETWEEN 1 AND 10000", name="ck_comments_text"),
        Index("ix_comments_item", "item_id", "id"),
        Index("ix_comments_site_changes", "site_id", "change_seq"),
    )


class Watcher(Base):
    """Who wants to know what happens to a work item."""

    __tablename__ = "watchers"

    item_id: Mapped[UUID] = mapped_column(
        ForeignKey("work_items.id", name="fk_watchers_item_id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]

    __table_args__ = (Index("ix_watchers_user", "user_id"),)


class Link(Base):
    """From a work item to an order, a task or another item."""

    __tablename__ = "links"

    item_id: Mapped[UUID] = mapped_column(
        ForeignKey("work_items.id", name="fk_links_item_id", ondelete="CASCADE"), primary_key=True
    )
    kind: Mapped[str] = mapped_column(primary_key=True)
    target_id: Mapped[UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    created_by: Mapped[UUID | None]

    __table_args__ = (
        CheckConstraint("kind IN ('order', 'task', 'item')", name="ck_links_kind"),
        Index("ix_links_target", "target_id"),
    )
