"""The traceback of a failed attempt, as short as it can be and still tell where."""

from __future__ import annotations

import traceback
from types import TracebackType

from service_tasks.domain.task import MAX_TRACE_CHARACTERS, plain_text

MAX_FRAMES = 25


def trace_of(error: BaseException, *, without: frozenset[str] = frozenset()) -> str:
    """The end of the traceback, at most `MAX_TRACE_CHARACTERS`: the last frames tell the most.

    `without` names files whose frames at the top are left out: those of the engine are the same each time.
    """
    shown = traceback.TracebackException(
        type(error), error, _last(_below(error.__traceback__, without)), limit=-MAX_FRAMES, compact=True
    )
    text = "".join(shown.format()).rstrip()
    if len(text) > MAX_TRACE_CHARACTERS:
        text = "…" + text[1 - MAX_TRACE_CHARACTERS :]
    return plain_text(text, MAX_TRACE_CHARACTERS)


def _below(trace: TracebackType | None, files: frozenset[str]) -> TracebackType | None:
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename in files:
        trace = trace.tb_next
    return trace


def _last(trace: TracebackType | None) -> TracebackType | None:
    """The last frames alone: to look at each of a thousand, of a handler that called itself, takes milliseconds."""
    behind, ahead, frames = trace, trace, 0
    while ahead is not None:
        ahead, frames = ahead.tb_next, frames + 1
        if frames > MAX_FRAMES and behind is not None:
            behind = behind.tb_next
    return behind
