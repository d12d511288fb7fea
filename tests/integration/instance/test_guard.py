"""What tests have started does not outlive them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from scripts.instance.layout import CHECKOUT
from tests.support.waiting import eventually

_TESTS = """
import pathlib, subprocess, sys
from tests.support import guard
guard.start(pathlib.Path(sys.argv[1]))
print(subprocess.Popen(["sleep", "600"], start_new_session=True).pid, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_of_tests_has_started_is_ended(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _TESTS, str(tmp_path / "session")],
        cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as tests:  # fmt: skip
        assert tests.stdout is not None
        started = psutil.Process(int(tests.stdout.readline()))
        tests.kill()
    eventually(lambda: not started.is_running() or started.status() == psutil.STATUS_ZOMBIE, timeout=30)
