"""A gateway that runs out of open files blames no service, and turns nobody away."""

from __future__ import annotations

import json
from pathlib import Path

import psutil

from tests.support.gateway import GatewayProcess
from tests.support.shortage import at_most, filled
from tests.support.waiting import eventually

FILES = 120


def test_without_a_file_to_connect_with_a_request_is_refused_and_no_circuit_hears_of_it(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "log", before=at_most(FILES))
    try:
        (worker,) = psutil.Process(gateway.process.pid).children()
        client = gateway.client
        with client.connect() as known:
            assert client.request("OPTIONS", "*", connection=known).status == 204

            def refuses() -> bool:
                for _ in range(30):
                    refused = client.request("GET", "/users", connection=known)
                    if refused.status == 200:
                        # It found the file of a probe that had begun before.
                        gateway.upstreams["users"].drop_connections()
                        return False
                    assert (refused.status, refused.code, refused.value("Retry-After")) == (503, "overloaded", "1")
                return True

            with filled(worker, gateway.port) as connections:
                eventually(refuses, what="every file to be taken for good")
                for connection in connections[:60]:
                    connection.close()
                for connection in connections[60:]:
                    assert client.request("GET", "/users", connection=connection).status == 200
        circuit = gateway.circuit("users")
        assert (circuit["state"], circuit["failures"]) == ("closed", 0)
        lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
        assert len([line for line in lines if line["event"] == "out_of_resources"]) == 1
    finally:
        gateway.stop()
