from pydantic import BaseModel, Field

from service_tasks.task_types import TaskContext, task_type


class Rooms(BaseModel):
    areas: list[float] = Field(min_length=1, description="square metres of wall, room by room")


@task_type("paint", payload=Rooms, timeout=60)
async def paint(ctx: TaskContext, payload: Rooms) -> dict[str, float]:
    """Tells how many litres of paint the rooms need, at 8 square metres to the litre."""
    litres = 0.0
    for number, area in enumerate(payload.areas, start=1):
        litres += area / 8
        ctx.progress(100 * number / len(payload.areas), f"room {number}")
    return {"litres": round(litres, 1)}
