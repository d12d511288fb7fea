"""The keys of access tokens, on a real database."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import text

from service_users.accounts import rotate_keys
from service_users.accounts.signing import MOST_AGE, SigningKeys
from service_users.app import create_app
from service_users.auth_key import AuthKey
from service_users.settings import UsersSettings
from servicekit.identity.enforcement import KEYS_PATH
from servicekit.identity.keys import KeySet
from servicekit.identity.rotation import AHEAD, KEPT
from servicekit.identity.tokens import LIFETIME
from servicekit.process.settings import SettingsError, load

AUTH_KEY = AuthKey(bytes(32))
NOW = 1_800_000_000.0


@pytest.fixture
def clock() -> list[float]:
    return [NOW]


@pytest.fixture
def keys_of(users_database, clock):
    """Give the keys as a process has them."""

    def make(key: AuthKey = AUTH_KEY) -> SigningKeys:
        return SigningKeys(users_database.database, key, issuer="https://sites.example", now=lambda: clock[0])

    yield make
    with users_database.database.transaction() as transaction:
        transaction.execute(text("DELETE FROM signing_keys"))


def token(keys: SigningKeys) -> str:
    return keys.issuer().issue(UUID(int=1), ["user"], session_id=UUID(int=2), epoch=0)


def test_processes_that_need_the_first_key_at_once_make_one(keys_of):
    processes = [keys_of() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        documents = set(pool.map(lambda keys: keys.document(), processes))
    assert len(documents) == 1
    assert all(KeySet.read(*documents).knows(token(keys)) for keys in processes)


def test_a_key_is_replaced_by_age_without_a_token_that_anybody_refuses(keys_of, clock):
    """Verifiers ask every 25 s, so whatever is signed must be in the document of before."""
    one, other = keys_of(), keys_of()
    seen, signers = KeySet.read(one.document()), set()
    for _ in range(2 * (AHEAD + KEPT) // 20 + 4):
        for keys in (one, other):
            made = token(keys)
            signers.add(made.partition(".")[0])
            assert seen.claims(made) is not None
        seen = KeySet.read(other.document())
        clock[0] += 20
        if len(signers) == 1 and clock[0] < NOW + MOST_AGE:
            clock[0] += MOST_AGE
    assert len(signers) == 2
    assert one.document().count(b'"kid"') == 1


def test_keys_are_rotated_by_hand_whenever_and_however_often_without_a_token_that_anybody_refuses(keys_of, clock):
    one, other = keys_of(), keys_of()
    live: list[tuple[float, str]] = []
    seen, signers = KeySet.read(one.document()), set()
    for step in range(3 * (AHEAD + KEPT) // 20):
        if step % 7 in (3, 4):
            signs_at = keys_of().rotate()
            assert clock[0] < signs_at <= clock[0] + AHEAD
        live = [(at, text) for at, text in live if at > clock[0] - LIFETIME]
        live += [(clock[0], token(keys)) for keys in (one, other)]
        signers.add(live[-1][1].partition(".")[0])
        assert all(seen.claims(text) is not None for _, text in live)
        seen = KeySet.read(other.document())
        assert other.document().count(b'"kid"') <= 3
        clock[0] += 20
    assert len(signers) >= 4


def test_the_command_makes_the_next_key_and_says_when_it_signs(users_database, keys_of, clock, monkeypatch, capsys):
    clock[0] = time.time() - AHEAD
    keys_of().document()
    capsys.readouterr()
    monkeypatch.setenv("USERS_DATABASE_URL", users_database.url)
    assert rotate_keys.main([]) == 1
    assert "AUTH_KEY: is not set" in capsys.readouterr().err
    monkeypatch.setenv("AUTH_KEY", "A" * 43)
    assert [rotate_keys.main([]), rotate_keys.main([])] == [0, 0]
    told = capsys.readouterr().out.splitlines()
    assert told[0] == told[1]
    assert re.fullmatch(
        r"The next key signs access tokens from \d\d:\d\d:\d\d UTC on; those of before stay good\.", told[0]
    )
    with users_database.database.transaction() as transaction:
        assert transaction.execute(text("SELECT count(*) FROM signing_keys")).scalar() == 2


def test_the_database_holds_keys_that_only_the_key_of_accounts_opens(keys_of, users_database):
    document = keys_of().document()
    with users_database.database.transaction() as transaction:
        ((key_id, secret),) = transaction.execute(text("SELECT key_id, secret FROM signing_keys")).all()
    assert key_id.encode() in document
    assert b"OKP" not in bytes(secret)
    other = keys_of(AuthKey(b"x" * 32))
    assert key_id.encode() not in other.document()
    assert KeySet.read(other.document()).claims(token(other)) is not None


def test_the_key_set_is_a_page_without_an_envelope(users_database, keys_of):
    url = users_database.url
    app = create_app(UsersSettings(users_database_url=url, auth_key="A" * 43))
    answer = app.test_client().get(KEYS_PATH)
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    # RFC 7517 section 8.5.2; the gateway passes it as it is.
    assert answer.mimetype == "application/jwk-set+json"
    assert KeySet.read(answer.data)
    assert create_app(UsersSettings(users_database_url=url)).test_client().get(KEYS_PATH).status_code == 404


@pytest.mark.parametrize("text", [None, "short", "A" * 44, "?" * 43])
def test_without_a_good_key_the_service_does_not_start_and_names_the_variable(monkeypatch, text):
    for name, value in {"AUTH": "required", "USERS_DATABASE_URL": "postgresql://u:p@h/d", "AUTH_KEY": text}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"AUTH_KEY: .*token_urlsafe") as refused:
        load(UsersSettings)
    assert text is None or text not in str(refused.value)
