"""Output that never blocks: a thread writes what would wait for a reader; what does not fit there is dropped and
counted."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import stat
import termios
import threading
import time
from array import array
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

#: Bytes that may wait, including Python's overhead per text. Beyond that the newest text is dropped.
MOST_WAITING = 4 * 1024 * 1024
TEXT_OVERHEAD = 64
#: How long a process that ends waits for its reader, in seconds.
LAST_SECONDS = 1.0
#: Seconds before retrying a failed write (a full disk, a reader that left).
_RETRY_SECONDS = 0.5
_AT_ONCE = 64 * 1024
#: After a write, so that a busy Python thread is interrupted fifty times a second and not for every line. The first
#: text after a pause is written at once.
_PAUSE_SECONDS = 0.02


class Unblocked(io.TextIOBase):
    """A text stream over a descriptor whose `write` takes microseconds whether or not there is a reader.

    Safe for threads, signal handlers and forks: a child starts with nothing waiting. `flush` does not wait, `drain`
    does. `on_dropped` is called on the writing thread with the number of lines lost, once output moves again.
    """

    def __init__(self, descriptor: int, on_dropped: Callable[[int], None]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._on_dropped = on_dropped
        #: A descriptor on which a write that would wait for a reader fails instead.
        self._direct = _never_waiting(descriptor)
        #: What certainly fits into an empty pipe, as pages may be half full; 0: not a pipe, or size unknown.
        self._room = 0
        with contextlib.suppress(OSError, AttributeError):
            self._room = fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) // 2
        self._begin()
        os.register_at_fork(
            before=lambda: self._lock.acquire(),
            after_in_parent=lambda: self._lock.release(),
            after_in_child=self._begin,
        )

    def _begin(self) -> None:
        # Reentrant, because a signal handler may write while this thread does.
        self._lock = threading.RLock()
        self._queue: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._has_thread = False
        #: Bytes taken but not yet written.
        self._waiting = 0
        #: Lines dropped since output last moved, and in total.
        self._dropping = 0
        self.dropped = 0

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def buffer(self) -> io.RawIOBase:
        """For code that writes bytes; invalid UTF-8 is escaped."""
        return _Bytes(self)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, text: str) -> int:
        """Take the text, or drop it as a whole; texts stay in order, and threads never interleave them."""
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            if self._direct is not None and not (self._waiting or self._dropping):
                data = self._write_now(self._direct, data)
                if not data:
                    return len(text)
            size = len(data) + TEXT_OVERHEAD
            # After the first dropped text all are dropped until the writer has reported them, so the report stands in
            # their place.
            if self._dropping or (self._waiting and self._waiting + size > MOST_WAITING):
                lines = text.count("\n") or 1
                self._dropping += lines
                self.dropped += lines
                return len(text)
            self._waiting += size
            self._queue.put(data)
            if not self._has_thread:
                self._start()
        return len(text)

    def _write_now(self, direct: int, data: bytes) -> bytes:
        """Write what fits now; returns the rest."""
        if len(data) > select.PIPE_BUF and self._room and self._room - _unread(direct) < len(data):
            return data
        try:
            return data[os.write(direct, data) :]
        except OSError:  # no room, a full disk, a reader that left: the thread retries
            return data

    def drain(self, seconds: float) -> bool:
        """Wait until everything is written, for at most `seconds`; returns whether it is."""
        limit = time.monotonic() + seconds
        while self._waiting or self._dropping:
            with self._lock:
                if not self._has_thread:
                    self._start()
                reached = threading.Event()
                self._queue.put(reached)
            if not reached.wait(max(0.0, limit - time.monotonic())):
                return False
        return True

    def _start(self) -> None:
        self._has_thread = True
        try:
            threading.Thread(target=self._run, name=f"writer of {self._descriptor}", daemon=True).start()
        except RuntimeError:  # no thread available: what waits is written after the next text
            self._has_thread = False

    def _run(self) -> None:
        queue = self._queue
        while True:
            text = queue.get()
            if isinstance(text, threading.Event):
                text.set()
                continue
            texts = [text]
            size = len(text) + TEXT_OVERHEAD
            reached = None
            while size < _AT_ONCE and not queue.empty():
                text = queue.get()
                if isinstance(text, threading.Event):
                    reached = text
                    break
                texts.append(text)
                size += len(text) + TEXT_OVERHEAD
            self._write(b"".join(texts))
            with self._lock:
                self._waiting -= size
                lines = 0
                if self._dropping and self._waiting <= MOST_WAITING // 2:
                    lines, self._dropping = self._dropping, 0
            if lines:
                self._on_dropped(lines)
            if reached is not None:
                reached.set()
            elif queue.empty():
                time.sleep(_PAUSE_SECONDS)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest[: self._whole_lines(rest)]) :]
            except BlockingIOError:  # another owner of the descriptor made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError:
                time.sleep(_RETRY_SECONDS)

    def _whole_lines(self, data: memoryview) -> int:
        """How many bytes to write at once.

        Processes that share a pipe split each other's lines when a write does not fit at once, unless it is at most
        PIPE_BUF bytes (pipe(7)).
        """
        if len(data) <= select.PIPE_BUF:
            return len(data)
        most = max(select.PIPE_BUF, self._room - _unread(self._descriptor)) if self._room else _AT_ONCE
        if len(data) <= most:
            return len(data)
        end = bytes(data[:most]).rfind(b"\n") + 1
        return end or most


class _Bytes(io.RawIOBase):
    def __init__(self, text: Unblocked) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._text.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)


def _never_waiting(descriptor: int) -> int | None:
    """A descriptor of the same file whose writes never wait for a reader; None where the system has none.

    A pipe is opened anew, because the non-blocking flag is shared by every process that has the descriptor. A file has
    no reader to wait for, and its write position must not be lost.
    """
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK) if stat.S_ISFIFO(mode) else None
    except OSError:
        return None


def _unread(pipe: int) -> int:
    size = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size, True)
    return size[0]
