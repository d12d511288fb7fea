"""The route by which other services find people, by a token of its own."""

from __future__ import annotations

from service_users.schemas import PeopleView, PersonSought
from service_users.use_cases import Users
from servicekit.web.routes import Routes, bearer_guard

_BODY = 4096


def people_routes(users: Users, token: str | None) -> Routes:
    """Declare it."""
    api = Routes("internal", documented=False)
    guard = bearer_guard(token, name="people", closed="This is for services: PEOPLE_TOKEN is not set.", puts_off=False)

    @api.post("/internal/people", body_limit=_BODY, guard=guard)
    def find_people(body: PersonSought) -> PeopleView:
        """Give id and name of whoever has exactly this address or this id, unless their account is disabled."""
        return users.people(body)

    return api
