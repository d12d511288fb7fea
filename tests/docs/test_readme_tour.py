"""Whoever pastes the README's commands gets the README's answers."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.markdown import CHECKOUT, Block, Document
from tests.support.system import RunningSystem

README = Document(CHECKOUT / "README.md")
PATIENCE = 30.0  # seconds for an answer that takes its time: a running task, a circuit that heals

pytestmark = pytest.mark.timeout(240)

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
#: Values that differ from run to run; only their types are compared. A generation counts the moves of a circuit, and
#: one more probe that comes while a service still starts makes two of them.
_CHANGING = {"percent", "duration", "calls", "failures", "failure_rate", "slow_share", "ok", "generation"}
#: Values that may be there or not, depending on the moment.
_SOMETIMES = {"last_probe"}


@dataclass(frozen=True)
class Step:
    """Commands of the README and the answer printed under them, if one is."""

    commands: Block
    status: int | None
    answer: Any

    @property
    def again(self) -> Block | None:
        """As much of the end of the commands as only reads, and so may be given again."""
        texts = (self.commands.text, self.commands.text.rpartition("\n\n")[2])
        reading = (text for text in texts if not re.search(r" -d | -X |scripts/run", text))
        return next((replace(self.commands, text=text) for text in reading), None)


def steps() -> list[Step]:
    """Pair every block with a curl in it with the answer that follows."""
    found = []
    for block, following in zip(README.blocks, [*README.blocks[1:], None], strict=True):
        if block.language != "sh" or "curl" not in block.text:
            continue
        status, answer = None, None
        if following is not None and following.language == "jsonc":
            first, _, rest = following.text.partition("\n")
            status, answer = int(first.removeprefix("//")), json.loads(rest)
        found.append(Step(block, status, answer))
    return found


class Terminal:
    """Runs blocks in a shell, one after another; variables named …_ID live on."""

    def __init__(self, system: RunningSystem, folder: Path) -> None:
        self._port = system.port
        self._run = f"{shlex.quote(sys.executable)} -m scripts.instance --data {shlex.quote(str(system.data))} "
        self._kept = folder / "variables"
        # The status of every answer goes to standard error, out of the way of pipes.
        self._curl = 'command curl -w "%{stderr}%{http_code}\\n" "$@"'
        if shutil.which("curl") is None:
            self._curl = f'{shlex.quote(sys.executable)} -m tests.support.curl "$@"'
        self._variables: dict[str, str] = {}

    def run(self, block: Block) -> tuple[int, Any]:
        """Give the status and JSON of the last answer."""
        text = block.text.replace("localhost:8000", f"localhost:{self._port}").replace("./scripts/run ", self._run)
        script = "\n".join(
            (
                "set -a",
                f"curl() {{ {self._curl}; }}",
                text,
                f"env -0 > {shlex.quote(str(self._kept))}",
            )
        )
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=CHECKOUT,
            env={**os.environ, **self._variables, "NO_PROXY": "*", "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{block.place}: {done.stdout}{done.stderr}"
        pairs = (item.partition("=") for item in self._kept.read_text(encoding="utf-8").split("\0"))
        self._variables = {name: value for name, _, value in pairs if name.endswith("_ID")}
        statuses = re.findall(r"^(\d{3})$", done.stderr, re.MULTILINE)
        starts = [found.start() for found in re.finditer(r'\{"success":', done.stdout)]
        answer = json.JSONDecoder().raw_decode(done.stdout, starts[-1])[0] if starts else None
        return int(statuses[-1]), answer


def difference(printed: Any, real: Any, at: str = "answer") -> str | None:
    """Say where two answers differ in shape, or in a value that does not change from run to run."""
    name = at.rpartition(".")[2]
    if name in _SOMETIMES and (printed is None or real is None):
        return None
    if isinstance(printed, dict) and isinstance(real, dict):
        if printed.keys() != real.keys():
            return f"{at} has {sorted(real)} instead of {sorted(printed)}"
        return next(filter(None, (difference(printed[key], real[key], f"{at}.{key}") for key in printed)), None)
    if isinstance(printed, list) and isinstance(real, list):
        if len(printed) != len(real):
            return f"{at} has {len(real)} items instead of {len(printed)}"
        pairs = zip(printed, real, strict=True)
        return next(filter(None, (difference(p, r, f"{at}.{i}") for i, (p, r) in enumerate(pairs))), None)
    if _kind(printed) != _kind(real):
        return f"{at} is {real!r}, {_kind(real)} instead of {_kind(printed)}"
    changes = name in _CHANGING or at.endswith("progress.message")
    if _kind(printed) in {"an id", "a time"} or changes or printed == real:
        return None
    return f"{at} is {real!r} instead of {printed!r}"


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "an id" if _UUID.fullmatch(value) else "a time" if _TIME.fullmatch(value) else "a text"
    if isinstance(value, bool) or value is None:
        return json.dumps(value) if value is None else "a boolean"
    return "a number" if isinstance(value, int | float) else type(value).__name__


def test_every_curl_of_the_readme_gives_the_answer_printed_there(running: RunningSystem, tmp_path: Path) -> None:
    terminal = Terminal(running, tmp_path)
    for step in steps():
        limit = time.monotonic() + PATIENCE
        commands = step.commands
        while True:
            status, answer = terminal.run(commands)
            wrong = None if step.answer is not None or status < 400 else f"the status is {status}"
            if step.answer is not None:
                wrong = difference(step.answer, answer)
                if status != step.status:
                    wrong = f"the status is {status} instead of {step.status}: {answer}"
            if wrong is None:
                break
            # A task that still runs, a circuit that has not opened yet, a probe that was late: look again. What changes
            # something is judged at once.
            if step.again is None or time.monotonic() > limit:
                pytest.fail(f"{step.commands.place}: {wrong}")
            commands = step.again


def test_the_readme_shows_an_answer_to_every_kind_of_request() -> None:
    answered = [step for step in steps() if step.answer is not None]

    assert len(answered) >= 15
    assert {step.status for step in answered} == {200, 201, 400, 409, 503}
    assert all(step.answer["success"] is (step.status < 400) for step in answered)


def test_the_readme_names_its_example_module_alike() -> None:
    assert "`paint.py` in the folder `own_tasks`" in README.text
    assert "TASK_MODULES=own_tasks.paint" in README.text


def test_a_difference_in_shape_is_seen() -> None:
    assert difference({"a": 1}, {"a": 1, "b": 2}) == "answer has ['a', 'b'] instead of ['a']"
    assert difference({"a": None}, {"a": 1}) == "answer.a is 1, a number instead of null"
    assert difference({"at": "2026-11-21T01:37:57Z"}, {"at": "2026-11-22T01:37:57.5Z"}) is None
    assert difference({"percent": 37}, {"percent": 50}) is None
    assert difference({"percent": 37}, {"percent": "50"}) is not None
    assert difference({"error": {"message": "a"}}, {"error": {"message": "b"}}) is not None
