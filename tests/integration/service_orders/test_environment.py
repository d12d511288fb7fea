"""Nothing in the environment of the orders process changes how it asks the users service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.ports import free_port
from tests.support.postgres import ServiceDatabase
from tests.support.raw_http import RawClient
from tests.support.upstream import ScriptedUpstream, good
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).resolve().parents[3]
USER = "0190a8b0-0000-7000-8000-000000000001"


def test_no_netrc_and_no_proxy_is_used(orders_database: ServiceDatabase, tmp_path: Path) -> None:
    for name in (".netrc", "_netrc"):
        (tmp_path / name).write_text("default login netrc password hunter2\n")
        (tmp_path / name).chmod(0o600)
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    with ScriptedUpstream() as users, ScriptedUpstream() as proxy:
        users.script(good({"id": USER}))
        client = RawClient(free_port())
        environment = {
            **os.environ,
            **dict.fromkeys(names, proxy.url),
            "NO_PROXY": "",
            "no_proxy": "",
            "HOME": str(tmp_path),
            "NETRC": str(tmp_path / ".netrc"),
            "ORDERS_BIND": f"127.0.0.1:{client.port}",
            "ORDERS_DATABASE_URL": orders_database.url,
            "USERS_URL": users.url,
        }
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "servicekit.web.serve", "orders"],
                cwd=CHECKOUT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:

            def answers() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return client.get("/livez").status == 200
                except OSError:
                    return False

            eventually(answers, timeout=30, what="the orders service to answer")
            order = {"user_id": USER, "items": [{"product": "cement", "quantity": 1, "price": 1}]}
            made = client.request(
                "POST", "/orders", json.dumps(order).encode(), fields=(("Content-Type", "application/json"),)
            )
            assert made.status == 201, made
        finally:
            process.terminate()
            process.wait(20)
        assert [seen.target for seen in users.requests()] == [f"/users/{USER}"]
        assert [seen.values("Authorization") for seen in users.requests()] == [[]]
        assert [seen.values("Host") for seen in users.requests()] == [[f"127.0.0.1:{users.port}"]]
        assert proxy.seen == []
