"""Each service alone beside the same service of two other stacks: CPU and rate of showing, listing, making, changing.

One process each over the same tables with the same rows. The services have one core, the load and PostgreSQL another;
the stacks take turns in every round, and before it they must give the same answers. With --rows the works are lists.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.report import ReportRow
from benchmarks.system import measuring
from benchmarks.system.works import LISTS, SERVICES

_CLIENTS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    measuring.add_arguments(parser, SERVICES, LISTS, _CLIENTS)


def run(arguments: argparse.Namespace) -> Sequence[ReportRow]:
    usual = list(SERVICES if arguments.rows is None else LISTS)
    plan = measuring.plan_of(arguments, {**SERVICES, **LISTS}, usual, whole=False)
    return measuring.measure(plan, measuring.stacks_of(arguments))
