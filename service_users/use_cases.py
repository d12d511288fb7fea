"""The use cases of users: one method, one transaction."""

from __future__ import annotations

from uuid import UUID

from service_users import events, repository
from service_users.errors import EmailTaken, UserNotFound
from service_users.passwords import Passwords
from service_users.schemas import UserCreate, UserPage, UserQuery, UserUpdate, UserView
from service_users.tables import User
from servicekit.database.engine import Database
from servicekit.events import outbox
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.web import idempotency
from servicekit.web.idempotency import Made, RequestKey
from servicekit.web.preconditions import ANY_STATE, IfMatch
from servicekit.wire.caseless import comparable


class Users:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, passwords: Passwords, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._passwords = passwords
        self._clock = clock

    def create(self, wanted: UserCreate, key: RequestKey | None = None) -> Made[UserView]:
        """Store a new user, or return the one that the same request made before.

        Raises `EmailTaken`, `TooManyPasswords`, `IdempotencyKeyReused`, and `UserNotFound` if the one made before was
        deleted.
        """
        if key is not None:
            # Looked up first: a repetition must not cost another hash.
            earlier = idempotency.find_made(self._database, key)
            if earlier is not None:
                return Made(self.get(earlier), replayed=True)
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
        }
        made = outbox.make(
            self._database, repository.ADD, {"id": user.id, **shown, **hidden}, events.created(user), key
        )
        if made is None:
            raise EmailTaken
        return Made(user) if made == user.id else Made(self.get(made), replayed=True)

    def get(self, user_id: UUID) -> UserView:
        """Return one user. Raises `UserNotFound`."""
        user = repository.show(self._database, user_id)
        if user is None:
            raise UserNotFound
        return UserView.unchecked(**user._asdict())

    def search(self, query: UserQuery) -> UserPage:
        """Return one page of users. Raises `Invalid` for an `after` that was not the `next` of a page."""
        found = repository.search(
            self._database,
            query,
            email_key=None if query.email is None else comparable(query.email),
            role=query.role,
            part=None if query.q is None else comparable(query.q),
        )
        return UserPage.unchecked(
            total=found.total, limit=query.limit, offset=query.offset, next=found.next, users=found.rows
        )

    def update(self, user_id: UUID, change: UserUpdate, if_match: IfMatch = ANY_STATE) -> UserView:
        """Change fields. Raises `UserNotFound`, `PreconditionFailed`, `EmailTaken` and `TooManyPasswords`."""
        values = change.named()
        if "password" in values:
            if change.password is not None:
                # Checked here too, so that a refused change costs no hash.
                with self._database.transaction() as session:
                    if_match.require(UserView.of(_required(repository.find(session, user_id))))
            values["password_hash"] = self._hash(values.pop("password"))
        if "email" in values:
            values["email_key"] = comparable(values["email"])
        if "name" in values:
            values["name_key"] = comparable(values["name"])
        with self._database.transaction() as session:
            user = _required(repository.find_for_update(session, user_id))
            view = UserView.of(user)
            if_match.require(view)
            change.require_unchanged(view)
            if "email_key" in values:
                repository.require_free(session, user_id, values["email_key"])
            for name, value in values.items():
                setattr(user, name, value)
            if session.is_modified(user):
                user.updated_at = max(self._clock(), user.created_at)
                outbox.add(session, events.updated(user))
            session.flush()
            return UserView.of(user)

    def delete(self, user_id: UUID, if_match: IfMatch = ANY_STATE) -> UserView:
        """Remove and return a user. Raises `UserNotFound` and `PreconditionFailed`."""
        with self._database.transaction() as session:
            user = _required(repository.find_for_update(session, user_id))
            view = UserView.of(user)
            if_match.require(view)
            repository.remove(session, user)
            outbox.add(session, events.deleted(user_id, self._clock()))
            return view

    def _hash(self, password: str | None) -> str | None:
        return None if password is None else self._passwords.hash(password)


def _required(user: User | None) -> User:
    if user is None:
        raise UserNotFound
    return user
