"""The keys of a process: what is asked for, when, and what is kept when nothing good comes."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from servicekit.identity.key_ring import KeyRing
from servicekit.identity.keys import SigningKey
from servicekit.identity.tokens import IdentityUnavailable, InvalidToken, TokenIssuer, TokenVerifier
from servicekit.wire.errors import BadGateway, Unavailable

KEY, NEXT = SigningKey.generate(), SigningKey.generate()
NOW = datetime(2027, 1, 1, tzinfo=UTC)
OWNER = {"issuer": "https://sites.example", "audience": "siteworks"}


def document(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [key.public() for key in keys]}).encode()


class Users:
    """What publishes the keys, as long as it likes."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self) -> bytes:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def ring_of(users: Users, file=None) -> KeyRing:
    return KeyRing(users, on_death=lambda: None, file=file)


def token_by(key: SigningKey) -> str:
    made = TokenIssuer(key, **OWNER, now=NOW.timestamp)
    return made.issue(UUID(int=1, version=4), ["user"], session_id=UUID(int=2, version=4), epoch=0)


BAD = [
    b'{"keys":[]}',
    b"",
    b"<html>",
    b'{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}',
    b'{"success":true,"data":{"keys":[]}}',
    json.dumps({"keys": [json.loads(NEXT.secret()) | {"kid": "a"}]}).encode(),
    Unavailable(),
    BadGateway(),
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_the_last_good_keys_are_kept_whatever_comes_after_them(bad, tmp_path):
    users = Users(document(KEY))
    ring = ring_of(users, tmp_path / "keys")
    ring.run_once(NOW)
    kept = ring.keys
    assert ring.out_of_touch_since() is None

    users.answer = bad
    for hours in range(1, 48):
        ring.run_once(NOW + timedelta(hours=hours))
    assert ring.keys is kept
    assert ring.out_of_touch_since() == NOW.timestamp()

    # Over a restart too.
    again = ring_of(users, tmp_path / "keys")
    assert again.keys.knows(token_by(KEY))
    again.run_once(NOW + timedelta(hours=48))
    assert again.out_of_touch_since() == NOW.timestamp()

    users.answer = document(NEXT)
    ring.run_once(NOW + timedelta(hours=49))
    assert (ring.keys.knows(token_by(NEXT)), ring.keys.knows(token_by(KEY))) == (True, False)
    assert ring.out_of_touch_since() is None


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_process_that_never_had_keys_refuses_nobody_for_it(bad):
    ring = ring_of(Users(bad))
    ring.run_once(NOW)
    with pytest.raises(IdentityUnavailable):
        TokenVerifier(ring, **OWNER, now=NOW.timestamp).verify(token_by(KEY))


def test_a_bad_key_set_is_an_alarm_each_time_and_a_silent_service_one_line():
    users = Users(document(KEY))
    ring = ring_of(users)
    with capture_logs() as lines:
        for users.answer in (
            document(KEY),
            Unavailable(),
            Unavailable(),
            document(KEY),
            b'{"keys":[]}',
            b'{"keys":[]}',
        ):
            ring.run_once(NOW)
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("keys_away", "warning"),
        ("keys_back", "info"),
        ("key_set_refused", "error"),
        ("key_set_refused", "error"),
    ]


def test_ten_thousand_unknown_keys_cause_no_question_and_harm_no_good_token():
    users = Users(document(KEY))
    ring = ring_of(users)
    ring.run_once(NOW)
    verifier = TokenVerifier(ring, **OWNER, now=NOW.timestamp)
    good = token_by(KEY)
    head, _, rest = good.partition(".")
    for number in range(10_000):
        with pytest.raises(InvalidToken):
            verifier.verify(f"{head[:-8]}{number:08}.{rest}")
    assert verifier.verify(good)
    assert users.asked == 1


def test_an_unchanged_key_set_forgets_no_verified_token():
    users = Users(document(KEY, NEXT))
    ring = ring_of(users)
    ring.run_once(NOW)
    before = ring.keys
    ring.run_once(NOW)
    assert ring.keys is before


def test_the_stored_keys_are_for_the_owner_alone_and_whole(tmp_path):
    file = tmp_path / "keys"
    ring_of(Users(document(KEY)), file).run_once(NOW)
    assert (file.stat().st_mode & 0o777, file.read_bytes()) == (0o600, document(KEY))
    assert os.listdir(tmp_path) == ["keys"]
    assert file.stat().st_mtime == NOW.timestamp()


@pytest.mark.parametrize("stored", [b"", b"{", b'{"keys":[]}'])
def test_a_broken_file_is_ignored_and_replaced(stored, tmp_path):
    file = tmp_path / "keys"
    file.write_bytes(stored)
    ring = ring_of(Users(document(KEY)), file)
    assert ring.keys is None
    ring.run_once(NOW)
    assert file.read_bytes() == document(KEY)


def test_a_file_that_cannot_be_written_changes_nothing_else(tmp_path):
    ring = ring_of(Users(document(KEY)), tmp_path / "no folder" / "keys")
    ring.run_once(NOW)
    assert ring.keys.knows(token_by(KEY))
