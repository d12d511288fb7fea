"""What is asked of every stack, and whether all of them answer the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from benchmarks.load import NUMBER, Ask
from benchmarks.system.rows import CHANGED, NAME, PRODUCT, owners, row_id

#: Different rows that a work asks for.
_DIFFERENT = 100
#: Fields that only we have: what others lack is not compared.
OURS_ALONE = frozenset({"waiting_for", "obstacle", "omitted", "total_is_exact"})
#: Fields of a page that others count to the end.
_COUNTED = frozenset({"total", "total_amount"})
#: Fields of a row that was just made or changed, which nobody can have twice.
_OF_THE_MOMENT = frozenset({"id", "created_at", "updated_at", "execute_at"})


@dataclass(frozen=True, slots=True)
class StackWork:
    """Requests to one of the services; `asks` takes the number of rows and a word that no run before had."""

    title: str
    part: str
    asks: Callable[[int, str], list[Ask]]
    writes: bool = False


def _spread(count: int) -> Iterator[int]:
    """Numbers of rows from everywhere."""
    return (1 + at * count // _DIFFERENT for at in range(_DIFFERENT))


def _by_id(part: str) -> Callable[[int, str], list[Ask]]:
    return lambda count, _: [Ask("GET", f"/{part}/{row_id(number)}") for number in _spread(count)]


def _list(path: str) -> Callable[[int, str], list[Ask]]:
    return lambda count, _: [Ask("GET", path.format(last=max(min(count, 10_050) - 50, 0)))]


def _post(path: str, body: Callable[[int, str], list[Any]]) -> Callable[[int, str], list[Ask]]:
    return lambda count, word: [Ask("POST", path, json.dumps(one)) for one in body(count, word)]


def _put(part: str, body: Any) -> Callable[[int, str], list[Ask]]:
    def asks(count: int, word: str) -> list[Ask]:
        # A number is written without its quotation marks.
        text = json.dumps(body).replace(f'"{NUMBER}"', NUMBER)
        return [Ask("PUT", f"/{part}/{row_id(n)}", text) for n in range(1, min(count, CHANGED) + 1)]

    return asks


def _users(count: int, word: str) -> list[Any]:
    return [{"email": f"{word}.{NUMBER}@example.com", "name": f"{NAME} {word}"}]


def _items(quantity: Any = 10) -> list[Any]:
    return [
        {"product": PRODUCT, "quantity": quantity, "price": 52.5},
        {"product": f"{PRODUCT} 2", "quantity": 1, "price": 12.25},
    ]


def _orders(count: int, word: str) -> list[Any]:
    return [{"user_id": row_id(number), "items": _items()} for number in _spread(count)]


def _tasks(count: int, word: str) -> list[Any]:
    return [{"task_type": "noop", "payload": {"word": word}}]


SERVICES: dict[str, StackWork] = {
    "users-get": StackWork("GET /users/{id}", "users", _by_id("users")),
    "users-page": StackWork("GET /users, page of 50", "users", _list("/users?limit=50")),
    "users-create": StackWork("POST /users", "users", _post("/users", _users), writes=True),
    "users-update": StackWork("PUT /users/{id}", "users", _put("users", {"name": f"{NAME} {NUMBER}"}), writes=True),
    "orders-get": StackWork("GET /orders/{id}", "orders", _by_id("orders")),
    "orders-page": StackWork("GET /orders, page of 50", "orders", _list("/orders?limit=50")),
    "orders-create": StackWork("POST /orders", "orders", _post("/orders", _orders), writes=True),
    "orders-update": StackWork("PUT /orders/{id}", "orders", _put("orders", {"items": _items(NUMBER)}), writes=True),
    "tasks-get": StackWork("GET /tasks/{id}", "tasks", _by_id("tasks")),
    "tasks-page": StackWork("GET /tasks, page of 50", "tasks", _list("/tasks?limit=50")),
    "tasks-create": StackWork("POST /tasks", "tasks", _post("/tasks", _tasks), writes=True),
}
#: What may grow with the rows.
LISTS: dict[str, StackWork] = {
    "users-page": SERVICES["users-page"],
    "users-q": StackWork("GET /users?q=, one in a hundred", "users", _list("/users?limit=50&q=user77")),
    "users-q-all": StackWork("GET /users?q=, all", "users", _list(f"/users?limit=50&q={quote('ярослав')}")),
    "users-q-none": StackWork("GET /users?q=, nobody", "users", _list("/users?limit=50&q=nobody")),
    "users-offset": StackWork("GET /users, far offset", "users", _list("/users?limit=50&offset={last}")),
    "orders-page": SERVICES["orders-page"],
    "orders-filter": StackWork("GET /orders?status=", "orders", _list("/orders?limit=50&status=created")),
    "orders-user": StackWork("GET /orders?user_id=", "orders", _list(f"/orders?limit=50&user_id={row_id(1)}")),
    "orders-product": StackWork(
        "GET /orders?product=", "orders", _list(f"/orders?limit=50&product={quote('чокопай 99')}")
    ),
    "orders-offset": StackWork("GET /orders, far offset", "orders", _list("/orders?limit=50&offset={last}")),
    "tasks-page": SERVICES["tasks-page"],
    "tasks-filter": StackWork("GET /tasks?status=", "tasks", _list("/tasks?limit=50&status=completed")),
    "tasks-offset": StackWork("GET /tasks, far offset", "tasks", _list("/tasks?limit=50&offset={last}")),
}


def _details(count: int, word: str) -> list[Ask]:
    wanted = (1 + at % owners(count) for at in range(_DIFFERENT))
    return [Ask("GET", f"/users/{row_id(number)}/details") for number in wanted]


def mix(count: int, word: str) -> list[Ask]:
    """Of 20 requests 8 show a user, 4 a page, 3 make an order, 3 a task, and 2 ask for details."""
    shares = {"users-get": 8, "orders-page": 4, "orders-create": 3, "tasks-create": 3}
    lists = [(SERVICES[name].asks(count, word), share) for name, share in shares.items()]
    lists.append((_details(count, word), 2))
    asked = []
    for at in range(_DIFFERENT):
        for asks, share in lists:
            asked += [asks[(at * share + number) % len(asks)] for number in range(share)]
    # Seven has no divisor in common with their number: all come, well mixed.
    return [asked[at * 7 % len(asked)] for at in range(len(asked))]


SYSTEM: dict[str, StackWork] = {
    "user": SERVICES["users-get"],
    "orders": SERVICES["orders-page"],
    "create-order": SERVICES["orders-create"],
    "create-task": SERVICES["tasks-create"],
    "details": StackWork("GET /users/{id}/details", "users", _details),
    "mix": StackWork("the mix", "orders", mix, writes=True),
}


def differences(ours: Any, theirs: Any, *, writes: bool, at: str = "") -> list[str]:
    """Where another stack's answer is not ours; fields that only we have, and those of the moment, may differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        free = _OF_THE_MOMENT if writes else frozenset()
        if ours.get("total_is_exact") is False:
            free |= _COUNTED
        found = [f"{at}.{name}" for name in sorted((ours.keys() ^ theirs.keys()) - OURS_ALONE)]
        for name in sorted((ours.keys() & theirs.keys()) - free - OURS_ALONE):
            found += differences(ours[name], theirs[name], writes=writes, at=f"{at}.{name}")
        return found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [one for n, (a, b) in pairs for one in differences(a, b, writes=writes, at=f"{at}[{n}]")]
    return [] if ours == theirs else [f"{at} is {theirs!r} and not {ours!r}"]
