"""The events of the sites service. docs/reference/events.md lists them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from servicekit.events.cloudevents import Event
from servicekit.web.encoders import encoder_of
from servicekit.wire.envelope import Written


class MembershipData(BaseModel):
    """Somebody is one of a site's people, or no longer is; `id` is the site's."""

    id: UUID
    user_id: UUID
    present: bool


#: The data of each event.
CATALOGUE: dict[str, type[BaseModel]] = {"membership.changed": MembershipData}


def membership_changed(site_id: UUID, user_id: UUID, present: bool, moment: datetime) -> Event:
    """Somebody joined or left a site, whose row is locked."""
    data = MembershipData(id=site_id, user_id=user_id, present=present)
    return Event(
        type="membership.changed", subject=site_id, data=Written(encoder_of(MembershipData)(data)), time=moment
    )
