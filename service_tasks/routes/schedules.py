"""Routes to schedules: parse, call, answer."""

from __future__ import annotations

from uuid import UUID

from service_tasks.errors import LimitReached, PayloadTooLarge, ScheduleNameTaken, ScheduleNotFound
from service_tasks.schemas.schedules import (
    ScheduleCreate,
    SchedulePage,
    ScheduleQuery,
    ScheduleUpdate,
    ScheduleView,
)
from service_tasks.schemas.tasks import TaskView
from service_tasks.use_cases.schedules import Schedules
from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.web.preconditions import IfMatch
from servicekit.web.routes import Answer, Routes


def schedule_routes(schedules: Schedules) -> Routes:
    """Declare the operations on schedules."""
    api = Routes("schedules")

    @api.post(
        "/schedules", action=Action.CHANGE_TASKS, status=201, errors=(ScheduleNameTaken, LimitReached, PayloadTooLarge)
    )
    def create_schedule(caller: Principal, body: ScheduleCreate) -> Answer[ScheduleView]:
        """Create a schedule, which makes tasks by cron, at an interval, or once at a date."""
        schedule = schedules.create(body, reach=caller.reach(Action.CHANGE_TASKS))
        return Answer(schedule, headers={"Location": f"/schedules/{schedule.id}"})

    @api.get("/schedules", action=Action.READ_TASKS, shared="by reach")
    def list_schedules(caller: Principal, query: ScheduleQuery) -> SchedulePage:
        """List schedules, the newest first."""
        return schedules.search(query, reach=caller.reach(Action.READ_TASKS))

    @api.get("/schedules/{id}", action=Action.READ_TASKS, errors=(ScheduleNotFound,), shared="by reach")
    def get_schedule(caller: Principal, id: UUID) -> ScheduleView:
        """Show one schedule."""
        return schedules.get(id, reach=caller.reach(Action.READ_TASKS))

    @api.put(
        "/schedules/{id}",
        action=Action.CHANGE_TASKS,
        errors=(ScheduleNotFound, ScheduleNameTaken, LimitReached, PayloadTooLarge),
    )
    def update_schedule(caller: Principal, id: UUID, body: ScheduleUpdate, if_match: IfMatch) -> ScheduleView:
        """Change a schedule.

        Naming cron, every or at replaces whichever there was. New times count from now.
        """
        return schedules.update(id, body, if_match, reach=caller.reach(Action.CHANGE_TASKS))

    @api.delete("/schedules/{id}", action=Action.CHANGE_TASKS, errors=(ScheduleNotFound,))
    def delete_schedule(caller: Principal, id: UUID, if_match: IfMatch) -> ScheduleView:
        """Remove a schedule; the tasks it has made stay."""
        return schedules.delete(id, if_match, reach=caller.reach(Action.CHANGE_TASKS))

    @api.post("/schedules/{id}/pause", action=Action.CHANGE_TASKS, errors=(ScheduleNotFound,))
    def pause_schedule(caller: Principal, id: UUID) -> ScheduleView:
        """Make no tasks until it is resumed."""
        return schedules.pause(id, reach=caller.reach(Action.CHANGE_TASKS))

    @api.post("/schedules/{id}/resume", action=Action.CHANGE_TASKS, errors=(ScheduleNotFound,))
    def resume_schedule(caller: Principal, id: UUID) -> ScheduleView:
        """Go on with the next run from now."""
        return schedules.resume(id, reach=caller.reach(Action.CHANGE_TASKS))

    @api.post("/schedules/{id}/run", action=Action.CHANGE_TASKS, status=201, errors=(ScheduleNotFound,))
    def run_schedule(caller: Principal, id: UUID) -> Answer[TaskView]:
        """Make a task at once, beside the planned runs, whatever the status."""
        task = schedules.run_now(id, reach=caller.reach(Action.CHANGE_TASKS))
        return Answer(task, headers={"Location": f"/tasks/{task.id}"})

    return api
