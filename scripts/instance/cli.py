"""The command line of ./scripts/run."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from textwrap import fill

from scripts.instance.command_line import exit_status, say
from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout
from scripts.instance.listening import Listening
from scripts.instance.lock import running_port
from scripts.instance.ports import GATEWAY_PORT, WORKERS, Ports, names
from servicekit.process.version import VERSION

# Everything else is imported when it is needed: the help takes no installed package.

_DESCRIPTION = """\
Run Siteworks on this machine: PostgreSQL, the services, the event streams, the task workers and the gateway.

  ./scripts/run                       start, and stay until Ctrl-C; ready on http://localhost:8000
  ./scripts/run --detach              start, and return when everything is ready
  ./scripts/run status                what is ready, with process ids and ports (exit status 0 if all is, else 3)
  ./scripts/run stop                  stop everything, in order
  ./scripts/run stop users            stop one service, or several (and watch a circuit open on /health) …
  ./scripts/run start users           … start it again …
  ./scripts/run restart users         … or both; returns when it is ready, or says why it cannot start
  ./scripts/run restart               restart every service; PostgreSQL and RabbitMQ go on
  ./scripts/run restart --workers 4   … with another number of task workers
  ./scripts/run logs gateway          follow a service's log, or several, or all

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

SERVICE_PROCESSES=2 makes each service two processes on its port, GATEWAY_PROCESSES=2 the gateway: up to one for each
core. PostgreSQL accepts as many connections as all may open; the number is set when the instance starts.
"""
_WIDTH = 118
_MOST_WORKERS = 64
_STARTING = frozenset({"port", "workers", "rabbitmq", "auth", "listen", "tls"})
#: The options of each verb; --data goes with all of them.
_TAKES = {
    "start": _STARTING,
    "stop": frozenset[str](),
    "restart": _STARTING,
    "status": frozenset({"json"}),
    "logs": frozenset[str](),
}
_ALONE = _STARTING | {"reset", "detach", "reload"}


def parser() -> argparse.ArgumentParser:
    services = f"Services: {', '.join(names())} (rabbitmq and ingest with --rabbitmq alone)."
    ports = [f"{name} P+{port - 1}" for name, port in Ports(1).by_name.items() if port > 1]
    listed = f"Ports, all on 127.0.0.1 unless --listen moves the gateway: gateway P (--port), {', '.join(ports)}."
    arguments = argparse.ArgumentParser(
        prog="./scripts/run",
        description=_DESCRIPTION.format(services=fill(services, _WIDTH)),
        epilog=_EPILOG.format(ports=fill(listed, _WIDTH)),
        formatter_class=argparse.RawTextHelpFormatter,
    )
    arguments.add_argument(
        "verb",
        nargs="?",
        metavar="VERB",
        help=f"{', '.join(_TAKES)}; without one: start, and stay until Ctrl-C",
    )
    arguments.add_argument(
        "services", nargs="*", metavar="SERVICE", help="what to start, stop, restart or follow (everything)"
    )
    arguments.add_argument("--port", type=int, metavar="P", help=f"the gateway's port ({GATEWAY_PORT})")
    arguments.add_argument("--data", metavar="DIR", help="the data folder (.data in the checkout)")
    arguments.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help=f"task worker processes ({WORKERS}); 0: none, so no task runs and none can be added later",
    )
    arguments.add_argument(
        "--reset",
        action="store_true",
        help="start afresh: forgets the data folder's database, queues, secrets and logs",
    )
    arguments.add_argument(
        "--rabbitmq", action="store_true", help="take tasks from RabbitMQ: that of RABBITMQ_URL, else one of its own"
    )
    arguments.add_argument(
        "--auth",
        action=argparse.BooleanOptionalAction,
        help="let nobody in without a login, from now on, and make an administrator; --no-auth opens it again",
    )
    arguments.add_argument(
        "--listen",
        metavar="ADDRESS",
        help="with --auth: where the gateway listens from now on, such as 0.0.0.0 for phones in the same network "
        "(127.0.0.1)",
    )
    arguments.add_argument(
        "--tls",
        nargs=2,
        metavar=("CERT", "KEY"),
        help="with --auth: files of the certificate, with its chain, and of its key, by which the gateway speaks TLS",
    )
    arguments.add_argument("--detach", action="store_true", help="return when everything is ready")
    arguments.add_argument(
        "--reload",
        action="store_true",
        help="restart tasks, worker and ingest when a Python file in the checkout or .env changes",
    )
    arguments.add_argument("--json", action="store_true", help="for status: JSON instead of a table")
    arguments.add_argument("--version", action="version", version=f"Siteworks {VERSION}")
    return arguments


def _refuse(arguments: argparse.ArgumentParser, options: argparse.Namespace, unknown: Sequence[str]) -> None:
    """Exit with one line if something was given that is unknown or would have no effect."""
    verb = options.verb
    if unknown:
        arguments.error(f"there is no option {unknown[0]}")
    if verb not in {None, *_TAKES}:
        arguments.error(f"there is no verb {verb}; there are: {', '.join(_TAKES)}")
    if strange := [name for name in options.services if name not in names()]:
        if re.fullmatch(r"worker-\d+", strange[0]):
            arguments.error(f"there is no service {strange[0]}; workers are started and stopped together: worker")
        arguments.error(f"there is no service {strange[0]}; there are: {', '.join(names())}")
    if verb == "status" and options.services:
        arguments.error("status shows every service; leave the name away")
    takes = _TAKES.get(verb, _ALONE)
    if options.services:
        takes = takes & {"workers"} if "worker" in options.services else frozenset()
    given = {name for name, value in vars(options).items() if value not in (None, False)}
    if ignored := sorted(given - takes - {"verb", "services", "data"}):
        words = " ".join(filter(None, [verb, *options.services])) or "a start"
        hint = "; --data names the instance, whatever its port" if ignored == ["port"] else ""
        arguments.error(f"--{ignored[0]} does not go with {words}{hint}")
    if options.reload and options.detach:
        arguments.error("--reload does not go with --detach: it watches in the foreground")
    if options.workers is not None and not 0 <= options.workers <= _MOST_WORKERS:
        arguments.error(f"--workers must be between 0 and {_MOST_WORKERS}")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 with one clear line on standard error, 2 for a wrong command line, 3 from `status`."""
    return exit_status("run", lambda: _act(argv))


