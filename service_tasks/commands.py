"""The commands for operators and scripts, on the same use cases as the HTTP API."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy.engine import make_url

from service_tasks.engine.registry import load_registry
from service_tasks.persistence.bulk_store import BulkStore
from service_tasks.persistence.stats_store import StatsStore
from service_tasks.persistence.task_ends import TaskEnds
from service_tasks.persistence.task_store import TaskStore
from service_tasks.schemas.bulk import DEFAULT_BULK_TASKS, CancelMany, ManyTasks, RetryMany
from service_tasks.schemas.stats import TaskStatsView, TimesView
from service_tasks.schemas.tasks import TaskPage, TaskQuery, TaskView
from service_tasks.settings import TasksSettings
from service_tasks.use_cases.bulk import Bulk
from service_tasks.use_cases.stats import Stats
from service_tasks.use_cases.tasks import Tasks
from servicekit.database.engine import Database
from servicekit.identity.reach import Reach
from servicekit.process.clock import rfc3339
from servicekit.process.settings import SettingsError, load
from servicekit.web.encoders import encoder_of
from servicekit.web.schemas import id_from_path, invalid_from
from servicekit.wire.envelope import dump
from servicekit.wire.errors import AppError, DeadlineExceeded, Invalid, Unavailable
from servicekit.wire.json_reader import read_stored

DONE, REFUSED, BAD_ARGUMENT, AWAY = 0, 1, 2, 3
EXIT_CODES = """\
Exit status: 0 done; 1 refused, since there is no such task or its state does not allow it; 2 a bad argument or setting;
3 the database does not answer, or not in time.
"""
_STATEMENT_MS = 60_000
M = TypeVar("M", bound=BaseModel)
_Answer = tuple[BaseModel | dict[str, Any], Callable[[], None]]


@dataclass(frozen=True)
class _Service:
    tasks: Tasks
    bulk: Bulk
    stats: Stats


class _Failed(Exception):
    """Ends the command with one line and an exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these commands to a parser; `run` runs the parsed one."""

    def add(name: str, ask: Callable[[_Service, argparse.Namespace], _Answer], text: str, more: str) -> Any:
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}. {more}",
            epilog=f"{EXIT_CODES}The database is that of TASKS_DATABASE_URL.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--json", action="store_true", help="as JSON on one line, with the fields of the HTTP API")
        command.set_defaults(ask=ask)
        return command

    add("types", _types, "list the kinds of tasks", "Those that this process knows, and those that living workers run.")

    listing = add("list", _list, "list tasks, the newest first", "Every option narrows it.")
    _add_filter(listing)
    listing.add_argument("--limit", metavar="N", default="20", help="how many at most, 1 to 100 (20)")
    listing.add_argument("--after", metavar="ID", help="only older ones: the last id of the page before")

    show = add("show", _show, "show one task", "With the errors of its failed attempts.")
    show.add_argument("id", metavar="ID")
    show.add_argument("--trace", action="store_true", help="their tracebacks too")

    retry = add(
        "retry",
        _retry,
        "run ended tasks again",
        "One by its id, or all that fit a filter: failed ones, unless --status says cancelled.",
    )
    cancel = add(
        "cancel", _cancel, "cancel tasks", "One by its id, or all pending and processing ones that fit a filter."
    )
    for command in (retry, cancel):
        command.add_argument("ids", metavar="ID", nargs="*", help="these tasks")
        _add_filter(command)
        command.add_argument("--created-from", metavar="TIME", help="created then or later, as 2026-01-31T15:00:00Z")
        command.add_argument("--created-before", metavar="TIME", help="created before that")
        command.add_argument("--all", action="store_true", help="needed when nothing else is named")
        command.add_argument("--limit", metavar="N", type=_positive, help="how many at most (as many as fit)")
    retry.add_argument("--ended-from", metavar="TIME", help="ended then or later")
    retry.add_argument("--ended-before", metavar="TIME", help="ended before that")

    add(
        "stats",
        _stats,
        "show how things stand",
        "Tasks by status and type, throughput, waiting and running times, and the workers.",
    )


def run(given: argparse.Namespace) -> int:
    """Run the parsed command; return the process's exit status. An error is one line on standard error."""
    try:
        with _service() as service:
            answer, print_it = given.ask(service, given)
            if given.json:
                _print_json(answer)
            else:
                print_it()
            sys.stdout.flush()
    except _Failed as exc:
        print(f"{given.command}: {exc}", file=sys.stderr)
        return exc.status
    except BrokenPipeError:
        # The reader has closed the pipe. Flushing the buffer at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


