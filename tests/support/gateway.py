"""A real gateway process, in front of scripted or real upstreams."""

from __future__ import annotations

import contextlib
import fcntl
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.support.frozen import freezing
from tests.support.ports import free_port
from tests.support.raw_http import RawAnswer, RawClient
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually

ADMIN_TOKEN = "a token for tests"
CHECKOUT = Path(__file__).resolve().parents[2]
UPSTREAMS = ("users", "orders", "tasks", "sites", "events")
T = TypeVar("T")


class GatewayServer:
    """gunicorn with the gateway, as in production, in front of the services at `urls`."""

    def __init__(
        self,
        log: Path,
        urls: Mapping[str, str],
        *,
        conf: str | Path = "api_gateway/gunicorn.conf.py",
        before: Callable[[], None] | None = None,
        constants: tuple[str, ...] = (),
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        **settings: str,
    ) -> None:
        """`host` is where it listens, and `tls` how it is asked; `constants` override those of api_gateway.app
        (`_WAITING=1`); `conf` is gunicorn's; `before` is called in the new process before gunicorn starts."""
        self.port = free_port()
        self.log = log
        self.client = RawClient(self.port, tls=tls)
        environment = {
            **os.environ,
            "GATEWAY_BIND": f"{host}:{self.port}",
            "ADMIN_TOKEN": ADMIN_TOKEN,
            **{f"{name.upper()}_URL": url for name, url in urls.items()},
            **settings,
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "tests.support.with_constants",
                    *(f"api_gateway.app.{constant}" for constant in constants),
                    "gunicorn", "-c", str(conf), "api_gateway.asgi:app",
                ],
                cwd=CHECKOUT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=before,
            )  # fmt: skip
        eventually(self._answers, timeout=20, what="the gateway to answer")

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the gateway ended: {self.log.read_text()}")
        try:
            return self.client.get("/livez").status == 200
        except OSError:
            return False

    def force(self, circuit: str, state: str) -> RawAnswer:
        return force(self.client, circuit, state)

    def circuit(self, name: str) -> dict[str, object]:
        """One circuit as /health shows it."""
        return circuit(self.client, name)

    def opened(self, name: str, use: Callable[[], T]) -> T:
        """What `use` returns, which opens the circuit once; used again, from closed, if the circuit tries meanwhile.

        It does that 0.8 seconds after it has opened.
        """

        def while_it_is_open() -> list[T]:
            assert self.force(name, "auto").status == 200
            closed = int(str(self.circuit(name)["generation"]))
            used = use()
            return [used] if self.circuit(name)["generation"] == closed + 1 else []

        [used] = eventually(while_it_is_open, timeout=30, what=f"the circuit {name} opens, and has not tried yet")
        return used

    def pids(self) -> list[int]:
        """Every process of the gateway; empty if the process that was asked has ended."""
        try:
            answer = self.client.get("/status")
        except (OSError, AssertionError):
            return []
        return [one["pid"] for one in answer.json["data"]["processes"]]

    @contextmanager
    def alone(self, pid: int) -> Iterator[None]:
        """Freeze every process but one, so that this one answers."""
        with freezing([other for other in self.pids() if other != pid]):
            yield

    @contextmanager
    def held_up(self, circuit: int) -> Iterator[None]:
        """Hold a circuit's lock, by its number, as a gateway process frozen at that moment would."""
        with contextlib.ExitStack() as files:
            for path in Path(f"/proc/{self.pids()[0]}/fd").iterdir():
                # The file has no name, but is reached by a descriptor of a process that has it open. The other files
                # are not circuits, and those of connections come and go.
                with contextlib.suppress(FileNotFoundError):
                    if "/dev/shm/" in os.readlink(path):
                        fcntl.lockf(files.enter_context(path.open("r+b")), fcntl.LOCK_EX, 1, circuit)
            yield

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class GatewayProcess(GatewayServer):
    """The same in front of scripted upstreams."""

    def __init__(
        self,
        log: Path,
        *,
        conf: str | Path = "api_gateway/gunicorn.conf.py",
        before: Callable[[], None] | None = None,
        constants: tuple[str, ...] = (),
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        **settings: str,
    ) -> None:
        self.upstreams = {name: ScriptedUpstream() for name in UPSTREAMS}
        urls = {name: upstream.url for name, upstream in self.upstreams.items()}
        super().__init__(log, urls, conf=conf, before=before, constants=constants, host=host, tls=tls, **settings)

    def reset(self) -> None:
        """Reset upstreams and circuits."""
        for name, upstream in self.upstreams.items():
            upstream.reset()
            assert self.force(name, "auto").status == 200

    def stop(self) -> int:
        code = super().stop()
        for upstream in self.upstreams.values():
            upstream.stop()
        return code


def force(client: RawClient, circuit: str, state: str) -> RawAnswer:
    """Force a circuit's state; `auto` resets it to closed, with nothing counted."""
    return client.request(
        "POST",
        f"/admin/circuits/{circuit}",
        b'{"state": "%s"}' % state.encode(),
        fields=(("Content-Type", "application/json"), ("Authorization", f"Bearer {ADMIN_TOKEN}")),
    )


def circuit(client: RawClient, name: str) -> dict[str, object]:
    """One circuit as /health shows it."""
    shown: dict[str, object] = client.get("/health").json["data"]["upstreams"][name]
    return shown
