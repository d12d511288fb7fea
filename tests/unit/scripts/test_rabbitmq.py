"""Which broker an instance uses, and what its own one may see."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.instance import rabbitmq
from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout
from scripts.instance.ports import Ports
from scripts.instance.rabbitmq import LocalRabbitMQ, choose_broker


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path)


def test_unless_somebody_asks_there_is_none(layout: Layout) -> None:
    assert choose_broker(layout, Ports(8000), wanted=False) is None


@pytest.mark.parametrize("wanted", [True, False])
def test_one_that_is_named_is_used_whether_or_not_it_is_asked_for(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://site:word@broker.example/%2F")
    broker = choose_broker(layout, Ports(8000), wanted=wanted)
    assert broker is not None
    assert (broker.url, broker.own) == ("amqp://site:word@broker.example/%2F", None)


def test_an_address_that_is_none_is_refused_by_its_name(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "broker.example:5672")
    with pytest.raises(InstanceError, match="RABBITMQ_URL: write it as amqp://"):
        choose_broker(layout, Ports(8000), wanted=False)


def test_an_installed_one_is_used_when_it_is_asked_for(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq, "installed", lambda: Path("/opt/rabbitmq"))
    broker = choose_broker(layout, Ports(8100), wanted=True)
    assert broker is not None
    assert broker.own is not None
    assert broker.url == "amqp://guest:guest@127.0.0.1:8111/%2F"
    assert broker.own.folder == layout.data / "rabbitmq"


def test_without_an_installed_one_the_refusal_says_what_to_do(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq, "installed", lambda: None)
    with pytest.raises(InstanceError, match=r"install rabbitmq-server .* RABBITMQ_URL") as refused:
        choose_broker(layout, Ports(8000), wanted=True)
    assert "\n" not in str(refused.value)


def test_its_programs_see_nothing_of_the_callers_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_NODENAME", "rabbit@elsewhere")
    monkeypatch.setenv("ERL_FLAGS", "-setcookie theirs")
    environment = LocalRabbitMQ(tmp_path, 8011, Path("/opt/rabbitmq")).environment()
    assert environment["RABBITMQ_NODENAME"] == "siteworks8011@localhost"
    assert "ERL_FLAGS" not in environment
    outside = {"PATH", "LANG", "RABBITMQ_LOGS", "RABBITMQ_NODENAME", "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"}
    for name, value in environment.items():
        assert name in outside or value.startswith((str(tmp_path), "80", "127.0.0.1")), name


def test_a_wrapper_on_the_path_is_not_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As Debian's /usr/sbin/rabbitmq-server, which becomes another user; here even without a rabbitmqctl beside it.
    wrapper = tmp_path / "rabbitmq-server"
    wrapper.write_text("#!/bin/sh\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rabbitmq, "_PACKAGED", tmp_path / "none")
    assert rabbitmq.installed() is None
