"""Task types of a package that an operator might install."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service_tasks.task_types import GiveUp, RetryPolicy, TaskContext, task_type


class Lift(BaseModel):
    """What to lift, and how high."""

    model_config = ConfigDict(extra="forbid")

    load: str = Field(min_length=1)
    metres: float = Field(gt=0, le=60, description="height above the ground")


class Lifted(BaseModel):
    """What came of it."""

    load: str
    seconds: float


@task_type(
    "crane_lift",
    payload=Lift,
    result=Lifted,
    timeout=120,
    max_attempts=2,
    retry=RetryPolicy(base_seconds=1, factor=1.5, cap_seconds=10, jitter=0.1),
    max_running=4,
    max_running_per_user=1,
)
async def crane_lift(ctx: TaskContext, payload: Lift) -> Lifted:
    """Lifts a load at half a metre a second."""
    ctx.progress(50, "on the hook")
    return Lifted(load=payload.load, seconds=payload.metres * 2)


@task_type("crane_check")
def crane_check(ctx: TaskContext, payload: object) -> None:
    """Looks whether the crane may work at all."""
    raise GiveUp("the wind is too strong")
