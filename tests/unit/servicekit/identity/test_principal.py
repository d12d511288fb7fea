"""Which rows a caller may touch: roles, scopes, and nobody at all."""

from __future__ import annotations

import inspect
import re
from uuid import uuid4

import pytest

from scripts.reference.roles import operations
from servicekit.identity.principal import LOCAL, NOBODY, Principal
from servicekit.identity.reach import Reach
from servicekit.identity.roles import Action, Extent, Role
from servicekit.wire.errors import Forbidden, Unauthorized

ME = uuid4()
ALL = Reach.all()
OWN = Reach.own(ME)
#: Operations on what has no owner, one whose handler is not this function, and those on the caller themselves.
OF_NO_OWNER = {"/task-types", "/tasks/{id}/events", "/auth/me", "/auth/logout-all", "/auth/password"}
SCOPES = {"read", "orders", "tasks", "sites", "admin"}


def user(role: str, *scopes: str) -> Principal:
    return Principal(ME, Role(role), frozenset(scopes) if scopes else None)


@pytest.mark.parametrize(
    ("action", "nobody", "as_user", "as_auditor", "as_admin"),
    [
        ("PUBLIC", ALL, ALL, ALL, ALL),
        ("CHANGE_USERS", Unauthorized, OWN, OWN, ALL),
        ("READ_ORDERS", Unauthorized, OWN, ALL, ALL),
        ("CHANGE_ORDERS", Unauthorized, OWN, Forbidden, ALL),
        ("INSPECT_TASKS", Unauthorized, Forbidden, ALL, ALL),
        ("OPERATE_TASKS", Unauthorized, Forbidden, Forbidden, ALL),
    ],
)
def test_each_role_reaches_what_the_table_grants_it(action, nobody, as_user, as_auditor, as_admin):
    callers = [NOBODY, user("user"), user("auditor"), user("admin")]
    for caller, expected in zip(callers, (nobody, as_user, as_auditor, as_admin), strict=True):
        assert _reach(caller, action) == expected
    assert _reach(LOCAL, action) == ALL


@pytest.mark.parametrize(
    ("action", "enough"), [("PUBLIC", SCOPES), ("READ_ORDERS", {"read", "orders"}), ("CHANGE_USERS", {"admin"})]
)
def test_a_key_does_what_both_its_scopes_and_its_owners_role_allow(action, enough):
    for scope in SCOPES:
        for role in ("user", "auditor", "admin"):
            assert _reach(user(role, scope), action) == (_reach(user(role), action) if scope in enough else Forbidden)


@pytest.mark.parametrize(
    ("roles", "role"),
    [
        ([], "user"),
        (["user"], "user"),
        (["crane_driver", "root", "Admin", "admin "], "user"),
        (["no login"], "user"),
        (["auditor", "user"], "auditor"),
        (["user", "admin", "auditor"], "admin"),
    ],
)
def test_the_highest_role_decides_and_other_words_mean_nothing(roles, role):
    assert Role.highest(roles) == role


def test_whoever_has_not_logged_in_is_told_how():
    with pytest.raises(Unauthorized) as refused:
        NOBODY.reach(Action.READ_ORDERS)
    assert refused.value.headers == {"WWW-Authenticate": "Bearer"}


def _reach(caller: Principal, action: str) -> Reach | type[Exception]:
    try:
        return caller.reach(Action[action])
    except (Forbidden, Unauthorized) as refusal:
        return type(refusal)


def test_each_operation_uses_the_reach_of_the_action_in_its_row():
    for endpoint in operations():
        used = {*re.findall(r"reach\(Action\.(\w+)\)", inspect.getsource(endpoint.handler))}
        # What everybody is shown may have more for some.
        is_open = endpoint.action in (None, Action.PUBLIC)
        assert is_open or used <= {endpoint.action.name}, f"{endpoint.method} {endpoint.path}"
        # On a site it is the caller's role there that decides, which the use cases look up.
        has_owner = endpoint.path not in OF_NO_OWNER and not endpoint.handler.__module__.startswith("service_sites.")
        if endpoint.action and Extent.OWN in endpoint.action.extents.values() and has_owner:
            assert used, f"{endpoint.method} {endpoint.path}"