@contextmanager
def _service() -> Iterator[_Service]:
    try:
        settings = load(TasksSettings)
        registry = load_registry(settings.modules)
    except SettingsError as exc:
        raise _Failed(f"{exc} (every variable is explained in .env.example)", BAD_ARGUMENT) from exc
    database = Database(
        settings.tasks_database_url,
        application_name="service_tasks command",
        pool_size=1,
        statement_timeout_ms=_STATEMENT_MS,
    )
    ends = TaskEnds(settings.event_states)
    store = TaskStore(database, ends)

    def announce(announcement: str) -> None:
        try:
            store.announce(announcement)
        except (Unavailable, DeadlineExceeded):
            # The workers' poll finds it without an announcement.
            return

    try:
        yield _Service(
            tasks=Tasks(store, registry, announce=announce),
            bulk=Bulk(BulkStore(database, ends), announce=announce),
            stats=Stats(StatsStore(database)),
        )
    except (Unavailable, DeadlineExceeded) as exc:
        url = make_url(settings.tasks_database_url)
        where = f"{url.host}:{url.port or 5432}/{url.database}"
        late = "was too slow" if isinstance(exc, DeadlineExceeded) else "cannot be used"
        raise _Failed(f"the tasks database at {where} (TASKS_DATABASE_URL) {late}: {_reason(exc)}", AWAY) from exc
    except Invalid as exc:
        raise _Failed(_naming_options(exc), BAD_ARGUMENT) from exc
    except AppError as exc:
        raise _Failed(exc.message, REFUSED) from exc
    finally:
        database.dispose()


def _reason(exc: AppError) -> str:
    """The driver's first line if there is one, such as a refused connection or a wrong password."""
    cause = getattr(exc.__cause__, "orig", None)
    return str(cause).strip().partition("\n")[0] if cause is not None else exc.message


# The commands: each returns its answer, for --json, and a function that prints it.


def _types(service: _Service, given: argparse.Namespace) -> _Answer:
    found = service.tasks.types()
    rows = [
        (
            one.name,
            one.workers,
            "paused" if one.paused else "",
            one.max_running or (one.limits and one.limits.max_running) or "",
            "" if one.timeout is None else f"{one.timeout:g}",
            one.max_attempts or "",
            one.description.partition("\n")[0],
        )
        for one in found.task_types
    ]
    heads = ("TYPE", "WORKERS", "", "LIMIT", "TIMEOUT", "ATTEMPTS", "DESCRIPTION")
    return found, lambda: _print_table(heads, rows)


def _list(service: _Service, given: argparse.Namespace) -> _Answer:
    named = {"status": given.status, "task_type": given.type, "user_id": given.user, "after": given.after}
    query = _parsed(TaskQuery, {**_set(named), "limit": given.limit})
    found = service.tasks.search(query, user_id=query.user_id, reach=Reach.all())
    page = TaskPage.model_validate(read_stored(encoder_of(TaskPage)(found)))
    return page, lambda: _print_page(page)


def _show(service: _Service, given: argparse.Namespace) -> _Answer:
    task = service.tasks.get(id_from_path("ID", given.id), trace=given.trace, reach=Reach.all())
    return task, lambda: _print_task(task)


