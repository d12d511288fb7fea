"""What stands between the load and the upstream: our gateway as in production, and its peers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.installing import PEERS as INSTALLED
from benchmarks.installing import Missing, install, is_installed, mark_installed, pins, python_environment
from benchmarks.processes import Process, free_port
from benchmarks.report import CHECKOUT, OURS, revision

_HERE = Path(__file__).resolve().parent / "peers"
_REQUIREMENTS = _HERE / "requirements.txt"


@dataclass(frozen=True, slots=True)
class GatewayPlace:
    """Where a subject is started: a folder for its files, its core, and its upstreams' ports."""

    folder: Path
    core: frozenset[int] | None
    fast_port: int
    slow_port: int

    @property
    def urls(self) -> dict[str, str]:
        return {
            "USERS_URL": f"http://127.0.0.1:{self.fast_port}",
            "ORDERS_URL": f"http://127.0.0.1:{self.slow_port}",
        }


@dataclass(frozen=True, slots=True)
class Subject:
    """`start` gives the process and its port. Direct has none."""

    name: str
    start: Callable[[GatewayPlace], tuple[Process, int]] | None


def ours(checkout: Path = CHECKOUT, label: str = "", settings: Mapping[str, str] | None = None) -> Subject:
    """Our gateway out of a checkout, with the command, settings and log line of production. `label` tells it from
    others with other settings."""
    name = (OURS if checkout == CHECKOUT else f"{OURS} {checkout.name} {revision(checkout)}") + label

    def start(place: GatewayPlace) -> tuple[Process, int]:
        port = free_port()
        command = ["-P", "-m", "gunicorn", "-c", "api_gateway/gunicorn.conf.py", "api_gateway.asgi:app"]
        environment = {
            **place.urls,
            "TASKS_URL": place.urls["USERS_URL"],
            "GATEWAY_BIND": f"127.0.0.1:{port}",
            "AUTH": "off",
            "LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(checkout),
            **(settings or {}),
        }
        return _process(place, name, [sys.executable, *command], port, checkout, environment), port

    return Subject(name, start)


def direct() -> Subject:
    return Subject("direct", None)


def nginx() -> Subject:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
    if program is None:
        raise Missing("no nginx on the PATH")
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False, timeout=10)
    found = re.search(r"nginx/(\S+)", said.stderr + said.stdout)
    version = found[1] if found else "of unknown version"

    def start(place: GatewayPlace) -> tuple[Process, int]:
        port = free_port()
        text = (_HERE / "nginx.conf").read_text()
        for word, value in {
            "folder": place.folder,
            "port": port,
            "users": f"127.0.0.1:{place.fast_port}",
            "orders": f"127.0.0.1:{place.slow_port}",
        }.items():
            text = text.replace("{{" + word + "}}", str(value))
        file = place.folder / "nginx.conf"
        file.write_text(text)
        return _process(place, "nginx", [program, "-p", str(place.folder), "-c", str(file)], port, place.folder), port

    return Subject(f"nginx {version}", start)


def flask_proxy() -> Subject:
    python = _python_peers()

    def start(place: GatewayPlace) -> tuple[Process, int]:
        port = free_port()
        command = [str(python), "-m", "gunicorn", "--worker-class", "gthread", "--workers", "1", "--threads", "32"]
        command += ["--bind", f"127.0.0.1:{port}", "--no-control-socket", "flask_proxy:app"]
        return _process(place, "flask", command, port, _HERE, place.urls), port

    found = pins(_REQUIREMENTS)
    versions = f"Flask {found['Flask']}, requests {found['requests']}, pybreaker {found['pybreaker']}"
    return Subject(f"{versions}, gunicorn gthread", start)


def aiohttp_proxy() -> Subject:
    python = _python_peers()

    def start(place: GatewayPlace) -> tuple[Process, int]:
        port = free_port()
        command = [str(python), str(_HERE / "aiohttp_proxy.py"), str(port)]
        return _process(place, "aiohttp", command, port, place.folder, place.urls), port

    return Subject(f"aiohttp {pins(_REQUIREMENTS)['aiohttp']}, bare", start)


def express_proxy() -> Subject:
    folder = _node_peers()
    wanted = json.loads((_HERE / "package.json").read_text())["dependencies"]

    def start(place: GatewayPlace) -> tuple[Process, int]:
        port = free_port()
        command = ["node", str(_HERE / "express_proxy.mjs"), str(port)]
        return _process(place, "express", command, port, folder, {**place.urls, "NODE_ENV": "production"}), port

    names = {"express": "Express", "http-proxy-middleware": "http-proxy-middleware", "opossum": "opossum"}
    return Subject(", ".join(f"{names[name]} {wanted[name]}" for name in names), start)


#: The first of them is what ratios refer to.
PEERS: dict[str, Callable[[], Subject]] = {
    "flask": flask_proxy,
    "express": express_proxy,
    "aiohttp": aiohttp_proxy,
    "nginx": nginx,
    "direct": direct,
}


def _process(
    place: GatewayPlace,
    name: str,
    command: Sequence[str],
    port: int,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
) -> Process:
    output = place.folder / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.log"
    return Process(command, port=port, output=output, on=place.core, cwd=cwd, environment=environment)


def _python_peers() -> Path:
    return python_environment("python", _REQUIREMENTS)


def _node_peers() -> Path:
    if not shutil.which("node") or not shutil.which("npm"):
        raise Missing("no node and npm on the PATH")
    folder, wanted = INSTALLED / "node", _HERE / "package.json"
    if not is_installed(folder, wanted):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(wanted, folder)
        install(folder, ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"])
        mark_installed(folder, wanted)
    return folder
