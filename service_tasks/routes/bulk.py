"""Routes to many tasks at once. Rules and queries are elsewhere."""

from __future__ import annotations

from service_tasks.schemas.bulk import CancelMany, ManyCancelledView, ManyRetriedView, RetryMany
from service_tasks.use_cases.bulk import Bulk
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.routes import Routes


def bulk_routes(bulk: Bulk) -> Routes:
    """Declare the operations on many tasks."""
    api = Routes("tasks")

    @api.post("/tasks/cancel", action=Action.OPERATE_TASKS)
    def cancel_tasks(caller: Principal, body: CancelMany) -> ManyCancelledView:
        """Cancel the pending and processing tasks that fit a filter, as `DELETE /tasks/{id}` does each.

        In batches, each whole; `next` tells where to go on when more fit than the limit, or the time was up.
        """
        return bulk.cancel(body, reach=caller.reach(Action.OPERATE_TASKS))

    @api.post("/tasks/retry", action=Action.OPERATE_TASKS)
    def retry_tasks(caller: Principal, body: RetryMany) -> ManyRetriedView:
        """Run the failed tasks that fit a filter again, as `POST /tasks/{id}/retry` does each.

        Cancelled ones when `status` says so. In batches, each whole; `next` tells where to go on when more fit than the
        limit, or the time was up.
        """
        return bulk.retry(body, reach=caller.reach(Action.OPERATE_TASKS))

    return api
