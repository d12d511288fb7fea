"""Run a program with other constants: python -m tests.support.with_constants package.module.NAME=0.1 gunicorn …"""

from __future__ import annotations

import importlib
import runpy
import sys

if __name__ == "__main__":
    arguments = sys.argv[1:]
    while "=" in arguments[0]:
        place, _, value = arguments.pop(0).partition("=")
        module, _, name = place.rpartition(".")
        loaded = importlib.import_module(module)
        setattr(loaded, name, type(getattr(loaded, name))(value))
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
