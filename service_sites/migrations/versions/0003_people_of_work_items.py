"""Find work items by who registered them, and by whom they are assigned to, with what is asked besides."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _make_anew("ix_work_items_assignee", "work_items (assignee_id, state) WHERE assignee_id IS NOT NULL")
    _make_anew("ix_work_items_author", "work_items (author_id, organisation)")


def downgrade() -> None:
    _make_anew("ix_work_items_assignee", "work_items (assignee_id, due_on, id) WHERE assignee_id IS NOT NULL")
    _make_anew("ix_work_items_author", "work_items (author_id, created_at DESC, id DESC)")


def _make_anew(name: str, definition: str) -> None:
    op.execute(f"DROP INDEX {name}")
    op.execute(f"CREATE INDEX {name} ON {definition}")
