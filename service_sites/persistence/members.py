"""Every query about the people of sites."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from service_sites.tables import Membership


def rename(session: Session, user_id: UUID, name: str, moment: datetime) -> None:
    """Give somebody's memberships their new name."""
    renamed = update(Membership).where(Membership.user_id == user_id, Membership.name != name)
    session.execute(renamed.values(name=name, updated_at=moment))


def disable(session: Session, user_id: UUID, moment: datetime) -> None:
    """Mark somebody's memberships: their account is disabled."""
    marked = update(Membership).where(Membership.user_id == user_id, ~Membership.disabled)
    session.execute(marked.values(disabled=True, updated_at=moment))


def forget(session: Session, user_id: UUID) -> None:
    """Remove somebody from all sites."""
    session.execute(delete(Membership).where(Membership.user_id == user_id))
