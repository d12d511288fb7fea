"""The route that shows what a service's outbox still has to deliver."""

from __future__ import annotations

from pydantic import Field

from servicekit.database.engine import Database
from servicekit.events.relay_store import RelayStore
from servicekit.identity.roles import Action
from servicekit.web.routes import Routes
from servicekit.web.schemas import View

#: As many deliveries as are counted for a caller.
MOST_COUNTED = 10_000


class DestinationView(View):
    """Events on their way to one destination."""

    destination: str
    waiting: int
    given_up: int = Field(description="refused again and again, until somebody requeues them")
    oldest_seconds: float = Field(description="how long the oldest waiting one has been there")


class OutboxView(View):
    """What an outbox still has to deliver; a destination that has everything is left out."""

    taken_up_by_none: int = Field(description="events that no relay has given to their destinations yet")
    oldest_seconds: float = Field(description="how long the oldest of these has been there")
    destinations: list[DestinationView]
    is_exact: bool = Field(description="false: more than 10,000 are there, of which the oldest are counted")


def outbox_routes(service: str, database: Database) -> Routes:
    """Declare the operation that shows the backlog of a service's own events."""
    store = RelayStore(database)
    api = Routes("events")

    def get_outbox() -> OutboxView:
        """Show how many of the service's events wait for each destination, and how many it refused."""
        fresh, found = store.not_spread(MOST_COUNTED + 1), store.backlog(most=MOST_COUNTED + 1)
        deliveries = sum(one.waiting + one.given_up for one in found.values())
        return OutboxView(
            taken_up_by_none=fresh.waiting,
            oldest_seconds=round(fresh.oldest, 3),
            destinations=[
                DestinationView(
                    destination=name, waiting=one.waiting, given_up=one.given_up, oldest_seconds=round(one.oldest, 3)
                )
                for name, one in sorted(found.items())
            ],
            is_exact=max(fresh.waiting, deliveries) <= MOST_COUNTED,
        )

    # The name of the operation, of which there may not be two in the document of the gateway.
    get_outbox.__name__ += f"_of_{service}"
    api.get(f"/outbox/{service}", action=Action.READ_SYSTEM, shared="by reach")(get_outbox)
    return api
