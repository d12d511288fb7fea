"""The use cases of users: one method, one transaction."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from service_users import events, repository
from service_users.accounts import changes
from service_users.accounts.administration import another_admin_stays
from service_users.accounts.changes import By
from service_users.accounts.password_rules import weakness
from service_users.accounts.passwords import Passwords
from service_users.errors import EmailTaken, UserNotFound
from service_users.schemas import (
    ColleagueView,
    PeopleView,
    PersonSought,
    UserCreate,
    UserPage,
    UserQuery,
    UserUpdate,
    UserView,
)
from servicekit.database.engine import Database
from servicekit.events.cloudevents import Event, EventData, read_data
from servicekit.events.outbox import NOTHING_ELSE, Also
from servicekit.identity.reach import Reach
from servicekit.identity.roles import Role
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.web import idempotency
from servicekit.web.idempotency import Made, RequestKey
from servicekit.web.preconditions import ANY_STATE, IfMatch
from servicekit.web.schemas import Id
from servicekit.wire.caseless import comparable
from servicekit.wire.errors import Forbidden, Invalid

_NOBODY_IN_PARTICULAR = By()


class _Membership(EventData):
    #: Of the site.
    id: Id
    user_id: Id
    present: bool


class Users:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, passwords: Passwords, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._passwords = passwords
        self._clock = clock

    def create(
        self,
        wanted: UserCreate,
        key: RequestKey | None = None,
        *,
        reach: Reach,
        by: By = _NOBODY_IN_PARTICULAR,
    ) -> Made[UserView]:
        """Store a new user, or return the one that the same request made before.

        Raises `EmailTaken`, `TooManyPasswords`, `IdempotencyKeyReused`, `UserNotFound` if the one made before was
        deleted, `Forbidden` for whom not all users are in reach, and `Invalid` for a weak password where people log in.
        """
        if reach.owner is not None:
            raise Forbidden
        if by.actor is not None and wanted.password is not None:
            wrong = weakness(wanted.password, (wanted.email, wanted.name))
            if wrong is not None:
                raise Invalid.field("password", wrong)
        if key is not None:
            # Looked up first: a repetition must not cost another hash.
            earlier = idempotency.find_made(self._database, key)
            if earlier is not None:
                return Made(self.get(earlier, reach=reach), replayed=True)
        now = self._clock()
        shown = {
            "email": wanted.email,
            "name": wanted.name,
            "roles": wanted.roles,
            "created_at": now,
            "updated_at": now,
        }
        user = UserView.unchecked(id=new_id(), **shown)
        hidden = {
            "email_key": comparable(wanted.email),
            "name_key": comparable(wanted.name),
            "password_hash": self._hash(wanted.password),
            # Who has set it is somebody else.
            "must_change_password": by.actor is not None and wanted.password is not None,
        }
        values = {"id": user.id, **shown, **hidden}
        also = NOTHING_ELSE
        if by.actor is not None:
            also = changes.of_made("user.created", by, now, details={"roles": wanted.roles})
        made = repository.add(self._database, values, events.created(user), key, also, reach=reach)
        if made is None:
            raise EmailTaken
        return Made(user) if made == user.id else Made(self.get(made, reach=reach), replayed=True)

    def get(self, user_id: UUID, *, reach: Reach) -> UserView:
        """Return one user. Raises `UserNotFound`."""
        return _view(repository.ROWS.find(self._database, user_id, reach=reach))

    def show(self, user_id: UUID, *, reach: Reach) -> UserView | ColleagueView:
        """Return one user, whole or, to whoever may only see themselves, as the others on their sites know them.

        Raises `UserNotFound`.
        """
        if reach.owner in (None, user_id):
            return self.get(user_id, reach=reach)
        person = repository.colleague(self._database, user_id, reach=reach)
        if person is None:
            raise UserNotFound
        return ColleagueView.unchecked(id=person.id, name=person.name)

    def membership_changed(self, session: Session, event: Event) -> None:
        """Note who works on which site. Raises `Invalid` for bad data."""
        membership = read_data(_Membership, event)
        note = repository.join_site if membership.present else repository.leave_site
        note(session, membership.id, membership.user_id)

    def people(self, sought: PersonSought) -> PeopleView:
        """Return whoever has this address or id, unless their account is disabled."""
        email_key = None if sought.email is None else comparable(sought.email)
        found = repository.people(self._database, email_key=email_key, user_id=sought.id)
        return PeopleView.unchecked(people=found)

    def search(self, query: UserQuery, *, reach: Reach) -> UserPage:
        """Return one page of users.

        Raises `Invalid` for an `after` that was not the `next` of a page, or an `offset` that goes too far.
        """
        found = repository.search(
            self._database,
            query,
            reach=reach,
            email_key=None if query.email is None else comparable(query.email),
            role=query.role,
            ids=None if query.id is None else query.id.split(","),
            part=None if query.q is None else comparable(query.q),
        )
        return UserPage.unchecked(
            total=found.total,
            total_is_exact=found.total_is_exact,
            limit=query.limit,
            offset=query.offset,
            next=found.next,
            users=found.rows,
        )

    def update(
        self,
        user_id: UUID,
        change: UserUpdate,
        if_match: IfMatch = ANY_STATE,
        *,
        reach: Reach,
        by: By = _NOBODY_IN_PARTICULAR,
    ) -> UserView:
        """Change fields. Other roles, or another password, end the user's access tokens; a password the sessions, too.

        Raises `UserNotFound`, `PreconditionFailed`, `EmailTaken`, `TooManyPasswords`, `LastAdministrator`, and
        `Forbidden` for somebody who would give roles without having all users in reach, or a password where people log
        in: those set their own.
        """
        values = change.named()
        names_password = "password" in values
        values.pop("password", None)
        password_hash: str | None = None
        while True:
            user = repository.ROWS.find(self._database, user_id, reach=reach)
            view = _view(user)
            if_match.require(view)
            change.require_unchanged(view)
            changed = {name: value for name, value in values.items() if value != getattr(user, name)}
            if "roles" in changed and reach.owner is not None:
                raise Forbidden.field("roles", "are given by an administrator")
            if names_password and by.actor is not None:
                raise Forbidden.field("password", "is changed by PUT /auth/password, and only by its owner")
            if "email" in changed and by.actor is not None and reach.owner is not None:
                raise Forbidden.field("email", "is changed by POST /auth/email, once it is proven")
            if "name" in changed:
                changed["name_key"] = comparable(changed["name"])
            if "email" in changed:
                changed["email_key"] = comparable(changed["email"])
                changed["email_verified_at"] = None
                repository.require_free(self._database, user_id, changed["email_key"])
            if names_password and (change.password is not None or user.has_password):
                # Last, so that a refused change costs no hash, and only once.
                password_hash = password_hash or self._hash(change.password)
                changed["password_hash"] = password_hash
            if not changed:
                return view
            changed["updated_at"] = max(self._clock(), user.created_at)
            after = _view(user, **changed)
            also = self._also(user, changed, by)
            ends_admin = _is_admin(user.roles) and not _is_admin(after.roles)
            with self._unless_last(user_id, by) if ends_admin else nullcontext():
                event = events.updated(after, user.roles)
                if repository.ROWS.update(self._database, user, changed, event, also, reach=reach):
                    return after

    def _also(self, user: Any, changed: dict[str, Any], by: By) -> Also:
        """Audit a change, and end what was issued for other roles or another password: raises the epoch, in
        `changed`."""
        sets_password = "password_hash" in changed
        fields = [name for name in ("email", "name") if name in changed]
        details: dict[str, Any] = {"fields": fields} if fields else {}
        if not sets_password and "roles" not in changed:
            if by.actor is None:
                return NOTHING_ELSE
            action = "user.email_changed" if "email" in changed else "user.name_changed"
            return changes.of_made(action, by, self._clock(), details=details)
        changed["auth_epoch"] = user.auth_epoch + 1
        if "roles" in changed:
            details["roles"] = {"before": user.roles, "after": changed["roles"]}
        action = "user.password_changed" if sets_password else "user.roles_changed"
        return changes.of_made(
            action,
            by,
            self._clock(),
            least_epoch=changed["auth_epoch"],
            details=details,
            ends_sessions=sets_password,
        )

    def delete(
        self, user_id: UUID, if_match: IfMatch = ANY_STATE, *, reach: Reach, by: By = _NOBODY_IN_PARTICULAR
    ) -> UserView:
        """Remove and return a user. Raises `UserNotFound`, `PreconditionFailed` and `LastAdministrator`."""
        while True:
            user = repository.ROWS.find(self._database, user_id, reach=reach)
            view = _view(user)
            if_match.require(view)
            now = self._clock()
            also = changes.of_made("user.deleted", by, now, least_epoch=changes.GONE, details={}, ends_sessions=False)
            with self._unless_last(user_id, by) if _is_admin(user.roles) else nullcontext():
                if repository.ROWS.delete(self._database, user, events.deleted(user_id, now), also, reach=reach):
                    return view

    def _unless_last(self, user_id: UUID, by: By) -> AbstractContextManager[Any]:
        """Holds back, on a second connection, others who cease to be administrators."""
        return nullcontext() if by.actor is None else another_admin_stays(self._database, user_id, by)

    def _hash(self, password: str | None) -> str | None:
        return None if password is None else self._passwords.hash(password)


def _is_admin(roles: list[str]) -> bool:
    return Role.ADMIN.value in roles


def _view(user: Any, **changed: Any) -> UserView:
    """The view of a row, with these columns changed."""
    return UserView.unchecked(**{name: changed.get(name, getattr(user, name)) for name in UserView.model_fields})