def _runs(layout: Layout, options: argparse.Namespace) -> bool:
    """Whether a start or restart is that of a running instance."""
    layout.require_ours_or_empty()
    port = running_port(layout)
    if port is None:
        return False
    if options.verb is None and options.workers is not None:
        raise InstanceError(
            f"already running on {Listening.of(layout).url(port)}; ./scripts/run restart --workers {options.workers}"
            f"{layout.option} changes the number of its workers"
        )
    # Anything else needs a start afresh, which the instance's lock refuses.
    anew = (options.auth, options.listen, options.tls) != (None, None, None) or options.rabbitmq
    return options.verb is not None and options.port in {None, port} and not anew


def _act(argv: Sequence[str] | None) -> int:
    arguments = parser()
    # Intermixed, so that options may come before, between and after the words.
    options, unknown = arguments.parse_known_intermixed_args(argv)
    _refuse(arguments, options, unknown)
    layout = Layout.of(options.data)
    if options.verb in {"status", "logs"}:
        from scripts.instance import reporting

        if options.verb == "status":
            return reporting.status(layout, say, as_json=options.json)
        reporting.follow_logs(layout, options.services)
        return 0
    if options.verb == "stop" and not options.services:
        from scripts.instance import stopping

        stopping.stop(layout, say)
        return 0
    # Settings take as long to import as all the rest.
    from scripts.instance import operating, starting

    if options.services or _runs(layout, options):
        operating.act(layout, options.verb, options.services, options.workers)
    else:
        starting.run(
            layout,
            Ports(GATEWAY_PORT if options.port is None else options.port),
            workers=WORKERS if options.workers is None else options.workers,
            reset=options.reset,
            detach=options.detach or options.verb is not None,
            reload=options.reload,
            rabbitmq=options.rabbitmq,
            auth=options.auth,
            listen=options.listen,
            tls=options.tls,
        )
    return 0
