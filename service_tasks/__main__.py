"""python -m service_tasks; service_tasks.cli has the commands."""

from __future__ import annotations

import sys

from service_tasks.cli import main

if __name__ == "__main__":
    sys.exit(main())
