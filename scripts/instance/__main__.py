"""`python -m scripts.instance`, which ./scripts/run executes."""

from __future__ import annotations

import sys

from scripts.instance.cli import main

if __name__ == "__main__":
    sys.exit(main())
