"""The command line of ./scripts/soak."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.report import describe_machine, revision
from scripts.instance.command_line import exit_status, say
from scripts.instance.ports import free_base
from scripts.soaking.killing import VICTIMS
from scripts.soaking.report import lines, write_json
from scripts.soaking.soak import CLIENTS, soak
from scripts.soaking.verdict import RECOVERY_SECONDS
from scripts.soaking.verdict import __doc__ as rules

_DESCRIPTION = f"""\
Load a system for a long time while one of its processes is killed every few seconds.

Starts an instance of its own in a temporary folder, uses it with {CLIENTS} clients (reads, creates, updates, deletes,
details, bad input, pages), kills with SIGKILL, in random order, and judges every answer. The exit status is 1 if there
was a fault.

`./scripts/soak messages --help` tells of the other one: messages from RabbitMQ, each of which must become one task.

killed: {", ".join(VICTIMS)}
"""
_RULES = (rules or "").partition("\n\n")[2].replace("RECOVERY_SECONDS", f"{RECOVERY_SECONDS:.0f} seconds")


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="./scripts/soak",
        description=_DESCRIPTION,
        epilog="faults:\n" + _RULES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--minutes", type=float, default=30.0, metavar="M", help="how long (30)")
    arguments.add_argument("--every", type=float, default=20.0, metavar="S", help="seconds between two kills (20)")
    arguments.add_argument("--seed", metavar="TEXT", help="repeats the choices of an earlier run")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments.add_argument(
        "--data", type=Path, metavar="DIR", help="where the instance is kept afterwards, with its logs"
    )
    return arguments


def main() -> int:
    """The exit status: 0 without a fault, 1 with one."""
    if sys.argv[1:2] == ["messages"]:
        # Has options of its own, and needs none of what the others do.
        from scripts.soaking import messages

        return messages.main(sys.argv[2:])
    options = parser().parse_args()
    # Ending early must still end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return exit_status("soak", lambda: _act(options))


def _act(options: argparse.Namespace) -> int:
    seed = options.seed or f"{random.getrandbits(32):08x}"
    port = free_base()
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data" if options.data is None else options.data
        outcome = soak(data, port, seconds=options.minutes * 60, every=options.every, seed=seed, say=say)
    say("")
    for line in lines(outcome):
        say(line)
    if options.json is not None:
        write_json(options.json, outcome, commit=revision(), machine=describe_machine())
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
