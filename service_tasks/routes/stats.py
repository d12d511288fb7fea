"""The route to the figures of the task service."""

from __future__ import annotations

from service_tasks.schemas.stats import TaskStatsView
from service_tasks.use_cases.stats import Stats
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.routes import Routes


def stats_routes(stats: Stats) -> Routes:
    """Declare the operation that shows the figures."""
    api = Routes("tasks")

    @api.get("/tasks/stats", action=Action.READ_TASKS, shared="by reach")
    def get_task_stats(caller: Principal) -> TaskStatsView:
        """Show how things stand: tasks by status and type, throughput, waiting and running times, and the workers."""
        return stats.show(reach=caller.reach(Action.READ_TASKS))

    return api
