"""The whole system through its gateway beside two other stacks: 32 clients, everything on all cores of this machine.

A gateway and a process for each service over the same tables with the same rows; ours deliver events, too. The stacks
take turns in every round, and before it they must give the same answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.report import ReportRow
from benchmarks.system import measuring
from benchmarks.system.works import SYSTEM

_CLIENTS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, SYSTEM, {}, _CLIENTS)


def run(arguments: argparse.Namespace) -> Sequence[ReportRow]:
    plan = measuring.plan_of(arguments, SYSTEM, list(SYSTEM), whole=True)
    return measuring.measure(plan, measuring.stacks_of(arguments))
