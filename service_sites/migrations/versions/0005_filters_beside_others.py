"""Find work items by two filters at once, and count those that are due, in indexes alone."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    of_assignees = "assignee_id, site_id, organisation, state"
    _make_anew("ix_work_items_assignee", f"work_items ({of_assignees}) WHERE assignee_id IS NOT NULL")
    _make_anew("ix_work_items_author", "work_items (author_id, site_id, organisation)")
    _make_anew("ix_work_items_location", "work_items (location_id, state, organisation, visible_to_customer)")
    _make_anew("ix_work_items_site_due", "work_items (site_id, due_key, id, organisation, state)")
    of_organisations = "organisation, state, site_id, kind, type, severity, priority_key"
    _make_anew("ix_work_items_organisation_state", f"work_items ({of_organisations})")
    op.execute(
        "CREATE INDEX ix_work_items_unassigned ON work_items (due_key, id, site_id, state)"
        " WHERE assignee_id IS NULL AND organisation = ''"
    )


def downgrade() -> None:
    op.execute("DROP INDEX ix_work_items_unassigned")
    _make_anew("ix_work_items_organisation_state", "work_items (organisation, state, site_id, kind, type, severity)")
    _make_anew("ix_work_items_site_due", "work_items (site_id, due_key, id)")
    _make_anew("ix_work_items_location", "work_items (location_id, organisation, visible_to_customer)")
    _make_anew("ix_work_items_author", "work_items (author_id, organisation)")
    _make_anew("ix_work_items_assignee", "work_items (assignee_id, state) WHERE assignee_id IS NOT NULL")


def _make_anew(name: str, definition: str) -> None:
    op.execute(f"DROP INDEX {name}")
    op.execute(f"CREATE INDEX {name} ON {definition}")