def _retry(service: _Service, given: argparse.Namespace) -> _Answer:
    range_of_ends = _set({"ended_from": given.ended_from, "ended_before": given.ended_before})
    only = None if range_of_ends else _only_id(given)
    if only is not None:
        task = service.tasks.retry(only, reach=Reach.all())
        return task, lambda: print(f"{task.id} runs again")
    body = _parsed(RetryMany, {**_filter(given), **range_of_ends})
    totals = _all_of(service.bulk.retry, body, given.limit)
    reasons = {
        "changed": "no longer failed or cancelled",
        "user_deleted": "their user was deleted",
        "unique_key_taken": "a live task has their unique_key",
    }
    return totals, lambda: _print_totals(f"{totals['retried']} run again", totals, reasons)


def _cancel(service: _Service, given: argparse.Namespace) -> _Answer:
    only = _only_id(given)
    if only is not None:
        task = service.tasks.cancel(only, reach=Reach.all())
        return task, lambda: print(f"{task.id} is cancelled")
    totals = _all_of(service.bulk.cancel, _parsed(CancelMany, _filter(given)), given.limit)
    return totals, lambda: _print_totals(f"{totals['cancelled']} cancelled", totals, {"changed": "had ended"})


def _stats(service: _Service, given: argparse.Namespace) -> _Answer:
    found = service.stats.show(reach=Reach.all())
    return found, lambda: _print_stats(found)


# Their arguments


def _add_filter(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--status", metavar="S", help="with this status: pending, processing, completed, failed, cancelled"
    )
    command.add_argument("--type", metavar="T", help="of this type")
    command.add_argument("--user", metavar="ID", help="of this user")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _filter(given: argparse.Namespace) -> dict[str, Any]:
    return _set(
        {
            "status": given.status,
            "task_type": given.type,
            "user_id": given.user,
            "created_from": given.created_from,
            "created_before": given.created_before,
            "ids": given.ids or None,
            "all": given.all or None,
        }
    )


def _only_id(given: argparse.Namespace) -> UUID | None:
    """The id, if nothing but one id was given."""
    if len(given.ids) == 1 and _filter(given).keys() == {"ids"}:
        return id_from_path("ID", given.ids[0])
    return None


