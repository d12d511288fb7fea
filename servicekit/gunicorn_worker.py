"""gunicorn's threaded worker, which leaves its port to the next master at once when its own has died."""

from __future__ import annotations

from gunicorn.workers.gthread import ThreadWorker

from servicekit.lifecycle import keep_for_good


class ServiceWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """Ends like one that was told to stop, when its master was killed.

    gunicorn's own stops to accept, but listens until its last connection has ended, 30 seconds at most: meanwhile no
    new master can have the port, and whoever connects waits for nobody. And it goes on keeping connections alive,
    so the last one hardly ever ends in time.
    """

    def load_wsgi(self) -> None:
        super().load_wsgi()
        keep_for_good()

    def is_parent_alive(self) -> bool:
        if super().is_parent_alive():
            return True
        # As after SIGTERM: requests under way are answered, and their connections end with the answer.
        self.alive = False
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()
        return False
