"""The role table: what each role may do, and what an API key must be allowed for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum


class Role(StrEnum):
    """Of several roles the last one here decides; what else stands in a user's `roles` grants nothing."""

    NOBODY = "no login"
    USER = "user"
    #: Reads everything and changes nothing, so that whoever examines the work of others has no part in it.
    AUDITOR = "auditor"
    ADMIN = "admin"

    @classmethod
    def highest(cls, roles: Iterable[str]) -> Role:
        """The role that decides for somebody who has logged in."""
        has = {*roles}
        return next((role for role in (cls.ADMIN, cls.AUDITOR) if role in has), cls.USER)


class Extent(StrEnum):
    """Which rows a role may touch by an action."""

    NONE = "none"
    OWN = "own"
    ALL = "all"


_NONE, _OWN, _ALL = Extent


class Action(Enum):
    """What an operation does. One row: its meaning, the extents of nobody, user, auditor and admin, and the scopes of
    which an API key needs one, if any."""

    PUBLIC = "Pages and keys for everybody", _ALL, _ALL, _ALL, _ALL, ""
    READ_USERS = "List and read users", _NONE, _OWN, _ALL, _ALL, "read admin"
    CHANGE_USERS = "Change a user's name and address", _NONE, _OWN, _OWN, _ALL, "admin"
    SEE_ONESELF = "See who one is", _NONE, _OWN, _ALL, _ALL, "read admin"
    OWN_LOGIN = "Change the own password, log out", _NONE, _OWN, _OWN, _OWN, "admin"
    OWN_ACCOUNT = "Own address, factors, sessions and keys", _NONE, _OWN, _OWN, _OWN, "admin"
    MANAGE_USERS = "Create, disable and delete users, give roles", _NONE, _NONE, _NONE, _ALL, "admin"
    READ_ORDERS = "List and read orders", _NONE, _OWN, _ALL, _ALL, "read orders"
    CHANGE_ORDERS = "Create, change, step and delete orders", _NONE, _OWN, _NONE, _ALL, "orders"
    READ_TASKS = "List, read and watch tasks and schedules", _NONE, _OWN, _ALL, _ALL, "read tasks"
    CHANGE_TASKS = "Create, cancel and retry tasks and schedules", _NONE, _OWN, _NONE, _ALL, "tasks"
    INSPECT_TASKS = "Read rejected messages", _NONE, _NONE, _ALL, _ALL, "read admin"
    OPERATE_TASKS = (
        "Act on all tasks that match, pause and limit types, requeue rejected messages",
        _NONE, _NONE, _NONE, _ALL, "admin",
    )  # fmt: skip
    READ_SITES = "Read sites and their work", _NONE, _OWN, _ALL, _ALL, "read sites"
    CHANGE_SITES = "Change sites and their work", _NONE, _OWN, _NONE, _ALL, "sites"
    CREATE_SITES = "Open sites", _NONE, _NONE, _NONE, _ALL, "sites"
    READ_SYSTEM = "Read the whole status, metrics and audit", _NONE, _NONE, _ALL, _ALL, "read admin"
    OPERATE_SYSTEM = "Force circuits", _NONE, _NONE, _NONE, _ALL, "admin"

    def __init__(self, meaning: str, nobody: Extent, user: Extent, auditor: Extent, admin: Extent, scopes: str) -> None:
        self.meaning = meaning
        self.extents: Mapping[Role, Extent] = dict(zip(Role, (nobody, user, auditor, admin), strict=True))
        self.scopes = frozenset(scopes.split())


#: What somebody may do who must change their password.
OF_ANY_SESSION = frozenset({Action.PUBLIC, Action.SEE_ONESELF, Action.OWN_LOGIN})
