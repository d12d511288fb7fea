"""`python -m benchmarks NAME`: runs one benchmark, prints its table and writes its figures."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.console import bench as console
from benchmarks.gateway import bench as gateway
from benchmarks.gateway_faults import bench as gateway_faults
from benchmarks.guessing import bench as guessing
from benchmarks.ingest import bench as ingest
from benchmarks.report import ReportRow, describe_machine, print_table, revision, write_json
from benchmarks.services import bench as services
from benchmarks.sites import bench as sites
from benchmarks.system import bench as system
from benchmarks.tasks import bench as tasks

#: What each benchmark adds to the arguments, and how it is run.
BENCHMARKS: dict[
    str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], Sequence[ReportRow]]]
] = {
    "console": (console.__doc__ or "", console.add_arguments, console.run),
    "gateway": (gateway.__doc__ or "", gateway.add_arguments, gateway.run),
    "gateway-faults": (gateway_faults.__doc__ or "", gateway_faults.add_arguments, gateway_faults.run),
    "guessing": (guessing.__doc__ or "", guessing.add_arguments, guessing.run),
    "ingest": (ingest.__doc__ or "", ingest.add_arguments, ingest.run),
    "services": (services.__doc__ or "", services.add_arguments, services.run),
    "sites": (sites.__doc__ or "", sites.add_arguments, sites.run),
    "system": (system.__doc__ or "", system.add_arguments, system.run),
    "tasks": (tasks.__doc__ or "", tasks.add_arguments, tasks.run),
}


def _names() -> str:
    return "\n".join(f"  {name:<16} {text.splitlines()[0]}" for name, (text, _, _) in BENCHMARKS.items())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./scripts/bench",
        description="Measure beside other programs, in turn, on this machine.",
        epilog="benchmarks:\n" + _names(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="name", metavar="NAME")
    for name, (text, add_arguments, _) in BENCHMARKS.items():
        command = commands.add_parser(name, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        command.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
        command.add_argument("--quick", action="store_true", help="short runs")
        add_arguments(command)
    arguments = parser.parse_args()
    if arguments.name is None:
        print("benchmarks:\n" + _names())
        return 0
    # Ending early must still end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        rows = BENCHMARKS[arguments.name][2](arguments)
    except KeyboardInterrupt:
        return 130
    print(f"\n{describe_machine()}; commit {revision()}\n")
    print_table(rows)
    if arguments.json is not None:
        write_json(arguments.json, arguments.name, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
