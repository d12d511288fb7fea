"""The command line of ./scripts/soak."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from scripts.instance.command_line import exit_status, say
from scripts.instance.ports import free_base
from scripts.soaking import task_verdict, verdict
from scripts.soaking.killing import VICTIMS, Blow
from scripts.soaking.report import lines, task_lines
from scripts.soaking.soak import CLIENTS as REQUEST_CLIENTS
from scripts.soaking.soak import Outcome, soak
from scripts.soaking.task_soak import CLIENTS as TASK_CLIENTS
from scripts.soaking.task_soak import TASK_VICTIMS, TaskOutcome, task_soak

_REQUESTS, _TASKS, _MESSAGES = "requests", "tasks", "messages"
_EVERY = {_REQUESTS: 20.0, _TASKS: 10.0}


def _listed(victims: Mapping[str, Blow]) -> str:
    return "\n".join(f"  {name} ({blow.signal.name})" for name, blow in victims.items())


_DESCRIPTION = f"""\
Load a system for a long time while one of its processes is killed every few seconds, in random order, and judge what
came of it. Starts an instance of its own in a temporary folder. The exit status is 1 if there was a fault.

{_REQUESTS} (the default): {REQUEST_CLIENTS} clients use everything (reads, creates, updates, deletes, details, bad
input, pages), and every answer is judged. Killed:
{_listed(VICTIMS)}

{_TASKS}: {TASK_CLIENTS} clients create tasks (single, in batches, with Idempotency-Key, with unique_key, for later,
failing ones), cancel and retry some; the handlers write down every run, and the fate of every task is judged. Killed,
ended or paused, now and then two at once:
{_listed(TASK_VICTIMS)}

{_MESSAGES}: messages are published to RabbitMQ, each of which must become one task. It has other options:
`./scripts/soak {_MESSAGES} --help`.
"""


def _rules(document: str | None) -> str:
    text = (document or "").partition("\n\n")[2]
    for name, seconds in (
        ("RECOVERY_SECONDS", verdict.RECOVERY_SECONDS),
        ("RESCUE_SECONDS", task_verdict.RESCUE_SECONDS),
        ("CANCEL_SECONDS", task_verdict.CANCEL_SECONDS),
    ):
        text = text.replace(name, f"{seconds:.0f} seconds")
    return text


def _parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="./scripts/soak",
        description=_DESCRIPTION,
        epilog=f"what must hold:\n{_rules(verdict.__doc__)}\nand of {_TASKS}:\n{_rules(task_verdict.__doc__)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument(
        "what",
        nargs="?",
        choices=list(_EVERY),
        default=_REQUESTS,
        metavar=f"{{{_REQUESTS},{_TASKS},{_MESSAGES}}}",
        help=f"what is judged ({_REQUESTS})",
    )
    arguments.add_argument("--minutes", type=float, default=30.0, metavar="M", help="how long (30)")
    every = ", ".join(f"{what}: {seconds:.0f}" for what, seconds in _EVERY.items())
    arguments.add_argument("--every", type=float, metavar="S", help=f"seconds between two kills ({every})")
    arguments.add_argument("--seed", metavar="TEXT", help="repeats the choices of an earlier run")
    arguments.add_argument(
        "--data", type=Path, metavar="DIR", help="where the instance is kept afterwards, with its logs"
    )
    return arguments


def main() -> int:
    """The exit status: 0 without a fault, 1 with one."""
    if sys.argv[1:2] == [_MESSAGES]:
        # It has options of its own, and needs nothing that the others do.
        from scripts.soaking import messages

        return messages.main(sys.argv[2:])
    options = _parser().parse_args()
    # SIGTERM must still stop what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return exit_status("soak", lambda: _act(options))


def _act(options: argparse.Namespace) -> int:
    seed = options.seed or f"{random.getrandbits(32):08x}"
    port = free_base()
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data" if options.data is None else options.data
        seconds, every = options.minutes * 60, options.every or _EVERY[options.what]
        outcome: Outcome | TaskOutcome
        if options.what == _TASKS:
            outcome = task_soak(data, port, seconds=seconds, every=every, seed=seed, say=say)
            told = task_lines(outcome)
        else:
            outcome = soak(data, port, seconds=seconds, every=every, seed=seed, say=say)
            told = lines(outcome)
    say("")
    for line in told:
        say(line)
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
