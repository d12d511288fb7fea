"""A row of history knows how long its item had been with contractors, in place of whether it came to one or left."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_OPEN = "IN ('open', 'in_progress', 'ready', 'returned', 'disputed')"
_OPENING = f"coalesce(from_state {_OPEN}, false) <> coalesce(to_state {_OPEN}, false)"
_WERE_CLOSINGS = "seq, item_id, to_state, organisation, resolution, due_on, original_due_on"
_AT_CONTRACTOR = "IN ('open', 'in_progress', 'returned')"
_FROM_CONTRACTOR = f"from_state {_AT_CONTRACTOR} AND coalesce(changes #>> '{{organisation,0}}', organisation) <> ''"
_WITH_CONTRACTOR = f"to_state {_AT_CONTRACTOR} AND organisation <> ''"


def upgrade() -> None:
    op.add_column("history", sa.Column("contractor_seconds", sa.Double, nullable=False, server_default="0"))
    op.alter_column("history", "contractor_seconds", server_default=None)
    # First, so that nothing is added to them while most rows are written anew.
    op.execute("DROP INDEX ix_history_contractors, ix_history_closings")
    op.drop_column("history", "contractor_turn")
    op.execute(f"""
        UPDATE history SET contractor_seconds = total.seconds
        FROM (SELECT seq, sum(CASE WHEN is_theirs THEN date_part('epoch', at - since) END)
                         OVER (PARTITION BY item_id ORDER BY version) AS seconds
              FROM (SELECT seq, item_id, version, at, lag({_WITH_CONTRACTOR}) OVER rows AS is_theirs,
                           lag(at) OVER rows AS since
                    FROM history WINDOW rows AS (PARTITION BY item_id ORDER BY version)) AS one) AS total
        WHERE total.seq = history.seq AND total.seconds > 0""")
    _make_closings(f"{_WERE_CLOSINGS}, contractor_seconds")


def downgrade() -> None:
    op.execute("DROP INDEX ix_history_closings")
    _make_closings(_WERE_CLOSINGS)
    op.add_column(
        "history",
        sa.Column(
            "contractor_turn",
            sa.SmallInteger,
            sa.Computed(
                f"coalesce({_WITH_CONTRACTOR}, false)::int - coalesce({_FROM_CONTRACTOR}, false)::int", persisted=True
            ),
            nullable=False,
        ),
    )
    op.execute(
        "CREATE INDEX ix_history_contractors ON history (item_id) INCLUDE (at, contractor_turn)"
        " WHERE contractor_turn <> 0"
    )
    op.drop_column("history", "contractor_seconds")


def _make_closings(columns: str) -> None:
    op.execute(
        f"CREATE INDEX ix_history_closings ON history (site_id, at) INCLUDE ({columns})"
        f" WHERE {_OPENING} AND (to_state = 'closed' OR from_state = 'closed')"
    )
