"""The ports of an instance."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from scripts.instance import starting
from scripts.instance.errors import InstanceError, PortTaken
from scripts.instance.identity import Identity
from scripts.instance.ports import Ports, free_base
from servicekit.process.services import services


def test_every_port_follows_from_the_gateways() -> None:
    assert Ports(8100).by_name == {
        **{row.name: row.port + 100 for row in services().values()},
        "gateway": 8100,
        "users": 8101,
        "orders": 8102,
        "tasks": 8103,
        "events": 8104,
        "postgres": 8105,
        "supervisor": 8106,
        "relay": 8107,
        "ingest": 8110,
        "rabbitmq": 8111,
        "rabbitmq's node": 8112,
        "rabbitmq's names": 8113,
    }


@pytest.mark.parametrize("base", [-1, 0, 65530, 80000])
def test_a_base_whose_row_does_not_fit_is_refused(base: int) -> None:
    with pytest.raises(InstanceError, match="--port must be between 1 and 65522"):
        Ports(base)


def test_a_free_row_is_free() -> None:
    Ports(free_base()).require_free()


@pytest.mark.parametrize(
    ("offset", "complaint"),
    [(0, r"port {port} for gateway is taken"), (5, r"port {port} for postgres \(--port {base} \+ 5\) is taken")],
)
def test_a_taken_port_is_named_with_its_purpose_and_a_way_out(offset: int, complaint: str) -> None:
    base = free_base()
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", base + offset))
        occupant.listen()
        with pytest.raises(PortTaken, match=complaint.format(port=base + offset, base=base)) as refused:
            Ports(base).require_free()
    suggested = int(str(refused.value).rpartition("--port ")[2])
    Ports(suggested).require_free()


def test_a_port_that_root_may_use_and_postgresql_may_not_is_told_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "first").write_text("1024\n")
    monkeypatch.setattr(starting, "_FIRST_FREE_FOR_ALL", tmp_path / "first")
    starting._require_port_for(Identity(), Ports(80))
    starting._require_port_for(Identity(prefix=("unshare",)), Ports(1024))
    with pytest.raises(PortTaken, match=r"port 85 for postgres may be used by root alone.* choose --port 8000"):
        starting._require_port_for(Identity(prefix=("unshare",)), Ports(80))


def test_only_who_uses_rabbitmq_needs_its_ports() -> None:
    base = free_base()
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", base + 12))
        Ports(base).require_free(but=["rabbitmq"])
        with pytest.raises(PortTaken, match="for rabbitmq's node"):
            Ports(base).require_free(but=["ingest"])
