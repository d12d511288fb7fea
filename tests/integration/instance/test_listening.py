"""An instance for others in the same network."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.raw_http import RawClient
from tests.support.system import RunningSystem


def test_a_closed_instance_serves_other_machines_by_its_certificate(tmp_path: Path) -> None:
    authority = Authority()
    files = authority.write_pair(tmp_path, "sites.example.com", "localhost")
    system = RunningSystem(tmp_path / "data")
    options = ("--listen", "0.0.0.0", "--tls", *map(str, files))
    refused = system.cli("--port", str(system.port), "--detach", *options, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "goes only with --auth" in refused.stderr
    try:
        started = system.cli("--port", str(system.port), "--workers", "0", "--detach", "--auth", *options)
        url = f"https://sites.example.com:{system.port}"
        assert f"Siteworks is ready on {url} " in started.stdout
        assert json.loads(system.cli("status", "--json").stdout)["url"] == url
        client = RawClient(system.port, tls=authority.trusting)

        def get(host: str) -> tuple[int, list[str]]:
            answer = client.send(f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            return answer.status, answer.values("Strict-Transport-Security")

        assert get(f"sites.example.com:{system.port}") == (200, ["max-age=31536000"])
        assert get("localhost") == (200, [])
        assert get("evil.example")[0] == 421
        assert RawClient(system.port).get("/health").code == "tls_required"
    finally:
        system.stop()
