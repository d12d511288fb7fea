"""Sites, their people, places and calendars, and their work with its history."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)
_TABLES = (
    "links",
    "watchers",
    "comments",
    "operations",
    "removals",
    "history",
    "work_items",
    "calendar_days",
    "locations",
    "memberships",
    "sites",
    "idempotency_keys",
    "tombstones",
    "processed_events",
    "outbox_deliveries",
    "outbox",
)


def upgrade() -> None:
    _shared()
    _trigrams()
    _people_and_places()
    _items()
    _history()
    _talk()


def downgrade() -> None:
    for table in _TABLES:
        op.drop_table(table)
    op.execute("DROP FUNCTION trigrams(text)")


def _trigrams() -> None:
    op.execute("""
        CREATE FUNCTION trigrams(title_key text) RETURNS tsvector LANGUAGE sql IMMUTABLE STRICT COST 10000 AS $$
            SELECT CASE WHEN length(title_key) > 4000 THEN 'long'::tsvector ELSE (
                SELECT array_to_tsvector(array_agg(part)) FROM (
                    SELECT c || lead(c, 1, '') OVER following || lead(c, 2, '') OVER following AS part
                      FROM unnest(string_to_array(title_key, NULL)) WITH ORDINALITY AS characters (c, at)
                    WINDOW following AS (ORDER BY at)) parts) END
        $$
    """)


def _shared() -> None:
    op.create_table(
        "outbox",
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("subject", sa.Uuid, nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("data", JSONB, nullable=False),
        sa.Column("spread", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("position", name="pk_outbox"),
        sa.UniqueConstraint("id", name="uq_outbox_id"),
        sa.CheckConstraint("jsonb_typeof(data) = 'object'", name="ck_outbox_data"),
    )
    op.create_index("ix_outbox_unspread", "outbox", ["position"], postgresql_where=sa.text("NOT spread"))
    op.create_table(
        "outbox_deliveries",
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("subject", sa.Uuid, nullable=False),
        sa.Column("refusals", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", _TIME),
        sa.Column("refused_at", _TIME),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("position", "destination", name="pk_outbox_deliveries"),
        sa.ForeignKeyConstraint(
            ["position"], ["outbox.position"], name="fk_outbox_deliveries_position", ondelete="CASCADE"
        ),
        sa.CheckConstraint("char_length(destination) BETWEEN 1 AND 50", name="ck_outbox_deliveries_destination"),
        sa.CheckConstraint("refused_at IS NULL OR reason IS NOT NULL", name="ck_outbox_deliveries_refused"),
    )
    op.create_index(
        "ix_outbox_deliveries_held",
        "outbox_deliveries",
        ["destination", "subject"],
        postgresql_where=sa.text("due_at IS NOT NULL AND refused_at IS NULL"),
    )
    op.create_index(
        "ix_outbox_deliveries_waiting",
        "outbox_deliveries",
        ["destination", "position"],
        postgresql_where=sa.text("refused_at IS NULL"),
    )
    op.create_table(
        "processed_events",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("processed_at", _TIME, nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("id", name="pk_processed_events"),
    )
    op.create_index("ix_processed_events_processed_at", "processed_events", ["processed_at"])
    op.create_table(
        "tombstones",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("deleted_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tombstones"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("made", sa.Uuid, nullable=False),
        sa.Column("created_at", _TIME, nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("key", name="pk_idempotency_keys"),
        sa.CheckConstraint("char_length(key) BETWEEN 1 AND 200", name="ck_idempotency_keys_key"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def _people_and_places() -> None:
    op.create_table(
        "sites",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("time_zone", sa.Text, nullable=False),
        sa.Column("calendar", sa.Text),
        sa.Column("deadline_rules", JSONB, nullable=False),
        sa.Column("next_number", sa.Integer, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sites"),
        sa.UniqueConstraint("key", name="uq_sites_key"),
        sa.CheckConstraint("key ~ '^[A-Z][A-Z0-9]{1,9}$'", name="ck_sites_key"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_sites_name"),
        sa.CheckConstraint("char_length(time_zone) BETWEEN 1 AND 64", name="ck_sites_time_zone"),
        sa.CheckConstraint("calendar ~ '^[A-Z]{2}$'", name="ck_sites_calendar"),
        sa.CheckConstraint("jsonb_typeof(deadline_rules) = 'object'", name="ck_sites_deadline_rules"),
        sa.CheckConstraint("next_number >= 1", name="ck_sites_next_number"),
        sa.CheckConstraint("change_seq >= 0", name="ck_sites_change_seq"),
    )
    op.create_table(
        "memberships",
        sa.Column("site_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("organisation", sa.Text, nullable=False),
        sa.Column("position", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("changed_seq", sa.BigInteger, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("site_id", "user_id", name="pk_memberships"),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_memberships_site_id"),
        sa.CheckConstraint(
            "role IN ('engineer', 'manager', 'executive', 'customer', 'contractor')", name="ck_memberships_role"
        ),
        sa.CheckConstraint("char_length(organisation) <= 200", name="ck_memberships_organisation"),
        sa.CheckConstraint("char_length(position) <= 200", name="ck_memberships_position"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_memberships_name"),
    )
    op.create_index("ix_memberships_user", "memberships", ["user_id"])
    op.create_table(
        "locations",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("site_id", sa.Uuid, nullable=False),
        sa.Column("parent_id", sa.Uuid),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_locations"),
        sa.UniqueConstraint("site_id", "id", name="uq_locations_site"),
        sa.UniqueConstraint(
            "site_id", "parent_id", "name", name="uq_locations_name", postgresql_nulls_not_distinct=True
        ),
        sa.ForeignKeyConstraint(
            ["site_id", "parent_id"], ["locations.site_id", "locations.id"], name="fk_locations_parent_id"
        ),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_locations_site_id"),
        sa.CheckConstraint("parent_id <> id", name="ck_locations_parent_id"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_locations_name"),
    )
    op.create_table(
        "calendar_days",
        sa.Column("site_id", sa.Uuid, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("works", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("site_id", "day", name="pk_calendar_days"),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_calendar_days_site_id"),
    )


def _items() -> None:
    op.create_table(
        "work_items",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("site_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("resolution", sa.Text),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("subtype", sa.Text, nullable=False),
        sa.Column("root_cause", sa.Text, nullable=False),
        sa.Column("severity", sa.Text),
        sa.Column("priority", sa.SmallInteger),
        sa.Column("organisation", sa.Text, nullable=False),
        sa.Column("assignee_id", sa.Uuid),
        sa.Column("assignee_name", sa.Text, nullable=False),
        sa.Column("author_id", sa.Uuid),
        sa.Column("author_name", sa.Text, nullable=False),
        sa.Column("done_by_id", sa.Uuid),
        sa.Column("done_by_organisation", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("requirement_refs", ARRAY(sa.Text), nullable=False),
        sa.Column("location_id", sa.Uuid),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("axes", sa.Text, nullable=False),
        sa.Column("plan_version_id", sa.Uuid),
        sa.Column("pin_x", sa.Numeric(6, 5)),
        sa.Column("pin_y", sa.Numeric(6, 5)),
        sa.Column("latitude", sa.Numeric(8, 6)),
        sa.Column("longitude", sa.Numeric(9, 6)),
        sa.Column("due_on", sa.Date),
        sa.Column("original_due_on", sa.Date),
        sa.Column("occurred_at", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("submitted_at", _TIME),
        sa.Column("first_closed_at", _TIME),
        sa.Column("closed_at", _TIME),
        sa.Column("reopen_count", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
        sa.Column("visible_to_customer", sa.Boolean, nullable=False),
        sa.Column("tags", ARRAY(sa.Text), nullable=False),
        sa.Column("duplicate_of", sa.Uuid),
        sa.Column("created_digest", sa.LargeBinary, nullable=False),
        sa.Column("title_key", sa.Text(collation="C"), nullable=False),
        sa.Column(
            "due_key", sa.Date, sa.Computed("coalesce(due_on, '9999-12-31'::date)", persisted=True), nullable=False
        ),
        sa.Column(
            "priority_key",
            sa.SmallInteger,
            sa.Computed("coalesce(priority, 5::smallint)", persisted=True),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="pk_work_items"),
        sa.UniqueConstraint("site_id", "number", name="uq_work_items_number"),
        sa.ForeignKeyConstraint(
            ["site_id", "location_id"], ["locations.site_id", "locations.id"], name="fk_work_items_location_id"
        ),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_work_items_site_id"),
        sa.CheckConstraint("number >= 1", name="ck_work_items_number"),
        sa.CheckConstraint("kind IN ('defect', 'task', 'customer_remark')", name="ck_work_items_kind"),
        sa.CheckConstraint(
            "state IN ('draft', 'open', 'in_progress', 'ready', 'returned', 'disputed', 'closed', 'void')",
            name="ck_work_items_state",
        ),
        sa.CheckConstraint(
            "CASE state WHEN 'closed' THEN coalesce(resolution IN ('fixed', 'accepted_as_is'), false)"
            " WHEN 'void' THEN coalesce(resolution IN ('duplicate', 'no_defect', 'mistake'), false)"
            " ELSE resolution IS NULL END",
            name="ck_work_items_resolution",
        ),
        sa.CheckConstraint("char_length(title) BETWEEN 1 AND 255", name="ck_work_items_title"),
        sa.CheckConstraint("char_length(description) <= 10000", name="ck_work_items_description"),
        sa.CheckConstraint("char_length(type) <= 100", name="ck_work_items_type"),
        sa.CheckConstraint("char_length(subtype) <= 100", name="ck_work_items_subtype"),
        sa.CheckConstraint("char_length(root_cause) <= 100", name="ck_work_items_root_cause"),
        sa.CheckConstraint("severity IN ('critical', 'significant', 'minor')", name="ck_work_items_severity"),
        sa.CheckConstraint("priority BETWEEN 1 AND 4", name="ck_work_items_priority"),
        sa.CheckConstraint("char_length(organisation) <= 200", name="ck_work_items_organisation"),
        sa.CheckConstraint("char_length(subject) <= 500", name="ck_work_items_subject"),
        sa.CheckConstraint("cardinality(requirement_refs) <= 20", name="ck_work_items_requirement_refs"),
        sa.CheckConstraint("char_length(place) <= 500", name="ck_work_items_place"),
        sa.CheckConstraint("char_length(axes) <= 100", name="ck_work_items_axes"),
        sa.CheckConstraint(
            "(pin_x IS NULL) = (pin_y IS NULL) AND pin_x BETWEEN 0 AND 1 AND pin_y BETWEEN 0 AND 1",
            name="ck_work_items_pin",
        ),
        sa.CheckConstraint(
            "(latitude IS NULL) = (longitude IS NULL) AND latitude BETWEEN -90 AND 90"
            " AND longitude BETWEEN -180 AND 180",
            name="ck_work_items_position",
        ),
        sa.CheckConstraint("reopen_count >= 0", name="ck_work_items_reopen_count"),
        sa.CheckConstraint("version >= 1", name="ck_work_items_version"),
        sa.CheckConstraint("cardinality(tags) <= 20", name="ck_work_items_tags"),
        sa.CheckConstraint("octet_length(created_digest) = 32", name="ck_work_items_created_digest"),
    )
    newest: list[Any] = [sa.text("created_at DESC"), sa.text("id DESC")]
    late = sa.text("state IN ('open', 'in_progress', 'returned', 'disputed')")
    for name, columns, where in (
        ("newest", newest, None),
        ("due", ["due_key", "id"], None),
        ("priority", ["priority_key", "id"], None),
        ("late", ["due_key", "id"], late),
        ("site_newest", ["site_id", *newest], None),
        ("site_due", ["site_id", "due_key", "id"], None),
        ("site_priority", ["site_id", "priority_key", "id"], None),
        ("site_late", ["site_id", "due_key", "id"], late),
        ("site_changes", ["site_id", "change_seq"], None),
        ("site_visible", ["site_id", *newest], sa.text("visible_to_customer")),
        ("state", ["state", "site_id", *newest], None),
        ("organisation", ["organisation", "site_id", *newest], None),
        ("organisation_state", ["organisation", "state", "site_id", "type", "severity"], None),
        ("type", ["type", "site_id", "severity"], None),
        ("severity", ["severity", "site_id"], None),
        ("kind", ["kind", "site_id"], None),
        ("assignee", ["assignee_id", "due_on", "id"], sa.text("assignee_id IS NOT NULL")),
        ("author", ["author_id", *newest], None),
        ("location", ["location_id"], None),
    ):
        op.create_index(f"ix_work_items_{name}", "work_items", columns, postgresql_where=where)
    op.create_index("ix_work_items_trigrams", "work_items", [sa.text("trigrams(title_key)")], postgresql_using="gin")


def _history() -> None:
    op.create_table(
        "history",
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("site_id", sa.Uuid, nullable=False),
        sa.Column("item_id", sa.Uuid, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("from_state", sa.Text),
        sa.Column("to_state", sa.Text),
        sa.Column("organisation", sa.Text, nullable=False),
        sa.Column("assignee_name", sa.Text, nullable=False),
        sa.Column("due_on", sa.Date),
        sa.Column("original_due_on", sa.Date),
        sa.Column("resolution", sa.Text),
        sa.Column("visible_to_customer", sa.Boolean, nullable=False),
        sa.Column("changes", JSONB, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("actor_id", sa.Uuid),
        sa.Column("actor_name", sa.Text, nullable=False),
        sa.Column("actor_role", sa.Text, nullable=False),
        sa.Column("actor_organisation", sa.Text, nullable=False),
        sa.Column("actor_position", sa.Text, nullable=False),
        sa.Column("override", sa.Boolean, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("phone_at", _TIME),
        sa.Column("op_id", sa.Uuid),
        sa.Column("batch_id", sa.Uuid),
        sa.PrimaryKeyConstraint("seq", name="pk_history"),
        sa.CheckConstraint("char_length(step) BETWEEN 1 AND 30", name="ck_history_step"),
        sa.CheckConstraint("jsonb_typeof(changes) = 'object'", name="ck_history_changes"),
        sa.CheckConstraint("char_length(reason) <= 2000", name="ck_history_reason"),
        sa.CheckConstraint("char_length(note) <= 2000", name="ck_history_note"),
    )
    op.create_index("ix_history_item", "history", ["item_id", "seq"])
    op.create_index(
        "ix_history_reports",
        "history",
        ["site_id", "at"],
        postgresql_include=["item_id", "to_state", "organisation"],
        postgresql_where=sa.text("from_state IS DISTINCT FROM to_state AND to_state IN ('ready', 'returned')"),
    )
    op.create_index(
        "ix_history_openings",
        "history",
        ["site_id", "at"],
        postgresql_include=[
            *("seq", "item_id", "from_state", "to_state", "organisation", "resolution", "due_on", "original_due_on")
        ],
        postgresql_where=sa.text(
            "coalesce(from_state IN ('open', 'in_progress', 'ready', 'returned', 'disputed'), false)"
            " <> coalesce(to_state IN ('open', 'in_progress', 'ready', 'returned', 'disputed'), false)"
        ),
    )
    op.create_index(
        "ix_history_turns_of_contractors",
        "history",
        ["item_id"],
        postgresql_include=["at", "to_state", "organisation"],
        postgresql_where=sa.text(
            "(coalesce(from_state IN ('open', 'in_progress', 'returned'), false)"
            " AND coalesce(changes #>> '{organisation,0}', organisation) <> '')"
            " <> (coalesce(to_state IN ('open', 'in_progress', 'returned'), false) AND organisation <> '')"
        ),
    )
    op.create_table(
        "removals",
        sa.Column("site_id", sa.Uuid, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
        sa.Column("item_id", sa.Uuid, nullable=False),
        sa.Column("audience", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("site_id", "change_seq", "item_id", "audience", name="pk_removals"),
        sa.CheckConstraint(
            "audience IN ('all', 'customer', 'manager') OR audience ~ '^(organisation|user):.'",
            name="ck_removals_audience",
        ),
    )
    op.create_table(
        "operations",
        sa.Column("op_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("op_id", name="pk_operations"),
        sa.CheckConstraint("octet_length(digest) = 32", name="ck_operations_digest"),
    )
    op.create_index("ix_operations_created_at", "operations", ["created_at"])


def _talk() -> None:
    op.create_table(
        "comments",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("item_id", sa.Uuid, nullable=False),
        sa.Column("site_id", sa.Uuid, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
        sa.Column("author_id", sa.Uuid),
        sa.Column("author_name", sa.Text, nullable=False),
        sa.Column("author_role", sa.Text, nullable=False),
        sa.Column("author_organisation", sa.Text, nullable=False),
        sa.Column("audience", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("edited_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_comments"),
        sa.ForeignKeyConstraint(["item_id"], ["work_items.id"], name="fk_comments_item_id", ondelete="CASCADE"),
        sa.CheckConstraint("audience IN ('internal', 'parties', 'customer')", name="ck_comments_audience"),
        sa.CheckConstraint("char_length(text) BETWEEN 1 AND 10000", name="ck_comments_text"),
    )
    op.create_index("ix_comments_item", "comments", ["item_id", "id"])
    op.create_index("ix_comments_site_changes", "comments", ["site_id", "change_seq"])
    op.create_table(
        "watchers",
        sa.Column("item_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("item_id", "user_id", name="pk_watchers"),
        sa.ForeignKeyConstraint(["item_id"], ["work_items.id"], name="fk_watchers_item_id", ondelete="CASCADE"),
    )
    op.create_index("ix_watchers_user", "watchers", ["user_id"])
    op.create_table(
        "links",
        sa.Column("item_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("target_id", sa.Uuid, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.Uuid),
        sa.PrimaryKeyConstraint("item_id", "kind", "target_id", name="pk_links"),
        sa.ForeignKeyConstraint(["item_id"], ["work_items.id"], name="fk_links_item_id", ondelete="CASCADE"),
        sa.CheckConstraint("kind IN ('order', 'task', 'item')", name="ck_links_kind"),
    )
    op.create_index("ix_links_target", "links", ["target_id"])
