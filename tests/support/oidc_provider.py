"""A sign-in provider (OpenID Connect) as a process of its own, which misbehaves as it is told.

    python -m tests.support.oidc_provider

It prints its port. Whoever signs in is who `subject` says, at once. POST /told sets `TOLD` anew, with these changes;
`rotate` makes another key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

REALM = "/realms/sites/"
CLIENT_ID, CLIENT_SECRET = "site:works", "a secret / of ours"
#: What it does by itself: who signs in, what else its tokens say, and of a path: how long it takes, what it answers.
TOLD: dict[str, Any] = {
    "subject": "anna@provider", "claims": {}, "header": {}, "alg": "RS256", "document": {}, "slow": {}, "answers": {}
}  # fmt: skip


class Provider(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server_port}"
        self.issuer = self.origin + REALM
        self.told = dict(TOLD)
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.rotate()

    def rotate(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.key_id = secrets.token_hex(4)

    def document(self) -> dict[str, Any]:
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return {"issuer": self.issuer, **{one: self.issuer + path for one, path in names.items()}} | self.told[
            "document"
        ]

    def keys(self) -> dict[str, Any]:
        public = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        # As others have them: a key to encrypt with, and one of a kind that nobody knows.
        return {"keys": [{**public, "kid": self.key_id, "alg": "RS256", "use": "sig"},
                         {**public, "kid": self.key_id, "use": "enc"}, {"kty": "new"}]}  # fmt: skip

    def token(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer, "sub": self.told["subject"], "aud": CLIENT_ID, "iat": now, "exp": now + 300,
            "nonce": asked["nonce"], "email": "anna@example.com", "email_verified": True, **self.told["claims"],
        }  # fmt: skip
        claims = {name: now + value["now"] if isinstance(value, dict) else value for name, value in claims.items()}
        header = {"kid": self.key_id, **self.told["header"]}
        algorithm = self.told["alg"]
        public = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if algorithm == "HS256":
            # By the public key as if it were a secret; PyJWT does not do that by itself.
            return _by_hmac(header, claims, public)
        if algorithm == "other key":
            return jwt.encode(claims, rsa.generate_private_key(65537, 2048), "RS256", header)
        return jwt.encode(claims, None if algorithm == "none" else self.key, algorithm, header)


class Handler(BaseHTTPRequestHandler):
    server: Provider
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _serve(self, body: str) -> None:
        parts, provider = urlsplit(self.path), self.server
        path = parts.path.removeprefix(REALM)
        if path == "/told":
            told = json.loads(body)
            if told.pop("rotate", False):
                provider.rotate()
            provider.told = TOLD | told
            self._answer(200, {"asked": provider.asked})
            provider.asked = []
            return
        provider.asked.append(path)
        time.sleep(provider.told["slow"].get(path, 0))
        if path in provider.told["answers"]:
            status, text = provider.told["answers"][path]
            self._answer(status, text * (1 if len(text) > 1 else 5_000_000))
        elif path == ".well-known/openid-configuration":
            self._answer(200, provider.document())
        elif path == "keys":
            self._answer(200, provider.keys())
        elif path == "authorize":
            self._authorize({name: one for name, (one,) in parse_qs(parts.query).items()})
        elif path == "token":
            self._redeem({name: one for name, (one,) in parse_qs(body).items()})
        else:
            self._answer(404, {})

    def _authorize(self, asked: dict[str, str]) -> None:
        assert (asked["response_type"], asked["client_id"], asked["scope"]) == ("code", CLIENT_ID, "openid")
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.server.codes[code] = asked
        back = {"code": code, "state": asked["state"], "iss": self.server.issuer, "session_state": "x"}
        self._answer(302, "", Location=f"{asked['redirect_uri']}?{urlencode(back)}")

    def _redeem(self, form: dict[str, str]) -> None:
        pair = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
        if [unquote(one) for one in pair.split(":")] != [CLIENT_ID, CLIENT_SECRET]:
            self._answer(401, {"error": "invalid_client"})
            return
        asked = self.server.codes.pop(form["code"], None)
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
        )
        if (
            asked is None
            or form["grant_type"] != "authorization_code"
            or (challenge, form["redirect_uri"]) != (asked["code_challenge"], asked["redirect_uri"])
        ):
            self._answer(400, {"error": "invalid_grant"})
            return
        self._answer(200, {"access_token": "x", "token_type": "Bearer", "id_token": self.server.token(asked)})

    def _answer(self, status: int, body: Any, **fields: str) -> None:
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)


def _by_hmac(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    def segment(raw: bytes) -> bytes:
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    parts = ({"alg": "HS256", **header}, claims)
    text = b".".join(segment(json.dumps(one).encode()) for one in parts)
    return (text + b"." + segment(hmac.digest(secret, text, "sha256"))).decode()


if __name__ == "__main__":
    serving = Provider()
    print(serving.server_port, flush=True)
    serving.serve_forever()
