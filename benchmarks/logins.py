"""Access tokens for the load, and who publishes the keys of them where no users service runs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

from benchmarks.load import Ask
from servicekit.identity.enforcement import KEYS_PATH
from servicekit.identity.keys import SigningKey
from servicekit.identity.roles import Role
from servicekit.identity.tokens import LIFETIME, TokenIssuer
from servicekit.process.ids import new_id

ISSUER = "siteworks"
GATEWAY_TOKEN = "the gateway of a benchmark alone"
_ADMINISTRATOR = UUID(int=1, version=4)


class Logins:
    """Sessions of an administrator, each with an access token."""

    def __init__(self, issuer: TokenIssuer, count: int) -> None:
        self._issuer = issuer
        self._count = count
        self._made: list[str] = []
        self._made_at = float("-inf")

    def tokens(self) -> list[str]:
        """The same until the half of their lives has passed: clients use each for many requests."""
        if time.monotonic() > self._made_at + LIFETIME / 2:
            issue = partial(self._issuer.issue, _ADMINISTRATOR, [Role.ADMIN], epoch=0)
            self._made = [issue(session_id=new_id()) for _ in range(self._count)]
            self._made_at = time.monotonic()
        return self._made

    def forged(self) -> list[str]:
        """As many whose signature alone is wrong, each another one."""
        return [f"{token[:-8]}{number:08}" for number, token in enumerate(self.tokens())]


def with_tokens(asks: Sequence[Ask], tokens: Sequence[str]) -> list[Ask]:
    """The requests in turn, each with the next token."""
    count = max(len(asks), len(tokens))
    return [asks[at % len(asks)]._replace(token=tokens[at % len(tokens)]) for at in range(count)]


class KeyServer:
    """The users service, as far as a gateway asks it by itself: keys, and that nothing is revoked."""

    def __init__(self, key: SigningKey) -> None:
        nothing = {"success": True, "data": {"sessions": [], "keys": [], "users": {}}}
        pages = {KEYS_PATH: {"keys": [key.public()]}, "/internal/revocations": nothing}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = json.dumps(pages.get(self.path, {"success": True, "data": {}})).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
