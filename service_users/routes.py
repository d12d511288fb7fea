"""The users' HTTP door: parse, call, answer. No rule and no query lives here."""

from __future__ import annotations

from uuid import UUID

from service_users.errors import EmailTaken, UserNotFound
from service_users.schemas import UserCreate, UserPage, UserQuery, UserUpdate, UserView
from service_users.use_cases import Users
from servicekit.routes import Answer, Routes


def user_routes(users: Users) -> Routes:
    """Declare the operations on users."""
    api = Routes("users")

    @api.get("/users")
    def list_users(query: UserQuery) -> UserPage:
        """List users, the newest first."""
        return users.search(query)

    @api.post("/users", status=201, errors=(EmailTaken,))
    def create_user(body: UserCreate) -> Answer[UserView]:
        """Create a user; an e-mail address and a name suffice."""
        user = users.create(body)
        return Answer(user, headers={"Location": f"/users/{user.id}"})

    @api.get("/users/{id}", errors=(UserNotFound,))
    def get_user(id: UUID) -> UserView:
        """Show one user."""
        return users.get(id)

    @api.put("/users/{id}", errors=(UserNotFound, EmailTaken))
    def update_user(id: UUID, body: UserUpdate) -> UserView:
        """Change the named fields of a user."""
        return users.update(id, body)

    @api.delete("/users/{id}", errors=(UserNotFound,))
    def delete_user(id: UUID) -> UserView:
        """Delete a user; the answer is the user as it was."""
        return users.delete(id)

    return api
