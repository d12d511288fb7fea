"""What is said of a `.env` that is broken, and of names that are nearly right."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.instance.env_file import misspelt, names_in, set_twice
from scripts.instance.errors import InstanceError

_KNOWN = [
    "LOG_LEVEL",
    "ALLOWED_HOSTS",
    "SMTP_HOST",
    "TASK_MODULES",
    "WORKER_CONCURRENCY",
    "USERS_DATABASE_URL",
    "TASKS_URL",
]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"A=1\n\nWORKER CONC=3\nB=2\n", r"line 3 \(WORKER CONC=…\) cannot be read; write it as NAME=value"),
        (b"A=1\r\nfoo bar\r\nB=2\r\n", "line 2 cannot be read"),
        (b'A=1\nB="no end\n', r"line 2 \(B=…\) cannot be read"),
        (b"A=1\nexport B\n", "line 2 cannot be read"),
        (b"A=1\n# \xc3\xa4\n\xff\xfe=x\n", "line 3 is not UTF-8"),
    ],
)
def test_a_line_that_sets_nothing_is_named(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(InstanceError, match=told):
        names_in(tmp_path / ".env")


def test_what_the_services_read_is_taken(tmp_path: Path) -> None:
    assert names_in(tmp_path / ".env") == []
    (tmp_path / ".env").write_text("\ufeff# a comment\nexport A=1\n b = 'x\ny' # two lines\nC=\n\nD=\"=\"\n", "utf-8")
    assert names_in(tmp_path / ".env") == ["A", "B", "C", "D"]


def test_a_name_set_twice_is_told_with_both_lines(tmp_path: Path) -> None:
    assert list(set_twice(tmp_path / ".env")) == []
    (tmp_path / ".env").write_text("A=1\n\n# B=0\nB='x\ny'\n\nb=2\nAB=1\r\nA=3\r\nA=4\r\n", "utf-8")
    assert list(set_twice(tmp_path / ".env")) == [
        "B is set twice in .env, in lines 4 and 7; line 7 counts",
        "A is set twice in .env, in lines 1 and 9; line 9 counts",
        "A is set twice in .env, in lines 9 and 10; line 10 counts",
    ]


@pytest.mark.parametrize(
    ("in_file", "environment", "meant"),
    [
        (["WORKER_CONCURENCY"], [], ["WORKER_CONCURRENCY"]),
        (["LOG_LEVLE", "TASK_MODULE"], [], ["LOG_LEVEL", "TASK_MODULES"]),
        (["WROKER_CONCURRENCY", "task_modules"], [], ["WORKER_CONCURRENCY", "TASK_MODULES"]),
        # Settings of own task types, and of a service that is yet to be added.
        (["CONCRETE_PLANT", "SITES_DATABASE_URL", "SMTP_FOLDER"], [], []),
        ([], ["WORKER_CONCURENCY", "TASK_MODUL"], ["TASK_MODULES", "WORKER_CONCURRENCY"]),
        # The environment is everybody's: a program's first word is needed, and no address is meant for the instance.
        ([], ["LOG_LEVLE", "ALLOWED_HOST", "SMTP_HOSTS", "TASK_URL", "WORKER_ID", "GATEWAY_INTERFACE", "PATH"], []),
        (["TASK_MODULES"], ["WORKER_CONCURRENCY"], []),
    ],
)
def test_a_misspelt_name_is_told_and_a_strangers_is_not(
    in_file: list[str], environment: list[str], meant: list[str]
) -> None:
    told = list(misspelt(in_file, dict.fromkeys(environment, "x"), _KNOWN))
    assert [line.partition("did you mean ")[2].rstrip("?") for line in told] == meant
