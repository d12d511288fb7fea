"""The users' routes: parse, call, answer. Rules and queries are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from service_users.accounts.changes import By
from service_users.errors import EmailTaken, LastAdministrator, TooManyPasswords, UserNotFound
from service_users.schemas import ColleagueView, UserCreate, UserPage, UserQuery, UserUpdate, UserView
from service_users.use_cases import Users
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web import idempotency
from servicekit.web.preconditions import IfMatch
from servicekit.web.routes import Answer, Routes, Sender
from servicekit.wire.errors import Forbidden, IdempotencyKeyReused


def user_routes(users: Users) -> Routes:
    """Declare the operations on users."""
    api = Routes("users")

    @api.get("/users", action=Action.READ_USERS)
    def list_users(query: UserQuery, caller: Principal) -> UserPage:
        """List users, the newest first unless sorted otherwise.

        Whoever may not read everything finds themselves and, with id and name, the others on their sites; by address
        or role, themselves alone.
        """
        return users.search(query, reach=caller.reach(Action.READ_USERS))

    @api.post(
        "/users",
        action=Action.MANAGE_USERS,
        status=201,
        errors=(EmailTaken, IdempotencyKeyReused, UserNotFound, TooManyPasswords),
        headers=idempotency.HEADERS,
    )
    def create_user(
        body: UserCreate, headers: Mapping[str, str | None], caller: Principal, client: Sender
    ) -> Answer[UserView]:
        """Create a user; an e-mail address and a name suffice.

        A repeated Idempotency-Key answers with the user made before and `Idempotency-Replayed: true`, whatever the
        password; with 404 when that user was deleted.
        """
        key = idempotency.request_key(headers, body, secret=("password",))
        by = By(caller.user_id, client.address)
        made = users.create(body, key, reach=caller.reach(Action.MANAGE_USERS), by=by)
        return Answer(made.view, headers={"Location": f"/users/{made.view.id}", **made.headers})

    @api.get("/users/{id}", action=Action.READ_USERS, errors=(UserNotFound,))
    def get_user(id: UUID, caller: Principal) -> UserView | ColleagueView:
        """Show one user; of the others on your sites id and name, unless you may read everything."""
        return users.show(id, reach=caller.reach(Action.READ_USERS))

    @api.put(
        "/users/{id}",
        action=Action.CHANGE_USERS,
        errors=(UserNotFound, EmailTaken, TooManyPasswords, Forbidden, LastAdministrator),
    )
    def update_user(id: UUID, body: UserUpdate, if_match: IfMatch, caller: Principal, client: Sender) -> UserView:
        """Change the named fields of a user."""
        by = By(caller.user_id, client.address)
        return users.update(id, body, if_match, reach=caller.reach(Action.CHANGE_USERS), by=by)

    @api.delete("/users/{id}", action=Action.MANAGE_USERS, errors=(UserNotFound, LastAdministrator))
    def delete_user(id: UUID, if_match: IfMatch, caller: Principal, client: Sender) -> UserView:
        """Delete a user; the answer is the user as it was."""
        by = By(caller.user_id, client.address)
        return users.delete(id, if_match, reach=caller.reach(Action.MANAGE_USERS), by=by)

    return api
