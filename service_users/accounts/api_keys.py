"""The use cases of API keys: what a program shows instead of a password."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from service_users.accounts import changes
from service_users.accounts.access_schemas import ApiKeyCreate, ApiKeyList, ApiKeyView, NewApiKeyView
from service_users.accounts.changes import By
from service_users.errors import ApiKeyNotFound, InvalidCredential, TooManyApiKeys
from service_users.tables import ApiKey, User
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.identity.api_keys import api_key_hash, new_api_key
from servicekit.identity.principal import Principal
from servicekit.identity.reach import Reach
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.wire.errors import Forbidden, Invalid

#: Keys of one user.
MOST = 50
_HINT = 4
_SHOWN: tuple[Any, ...] = tuple(getattr(ApiKey, name) for name in ApiKeyView.model_fields)
_LIST = Statement(
    select(*_SHOWN).where(ApiKey.user_id == bindparam("reach")).order_by(ApiKey.created_at.desc(), ApiKey.id.desc())
)


def require_session(caller: Principal) -> None:
    """Raises `Forbidden` for a caller who came by an API key."""
    if caller.scopes is not None:
        raise Forbidden("An API key is not enough for this: log in.")


class ApiKeys:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def create(self, wanted: ApiKeyCreate, caller: Principal, by: By, *, reach: Reach) -> NewApiKeyView:
        """Make a key. Raises `TooManyApiKeys`, `Forbidden` for whoever came by a key, and `Invalid` for an end that has
        passed. Its scopes only cut what its owner's role allows, at each request."""
        require_session(caller)
        now = self._clock()
        if wanted.expires_at is not None and wanted.expires_at <= now:
            raise Invalid.field("expires_at", "has passed")
        key = new_api_key()
        made = NewApiKeyView.unchecked(
            id=new_id(),
            name=wanted.name,
            hint=key[-_HINT:],
            scopes=wanted.scopes,
            created_at=now,
            expires_at=wanted.expires_at,
            last_used_at=None,
            key=key,
        )
        row = {name: getattr(made, name) for name in ApiKeyView.model_fields}
        with self._database.transaction() as transaction:
            # Locked, so that two requests at once do not make one too many.
            owner = transaction.execute(
                select(User.disabled_at).where(User.id == reach.owner).with_for_update()
            ).one_or_none()
            if owner is None or owner.disabled_at is not None:
                raise InvalidCredential
            count = select(func.count()).select_from(ApiKey).where(ApiKey.user_id == reach.owner)
            if transaction.execute(count).scalar_one() >= MOST:
                raise TooManyApiKeys
            assert reach.owner is not None
            transaction.execute(insert(ApiKey).values(**row, user_id=reach.owner, hash=api_key_hash(key)))
            details = {"key": str(made.id), "scopes": wanted.scopes}
            changes.record(transaction, "key.created", by, reach.owner, now, details)
        return made

    def listed(self, *, reach: Reach) -> ApiKeyList:
        """The keys of the one in reach."""
        rows = self._database.rows(_LIST, {"reach": reach.owner})
        return ApiKeyList.unchecked(keys=rows)

    def delete(self, key_id: UUID, by: By, *, reach: Reach) -> ApiKeyView:
        """Delete a key and refuse the access tokens that it was turned into. Raises `ApiKeyNotFound`."""
        now = self._clock()
        with self._database.transaction() as transaction:
            gone = transaction.execute(
                delete(ApiKey)
                .where(ApiKey.id == key_id, ApiKey.user_id == reach.owner)
                .returning(*_SHOWN, ApiKey.user_id)
            ).one_or_none()
            if gone is None:
                raise ApiKeyNotFound
            changes.revoke(transaction, "key", key_id, now)
            changes.record(transaction, "key.deleted", by, gone.user_id, now, {"key": str(key_id)})
        return ApiKeyView.of(gone)
