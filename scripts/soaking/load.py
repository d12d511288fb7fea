"""The mixed load: clients with a kept connection, a steady rate and a record of the promised state."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.soaking.client import Caller
from scripts.soaking.records import NotedAnswer

#: Requests a second of one client: well below what two cores can do, so that latencies are meaningful.
RATE = 10.0
_USERS, _ORDERS, _TASKS = ("users",), ("orders",), ("tasks",)
_KEPT = 400  # things of each kind that a client goes on using; the others are only checked at the end


@dataclass
class Books:
    """The promised state of each thing, by id. No other client touches these things.

    A thing whose change got no answer is removed: the change may or may not have happened.
    """

    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def forget(self, path: str) -> None:
        """Remove the thing at a path, if there is one."""
        name = path.rpartition("/")[2]
        for book in (self.users, self.orders, self.tasks):
            book.pop(name, None)


class MixedClient(Caller):
    """One client of the mixed load, and its books."""

    def __init__(self, port: int, seed: str, stopped: threading.Event) -> None:
        super().__init__(port, seed, stopped, rate=RATE)
        self.books = Books()

    def act(self) -> None:
        moves, weights = zip(*_MOVES, strict=True)
        self._random.choices(moves, weights)[0](self)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        needs: tuple[str, ...],
        expect: Sequence[int],
        route: str = "",
        content: bytes | None = None,
        promised: dict[str, Any] | None = None,
    ) -> Any:
        """Send one request and return the data of a 2xx, else None. A thing is forgotten if its change got no clear
        answer."""
        reply = self.send(
            method, path, body, needs=needs, expect=expect, route=route, content=content, promised=promised
        )
        if method in {"PUT", "DELETE"} and not reply.is_clear:
            self.books.forget(path)
        return reply.data

    def one_of(self, book: dict[str, dict[str, Any]]) -> str | None:
        """The id of one of the newest things."""
        newest = list(book)[-_KEPT:]
        return self._random.choice(newest) if newest else None

    # Its moves.

    def create_user(self) -> None:
        wanted = {"email": f"{uuid.uuid4().hex}@example.com", "name": self._random.choice(_NAMES)}
        made = self.ask("POST", "/users", wanted, needs=_USERS, expect=[201], promised=wanted)
        if made:
            self.books.users[made["id"]] = wanted

    def create_order(self) -> None:
        user = self.one_of(self.books.users)
        if user is None:
            return self.create_user()
        quantity = self._random.randint(1, 50)
        items = [{"product": "Чокопай", "quantity": quantity, "price": 52.25}]
        total = f"{quantity * 52.25:.2f}"
        wanted = {"user_id": user, "total_amount": total}
        made = self.ask(
            "POST",
            "/orders",
            {"user_id": user, "items": items},
            needs=("orders", "users"),
            expect=[201],
            promised=wanted,
        )
        if made:
            self.books.orders[made["id"]] = {**wanted, "status": "created"}
        return None

    def create_task(self) -> None:
        seconds = self._random.choice([0, 0, 0.05, 0.5, 2])
        kind = {"task_type": "io", "payload": {"seconds": seconds}} if seconds else {"task_type": "noop"}
        wanted = {**kind, "title": self._random.choice(_NAMES), "max_attempts": 25}
        made = self.ask("POST", "/tasks", wanted, needs=_TASKS, expect=[201], promised={"title": wanted["title"]})
        if made:
            self.books.tasks[made["id"]] = {"title": wanted["title"], "task_type": wanted["task_type"]}

    def read_user(self) -> None:
        self._read("users", self.books.users)

    def read_order(self) -> None:
        self._read("orders", self.books.orders)

    def read_task(self) -> None:
        self._read("tasks", self.books.tasks, self._random.choice(["", "", "/status"]))

    def _read(self, kind: str, book: dict[str, dict[str, Any]], part: str = "") -> None:
        name = self.one_of(book)
        if name is not None:
            alias = self._random.choice(["", "", "", "/api/v1"])
            self.ask(
                "GET",
                f"{alias}/{kind}/{name}{part}",
                needs=(kind,),
                expect=[200],
                route=f"/{kind}/{{id}}{part}",
                promised=None if part else book[name],
            )

    def list_things(self) -> None:
        kind = self._random.choice(["users", "orders", "tasks"])
        self.ask("GET", f"/{kind}?limit={self._random.randint(1, 50)}", needs=(kind,), expect=[200])

    def tasks_of_user(self) -> None:
        user = self.one_of(self.books.users)
        if user is not None:
            self.ask("GET", f"/users/{user}/tasks", needs=_TASKS, expect=[200], route="/users/{id}/tasks")

    def details(self) -> None:
        user = self.one_of(self.books.users)
        if user is None:
            return
        # Without the orders service the answer is partial; only users is needed.
        found = self.ask("GET", f"/users/{user}/details", needs=_USERS, expect=[200], route="/users/{id}/details")
        if found and found["user"]["id"] != user:
            self._note_wrong("/users/{id}/details", "another user's data")

    def update_user(self) -> None:
        user = self.one_of(self.books.users)
        if user is not None:
            name = f"{self._random.choice(_NAMES)} {self._random.randint(1, 999)}"
            path = f"/users/{user}"
            promised = {"name": name}
            if self.ask("PUT", path, promised, needs=_USERS, expect=[200], route="/users/{id}", promised=promised):
                self.books.users[user]["name"] = name

    def advance_order(self) -> None:
        order = self.one_of(self.books.orders)
        if order is None:
            return
        now = self.books.orders[order]["status"]
        then = {"created": "in_progress", "in_progress": "completed"}.get(now)
        if then is None:
            # A step back is refused and changes nothing.
            back = {"status": "created"}
            self.ask("PUT", f"/orders/{order}", back, needs=_ORDERS, expect=[409], route="/orders/{id}")
        elif self.ask(
            "PUT", f"/orders/{order}", {"status": then}, needs=_ORDERS, expect=[200], route="/orders/{id}",
            promised={"status": then},
        ):  # fmt: skip
            self.books.orders[order]["status"] = then

    def delete_order(self) -> None:
        order = self.one_of(self.books.orders)
        if order is not None and self.books.orders[order]["status"] == "created":
            self.ask("DELETE", f"/orders/{order}", needs=_ORDERS, expect=[200], route="/orders/{id}")
            self.books.orders.pop(order, None)

    def delete_user(self) -> None:
        # A separate user, so that no recorded order loses its user.
        wanted = {"email": f"{uuid.uuid4().hex}@example.com", "name": "Þórdís"}
        made = self.ask("POST", "/users", wanted, needs=_USERS, expect=[201])
        if made:
            path = f"/users/{made['id']}"
            if self.ask("DELETE", path, needs=_USERS, expect=[200], route="/users/{id}", promised=wanted):
                self.ask("GET", path, needs=_USERS, expect=[404], route="/users/{id}")

    def cancel_task(self) -> None:
        wanted = {"execute_at": "2199-01-01T00:00:00Z"}
        made = self.ask("POST", "/tasks", wanted, needs=_TASKS, expect=[201])
        if made:
            self.ask("DELETE", f"/tasks/{made['id']}", needs=_TASKS, expect=[200], route="/tasks/{id}")

    def send_bad_input(self) -> None:
        method, path, content, status, needs = self._random.choice(_BAD_INPUT)
        self.ask(method, path, content=content, needs=needs, expect=[status])

    def look_at_pages(self) -> None:
        page = self._random.choice(["/health", "/health", "/status", "/readyz", "/livez", "/metrics", "/openapi.json"])
        self.ask("GET", page, needs=(), expect=[200])

    def ask_without_body(self) -> None:
        method, expect = self._random.choice([("HEAD", 200), ("OPTIONS", 204)])
        self.ask(method, "/users", needs=_USERS if method == "HEAD" else (), expect=[expect])

    def _note_wrong(self, route: str, said: str) -> None:
        now = time.monotonic()
        self.answers.append(NotedAnswer(now, now, "GET", route, (), 200, expected=False, said=said))


_NAMES = ("Белов Ярослав", "Ngô Thị Thanh Hằng", "渡辺 直美", "محمد الأحمد", "Zoë O'Hara-Müller", "ᐊᓐᓂ ᐱᑕ")
_BAD_INPUT: Sequence[tuple[str, str, bytes | None, int, tuple[str, ...]]] = (
    ("POST", "/users", b"{", 400, _USERS),
    ("POST", "/users", b'{"email": "nobody", "name": ""}', 400, _USERS),
    ("POST", "/users", b'{"email": "a@example.com", "name": "a", "colour": "blue"}', 400, _USERS),
    ("GET", "/users/not-an-id", None, 400, _USERS),
    ("POST", "/orders", b'{"user_id": 7, "items": []}', 400, _ORDERS),
    ("GET", "/orders?limit=many", None, 400, _ORDERS),
    ("POST", "/tasks", b'{"priority": 1000}', 400, _TASKS),
    ("GET", "/tasks/01930000-0000-7000-8000-000000000000", None, 404, _TASKS),
    ("GET", "/nothing-of-ours", None, 404, ()),
    ("PATCH", "/users", b"{}", 405, ()),
    ("GET", "/users/%2e%2e/admin", None, 400, ()),
    ("POST", "/orders", b" " * 1_100_000, 413, ()),
)
#: The moves of a client, and their weights.
_MOVES: Sequence[tuple[Callable[[MixedClient], None], int]] = (
    (MixedClient.read_user, 18),
    (MixedClient.read_order, 14),
    (MixedClient.read_task, 12),
    (MixedClient.list_things, 6),
    (MixedClient.tasks_of_user, 2),
    (MixedClient.details, 8),
    (MixedClient.create_user, 6),
    (MixedClient.create_order, 8),
    (MixedClient.create_task, 8),
    (MixedClient.update_user, 5),
    (MixedClient.advance_order, 4),
    (MixedClient.delete_order, 2),
    (MixedClient.delete_user, 1),
    (MixedClient.cancel_task, 1),
    (MixedClient.send_bad_input, 4),
    (MixedClient.look_at_pages, 3),
    (MixedClient.ask_without_body, 2),
)
