"""Replace this process with a program: `python -I -S launch.py NAME`, run by supervisor in the data folder.

Reads run/NAME.json and calls exec, so that supervisor watches and signals the program itself. Imports little, and only
from the standard library, because it runs before every start and restart.
"""

import json
import os
import sys
from collections.abc import Mapping


def main(name: str) -> None:
    with open(os.path.join("run", name + ".json"), encoding="utf-8") as file:
        plan = json.load(file)
    environment = environment_of(plan["set"], plan["unset"], os.environ)
    if plan["log"] is not None:
        log = os.open(plan["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
    os.chdir(plan["cwd"])
    if plan["uid"] is not None:
        os.setgroups([])
        os.setgid(plan["gid"])
        os.setuid(plan["uid"])
    os.execve(plan["argv"][0], plan["argv"], environment)


def environment_of(own: Mapping[str, str], unset: list[str], inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program: supervisor's without some variables, and its own."""
    kept = {name: value for name, value in inherited.items() if not _matches(name, unset)}
    return {**kept, **own}


def _matches(name: str, patterns: list[str]) -> bool:
    return any(name == p or (p.endswith("*") and name.startswith(p[:-1])) for p in patterns)


if __name__ == "__main__":
    main(sys.argv[1])
