"""What the task service, its workers, ingestion and streams may do with its tables."""

from servicekit.database.privileges import READ_AND_WRITE

PRIVILEGES = {
    "tasks": READ_AND_WRITE,
    "workers": READ_AND_WRITE,
    "task_type_controls": READ_AND_WRITE,
    "schedules": READ_AND_WRITE,
    "schedule_ticks": READ_AND_WRITE,
    "leaders": READ_AND_WRITE,
    "ingested_messages": READ_AND_WRITE,
    "rejected_messages": READ_AND_WRITE,
    "task_minutes": READ_AND_WRITE,
    "answered_keys": READ_AND_WRITE,
}
