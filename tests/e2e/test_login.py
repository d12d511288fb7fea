"""An instance that was open, and then asks for a login."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

from scripts.instance.closing import ADMINISTRATOR
from tests.support.markdown import CHECKOUT, Document
from tests.support.system import RunningSystem
from tests.support.waiting import eventually


def as_the_readme_says(system: RunningSystem) -> str:
    """What the README's login prints."""
    (text,) = [block.text for block in Document(CHECKOUT / "README.md").blocks if block.language == "shell"]
    text = text.replace("localhost:8000", f"localhost:{system.port}").replace(".data/", f"{system.data}/")
    curl = f'curl() {{ {shlex.quote(sys.executable)} -m tests.support.curl "$@" 2> /dev/null; }}'
    return subprocess.check_output(["sh", "-c", f"{curl}\n{text}"], cwd=CHECKOUT, text=True, timeout=60)


def test_closing_an_open_instance_leaves_no_way_in_but_the_new_administrator(tmp_path: Path) -> None:
    system = RunningSystem(tmp_path / "data")
    password = "seven brown cranes at noon"
    mallory = {"email": "mallory@example.com", "name": "Mallory", "roles": ["admin"], "password": password}
    try:
        system.start("--workers", "0")
        assert system.post("/users", mallory).status == 201
        system.cli("stop")
        system.start("--workers", "0", "--auth")
        assert system.get("/users").status == 401
        assert system.post("/auth/login", {"email": mallory["email"], "password": password}).status == 401
        file = system.data / "secrets" / "administrator"
        assert file.stat().st_mode & 0o777 == 0o600
        login = {"email": ADMINISTRATOR, "password": file.read_text().strip()}
        token = system.post("/auth/login", login).data["access_token"]
        fields = {"Authorization": f"Bearer {token}"}
        # The gateway asks for the keys again a few seconds after users was away.
        eventually(lambda: system.get("/users", headers=fields).status == 200, timeout=20, what="the keys are known")
        shown = json.loads(as_the_readme_says(system))
        assert {user["email"] for user in shown["data"]["users"]} == {ADMINISTRATOR, mallory["email"]}
    finally:
        system.stop()
