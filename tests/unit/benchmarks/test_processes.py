"""What benchmarks read of processes."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.processes import cpu_seconds
from tests.support.waiting import eventually

# Its children use as much time as can be measured, each in turn, and more than is lost to whole ticks, of which four
# figures are added up; it says when all have ended, and waits.
_PARENT = """
import os, subprocess, sys
for _ in range(3):
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.12: pass"])
print("done", flush=True)
sys.stdin.read()
"""


def test_the_time_of_children_that_ended_stays_with_their_parent_and_never_falls() -> None:
    seen = [0.0]
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        os.set_blocking(parent.stdout.fileno(), False)

        def done() -> bool:
            seen.append(cpu_seconds(parent.pid))
            assert parent.stdout is not None
            return parent.stdout.read() == b"done\n"

        eventually(done, timeout=30, what="its children to end")
        assert cpu_seconds(parent.pid) >= 0.3
        parent.communicate()
    assert seen == sorted(seen)
    assert cpu_seconds(parent.pid) == 0.0
