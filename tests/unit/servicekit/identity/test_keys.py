"""Key sets: what is taken from one, and what is refused whole."""

from __future__ import annotations

import json

import pytest
from joserfc.jwk import OKPKey

from servicekit.identity.keys import BadKeySet, KeySet, SigningKey

MINE = SigningKey.generate()
OTHER = SigningKey.generate()
X25519 = json.dumps(OKPKey.generate_key("X25519").as_dict(private=True)).encode()
RSA = {"kty": "RSA", "kid": "theirs", "n": "AQAB", "e": "AQAB"}


def test_a_signing_key_survives_being_stored():
    again = SigningKey.read(MINE.secret())

    assert (again.key_id, again.public()) == (MINE.key_id, MINE.public())
    assert KeySet([MINE.public()]).claims(again.sign(b"{}")) == b"{}"
    assert "d" not in MINE.public()


@pytest.mark.parametrize(
    "secret",
    [b"", b"{}", b"[]", b'"x"', json.dumps(MINE.public()).encode(), b'{"kty":"oct","k":"AA"}', X25519],
    ids=range(7),
)
def test_anything_but_a_private_key_is_no_signing_key(secret):
    with pytest.raises(ValueError, match="not a private Ed25519 key"):
        SigningKey.read(secret)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([], "no key of ours"),
        ([RSA], "no key of ours"),
        (["x", None, {}], "no key of ours"),
        ([{**MINE.public(), "alg": "EdDSA"}], "no key of ours"),
        ([{**MINE.public(), "use": "enc"}], "no key of ours"),
        ([json.loads(MINE.secret()) | {"kid": "a"}], "shows a private key"),
        ([{**MINE.public(), "kid": "a", "x": OTHER.public()["x"]}, {**MINE.public(), "kid": "a"}], "one id"),
        ([MINE.public(), {**OTHER.public(), "kid": "a b"}], "not plain"),
        ([MINE.public(), {**OTHER.public(), "kid": ""}], "not plain"),
        ([MINE.public(), {**OTHER.public(), "x": "AAAA"}], "broken"),
        ([MINE.public(), {**OTHER.public(), "x": f"{OTHER.public()['x']}="}], "broken"),
        ([MINE.public(), {**OTHER.public(), "x": 5}], "broken"),
        ([SigningKey.generate().public() for _ in range(9)], "more than 8"),
    ],
)
def test_a_set_with_a_bad_key_or_without_a_good_one_is_refused(keys, why):
    with pytest.raises(BadKeySet, match=why):
        KeySet(keys)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [], "keys": [1]}', b"\xff"])
def test_what_is_no_key_set_is_refused(text):
    with pytest.raises(BadKeySet):
        KeySet.read(text)


def test_keys_of_other_kinds_do_not_disturb_ours():
    keys = KeySet.read(json.dumps({"keys": [RSA, MINE.public(), OTHER.public()], "made": 1}).encode())

    assert [keys.claims(key.sign(b"{}")) for key in (MINE, OTHER, SigningKey.generate())] == [b"{}", b"{}", None]
