"""Run a handler of your own in a test: no database, no worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from service_tasks.domain.task import DEFAULT_MAX_ATTEMPTS, ClaimedTask, Lease, Progress
from service_tasks.engine.context import TaskContext
from service_tasks.engine.registry import TaskType
from servicekit.process.ids import new_id
from servicekit.process.settings import Settings
from servicekit.wire.envelope import dump


def run_once(
    kind: TaskType,
    payload: Any = None,
    *,
    attempt: int = 1,
    max_attempts: int | None = None,
    settings: Settings | None = None,
    cancelled: bool = False,
    on_progress: Callable[[int, str | None], None] = lambda percent, message: None,
) -> Any:
    """Run one attempt as a worker would, and return its result as decoded from JSON.

    `payload` is what a client would send, `{}` by default. `cancelled` asks the handler to stop before it starts: a
    plain function finds `ctx.cancelled` set, an async one is cancelled at its first `await`. No timeout applies.

    Raises `pydantic.ValidationError` for a payload that the API would answer with 400, `BadResult` for a result that
    the model refuses, and whatever the handler raises.
    """
    bound = kind if settings is None else kind.with_settings(settings)
    text = dump({} if payload is None else payload)
    claimed = ClaimedTask(
        lease=Lease(new_id(), 1),
        task_type=kind.name,
        payload=text.decode("utf-8"),
        attempt=attempt,
        max_attempts=max_attempts or kind.max_attempts or DEFAULT_MAX_ATTEMPTS,
        timeout_seconds=kind.timeout_seconds,
        claimed_at=datetime.now(UTC),
    )

    def report(progress: Progress) -> None:
        on_progress(progress.percent, progress.message)

    context = TaskContext(claimed, report)
    if cancelled:
        context._request_stop()
    parsed = bound.parse(text)
    result = asyncio.run(_run(bound, context, parsed)) if bound.is_async else bound.function(context, parsed)
    return json.loads(dump(bound.checked_result(result)))


async def _run(kind: TaskType, context: TaskContext, payload: Any) -> Any:
    handler = asyncio.ensure_future(kind.function(context, payload))
    if context.cancelled:
        # After its first step, as for a running handler.
        asyncio.get_running_loop().call_soon(handler.cancel)
    return await handler
