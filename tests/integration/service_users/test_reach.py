"""What somebody gets of the users who may see only themselves."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from service_users import events, repository
from service_users.accounts.passwords import Passwords
from service_users.errors import UserNotFound
from service_users.schemas import ColleagueView, UserCreate, UserQuery, UserUpdate, UserView
from service_users.use_cases import Users
from servicekit.events.cloudevents import Event
from servicekit.events.outbox import NOTHING_ELSE
from servicekit.identity.reach import Reach
from servicekit.process.ids import new_id
from servicekit.wire.envelope import dump
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
    return [users.get(UUID(one["id"]), reach=ALL) for one in listed(users, ALL, sort="created_at")[0]]


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


@pytest.fixture
def site(users: Users, users_database: ServiceDatabase) -> tuple[UserView, UserView, UserView]:
    """Give two who work on one site, and somebody on another."""
    me, friend, stranger, *_ = everybody(users)
    tell(users, users_database, {me.id: (1, 2), friend.id: (1,), stranger.id: (3,)})
    return me, friend, stranger


def tell(users: Users, database: ServiceDatabase, sites: dict[UUID, tuple[int, ...]], present: bool = True) -> None:
    with database.database.transaction() as session:
        for user_id, numbers in sites.items():
            for number in numbers:
                site_id = UUID(int=number)
                data = {"id": str(site_id), "user_id": str(user_id), "present": present}
                users.membership_changed(session, Event(type="membership.changed", subject=site_id, data=data))


def test_people_of_one_site_know_each_others_ids_and_names(users, users_database, site):
    me, friend, stranger = site
    reach = Reach.own(me.id)
    known = ColleagueView(id=friend.id, name=friend.name)
    assert users.show(friend.id, reach=reach) == known
    assert users.show(me.id, reach=reach) == me
    assert users.show(friend.id, reach=ALL) == friend
    assert users.show(me.id, reach=Reach.own(friend.id)).model_dump() == {"id": me.id, "name": me.name}
    for one, other in ((me, stranger), (stranger, me), (stranger, friend)):
        with pytest.raises(UserNotFound):
            users.show(other.id, reach=Reach.own(one.id))
    for deed, *arguments in ((users.get,), (users.update, UserUpdate(name="x")), (users.delete,)):
        with pytest.raises(UserNotFound):
            deed(friend.id, *arguments, reach=reach)
    tell(users, users_database, {friend.id: (1,)}, present=False)
    with pytest.raises(UserNotFound):
        users.show(friend.id, reach=reach)


@pytest.mark.parametrize(
    ("query", "finds"),
    [
        ({}, "friend me"),
        ({"sort": "name"}, "me friend"),
        ({"sort": "created_at", "total": False}, "me friend"),
        ({"q": "USER"}, "friend me"),
        ({"q": "user 1"}, "friend"),
        ({"q": "1@exam"}, ""),
        ({"q": "0@exam"}, "me"),
        ({"q": "user 2"}, ""),
        ({"email": "1@example.com"}, ""),
        ({"email": "0@example.com"}, "me"),
        ({"role": "user"}, "me"),
        ({"sort": "email"}, "me"),
        ({"id": "of all three"}, "friend me"),
        ({"sort": "-email", "q": "user"}, "me"),
        ({"created_from": "2999-01-01T00:00:00Z"}, ""),
    ],
)
def test_of_others_on_ones_sites_a_list_shows_ids_and_names_and_what_is_hidden_finds_nobody(users, site, query, finds):
    me, friend, stranger = site
    if "id" in query:
        query = {"id": ",".join(str(one.id) for one in (stranger, friend, me))}
    shown = {"me": json.loads(dump(me)), "friend": {"id": str(friend.id), "name": friend.name}}
    page = users.search(UserQuery.model_validate({"limit": 100, **query}), reach=Reach.own(me.id))
    assert json.loads(page.users.encoded_json) == [shown[name] for name in finds.split()]
    assert page.total == (len(finds.split()) if query.get("total", True) else None)
    first = users.search(UserQuery.model_validate({**query, "limit": 1}), reach=Reach.own(me.id))
    assert (first.next is None) == (len(finds.split()) < 2)


def test_of_a_user_who_is_gone_no_site_is_remembered_whenever_it_is_told(users, users_database, site):
    me, friend, _ = site
    users.delete(friend.id, reach=ALL)
    tell(users, users_database, {friend.id: (1, 2)})
    assert listed(users, Reach.own(me.id)) == ([json.loads(dump(me))], 1)


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
    assert not repository.ROWS.update(database, row, {"name": "x"}, events.updated(one, one.roles), reach=theirs)
    assert not repository.ROWS.delete(database, row, events.deleted(one.id, one.created_at), reach=theirs)
    hidden = {"email_key": "new", "name_key": "new", "password_hash": None}
    values = {**one.model_dump(), **hidden, "id": new_id()}
    assert repository.add(database, values, events.created(one), None, NOTHING_ELSE, reach=theirs) is None
    assert users.get(one.id, reach=ALL) == one