def _set(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _parsed(model: type[M], values: dict[str, Any]) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise invalid_from(exc) from exc


_OPTIONS = {
    "task_type": "--type",
    "user_id": "--user",
    "created_from": "--created-from",
    "created_before": "--created-before",
    "ended_from": "--ended-from",
    "ended_before": "--ended-before",
    "ids": "ID",
    "ID": "ID",
}


def _naming_options(exc: Invalid) -> str:
    if not exc.details:
        return exc.message
    names = [(detail.field.partition(".")[0], detail.message) for detail in exc.details]
    return "; ".join(f"{_OPTIONS.get(name, f'--{name}')}: {message}" for name, message in names)


def _all_of(step: Callable[..., BaseModel], body: ManyTasks, limit: int | None) -> dict[str, Any]:
    """Repeat until no task fits any more or the limit is reached."""
    totals: dict[str, Any] = {}
    left, after = limit, body.after
    while True:
        size = DEFAULT_BULK_TASKS if left is None else min(left, DEFAULT_BULK_TASKS)
        try:
            part = body.model_copy(update={"limit": size, "after": after})
            answer = step(part, reach=Reach.all()).model_dump(exclude={"as_of"})
        except (Unavailable, DeadlineExceeded):
            if totals:
                print(
                    "before it failed:", ", ".join(f"{count} {name}" for name, count in totals.items()), file=sys.stderr
                )
            raise
        after = answer.pop("next")
        for name, count in answer.items():
            totals[name] = totals.get(name, 0) + count
        if left is not None:
            left -= sum(answer.values())
        if after is None or left == 0:
            return {**totals, "next": after}


# Their output


def _print_json(value: BaseModel | dict[str, Any]) -> None:
    print(dump(value.model_dump() if isinstance(value, BaseModel) else value).decode("utf-8"))


def _print_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    texts = [tuple(_plain(str(cell)) for cell in row) for row in (heads, *rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(heads))]
    for row in texts:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _plain(text: str) -> str:
    """On one line, without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)


def _print_page(page: TaskPage) -> None:
    _print_table(
        ("ID", "TYPE", "STATUS", "ATTEMPTS", "CREATED", "ENDED", "ABOUT"),
        [
            (
                task.id,
                task.task_type,
                task.status,
                f"{task.attempts}/{task.max_attempts}",
                _time(task.created_at),
                _time(task.completed_at),
                task.waiting_for or task.error or task.title or "",
            )
            for task in page.tasks
        ],
    )
    least = "" if page.total_is_exact else "at least "
    print(f"{len(page.tasks)} of {least}{page.total}" + (f"; go on with --after {page.next}" if page.next else ""))


def _print_totals(first: str, totals: dict[str, Any], reasons: dict[str, str]) -> None:
    print(first)
    for name, reason in reasons.items():
        if totals[name]:
            print(f"{totals[name]} passed over: {reason}")
    if totals["next"] is not None:
        print("more may fit: the limit was reached")


def _print_task(task: TaskView) -> None:
    fields = task.model_dump()
    for name in ("payload", "result", "errors", "progress", "omitted"):
        del fields[name]
    rows = [(name, _time(value) if isinstance(value, datetime) else value) for name, value in fields.items()]
    rows += [("progress", f"{task.progress.percent} % {task.progress.message or ''}")]
    rows += [("payload", dump(task.payload).decode()), ("result", dump(task.result).decode())]
    for name, value in rows:
        if value is not None:
            print(f"{name + ':':16}{_plain(str(value))}".rstrip())
    for error in task.errors:
        print(f"attempt {error.attempt} failed at {_time(error.failed_at)} on {_plain(error.worker)}:")
        print(f"  {error.type}: {_plain(error.message)}")
        for line in (error.trace or "").splitlines():
            print(f"  {_plain(line)}")


def _print_stats(found: TaskStatsView) -> None:
    about = "  (about: estimated from a sample)"
    for name, count in found.counts.model_dump().items():
        print(f"{name:12}{count:>12}" + (about if name in found.estimated else ""))
    if found.oldest_ready_seconds is not None:
        print(f"the oldest ready task has been due for {found.oldest_ready_seconds:g} s")
    rates, minutes = found.throughput.per_minute, found.window_seconds // 60
    print(
        f"\nper minute: {rates.completed:g} completed, {rates.failed:g} failed, {rates.retried:g} retried,"
        f" {rates.cancelled:g} cancelled (the last five whole minutes)"
    )
    print(f"seconds, p50 and p95 of {minutes} minutes: {_both(found.wait)} waiting, {_both(found.run)} running\n")
    _print_table(
        ("TYPE", "PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED", "OLDEST", "WAIT", "RUN"),
        [
            (
                one.task_type,
                *one.counts.model_dump().values(),
                "" if one.oldest_ready_seconds is None else f"{one.oldest_ready_seconds:g} s",
                _both(one.wait),
                _both(one.run),
            )
            for one in found.types
        ],
    )
    workers = found.workers
    print(f"\n{workers.alive} workers, {workers.silent} silent; {workers.busy} of {workers.slots} places taken\n")
    _print_table(
        ("WORKER", "STATE", "TASKS", "THREADS", "LAST BEAT", "TYPES"),
        [
            (
                one.name,
                ("leads" if one.leads else "alive") if one.alive else "silent",
                f"{one.busy}/{one.slots}",
                f"{one.busy_threads}/{one.threads}",
                f"{one.last_beat_seconds:.1f} s ago",
                ",".join(one.task_types),
            )
            for one in workers.workers
        ],
    )


def _both(times: TimesView) -> str:
    return "–" if times.p50 is None else f"{times.p50:g}/{times.p95:g}"


def _time(moment: datetime | None) -> str:
    return "" if moment is None else rfc3339(moment.replace(microsecond=0))
