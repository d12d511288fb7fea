"""What somebody gets of the users who may see only themselves."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from service_users import events, repository
from service_users.accounts.passwords import Passwords
from service_users.errors import UserNotFound
from service_users.schemas import UserCreate, UserQuery, UserUpdate, UserView
from service_users.use_cases import Users
from servicekit.identity.reach import Reach
from servicekit.process.ids import new_id
from servicekit.wire.errors import Forbidden
from tests.support.postgres import ServiceDatabase

ALL = Reach.all()


@pytest.fixture
def users(users_database: ServiceDatabase) -> Users:
    """Give the use cases, over five users."""
    users = Users(users_database.database, Passwords(places=1))
    for number in range(5):
        users.create(UserCreate(email=f"{number}@example.com", name=f"User {number}"), reach=ALL)
    return users


def listed(users: Users, reach: Reach, **query: object) -> tuple[list[dict], int]:
    page = users.search(UserQuery.model_validate({"limit": 100, **query}), reach=reach)
    assert page.next is None
    return json.loads(page.users.encoded_json), page.total


def everybody(users: Users) -> list[UserView]:
    return [users.get(UUID(one["id"]), reach=ALL) for one in listed(users, ALL)[0]]


@pytest.mark.parametrize(
    "query",
    [{}, {"q": "USER"}, {"q": "user 3"}, {"email": "2@example.com"}, {"role": "user", "sort": "-name"}, {"role": "x"}],
)
def test_a_list_of_users_holds_at_most_oneself(users, query):
    truth, total = listed(users, ALL, **query)
    assert total == len(truth)
    for me in everybody(users):
        mine = [one for one in truth if one["id"] == str(me.id)]
        assert listed(users, Reach.own(me.id), **query) == (mine, len(mine))


def test_of_others_nothing_is_shown_changed_or_deleted(users):
    for me in everybody(users):
        truth, reach = everybody(users), Reach.own(me.id)
        assert users.get(me.id, reach=reach) == me
        renamed = users.update(me.id, UserUpdate(name="new", roles=me.roles), reach=reach)
        for other in truth:
            if other.id == me.id:
                continue
            for deed, *arguments in ((users.get,), (users.update, UserUpdate(name="x")), (users.delete,)):
                with pytest.raises(UserNotFound):
                    deed(other.id, *arguments, reach=reach)
        assert everybody(users) == [renamed if one.id == me.id else one for one in truth]


def test_nobody_gives_roles_to_themselves_or_makes_users(users):
    truth = everybody(users)
    me = truth[0]
    with pytest.raises(Forbidden) as refused:
        users.update(me.id, UserUpdate(name="new", roles=["user", "admin"]), reach=Reach.own(me.id))
    assert [detail.field for detail in refused.value.details] == ["roles"]
    with pytest.raises(Forbidden):
        users.create(UserCreate(email="new@example.com", name="x"), reach=Reach.own(me.id))
    assert everybody(users) == truth


def test_the_statements_themselves_refuse_a_row_beyond_reach(users, users_database):
    """Should a use case ever pass on what it found for somebody else."""
    database = users_database.database
    one, other = everybody(users)[:2]
    row = repository.ROWS.find(database, one.id, reach=ALL)
    theirs = Reach.own(other.id)
    assert not repository.ROWS.update(database, row, {"name": "x"}, events.updated(one), reach=theirs)
    assert not repository.ROWS.delete(database, row, events.deleted(one.id, one.created_at), reach=theirs)
    hidden = {"email_key": "new", "name_key": "new", "password_hash": None}
    values = {**one.model_dump(), **hidden, "id": new_id()}
    assert repository.add(database, values, events.created(one), None, reach=theirs) is None
    assert users.get(one.id, reach=ALL) == one
