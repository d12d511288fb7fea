"""The table of services, and what becomes of a row that is wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.instance import command_line, ports
from scripts.instance.credentials import Credentials
from scripts.instance.databases import create_databases
from scripts.instance.errors import StartFailed
from scripts.instance.layout import CHECKOUT
from scripts.instance.postgres import EmbeddedPostgres
from servicekit.process import services as table
from servicekit.process.services import BadServiceTable, Service, services
from servicekit.process.settings import settings_of

GOOD = '[users]\npackage = "service_users"\nport = 8001\nhears = []\n'


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Give a function that puts another table in the place of ours."""
    monkeypatch.setattr(table, "FILE", tmp_path / "services.toml")

    def forget() -> None:
        services.cache_clear()
        ports._distances.cache_clear()

    yield lambda text: (table.FILE.write_text(text), forget())[-1]
    monkeypatch.undo()
    forget()


def test_the_gateway_names_a_wrong_row_in_one_line_too(tmp_path: Path) -> None:
    for package in ("servicekit", "api_gateway"):
        shutil.copytree(CHECKOUT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "services.toml").write_text(GOOD.replace("8001", "true"))
    command = [sys.executable, "-m", "gunicorn", "-c", "api_gateway/gunicorn.conf.py", "api_gateway.asgi:app"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr == "api_gateway cannot start: services.toml: [users] port must be a number from 1 to 65535\n"


def test_a_row_names_all_that_derives_from_it(write: Callable[[str], None]) -> None:
    write(GOOD + '[gnomes]\npackage = "service_gnomes"\nport = 8042\nhears = ["user.deleted"]\n')
    assert list(services()) == ["users", "gnomes"]
    gnomes = services()["gnomes"]
    assert gnomes == Service("gnomes", "service_gnomes", 8042, ("user.deleted",))
    assert gnomes.variable("DATABASE_URL") == "GNOMES_DATABASE_URL"
    assert gnomes.default_url == "http://127.0.0.1:8042"
    assert gnomes.unavailable_code == "gnomes_unavailable"
    assert ports.Ports(9000)["gnomes"] == 9042
    assert ports.row_length() == 43


def test_a_package_that_is_not_there_is_named(write: Callable[[str], None]) -> None:
    write(GOOD.replace("service_users", "service_gnomes"))
    with pytest.raises(BadServiceTable, match=r"\[users\] there is no package service_gnomes here; make it, or take"):
        services()["users"].module("app")


def test_a_package_without_settings_of_the_service_is_named(write: Callable[[str], None]) -> None:
    write(GOOD.replace("[users]", "[gnomes]"))
    with pytest.raises(BadServiceTable, match=r"service_users.settings has no settings of \[gnomes\]: a class below"):
        settings_of(services()["gnomes"])


def test_a_row_without_a_database_is_named_before_anything_is_made(
    write: Callable[[str], None], tmp_path: Path
) -> None:
    write(GOOD + '[gnomes]\npackage = "service_gnomes"\nport = 8042\nhears = []\n')
    server = EmbeddedPostgres(tmp_path, 1, "of nobody")
    with pytest.raises(StartFailed, match=r"\[gnomes\] deploy/postgres/databases.sql makes no database for it; docs/"):
        create_databases(server, Credentials(tmp_path))
    assert not list(tmp_path.glob("gnomes"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[users", "services.toml cannot be read: "),
        ("users = 1\n", "[users] needs hears, package, port, and nothing else"),
        (GOOD + "colour = 1\n", "[users] needs hears, package, port, and nothing else"),
        (GOOD.replace("hears = []\n", ""), "[users] needs hears, package, port, and nothing else"),
        (GOOD.replace("[users]", "[users_owner]"), "[users_owner] would be a database's owner; choose another name"),
        (GOOD.replace("[users]", "[Users]"), "[Users] is not a name: use lower-case letters, digits and _"),
        (GOOD.replace("service_users", "service-users"), "[users] package must be the name of a folder"),
        (GOOD.replace("8001", '"8001"'), "[users] port must be a number from 1 to 65535"),
        (GOOD.replace("8001", "true"), "[users] port must be a number from 1 to 65535"),
        (GOOD.replace("8001", "70000"), "[users] port must be a number from 1 to 65535"),
        (GOOD.replace("[]", '"user.deleted"'), '[users] hears must be a list of types of events, such as ["user.'),
        (GOOD + GOOD.replace("[users]", "[gnomes]"), "[gnomes] port 8001 is that of [users]; choose another"),
        (
            GOOD + GOOD.replace("[users]", "[gnomes]").replace("8001", "8015"),
            "[gnomes] package service_users is that of",
        ),
        (GOOD.replace("8001", "8005"), "[users] port 8005 is that of postgres; choose another"),
        (GOOD.replace("8001", "9001"), "[users] port must be from 8001 to 8099"),
        (GOOD.replace("[users]", "[worker]"), "[worker] is the name of another program; choose another"),
    ],
)
def test_a_wrong_row_is_one_line_that_says_what_to_do(
    text: str, problem: str, write: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write(text)
    assert command_line.exit_status("run", lambda: ports.Ports(8000)["users"]) == 1
    told = capsys.readouterr().err
    assert problem in told
    assert told.startswith("run: services.toml")
    assert told.count("\n") == 1
