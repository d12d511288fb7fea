"""Who calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from servicekit.identity.reach import Reach
from servicekit.identity.roles import OF_ANY_SESSION, Action, Extent, Role
from servicekit.wire.errors import Forbidden, Unauthorized


class PasswordChangeRequired(Forbidden):
    """Change your password first: PUT /auth/password.

    It was set by an administrator. Until then one may only see oneself, change it and log out.
    """

    code = "password_change_required"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. One without a user is the machine's own (`LOCAL`) or has not logged in (`NOBODY`)."""

    user_id: UUID | None
    role: Role
    #: Of the API key that was used; None: whatever the role allows.
    scopes: frozenset[str] | None = None
    #: The session, or the API key, that was used.
    session_id: UUID | None = None
    #: The access token, for calls to other services on the caller's behalf.
    token: str = field(default="", repr=False, compare=False)
    #: Whether somebody else knows the password.
    must_change_password: bool = False

    def reach(self, action: Action) -> Reach:
        """Which rows the caller may touch by an action.

        Raises `Forbidden`, or its `PasswordChangeRequired`; `Unauthorized` for somebody whom a login would help.
        """
        extent = action.extents[self.role]
        if extent is Extent.NONE:
            if self.role is Role.NOBODY:
                raise Unauthorized(headers={"WWW-Authenticate": "Bearer"})
            raise Forbidden
        if self.must_change_password and action not in OF_ANY_SESSION:
            raise PasswordChangeRequired
        if self.scopes is not None and action.scopes and self.scopes.isdisjoint(action.scopes):
            raise Forbidden(f"The API key needs one of the scopes {', '.join(sorted(action.scopes))}.")
        if extent is Extent.ALL:
            return Reach.all()
        assert self.user_id is not None, "only users have rows of their own"
        return Reach.own(self.user_id)


#: Finds out who sent an Authorization field, or None; raises `Unauthorized` unless that is certain.
Identify = Callable[[str | None], Principal]

#: Everybody, where no login is asked for.
LOCAL = Principal(None, Role.ADMIN)
#: A request without credentials.
NOBODY = Principal(None, Role.NOBODY)
