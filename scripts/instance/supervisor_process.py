"""The supervisor of one instance: `python -m scripts.instance.supervisor_process LOCK_DESCRIPTOR` in the data folder.

Runs supervisor, which holds the instance's lock for as long as it lives.
"""

from __future__ import annotations

import os
import sys

from supervisor.supervisord import main as supervise

# supervisor closes descriptors from 5 upwards in itself and from 3 upwards in its children, so this one is held exactly
# as long as supervisor lives.
_KEPT_DESCRIPTOR = 3


def main(descriptor: int) -> None:
    if descriptor != _KEPT_DESCRIPTOR:
        os.dup2(descriptor, _KEPT_DESCRIPTOR)
    supervise(["--configuration", "run/supervisord.conf"])


if __name__ == "__main__":
    main(int(sys.argv[1]))
