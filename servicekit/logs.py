"""Log lines: JSON for machines or a console form for people, each with service and request id."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from servicekit.request_id import current_request_id

_encode = json.JSONEncoder(ensure_ascii=False, default=repr).encode
#: What `frequent` needs, put there by `configure`: the handler and the service's name; None in the form for people.
_json_lines: tuple[logging.StreamHandler[TextIO], str] | None = None


def _with_request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    request_id = current_request_id()
    if request_id:
        event.setdefault("request_id", request_id)
    return event


def configure(service: str, *, fmt: str = "json", level: str = "info") -> None:
    """Send every log line of this process, the libraries' too, to standard output in one form.

    `fmt` is json or console. Call it once per process; calling it again replaces the earlier form.
    """

    def with_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        with_service,
        _with_request_id,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    global _json_lines
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
        if fmt == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), timestamp_key="time")]
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    _json_lines = (handler, service) if fmt == "json" else None
    root.setLevel(level.upper())
    # These libraries tell at "info" what our own lines say already.
    for noisy in ("urllib3", "alembic.runtime.migration", "werkzeug", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> Any:
    """Give a structlog logger: `log.info("user_created", user_id=…)`."""
    return structlog.stdlib.get_logger(name)


class Frequent:
    """Writes a line at "info" for every request without the price of structlog's chain: the same line, at a tenth.

    The difference: values bound to structlog's context variables are not merged.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger = logging.getLogger(name)

    def __call__(self, event: str, values: Mapping[str, Any]) -> None:
        """`log.info(event, **values)`."""
        if _json_lines is None or self._logger.root.handlers != [_json_lines[0]]:
            get_logger(self._name).info(event, **values)
            return
        if not self._logger.isEnabledFor(logging.INFO):
            return
        handler, service = _json_lines
        line = {**values, "event": event, "level": "info", "service": service}
        request_id = current_request_id()
        if request_id:
            line["request_id"] = request_id
        line["time"] = datetime.now(UTC).isoformat()[:-6] + "Z"
        text = _encode(line) + "\n"
        handler.acquire()
        try:
            handler.stream.write(text)
            handler.flush()
        except Exception:  # as logging does: a log that cannot be written ends no request
            handler.handleError(logging.LogRecord(self._name, logging.INFO, "", 0, event, None, None))
        finally:
            handler.release()
