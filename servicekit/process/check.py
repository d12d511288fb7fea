"""Whether all services, and the programs of some modules, could start with the settings in this environment.

For a container that looks before they do: python -m servicekit.process.check api_gateway.settings

Programs that read a secret from a file are left out: the file is where they are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module

from servicekit.process.services import services
from servicekit.process.settings import ServiceSettings, SettingsError, load


def wrong_settings(modules: list[str]) -> Iterator[str]:
    """Yield a line for each program whose settings, in those of a service or in one of these modules, are wrong."""
    for module in [*(service.module("settings") for service in services().values()), *map(import_module, modules)]:
        for found in vars(module).values():
            if not (isinstance(found, type) and issubclass(found, ServiceSettings) and found.process):
                continue
            if any(field.endswith("_file") and os.environ.get(field.upper()) for field in found.model_fields):
                continue
            try:
                load(found)
            except SettingsError as exc:
                yield f"{found.process} cannot start: {exc}"


if __name__ == "__main__":
    sys.exit("\n".join(wrong_settings(sys.argv[1:])) or None)
