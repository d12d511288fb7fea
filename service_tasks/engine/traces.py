"""The traceback of a failed attempt, shortened to its most telling frames."""

from __future__ import annotations

import traceback
from types import TracebackType

from service_tasks.domain.task import MAX_TRACE_CHARACTERS, plain_text

MAX_FRAMES = 25
#: chained or grouped exceptions; with more, only the first is shown
MAX_CHAIN = 50


def trace_of(error: BaseException, *, without: frozenset[str] = frozenset()) -> str:
    """The end of the traceback, at most `MAX_TRACE_CHARACTERS`: the last frames say the most.

    `without` names files whose frames at the top are left out: those of the engine are always the same. If formatting
    the exception raises, only the frames are shown.
    """
    trace = _last(_below(_TRACEBACK.__get__(error), without))
    try:
        if _is_long(error):
            raise ValueError
        shown = traceback.TracebackException(type(error), error, trace, limit=-MAX_FRAMES, compact=True)
        text = "".join(shown.format()).rstrip()
    except BaseException:  # its notes, causes and text may all be the handler's code
        text = "".join(traceback.format_tb(trace, limit=-MAX_FRAMES)).rstrip()
    if len(text) > MAX_TRACE_CHARACTERS:
        text = "…" + text[1 - MAX_TRACE_CHARACTERS :]
    return plain_text(text, MAX_TRACE_CHARACTERS)


#: the base attributes, whatever a subclass overrides
_TRACEBACK = BaseException.__dict__["__traceback__"]
_LINKS = (BaseException.__dict__["__cause__"], BaseException.__dict__["__context__"])
_MEMBERS = BaseExceptionGroup.__dict__["exceptions"]


def _is_long(error: BaseException) -> bool:
    """Whether it is too large to be worth formatting."""
    seen: set[int] = set()
    waiting = [error]
    while waiting and len(seen) <= MAX_CHAIN:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [linked for link in _LINKS if (linked := link.__get__(one)) is not None]
        if issubclass(type(one), BaseExceptionGroup):
            waiting += _MEMBERS.__get__(one)
    return len(seen) > MAX_CHAIN


def _below(trace: TracebackType | None, files: frozenset[str]) -> TracebackType | None:
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename in files:
        trace = trace.tb_next
    return trace


def _last(trace: TracebackType | None) -> TracebackType | None:
    """Only the last frames: formatting a thousand, of a recursive handler, takes milliseconds."""
    behind, ahead, frames = trace, trace, 0
    while ahead is not None:
        ahead, frames = ahead.tb_next, frames + 1
        if frames > MAX_FRAMES and behind is not None:
            behind = behind.tb_next
    return behind
