"""The page for receivers of callbacks shows what is sent, and code that tells the genuine ones."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time

from service_tasks.domain.callback import signature
from service_tasks.persistence.task_ends import EndedTask
from servicekit.events.cloudevents import CloudEvent
from tests.support.markdown import CHECKOUT, Document

PAGE = Document(CHECKOUT / "docs" / "callbacks.md")


def blocks(language: str) -> list[str]:
    return [block.text for block in PAGE.blocks if block.language == language]


def test_the_event_on_the_page_is_one_as_they_are_sent() -> None:
    (shown,) = (json.loads(text) for text in blocks("json"))

    event = CloudEvent.model_validate_json(json.dumps(shown), strict=True)
    ended = EndedTask.model_validate(event.data)

    assert set(shown["data"]) == set(EndedTask.model_fields)
    assert (event.type, event.subject) == (f"task.{ended.status}", ended.id)
    for field in EndedTask.model_fields:
        assert re.search(rf"^\|.*`{field}`.*\|", PAGE.text, re.MULTILINE), field


def test_the_code_on_the_page_knows_a_genuine_callback() -> None:
    (code,) = blocks("python")
    names: dict = {}
    exec(code, names)
    is_genuine = names["is_genuine"]
    now, body = int(time.time()), b'{"id": "1"}'
    said = signature([b"new secret", b"old secret"], now, body)

    assert is_genuine(said, body, "new secret")
    assert is_genuine(said, body, "old secret")
    assert not is_genuine(said, body, "another secret")
    assert not is_genuine(said, body + b" ", "new secret")
    assert not is_genuine(signature([b"new secret"], now - 301, body), body, "new secret")
    # Whoever leaves the time out has signed something else.
    bare = hmac.new(b"new secret", b"." + body, hashlib.sha256).hexdigest()
    assert not is_genuine(f"v1={bare}", body, "new secret")
    assert not is_genuine("", body, "new secret")
