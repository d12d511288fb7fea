"""gunicorn's threaded worker, which outlives too many open files, and leaves its port at once when its master died."""

from __future__ import annotations

import time
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from servicekit import shortage
from servicekit.lifecycle import keep_for_good, reset_signals_in_children

#: Seconds until the next try when nothing is left to accept a connection with; it waits in the kernel's queue.
_SHORTAGE_SECONDS = 0.05


class ServiceWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """Ends like one that was told to stop, when its master was killed.

    gunicorn's own stops to accept, but listens until its last connection has ended, 30 seconds at most: meanwhile no
    new master can have the port, and whoever connects waits for nobody. And it goes on keeping connections alive,
    so the last one hardly ever ends in time.
    """

    def load_wsgi(self) -> None:
        super().load_wsgi()
        reset_signals_in_children()
        keep_for_good()

    def accept(self, listener: Any) -> None:
        try:
            super().accept(listener)
        except OSError as error:
            # gunicorn's own ends here, and with it every request under way.
            if not shortage.is_shortage(error):
                raise
            shortage.report(error, at="accept")
            # It is called again at once.
            time.sleep(_SHORTAGE_SECONDS)

    def is_parent_alive(self) -> bool:
        if super().is_parent_alive():
            return True
        # As after SIGTERM: requests under way are answered, and their connections end with the answer.
        self.alive = False
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()
        return False
