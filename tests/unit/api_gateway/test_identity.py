"""What the gateway remembers of tokens, and until when."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from api_gateway.identity import Identity
from api_gateway.revocations import Revocations
from servicekit.http_server.plain_head import read_request
from servicekit.identity.keys import KeySet, SigningKey
from servicekit.identity.roles import Action
from servicekit.identity.tokens import AUDIENCE, LIFETIME, SKEW, InvalidToken, TokenIssuer, TokenVerifier
from servicekit.process.ids import new_id

KEY = SigningKey.generate()
SESSION = new_id()


@pytest.mark.parametrize("change", ["none", "keys", "revocations", "time"])
def test_a_token_is_remembered_until_keys_revocations_or_time_say_otherwise(
    change: str, monkeypatch: pytest.MonkeyPatch
):
    async def main() -> None:
        keys: Any = SimpleNamespace(keys=KeySet([KEY.public()]), out_of_touch_since=lambda: None)
        lane: Any = SimpleNamespace(upstream=SimpleNamespace(loop=asyncio.get_running_loop()))
        verifier = TokenVerifier(keys, issuer="x", audience=AUDIENCE, now=lambda: time.time())
        revocations = Revocations(lane.upstream, "secret")
        revocations.seen_at = time.time()
        identity = Identity(verifier, revocations, lane, "secret", frozenset())
        text = TokenIssuer(KEY, issuer="x", audience=AUDIENCE).issue(
            UUID(int=1, version=4), ["user"], session_id=SESSION, epoch=0
        )
        request = read_request(f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {text}\r\n\r\n".encode())
        assert request is not None
        fields = request.fields

        async def ask() -> object:
            return await identity.of("GET", fields, Action.READ_TASKS, secure=False, whose=lambda: "somebody")

        assert identity.known(fields, Action.READ_TASKS) is None
        shown = await ask()
        assert identity.known(fields, Action.READ_TASKS) is shown
        assert identity.known(fields, Action.PUBLIC) is identity.known(fields, Action.MANAGE_USERS) is None
        if change == "keys":
            keys.keys = KeySet([SigningKey.generate().public()])
        elif change == "revocations":
            revocations.known = type(revocations.known)(ended={SESSION: None})
        elif change == "time":
            late = time.time() + LIFETIME + SKEW + 1
            monkeypatch.setattr(time, "time", lambda: late)
        else:
            assert await ask() is not None
            return
        assert identity.known(fields, Action.READ_TASKS) is None
        with pytest.raises(InvalidToken):
            await ask()

    asyncio.run(main())
