"""Access tokens: what is issued, what passes, and the ways in that others have left open."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import time
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import OKPKey
from jwt.algorithms import OKPAlgorithm

from servicekit.identity import tokens
from servicekit.identity.keys import KeySet, SigningKey
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Role
from servicekit.identity.tokens import (
    LONGEST,
    LONGEST_ISSUED,
    AccessToken,
    IdentityUnavailable,
    InvalidToken,
    TokenIssuer,
    TokenVerifier,
    bearer_token,
)
from tests.support.identity import AUDIENCE, ISSUER, KEY, ME, NOW, SESSION, Ring, issue, verifier_of

OTHER = SigningKey.generate()


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(clock) -> TokenVerifier:
    return verifier_of(KEY, now=clock)


def b64(raw: bytes | str | dict) -> str:
    raw = json.dumps(raw, separators=(",", ":")) if isinstance(raw, dict) else raw
    return base64.urlsafe_b64encode(raw.encode() if isinstance(raw, str) else raw).decode().rstrip("=")


def claims(**changed) -> dict:
    good = json.loads(base64.urlsafe_b64decode(issue().split(".")[1] + "=="))
    return {name: value for name, value in {**good, **changed}.items() if value is not ...}


def signed(payload: bytes | str | dict, key: SigningKey = KEY) -> str:
    return key.sign(
        json.dumps(payload).encode()
        if isinstance(payload, dict)
        else payload
        if isinstance(payload, bytes)
        else payload.encode()
    )


def test_a_token_says_who_calls_what_they_may_and_how_they_logged_in(verifier):
    token = issue(roles=["crane_driver", "auditor", "user"], methods=["pwd", "otp"])
    said = verifier.verify(token)

    assert said == AccessToken(said.principal, 3, NOW, NOW + 300, ("pwd", "otp"))
    assert said.principal == Principal(ME, Role.AUDITOR, None, SESSION)
    assert verifier.identify(f"Bearer {token}") == said.principal
    assert verifier.identify(f"Bearer {token}").token == token
    assert token not in repr(verifier.identify(f"Bearer {token}"))
    assert verifier.verify(issue(scopes=["read", "tasks"])).principal.scopes == {"read", "tasks"}
    assert verifier.verify(issue(scopes=[])).principal.scopes == frozenset()


def test_an_independent_library_reads_the_same_token():
    jwt.register_algorithm("Ed25519", OKPAlgorithm())
    token = issue(roles=["admin"])
    key = jwt.PyJWK(KEY.public() | {"alg": "EdDSA"})

    assert jwt.get_unverified_header(token) == {"alg": "Ed25519", "kid": KEY.key_id, "typ": "at+jwt"}
    read = jwt.decode(
        token, key.key, algorithms=["Ed25519"], issuer=ISSUER, audience=AUDIENCE,
        options={"verify_exp": False, "verify_iat": False, "require": ["iss", "aud", "sub", "jti", "iat", "exp"]},
    )  # fmt: skip
    assert read == claims(jti=read["jti"], roles=["admin"])


def test_the_largest_token_that_is_issued_is_small():
    roles = [f"a_role_of_{number:022}" for number in range(15)] + ["auditor"]
    token = issue(roles=roles, methods=["pwd", "otp"], scopes=["read", "orders", "tasks", "sites", "admin"])

    assert len(token) <= LONGEST_ISSUED
    with pytest.raises(ValueError, match="is the most"):
        issue(issuer="https://" + "a" * 200)


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        ({}, True),
        ({"unknown": "later versions may say more"}, True),
        ({"iat": NOW + 5}, True),
        ({"iat": NOW + 300}, False),
        ({"exp": NOW - 29}, True),
        ({"exp": NOW - 31}, False),
        ({"exp": str(NOW + 300)}, False),
        ({"exp": NOW + 0.5}, False),
        ({"exp": True}, False),
        ({"exp": None}, False),
        ({"exp": ...}, False),
        ({"iat": ...}, False),
        ({"iss": ...}, False),
        ({"iss": ISSUER[:-1]}, False),
        ({"iss": ISSUER + "/"}, False),
        ({"iss": [ISSUER]}, False),
        ({"aud": "siteworks-refresh"}, False),
        ({"aud": [AUDIENCE, "others"]}, False),
        ({"aud": ...}, False),
        ({"sub": "me"}, False),
        ({"sub": ...}, False),
        ({"sid": ...}, False),
        ({"epoch": "3"}, False),
        ({"roles": "admin"}, False),
        ({"scope": ["read"]}, False),
    ],
)
def test_claims_pass_if_all_of_them_are_right(verifier, changed, passes):
    token = signed(claims(**changed))
    if passes:
        assert verifier.verify(token).principal.user_id == ME
    else:
        with pytest.raises(InvalidToken):
            verifier.verify(token)


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(claims())[:-1] + ', "roles": ["admin"]}',
        json.dumps(claims())[:-1] + f', "sub": "{uuid4()}"}}',
        '{"a":' * 200 + "1" + "}" * 200,
        '{"iss":' + "[" * 400 + "]" * 400 + "}",
        "[]",
        "null",
        "",
        "not JSON",
        b"\xff\xfe",
        json.dumps(claims()) + "x",
        json.dumps(claims(exp=...))[:-1] + ', "exp": NaN}',
        json.dumps(claims(exp=...))[:-1] + ', "exp": 1e999}',
    ],
    ids=range(12),
)
def test_signed_claims_that_parsers_read_differently_or_not_at_all_are_refused(verifier, payload):
    token = signed(payload)
    assert len(token) <= LONGEST
    with pytest.raises(InvalidToken):
        verifier.verify(token)


def _with_header(**header) -> str:
    """Rightly signed with our key; only the header is another."""
    whole = {"alg": "Ed25519", "kid": KEY.key_id, "typ": "at+jwt"} | header
    secret = OKPKey.import_key(json.loads(KEY.secret()))
    body = f"{b64({name: value for name, value in whole.items() if value is not ...})}.{b64(claims())}"
    return f"{body}.{b64(secret.private_key.sign(body.encode()))}"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "EdDSA"},
        {"alg": "none"},
        {"alg": "ed25519"},
        {"typ": "JWT"},
        {"typ": "AT+JWT"},
        {"typ": ...},
        {"kid": ...},
        {"kid": "../../keys"},
        {"crit": ["exp"]},
        {"crit": ["http://example.invalid/unknown"], "http://example.invalid/unknown": True},
        {"b64": False, "crit": ["b64"]},
        {"jku": "http://127.0.0.1:1/keys"},
        {"x5u": "http://127.0.0.1:1/certificate"},
        {"jwk": OTHER.public()},
        {"zip": "DEF"},
        {"cty": "JWT"},
    ],
    ids=lambda header: "-".join(f"{name} {value}" for name, value in header.items() if name != "jwk") or "jwk",
)
def test_only_a_header_that_we_write_is_looked_at_whoever_signed(verifier, header, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)  # nothing is fetched
    monkeypatch.setattr(jws, "deserialize_compact", None)  # nothing is decoded
    with pytest.raises(InvalidToken):
        verifier.verify(_with_header(**header))


def test_that_header_alone_decided():
    assert KeySet([KEY.public()]).claims(_with_header()) is not None


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("form", ["jwk", "pem", "openssh", "raw"])
def test_a_public_key_is_no_shared_secret_in_whatever_form(verifier, algorithm, form):
    public = OKPKey.import_key(KEY.public()).public_key
    secret = {
        "jwk": json.dumps(KEY.public()).encode(),
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "openssh": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "raw": public.public_bytes(Encoding.Raw, PublicFormat.Raw),
    }[form]
    for header in (
        {"alg": algorithm, "kid": KEY.key_id, "typ": "at+jwt"},
        {"alg": "Ed25519", "kid": KEY.key_id, "typ": "at+jwt"},
    ):
        body = f"{b64(header)}.{b64(claims())}"
        mac = hmac.digest(secret, body.encode(), hashlib.new(f"sha{algorithm[2:]}").name)
        with pytest.raises(InvalidToken):
            verifier.verify(f"{body}.{b64(mac)}")


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda head, body, mark: (head, body, mark[:-1] + ("A" if mark[-1] != "A" else "Q")),
        lambda head, body, mark: (head, body, ("A" if mark[0] != "A" else "B") + mark[1:]),
        lambda head, body, mark: (head, body, mark + "="),
        lambda head, body, mark: (head, body, mark + "=="),
        lambda head, body, mark: (head, body, mark + "\n"),
        lambda head, body, mark: (head, body, f"{mark[:40]}\n{mark[40:]}"),
        lambda head, body, mark: (head, body, f"{mark[:40]}.{mark[40:]}"),
        lambda head, body, mark: (head, body, mark[:-1] + chr(ord(mark[-1]) + 1)),
        lambda head, body, mark: (head, body, ""),
        lambda head, body, mark: (head, body),
        lambda head, body, mark: (head, body, mark, ""),
        lambda head, body, mark: (head, body, mark, body, mark),
        lambda head, body, mark: (head, body + "=", mark),
        lambda head, body, mark: (head + "=", body, mark),
        lambda head, body, mark: (head, b64(claims(sub=str(uuid4()))), mark),
        lambda head, body, mark: ("", body, mark),
        lambda head, body, mark: ("", "", ""),
        lambda head, body, mark: (head, body, mark.replace("-", "+").replace("_", "/") + "+"),
        lambda head, body, mark: (f" {head}", body, mark),
        lambda head, body, mark: (head, body, f"{mark}ä"),
        lambda head, body, mark: (head, body, f"{mark}\udcff"),
    ],
    ids=range(21),
)
def test_a_token_that_differs_from_a_good_one_by_one_byte_is_refused_while_that_is_remembered(verifier, change, cached):
    good = issue()
    if cached:
        verifier.verify(good)
    with pytest.raises(InvalidToken):
        verifier.verify(".".join(change(*good.split("."))))
    assert verifier.verify(good)


def test_no_token_passes_that_differs_from_a_good_one_by_one_character_anywhere(verifier):
    good = issue()
    for place, old in enumerate(good):
        new = "A" if old != "A" else "B"
        for changed in (
            good[:place] + new + good[place + 1 :],
            good[:place] + good[place + 1 :],
            good[:place] + good[place - 1 :],
        ):
            if changed != good:
                with pytest.raises(InvalidToken):
                    verifier.verify(changed)


@pytest.mark.parametrize("length", [LONGEST + 1, 1_000_000])
def test_a_long_token_is_refused_by_its_length_before_anything_is_made_of_it(verifier, length, monkeypatch):
    token = issue()
    monkeypatch.setattr(tokens, "hashlib", None)
    with pytest.raises(InvalidToken):
        verifier.verify(token + "A" * (length - len(token)))


def test_a_token_is_verified_once_and_its_expiry_each_time(verifier, clock, monkeypatch):
    token = issue()
    first = verifier.verify(token)
    monkeypatch.setattr(jws, "deserialize_compact", None)

    assert verifier.verify(token) is first
    clock.now = NOW + 330
    assert verifier.verify(token) is first
    clock.now = NOW + 331
    with pytest.raises(InvalidToken, match="expired"):
        verifier.verify(token)


def test_a_forged_token_costs_one_verification_in_ten_seconds(verifier, clock, monkeypatch):
    asked = []
    real = jws.deserialize_compact
    monkeypatch.setattr(jws, "deserialize_compact", lambda *args, **more: asked.append(1) or real(*args, **more))
    good = issue()
    forged = good[:-20] + "A" * 20
    for clock.now, verified in ((NOW, 1), (NOW + 9, 1), (NOW + 11, 2)):
        with pytest.raises(InvalidToken):
            verifier.verify(forged)
        assert len(asked) == verified


def test_a_flood_of_forged_tokens_forgets_no_good_one_and_takes_bounded_memory(verifier, monkeypatch):
    monkeypatch.setattr(tokens, "_GOOD", 5)
    monkeypatch.setattr(tokens, "_REFUSED", 7)
    good = [issue() for _ in range(6)]
    for token in good:
        verifier.verify(token)
    for number in range(50):
        with pytest.raises(InvalidToken):
            verifier.verify(f"{good[0][:-20]}{number:020}")
        with pytest.raises(InvalidToken):
            verifier.verify(f"{number}{good[0]}")
    memory = verifier._memory
    assert (len(memory.good), len(memory.refused)) == (5, 7)
    monkeypatch.setattr(jws, "deserialize_compact", None)
    for token in good[1:]:
        verifier.verify(token)


def test_a_withdrawn_key_is_no_longer_good_for_a_token_that_is_remembered(clock):
    ring = Ring(KEY, OTHER)
    verifier = TokenVerifier(ring, issuer=ISSUER, audience=AUDIENCE, now=clock)
    by_one, by_other = issue(KEY), issue(OTHER)
    assert verifier.verify(by_one)
    assert verifier.verify(by_other)

    ring.keys = KeySet([OTHER.public()])
    with pytest.raises(InvalidToken):
        verifier.verify(by_one)
    assert verifier.verify(by_other)


def test_without_any_keys_nobody_can_be_judged_and_nobody_is_refused(clock):
    verifier = verifier_of(now=clock)
    with pytest.raises(IdentityUnavailable):
        verifier.verify(issue())


@pytest.mark.parametrize(
    ("expired_at", "since", "now", "passes"),
    [
        # In seconds from NOW; None: the service that renews tokens is there.
        (0, None, 31, False),
        (0, -20, 31, True),
        (0, 0, 31, True),
        # It could have been renewed.
        (0, 1, 31, False),
        (0, -20, 3580, True),
        (0, -20, 3581, False),
        # Not expired: nothing else matters.
        (100, -5000, 130, True),
    ],
)
def test_a_token_that_nobody_could_renew_stays_good_for_an_hour(expired_at, since, now, passes, clock):
    verifier = verifier_of(KEY, now=clock, since=None if since is None else NOW + since)
    token = issue(now=NOW + expired_at - 300)
    clock.now = NOW + now
    if passes:
        assert verifier.verify(token)
    else:
        with pytest.raises(InvalidToken, match="expired"):
            verifier.verify(token)


@pytest.mark.parametrize(
    ("field", "token"),
    [
        (None, None),
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("", InvalidToken),
        ("Bearer", InvalidToken),
        ("Bearer ", InvalidToken),
        ("abc", InvalidToken),
        ("Basic YTpi", InvalidToken),
        ("Token abc", InvalidToken),
        ("Bearer\tabc", InvalidToken),
    ],
)
def test_malformed_credentials_are_refused_and_never_taken_for_none(field, token):
    if token is InvalidToken:
        with pytest.raises(InvalidToken) as refused:
            bearer_token(field)
        assert refused.value.headers == {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    else:
        assert bearer_token(field) == token


def test_now_is_now_unless_a_test_says_otherwise():
    ring = Ring(KEY)
    made = TokenIssuer(KEY, issuer=ISSUER, audience=AUDIENCE).issue(ME, [], session_id=SESSION, epoch=1)
    said = TokenVerifier(ring, issuer=ISSUER, audience=AUDIENCE).verify(made)
    assert abs(said.issued_at - time.time()) < 60
