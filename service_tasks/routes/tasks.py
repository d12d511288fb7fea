"""Routes to tasks: parse, call, answer. Rules and queries are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from service_tasks.domain.task import MAX_TASK_TYPE_CHARACTERS
from service_tasks.errors import (
    LimitReached,
    PayloadTooLarge,
    TaskNotFinished,
    TaskNotFound,
    TaskStateConflict,
    TaskTypeNotFound,
    UniqueKeyTaken,
)
from service_tasks.schemas.tasks import (
    DeleteQuery,
    TaskBatchCreate,
    TaskBatchView,
    TaskCreate,
    TaskFilter,
    TaskPage,
    TaskQuery,
    TaskResultView,
    TaskShow,
    TaskStatusView,
    TaskTypesView,
    TaskTypeUpdate,
    TaskTypeView,
    TaskView,
)
from service_tasks.use_cases.tasks import Tasks
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.idempotency import HEADERS, IDEMPOTENCY_KEY, checked_key, replay_headers
from servicekit.web.routes import Answer, Routes
from servicekit.web.schemas import PageQuery
from servicekit.wire.errors import IdempotencyKeyReused, Invalid

#: bytes; the gateway's row for the path has the same
BATCH_BODY_LIMIT = 16 * 1024 * 1024


def _idempotency_key(headers: Mapping[str, str | None]) -> str | None:
    key = headers[IDEMPOTENCY_KEY]
    return None if key is None else checked_key(key)


def _type_name(text: str) -> str:
    if "\0" in text or not 1 <= len(text) <= MAX_TASK_TYPE_CHARACTERS:
        raise Invalid.field("name", f"must be 1 to {MAX_TASK_TYPE_CHARACTERS} characters")
    return text


def task_routes(tasks: Tasks) -> Routes:
    """Declare the operations on tasks."""
    api = Routes("tasks")

    @api.post(
        "/tasks",
        action=Action.CHANGE_TASKS,
        status=201,
        errors=(IdempotencyKeyReused, PayloadTooLarge, UniqueKeyTaken),
        body_may_be_empty=True,
        headers=HEADERS,
    )
    def create_task(caller: Principal, body: TaskCreate, headers: Mapping[str, str | None]) -> Answer[TaskView]:
        """Create a task.

        An empty body makes a task of the default type that runs now. A repeated Idempotency-Key answers with
        the task made before and `Idempotency-Replayed: true`; a `unique_key` that a pending or processing task has
        already, with that task and `Existing-Task: true`.
        """
        created = tasks.create(body, idempotency_key=_idempotency_key(headers), reach=caller.reach(Action.CHANGE_TASKS))
        fields = {"Location": f"/tasks/{created.task.id}", **replay_headers(created.replayed)}
        if created.existing:
            fields["Existing-Task"] = "true"
        return Answer(created.task, headers=fields)

    @api.post(
        "/tasks/batch",
        action=Action.CHANGE_TASKS,
        status=201,
        errors=(PayloadTooLarge, UniqueKeyTaken),
        body_limit=BATCH_BODY_LIMIT,
    )
    def create_tasks(caller: Principal, body: TaskBatchCreate) -> TaskBatchView:
        """Create up to 10,000 tasks together.

        All or nothing, in one transaction; an error names the place of the bad one, such as `tasks.17.priority`.
        """
        return tasks.create_many(body.tasks, reach=caller.reach(Action.CHANGE_TASKS))

    @api.get("/tasks", action=Action.READ_TASKS, shared="by reach")
    def list_tasks(caller: Principal, query: TaskQuery) -> TaskPage:
        """List tasks, the newest first."""
        return tasks.search(query, user_id=query.user_id, reach=caller.reach(Action.READ_TASKS))

    @api.get("/tasks/{id}", action=Action.READ_TASKS, errors=(TaskNotFound,), shared="by reach")
    def get_task(caller: Principal, id: UUID, query: TaskShow) -> TaskView:
        """Show one task; with `?trace=true`, the tracebacks of its failed attempts too."""
        return tasks.get(id, trace=query.trace, light=query.light, reach=caller.reach(Action.READ_TASKS))

    @api.get("/tasks/{id}/status", action=Action.READ_TASKS, errors=(TaskNotFound,))
    def get_task_status(caller: Principal, id: UUID) -> TaskStatusView:
        """Show how a task stands and how long it has taken."""
        return tasks.status(id, reach=caller.reach(Action.READ_TASKS))

    @api.get("/tasks/{id}/result", action=Action.READ_TASKS, errors=(TaskNotFound, TaskNotFinished))
    def get_task_result(caller: Principal, id: UUID) -> TaskResultView:
        """Show how a task ended; a failed or cancelled one has no result but says why."""
        return tasks.result(id, reach=caller.reach(Action.READ_TASKS))

    @api.delete("/tasks/{id}", action=Action.CHANGE_TASKS, errors=(TaskNotFound,))
    def cancel_task(caller: Principal, id: UUID, query: DeleteQuery) -> TaskView:
        """Cancel a pending or processing task.

        The task is cancelled at once, and its handler stopped; one that has ended is 404. `?purge=true`
        removes the record of any task, cancelling a live one first.
        """
        reach = caller.reach(Action.CHANGE_TASKS)
        return tasks.purge(id, reach=reach) if query.purge else tasks.cancel(id, reach=reach)

    @api.post("/tasks/{id}/retry", action=Action.CHANGE_TASKS, errors=(TaskNotFound, TaskStateConflict, UniqueKeyTaken))
    def retry_task(caller: Principal, id: UUID) -> TaskView:
        """Run a failed or cancelled task again, with all its attempts."""
        return tasks.retry(id, reach=caller.reach(Action.CHANGE_TASKS))

    @api.get("/users/{id}/tasks", action=Action.READ_TASKS)
    def list_user_tasks(caller: Principal, id: UUID, query: TaskFilter) -> TaskPage:
        """List one user's tasks, the newest first."""
        return tasks.search(query, user_id=id, reach=caller.reach(Action.READ_TASKS))

    @api.get("/task-types", action=Action.READ_TASKS, shared="by reach")
    def list_task_types(query: PageQuery) -> TaskTypesView:
        """List the kinds of tasks, with the JSON Schema of each one's payload and result."""
        return tasks.types(limit=query.limit, offset=query.offset)

    settings_errors = (TaskTypeNotFound, LimitReached)

    @api.put("/task-types/{name}", action=Action.OPERATE_TASKS, errors=settings_errors)
    def update_task_type(name: str, body: TaskTypeUpdate) -> TaskTypeView:
        """Limit how many tasks of a type run at once, on all workers together."""
        return tasks.limit(_type_name(name), body)

    @api.delete("/task-types/{name}", action=Action.OPERATE_TASKS, errors=(TaskTypeNotFound,))
    def forget_task_type_settings(name: str) -> TaskTypeView:
        """Forget the pause and the limits of a type, which remains; the answer shows it as it was."""
        return tasks.forget_settings(_type_name(name))

    @api.post("/task-types/{name}/pause", action=Action.OPERATE_TASKS, errors=settings_errors)
    def pause_task_type(name: str) -> TaskTypeView:
        """Start no more tasks of a type; running ones go on."""
        return tasks.pause(_type_name(name))

    @api.post("/task-types/{name}/resume", action=Action.OPERATE_TASKS, errors=settings_errors)
    def resume_task_type(name: str) -> TaskTypeView:
        """Start tasks of a paused type again."""
        return tasks.resume(_type_name(name))

    return api
