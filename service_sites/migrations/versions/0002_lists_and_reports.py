"""Lists and reports read less: indexes tell what a reader sees, and the turns of contractors are a column."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_AT_CONTRACTOR = "IN ('open', 'in_progress', 'returned')"
_FROM_CONTRACTOR = f"from_state {_AT_CONTRACTOR} AND coalesce(changes #>> '{{organisation,0}}', organisation) <> ''"
_TO_CONTRACTOR = f"to_state {_AT_CONTRACTOR} AND organisation <> ''"
_OPEN = "IN ('open', 'in_progress', 'ready', 'returned', 'disputed')"
_OPENING = f"coalesce(from_state {_OPEN}, false) <> coalesce(to_state {_OPEN}, false)"
_CLOSING = "(seq, item_id, to_state, organisation, resolution, due_on, original_due_on)"
_WERE_OPENINGS = "(seq, item_id, from_state, to_state, organisation, resolution, due_on, original_due_on)"
_WERE_TURNS = (
    f"(coalesce(from_state {_AT_CONTRACTOR}, false)"
    " AND coalesce(changes #>> '{organisation,0}', organisation) <> '')"
    f" <> (coalesce(to_state {_AT_CONTRACTOR}, false) AND organisation <> '')"
)


def upgrade() -> None:
    op.add_column(
        "history",
        sa.Column(
            "contractor_turn",
            sa.SmallInteger,
            sa.Computed(
                f"coalesce({_TO_CONTRACTOR}, false)::int - coalesce({_FROM_CONTRACTOR}, false)::int", persisted=True
            ),
            nullable=False,
        ),
    )
    op.execute("DROP INDEX ix_history_turns_of_contractors")
    _make_anew("ix_work_items_organisation_state", "work_items (organisation, state, site_id, kind, type, severity)")
    _make_anew("ix_work_items_kind", "work_items (kind, site_id, visible_to_customer)")
    _make_anew("ix_work_items_location", "work_items (location_id, organisation, visible_to_customer)")
    _make_anew("ix_history_item", "history (item_id, version)")
    _make_anew("ix_history_openings", f"history (site_id, at) INCLUDE (item_id, to_state) WHERE {_OPENING}")
    op.execute(
        f"CREATE INDEX ix_history_closings ON history (site_id, at) INCLUDE {_CLOSING}"
        f" WHERE {_OPENING} AND (to_state = 'closed' OR from_state = 'closed')"
    )
    op.execute(
        "CREATE INDEX ix_history_contractors ON history (item_id) INCLUDE (at, contractor_turn)"
        " WHERE contractor_turn <> 0"
    )


def downgrade() -> None:
    op.execute("DROP INDEX ix_history_contractors")
    op.execute("DROP INDEX ix_history_closings")
    op.drop_column("history", "contractor_turn")
    _make_anew("ix_work_items_organisation_state", "work_items (organisation, state, site_id, type, severity)")
    _make_anew("ix_work_items_kind", "work_items (kind, site_id)")
    _make_anew("ix_work_items_location", "work_items (location_id)")
    _make_anew("ix_history_item", "history (item_id, seq)")
    _make_anew("ix_history_openings", f"history (site_id, at) INCLUDE {_WERE_OPENINGS} WHERE {_OPENING}")
    op.execute(
        "CREATE INDEX ix_history_turns_of_contractors ON history (item_id) INCLUDE (at, to_state, organisation)"
        f" WHERE {_WERE_TURNS}"
    )


def _make_anew(name: str, definition: str) -> None:
    op.execute(f"DROP INDEX {name}")
    op.execute(f"CREATE INDEX {name} ON {definition}")
