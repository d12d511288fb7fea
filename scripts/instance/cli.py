"""The command line of ./scripts/run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from textwrap import fill

from scripts.instance import reporting, starting, stopping
from scripts.instance.command_line import exit_status, say
from scripts.instance.credentials import Credentials
from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout
from scripts.instance.lock import holder_of
from scripts.instance.ports import Ports
from scripts.instance.programs import names
from scripts.instance.supervision import Supervisor

_DESCRIPTION = """\
Run Siteworks on this machine: PostgreSQL, the services, the event streams, the task workers and the gateway.

  ./scripts/run                       start, and stay until Ctrl-C; ready on http://localhost:8000
  ./scripts/run --detach              start, and return when everything is ready
  ./scripts/run status                what runs, with process ids and ports (exit status 0 if all do, else 3)
  ./scripts/run stop                  stop everything, in order
  ./scripts/run stop users            stop one service (and watch its circuit open on /health) …
  ./scripts/run start users           … start it again …
  ./scripts/run restart users         … or both
  ./scripts/run logs gateway          follow one service's log

{services}
"""
_EPILOG = """\
{ports}

The data folder holds everything an instance keeps: the database, generated passwords (secrets/), logs. It also names
the instance: `stop`, `status` and the others find it by --data, whatever its port. Several instances run beside each
other, each with its own --data and --port.

Settings come from the environment and from .env in the checkout (see .env.example), except for addresses (*_BIND,
*_DATABASE_URL, USERS_URL and the like): those belong to the instance. RABBITMQ_URL names a RabbitMQ that
runs already; where it is set the instance uses that one.
"""
_WIDTH = 118


def parser() -> argparse.ArgumentParser:
    services = f"Services: {', '.join(names())} (rabbitmq and ingest with --rabbitmq alone)."
    ports = [f"{name} P+{port - 1}" for name, port in Ports(1).by_name.items() if port > 1]
    listed = f"Ports, all on 127.0.0.1: gateway P (--port), {', '.join(ports)}."
    arguments = argparse.ArgumentParser(
        prog="./scripts/run",
        description=_DESCRIPTION.format(services=fill(services, _WIDTH)),
        epilog=_EPILOG.format(ports=fill(listed, _WIDTH)),
        formatter_class=argparse.RawTextHelpFormatter,
    )
    arguments.add_argument("verb", nargs="?", choices=["stop", "start", "restart", "status", "logs"], metavar="VERB")
    arguments.add_argument("service", nargs="?", choices=names(), metavar="SERVICE")
    arguments.add_argument("--port", type=int, default=8000, metavar="P", help="the gateway's port (8000)")
    arguments.add_argument("--data", metavar="DIR", help="the data folder (.data in the checkout)")
    arguments.add_argument("--workers", type=int, default=2, metavar="N", help="task worker processes (2)")
    arguments.add_argument(
        "--reset",
        action="store_true",
        help="start afresh: forgets the data folder's database, queues, secrets and logs",
    )
    arguments.add_argument(
        "--rabbitmq", action="store_true", help="take tasks from RabbitMQ: that of RABBITMQ_URL, else one of its own"
    )
    arguments.add_argument("--detach", action="store_true", help="return when everything is ready")
    arguments.add_argument("--json", action="store_true", help="for status: JSON instead of a table")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 with one clear line on standard error, 2 for a wrong command line, 3 from `status`."""
    return exit_status("run", lambda: _act(argv))


def _act(argv: Sequence[str] | None) -> int:
    arguments = parser()
    # Intermixed, so that options may come before, between and after the words.
    options = arguments.parse_intermixed_args(argv)
    if not 0 <= options.workers <= 64:
        arguments.error("--workers must be between 0 and 64")
    if options.service is None and options.verb in {"start", "restart", "logs"}:
        arguments.error(f"{options.verb} what? One of: {', '.join(names())}")
    layout = Layout.of(options.data)
    if options.verb is None:
        ports = Ports(options.port)
        starting.run(
            layout,
            ports,
            workers=options.workers,
            reset=options.reset,
            detach=options.detach,
            rabbitmq=options.rabbitmq,
        )
    elif options.verb == "status":
        return reporting.status(layout, say, as_json=options.json)
    elif options.verb == "stop" and options.service is None:
        stopping.stop(layout, say)
    elif options.verb == "logs":
        reporting.follow_logs(layout, options.service)
    else:
        _one_service(layout, options.verb, options.service)
    return 0


def _one_service(layout: Layout, verb: str, service: str) -> None:
    layout.require_ours()
    holder = holder_of(layout.lock)
    if holder is None or holder.port is None:
        raise InstanceError(f"the instance in {layout.data} does not run; start it with ./scripts/run")
    supervisor = Supervisor(Ports(holder.port), Credentials(layout.secrets)["supervisor"])
    if service not in {process.service for process in supervisor.processes()}:
        raise InstanceError(f"this instance was started without {service} (see ./scripts/run --help)")
    if verb in {"stop", "restart"}:
        supervisor.stop([service])
    if verb in {"start", "restart"}:
        supervisor.start([service])
        _wait_until_running(supervisor, service, layout)
    say(f"{service} {'stopped' if verb == 'stop' else 'runs'}")


def _wait_until_running(supervisor: Supervisor, service: str, layout: Layout) -> None:
    limit = time.monotonic() + 15
    while any(p.state != "RUNNING" for p in supervisor.processes() if p.service == service):
        if time.monotonic() > limit:
            raise InstanceError(f"{service} does not come up; see its log in {layout.logs}")
        time.sleep(0.05)
