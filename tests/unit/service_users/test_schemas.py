"""What is taken for a user, and what is refused."""

from __future__ import annotations

import json

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given
from hypothesis import strategies as st

from service_users.schemas import UserCreate, UserQuery, UserUpdate, UserView
from servicekit.web.schemas import parse_body, parse_query
from servicekit.wire.errors import Invalid

GOOD = {"email": "user@example.com", "name": "Белов Ярослав"}


def parse(model=UserCreate, **fields):
    return parse_body(model, json.dumps(fields).encode(), "application/json")


def refused_fields(model=UserCreate, **fields) -> list[str]:
    with pytest.raises(Invalid) as caught:
        parse(model, **fields)
    return [detail.field for detail in caught.value.details]


def test_an_address_and_a_name_suffice():
    user = parse(**GOOD)
    assert (user.email, user.name, user.roles, user.password) == ("user@example.com", "Белов Ярослав", ["user"], None)


@pytest.mark.parametrize("missing", ["email", "name"])
def test_without_either_it_is_refused(missing):
    assert refused_fields(**{name: value for name, value in GOOD.items() if name != missing}) == [missing]


PARTS = ["a", "A", "info", "Info", *".-+_1'\" <>()@é\nß", "e\u0301", "x" * 60]
LABELS = ["b", "B", "b.de", "xn--mnchen-3ya.de", "xn--a", "münchen.de", "local", "arpa", "1", "ab--c", "x" * 63]
LABELS += ["[1.2.3.4]", *".->\n"]


@given(st.lists(st.sampled_from(PARTS), max_size=5), st.lists(st.sampled_from(LABELS), max_size=5))
def test_an_address_is_what_the_library_makes_of_it(local, domain):
    email = f"{''.join(local)}@{'.'.join(domain)}"
    try:
        expected = validate_email(email, check_deliverability=False).normalized
    except EmailNotValidError:
        assert refused_fields(**GOOD | {"email": email}) == ["email"]
    else:
        assert parse(**GOOD | {"email": email}).email == expected


@pytest.mark.parametrize(
    ("email", "kept"),
    [
        ("user@example.com", "user@example.com"),
        ("User.Name+tag@EXAMPLE.com", "User.Name+tag@example.com"),  # a domain has no case (RFC 5321 section 2.4)
        ("почта@пример.рф", "почта@пример.рф"),
        ("user@xn--e1afmkfd.xn--p1ai", "user@пример.рф"),
        ("josé@example.com", "josé@example.com"),
        ("o'neil@example.com", "o'neil@example.com"),
    ],
)
def test_an_address_is_kept_in_its_normal_form(email, kept):
    assert parse(**GOOD | {"email": email}).email == kept


@pytest.mark.parametrize(
    "email",
    ["", " ", "user", "user@", "@example.com", "user@example", "a b@example.com", "user@example.com ", "a@b@c.com",
     "user@example..com", "<user@example.com>", "Name <user@example.com>", "user@example.com\n", "user@[127.0.0.1]",
     "u@" + "x" * 300 + ".com", None, 1, True, [], {}, "a@\u202eexample.com",
     "'; DROP TABLE users; --"],
)  # fmt: skip
def test_what_is_no_address_is_refused(email):
    assert refused_fields(**GOOD | {"email": email}) == ["email"]


@pytest.mark.parametrize("name", ["Ю", "x" * 200, "王小明", "محمد", 'O\'Neil "Bob" \\ <b>', "  spaces kept  ", "👷🏽‍♀️"])
def test_names_of_any_script_are_kept_as_they_are(name):
    assert parse(**GOOD | {"name": name}).name == name


@pytest.mark.parametrize("name", ["", " ", "\u3000", "a\tb", "a\u202eb", "\u200b", "x" * 201, None, 1, True, ["x"]])
def test_blank_or_overlong_names_are_refused(name):
    assert refused_fields(**GOOD | {"name": name}) == ["name"]


@pytest.mark.parametrize("roles", [["user"], ["admin", "user"], ["site_manager2"], [f"r{n}" for n in range(16)]])
def test_roles_are_short_words(roles):
    assert parse(**GOOD | {"roles": roles}).roles == roles


@pytest.mark.parametrize(
    ("roles", "field"),
    [
        ([], "roles"),
        (["user", "user"], "roles"),
        ([f"r{n}" for n in range(17)], "roles"),
        ("user", "roles"),
        (None, "roles"),
        (["User"], "roles.0"),
        (["user", ""], "roles.1"),
        (["x" * 33], "roles.0"),
        (["user\n"], "roles.0"),
        (["1a"], "roles.0"),
        ([1], "roles.0"),
    ],
)
def test_other_roles_are_refused(roles, field):
    assert refused_fields(**GOOD | {"roles": roles}) == [field]


def test_what_is_wrong_with_an_address_or_a_role_is_said_in_our_own_words():
    with pytest.raises(Invalid) as caught:
        parse(email="user@@example", name="x", roles=["Boss"])
    assert caught.value.message == (
        "email: must be an e-mail address such as user@example.com; "
        "roles.0: must be 1 to 32 of a-z, 0-9 and _, and begin with a letter"
    )


@pytest.mark.parametrize("password", ["x" * 8, "x" * 128, "пароль из слов", None])
def test_a_password_has_8_to_128_characters_or_is_none(password):
    assert parse(**GOOD | {"password": password}).password == password


@pytest.mark.parametrize("password", ["", "x" * 7, "x" * 129, 12345678, True])
def test_other_passwords_are_refused_and_not_repeated(password):
    with pytest.raises(Invalid) as caught:
        parse(**GOOD | {"password": password})
    assert [detail.field for detail in caught.value.details] == ["password"]
    assert "xxx" not in caught.value.message


@pytest.mark.parametrize("field", ["id", "created_at", "updated_at", "password_hash", "email_key", "Email"])
def test_fields_that_are_not_the_callers_are_refused_by_name(field):
    assert refused_fields(**GOOD, **{field: "x"}) == [field]


@pytest.mark.parametrize("field", ["created_at", "updated_at", "password_hash", "email_key", "Email"])
def test_fields_that_are_not_the_callers_are_refused_in_a_change_too(field):
    assert refused_fields(UserUpdate, **{field: "x"}) == [field]


def test_an_update_takes_any_subset_and_null_for_the_password_alone():
    assert parse(UserUpdate).named() == {}
    assert parse(UserUpdate, name="x", password=None).named() == {"name": "x", "password": None}
    assert sorted(refused_fields(UserUpdate, email=None, name=None, roles=None)) == ["email", "name", "roles"]


@pytest.mark.parametrize(
    ("sought", "as_stored"),
    [
        ("user@xn--e1afmkfd.xn--p1ai", "user@пример.рф"),
        ("User@EXAMPLE.com", "User@example.com"),
        ("half an addr", "half an addr"),
        ("", ""),
    ],
)
def test_an_address_in_a_query_is_brought_into_the_stored_form(sought, as_stored):
    assert UserQuery(email=sought).email == as_stored


def test_a_search_word_has_at_most_200_characters():
    assert parse_query(UserQuery, "q=" + "x" * 200).q == "x" * 200
    with pytest.raises(Invalid, match="q: must have at most 200 characters"):
        parse_query(UserQuery, "q=" + "x" * 201)


def test_no_answer_has_a_place_for_a_password():
    assert set(UserView.model_fields) == {"id", "email", "name", "roles", "created_at", "updated_at"}
