"""A RabbitMQ for one instance: the installed server's programs with their own home, node and ports.

The programs are the package's real ones: those on the PATH may be wrappers (Debian's switch to the user `rabbitmq` and
know one server only). Nothing is read or written outside the folder.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic_settings import SettingsConfigDict

from scripts.instance.errors import InstanceError
from scripts.instance.layout import CHECKOUT, Layout
from scripts.instance.ports import HOST, Ports
from servicekit.process.settings import BrokerUrl, Settings, SettingsError, load

_PACKAGED = Path("/usr/lib/rabbitmq/bin")
_SET_POLICY = CHECKOUT / "deploy" / "rabbitmq" / "set-policy"
#: The first version whose configuration may permit plain queues; from 4.3 on it must.
_KNOWS_PERMISSIONS = (3, 13)
# Two schedulers that do not busy-wait: the machine is shared with everything else.
_ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
_CONTROL_SECONDS = 60.0


def installed() -> Path | None:
    """The folder with the installed server's real programs, or None."""
    if (_PACKAGED / "rabbitmq-server").is_file():
        return _PACKAGED
    found = shutil.which("rabbitmq-server")
    if found is None:
        return None
    folder = Path(found).resolve().parent
    return folder if (folder / "rabbitmqctl").exists() else None


@dataclass(frozen=True)
class Broker:
    """The broker that an instance uses: an external one, or its own."""

    url: str
    own: LocalRabbitMQ | None = None


class _Given(Settings):
    model_config = SettingsConfigDict(env_file=CHECKOUT / ".env")

    rabbitmq_url: BrokerUrl | None = None


def choose_broker(layout: Layout, ports: Ports, *, wanted: bool) -> Broker | None:
    """The one at RABBITMQ_URL (from the environment, then `.env`), else the instance's own if `wanted`.

    Raises InstanceError if one is wanted and RabbitMQ is not installed.
    """
    try:
        given = load(_Given).rabbitmq_url
    except SettingsError as exc:
        raise InstanceError(str(exc)) from exc
    if given is not None:
        return Broker(given)
    if not wanted:
        return None
    programs = installed()
    if programs is None:
        raise InstanceError(
            "--rabbitmq needs a RabbitMQ: install rabbitmq-server (Debian and Ubuntu: apt install rabbitmq-server; "
            "macOS: brew install rabbitmq), or name a running one in RABBITMQ_URL (amqp://USER:PASSWORD@HOST:PORT/VHOST)"
        )
    own = LocalRabbitMQ(layout.rabbitmq, ports["rabbitmq"], programs)
    return Broker(own.url, own)


class LocalRabbitMQ:
    """One broker. Uses three consecutive ports from `port` on: for clients, its node and its name server."""

    def __init__(self, folder: Path, port: int, programs: Path) -> None:
        self.folder = folder
        self.port = port
        self.url = f"amqp://guest:guest@{HOST}:{port}/%2F"
        self._programs = programs

    @property
    def name_server_port(self) -> int:
        return self.port + 2

    @property
    def node_name(self) -> str:
        return f"siteworks{self.port}@localhost"

    def prepare(self) -> None:
        """Write its configuration. Raises InstanceError if its programs do not run."""
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        lines = [f"listeners.tcp.1 = {HOST}:{self.port}", "log.file = false", "log.console = true"]
        lines += ["log.console.level = warning"]
        if self._version() >= _KNOWS_PERMISSIONS:
            lines.append("deprecated_features.permit.transient_nonexcl_queues = true")
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.folder / "enabled_plugins").write_text("[].\n", encoding="utf-8")

    def command(self) -> list[str]:
        """Runs in the foreground with `environment`; SIGTERM stops it gracefully."""
        return [str(self._programs / "rabbitmq-server")]

    def name_server_command(self) -> list[str]:
        """Erlang's epmd in the foreground. If none ran, the server would start one and leave it behind."""
        return [self._epmd(), "-port", str(self.name_server_port), "-address", HOST]

    def environment(self, also: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of every program of this broker; only PATH comes from the caller."""
        folder = str(self.folder)
        return {
            "PATH": f"{self._programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "LANG": "C.UTF-8",
            "HOME": f"{folder}/home",
            "RABBITMQ_BASE": folder,
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_NODENAME": self.node_name,
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_FEATURE_FLAGS_FILE": f"{folder}/feature_flags",
            "RABBITMQ_QUORUM_DIR": f"{folder}/quorum",
            "RABBITMQ_STREAM_DIR": f"{folder}/stream",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/config",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_DIST_PORT": str(self.port + 1),
            "ERL_EPMD_PORT": str(self.name_server_port),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
            **(also or {}),
        }

    def accepts(self) -> bool:
        """Whether it answers a client's handshake; its port opens earlier than that."""
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as connection:
                connection.settimeout(5)
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(connection.recv(1))
        except OSError:
            return False

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl and return its output. Raises InstanceError with that output."""
        done = self._run([str(self._programs / "rabbitmqctl"), *arguments])
        if done.returncode:
            raise InstanceError(f"rabbitmqctl {' '.join(arguments)}: {done.stdout.strip()[-500:]}")
        return done.stdout

    def set_policy(self) -> None:
        """Set the policy that queues need beyond their declarations. Raises InstanceError with rabbitmqctl's output."""
        done = self._run([str(_SET_POLICY)])
        if done.returncode:
            raise InstanceError(f"the policy of RabbitMQ cannot be set: {done.stdout.strip()[-500:]}")

    def _version(self) -> tuple[int, ...]:
        said = self.control("version")
        match = re.search(r"^(\d+)\.(\d+)", said, re.M)
        if match is None:
            raise InstanceError(f"RabbitMQ in {self._programs} does not tell its version: {said.strip()[-500:]}")
        return int(match[1]), int(match[2])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_CONTROL_SECONDS,
            check=False,
        )

    def _epmd(self) -> str:
        found = shutil.which("epmd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/lib/erlang/bin")
        if found is None:
            raise InstanceError("RabbitMQ is installed, but Erlang's epmd is not on the PATH")
        return found
