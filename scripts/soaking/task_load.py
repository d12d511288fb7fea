"""Clients that create, cancel, retry and read tasks, and record their requests and answers."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from scripts.soaking.client import Caller, SoakReply
from scripts.soaking.noted_types import ASYNC, PLAIN

#: Requests a second of one client.
RATE = 6.0
#: An unclear creation must get its answer within this time after the last kill, in seconds.
_CLEAR_SECONDS = 40.0
_NEEDS = ("tasks",)
_KEPT = 60  # the newest tasks that a client cancels, retries and reads
_ENDED = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Act:
    """One cancel or retry by hand, carried out between `asked` and `answered`, wall-clock times.

    Whether it happened; None is unknown.
    """

    what: Literal["cancel", "retry"]
    asked: float
    answered: float
    done: bool | None


@dataclass(frozen=True, slots=True)
class Ending:
    """An end that a client was shown."""

    status: str
    attempts: int
    completed_at: str
    result: Any


@dataclass(slots=True)
class Wish:
    """One requested task. Its `label`, which is its title, is known before any answer."""

    label: str
    body: dict[str, Any]
    #: created together, all or none
    batch: str | None = None
    idempotency_key: str | None = None
    #: answered with 201
    id: str | None = None
    #: 201, but with the live task of another wish that has the same unique_key
    existing: bool = False
    #: an answer was lost or was a 5xx, and no later answer tells the outcome
    unclear: bool = False
    #: how often the request was repeated after an unclear answer, and whether an earlier attempt had made the task
    repeats: int = 0
    replayed: bool = False
    acts: list[Act] = field(default_factory=list)
    seen: Ending | None = None

    @property
    def unique_key(self) -> str | None:
        key: str | None = self.body.get("unique_key")
        return key

    @property
    def retried(self) -> bool:
        """Perhaps only."""
        return any(act.what == "retry" and act.done is not False for act in self.acts)


class TaskClient(Caller):
    """No other client touches its tasks, except those with a shared unique key."""

    def __init__(self, port: int, name: str, seed: str, stopped: threading.Event) -> None:
        super().__init__(port, seed, stopped, rate=RATE)
        self.wishes: list[Wish] = []
        #: Contradictions between answers.
        self.wrong: list[str] = []
        self._name = name
        self._number = 0
        #: with an Idempotency-Key, and not yet answered
        self._unanswered: list[Wish] = []

    def act(self) -> None:
        if self._unanswered and self._random.random() < 0.5:
            self._create(self._unanswered.pop(0))
        else:
            moves, weights = zip(*_MOVES, strict=True)
            self._random.choices(moves, weights)[0](self)

    def finish(self) -> None:
        until = time.monotonic() + _CLEAR_SECONDS
        while self._unanswered and time.monotonic() < until:
            self._create(self._unanswered.pop(0))

    # Creating tasks.

    def _body(self, label: str) -> dict[str, Any]:
        """A task of some kind, without keys, batch or execute_at."""
        dice = self._random
        payload: dict[str, Any] = {"seconds": dice.choice(_SECONDS)}
        body: dict[str, Any] = {"title": label, "task_type": dice.choice([ASYNC, ASYNC, PLAIN]), "payload": payload}
        match dice.choices(["works", "fails first", "fails always", "gives up", "overruns"], [70, 16, 5, 5, 4])[0]:
            case "works":
                body["max_attempts"] = dice.choice([3, 25])
            case "fails first":
                payload["failures"] = dice.choice([1, 1, 2])
                payload["retry_after"] = dice.choice([None, None, 0.3])
                body["max_attempts"] = dice.choice([3, 5, 25])
            case "fails always":
                payload["failures"] = 25
                body["max_attempts"] = dice.choice([1, 2, 3])
            case "gives up":
                payload["gives_up"] = True
            case "overruns":
                payload["seconds"] = 4.0
                body |= {"timeout": 0.5, "max_attempts": 2}
        if dice.random() < 0.2:
            body["priority"] = dice.randint(0, 100)
        return body

    def _wish(self, **more: Any) -> Wish:
        self._number += 1
        label = f"{self._name}.{self._number}"
        wish = Wish(label, {**self._body(label), **more})
        self.wishes.append(wish)
        return wish

    def _soon(self) -> str:
        """A moment some seconds ahead: before, during or after the next outage, and beyond a request's limit."""
        moment = datetime.fromtimestamp(time.time() + self._random.uniform(8, 25), UTC)
        return moment.isoformat()

    def create(self) -> None:
        self._create(self._wish())

    def create_for_later(self) -> None:
        self._create(self._wish(execute_at=self._soon()))

    def create_with_key(self) -> None:
        wish = self._wish(**({"execute_at": self._soon()} if self._random.random() < 0.3 else {}))
        wish.idempotency_key = uuid.uuid4().hex
        self._create(wish)

    def create_unique(self) -> None:
        # A few keys for all clients, so that most of them are taken.
        self._create(self._wish(unique_key=f"key {self._random.randint(1, 12)}"))

    def _create(self, wish: Wish) -> None:
        expect = [201]
        if "execute_at" in wish.body and wish.repeats:
            # If no earlier attempt made it, its execute_at may have passed meanwhile.
            expect.append(400)
        reply = self._post("/tasks", wish.body, expect, wish.idempotency_key)
        if reply.is_clear:
            # A 201 settles it: with a key it covers earlier attempts, and without one there were none.
            wish.unclear = wish.unclear and reply.status != 201
        else:
            wish.unclear = True
        if reply.data is not None:
            wish.id = reply.data["id"]
            wish.existing = "Existing-Task" in reply.fields
            wish.replayed = "Idempotency-Replayed" in reply.fields
        elif not reply.is_clear and wish.idempotency_key is not None:
            wish.repeats += 1
            self._unanswered.append(wish)

    def create_again(self) -> None:
        """Repeat key and body long after the answer: the same task."""
        wish = self._recent(lambda one: one.idempotency_key is not None and one.id is not None)
        if wish is not None:
            reply = self._post("/tasks", wish.body, [201], wish.idempotency_key)
            if reply.data is not None and reply.data["id"] != wish.id:
                self.wrong.append(f"{wish.label}: the same key gave {wish.id}, and later {reply.data['id']}")

    def create_other(self) -> None:
        """Repeat a key with another body: refused."""
        wish = self._recent(lambda one: one.idempotency_key is not None and one.id is not None)
        if wish is not None:
            self._post("/tasks", {**wish.body, "title": "another"}, [409], wish.idempotency_key)

    def create_batch(self) -> None:
        self._number += 1
        batch = f"{self._name}.{self._number}"
        wishes = []
        for place in range(self._random.choice([2, 10, 10, 50, 150])):
            label = f"{batch}.{place}"
            wishes.append(Wish(label, self._body(label), batch=batch))
            if self._random.random() < 0.1:
                wishes[-1].body["execute_at"] = self._soon()
        self.wishes += wishes
        reply = self._post("/tasks/batch", {"tasks": [wish.body for wish in wishes]}, [201])
        for place, wish in enumerate(wishes):
            wish.unclear = not reply.is_clear
            if reply.data is not None:
                wish.id = reply.data["ids"][place]

    def _post(self, path: str, body: dict[str, Any], expect: Sequence[int], key: str | None = None) -> SoakReply:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.send("POST", path, body, needs=_NEEDS, expect=expect, headers=headers)

    # Using them.

    def _recent(self, wanted: Callable[[Wish], bool]) -> Wish | None:
        newest = [wish for wish in self.wishes[-_KEPT:] if wanted(wish)]
        return self._random.choice(newest) if newest else None

    def _mine(self, wish: Wish) -> bool:
        return wish.id is not None and wish.unique_key is None

    def cancel(self) -> None:
        wish = self._recent(self._mine)
        if wish is not None:
            asked = time.time()
            reply = self.send(
                "DELETE", f"/tasks/{wish.id}", needs=_NEEDS, expect=[200, 404], route="/tasks/{id}",
                promised={"status": "cancelled"},
            )  # fmt: skip
            wish.acts.append(Act("cancel", asked, time.time(), reply.status == 200 if reply.is_clear else None))

    def retry(self) -> None:
        wish = self._recent(
            lambda one: self._mine(one) and (bool(one.acts) or (one.seen is not None and one.seen.status == "failed"))
        )
        if wish is not None:
            asked = time.time()
            reply = self.send(
                "POST", f"/tasks/{wish.id}/retry", needs=_NEEDS, expect=[200, 409], route="/tasks/{id}/retry"
            )
            done = reply.status == 200 if reply.is_clear else None
            wish.acts.append(Act("retry", asked, time.time(), done))
            if done is not False:
                wish.seen = None

    def read(self) -> None:
        wish = self._recent(self._mine)
        if wish is not None:
            reply = self.send(
                "GET", f"/tasks/{wish.id}", needs=_NEEDS, expect=[200], route="/tasks/{id}",
                promised={"title": wish.label},
            )  # fmt: skip
            if reply.data is not None and reply.data["status"] in _ENDED:
                wish.seen = wish.seen or Ending(*(reply.data[name] for name in Ending.__slots__))

    def list_tasks(self) -> None:
        limit = self._random.randint(1, 50)
        self.send("GET", f"/tasks?limit={limit}", needs=_NEEDS, expect=[200], route="/tasks")


#: How long tasks work, in seconds; the long ones meet most of the kills.
_SECONDS = (0.0, 0.0, 0.0, 0.0, 0.05, 0.05, 0.3, 0.3, 1.0, 6.0)
#: The moves of a client, and their weights.
_MOVES: Sequence[tuple[Callable[[TaskClient], None], int]] = (
    (TaskClient.create, 20),
    (TaskClient.create_with_key, 20),
    (TaskClient.create_for_later, 8),
    (TaskClient.create_unique, 8),
    (TaskClient.create_batch, 3),
    (TaskClient.create_again, 3),
    (TaskClient.create_other, 2),
    (TaskClient.cancel, 12),
    (TaskClient.retry, 8),
    (TaskClient.read, 12),
    (TaskClient.list_tasks, 2),
)
