"""The settings of the task service and its other processes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from service_tasks.domain.destinations import AllowedHost, hosts_text, read_allowed_hosts
from service_tasks.domain.task import ENDED_STATES
from servicekit.process.settings import (
    Bind,
    BrokerUrl,
    CallerSettings,
    DatabaseUrl,
    ServerSettings,
    ServiceSettings,
    Settings,
    WebServiceSettings,
)

BUILT_IN_MODULES = tuple(
    f"service_tasks.task_types.{name}"
    for name in ("account_mail", "callback", "http_request", "io", "noop", "send_email")
)


def _module_names(value: str) -> str:
    for name in _split(value):
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError("write it as module,package.module")
    return value


def _task_events(value: str) -> str:
    if not {*_split(value)} <= {state.value for state in ENDED_STATES}:
        raise ValueError("write it as completed,failed,cancelled, or some of these")
    return value


def _split(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


Days = Annotated[float, Field(ge=0, le=36_500)]


class TypeSettings(Settings):
    """The task types that there are."""

    task_modules: Annotated[str, AfterValidator(_module_names)] = Field(
        default="",
        description="importable modules with task types of your own, separated by commas. The service and ingestion "
        "check payloads with them, the workers run them",
    )

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules with task types: the built-in ones and those of TASK_MODULES."""
        return (*BUILT_IN_MODULES, *_split(self.task_modules))


class MakerSettings(TypeSettings):
    """What new tasks may be."""

    callback_hosts: Annotated[str, AfterValidator(hosts_text)] = Field(
        default="",
        description="hosts that a callback_url may name, separated by commas: site.example.com, *.example.org, "
        "crane.local:8080. Without a port, 80 of http and 443 of https are meant. Empty: nobody is called back. A "
        "worker that has it needs a secret too",
    )

    @property
    def allowed_callback_hosts(self) -> tuple[AllowedHost, ...]:
        """CALLBACK_HOSTS, read."""
        return read_allowed_hosts(self.callback_hosts)


class TaskTypeSettings(ServiceSettings, TypeSettings):
    """What processes that know task types read."""

    tasks_database_url: DatabaseUrl = Field(description="where the tasks database is")


class TaskMakerSettings(TaskTypeSettings, MakerSettings):
    """What processes that make tasks for others read."""


class TaskEventSettings(TaskTypeSettings):
    """What processes in which tasks end read."""

    task_events: Annotated[str, AfterValidator(_task_events)] = Field(
        default="",
        description="which ends of tasks become events: completed, failed, cancelled, separated by commas. Each costs "
        "rows",
    )

    @property
    def event_states(self) -> tuple[str, ...]:
        """The states of TASK_EVENTS."""
        return _split(self.task_events)


class TasksSettings(TaskEventSettings, TaskMakerSettings, WebServiceSettings):
    """Settings of the task service."""

    process: ClassVar[str] = "tasks"

    tasks_bind: Bind = Field(default="127.0.0.1:8003", description="where the task service listens")
    schedules_limit: int = Field(default=10_000, ge=1, le=1_000_000, description="schedules that there may be")
    schedules_limit_per_user: int = Field(
        default=100, ge=1, le=1_000_000, description="schedules with the same user_id that there may be"
    )

    @property
    def connections(self) -> int:
        # One more for the announcer's thread.
        return super().connections + 1


class IngestSettings(TaskMakerSettings, ServerSettings):
    """Settings of the process that makes tasks of messages."""

    process: ClassVar[str] = "ingest"

    rabbitmq_url: BrokerUrl = Field(description="where RabbitMQ is")
    ingest_bind: Bind = Field(
        default="127.0.0.1:8010", description="where ingestion answers /livez, /readyz and /metrics"
    )


class WorkerSettings(TaskEventSettings, ServerSettings):
    """Settings of a task worker."""

    process: ClassVar[str] = "worker"

    worker_concurrency: int = Field(
        default=5000, ge=1, le=20_000, description="tasks that one worker process holds at once"
    )
    worker_bind: Bind | None = Field(
        default=None,
        description="where a worker answers /livez, /readyz and /metrics; port 0: any free one, which the log line "
        "worker_pages names. Unset: nowhere",
    )
    worker_threads: int = Field(
        default=16,
        ge=1,
        le=1000,
        description="plain functions (def, not async def) that one worker process runs at once",
    )
    worker_grace_seconds: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="seconds that handlers may go on after the signal to stop; what is left is handed back",
    )
    worker_lease_seconds: float = Field(
        default=30.0, ge=1, le=3600, description="a worker silent for so many seconds is dead, and its tasks run again"
    )
    tasks_keep_days: Days = Field(
        default=30.0, description="days that completed and cancelled tasks are kept; 0: for ever"
    )
    tasks_keep_failed_days: Days = Field(default=90.0, description="days that failed tasks are kept; 0: for ever")
    messages_keep_days: Days = Field(
        default=30.0, description="days that ids of messages are remembered, so that none makes two tasks; 0: for ever"
    )


class EventsSettings(CallerSettings):
    """Settings of the process that streams events."""

    process: ClassVar[str] = "events"

    tasks_database_url: DatabaseUrl = Field(description="where the tasks database is")
    events_bind: Bind = Field(default="127.0.0.1:8004", description="where the event streams are served")
    events_watchers: int = Field(default=5000, ge=1, le=100_000, description="event streams open at a time")
