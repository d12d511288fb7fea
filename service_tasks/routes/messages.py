"""Routes to the messages that made no task. Rules and queries are elsewhere."""

from __future__ import annotations

from uuid import UUID

from service_tasks.errors import MessageIncomplete, MessageNotFound, PayloadTooLarge
from service_tasks.schemas.messages import RejectedMessagePage, RejectedMessageQuery, RejectedMessageView
from service_tasks.schemas.tasks import TaskView
from service_tasks.use_cases.messages import Messages
from servicekit.identity.roles import Action
from servicekit.web.routes import Answer, Routes


def message_routes(messages: Messages) -> Routes:
    """Declare the operations on rejected messages."""
    api = Routes("messages")

    @api.get("/tasks/rejected", action=Action.INSPECT_TASKS, shared="by reach")
    def list_rejected_messages(query: RejectedMessageQuery) -> RejectedMessagePage:
        """List messages from RabbitMQ that made no task, the newest first."""
        return messages.rejected(query)

    @api.get("/tasks/rejected/{id}", action=Action.INSPECT_TASKS, errors=(MessageNotFound,))
    def get_rejected_message(id: UUID) -> RejectedMessageView:
        """Get a rejected message with what was wrong with it."""
        return messages.get(id)

    @api.post(
        "/tasks/rejected/{id}/requeue",
        action=Action.OPERATE_TASKS,
        status=201,
        errors=(MessageNotFound, MessageIncomplete, PayloadTooLarge),
    )
    def requeue_rejected_message(id: UUID) -> Answer[TaskView]:
        """Read a rejected message once more, after its cause was mended; a good one leaves the list as a task."""
        task = messages.requeue(id)
        return Answer(task, headers={"Location": f"/tasks/{task.id}"})

    @api.delete("/tasks/rejected/{id}", action=Action.OPERATE_TASKS, errors=(MessageNotFound,))
    def delete_rejected_message(id: UUID) -> RejectedMessageView:
        """Forget a rejected message."""
        return messages.forget(id)

    return api
