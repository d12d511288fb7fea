"""Ingestion as `python -m service_tasks.cli ingest` runs it, with another size of batch: for the benchmark alone."""

from __future__ import annotations

import sys

from service_tasks.engine.registry import load_registry
from service_tasks.ingest.process import run_ingest
from service_tasks.settings import IngestSettings
from servicekit.observing import logs
from servicekit.process.settings import load_or_exit


def main(batch: str, prefetch: str) -> int:
    settings = load_or_exit(IngestSettings, "task_ingest")
    logs.configure("task_ingest", fmt=settings.log_format, level=settings.log_level)
    return run_ingest(settings, load_registry(settings.modules), batch=int(batch), prefetch=int(prefetch))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
