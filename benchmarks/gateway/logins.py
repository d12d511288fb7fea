"""What logins cost our gateway: many valid tokens beside none, and beside a flood of forged ones."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from benchmarks import load
from benchmarks.gateway import subjects
from benchmarks.gateway.subjects import GatewayPlace
from benchmarks.load import Ask, LoadResult
from benchmarks.logins import GATEWAY_TOKEN, ISSUER, KeyServer, Logins, with_tokens
from benchmarks.processes import Process
from benchmarks.report import OURS, ReportRow
from servicekit.identity.keys import SigningKey
from servicekit.identity.tokens import AUDIENCE, TokenIssuer

_TOKENS = 1000
_CONNECTIONS = 32
_FLOODS = (8, 32)
#: Of a service that is no users service: that one gives the keys.
_ASK = Ask("GET", "/tasks/0193a5b0-7c1e-7a52-8d52-5f0f4d6c1b2a")
_LOGINS = ", with logins"


def measure(
    stack: ExitStack, place: GatewayPlace, core: frozenset[int] | None, *, rounds: int, seconds: int
) -> list[ReportRow]:
    """Runs of the gateway with and without logins, in turn. The stack ends what is started."""
    key = SigningKey.generate()
    logins = Logins(TokenIssuer(key, issuer=ISSUER, audience=AUDIENCE), _TOKENS)
    keys = KeyServer(key)
    stack.callback(keys.stop)
    (place.folder / "keys").write_text(json.dumps({"keys": [key.public()]}))
    required = {
        "AUTH": "required",
        "AUTH_KEYS_FILE": str(place.folder / "keys"),
        "GATEWAY_TOKEN": GATEWAY_TOKEN,
        "USERS_URL": keys.url,
    }
    ports: dict[str, tuple[Process, int]] = {}
    for subject in (subjects.ours(), subjects.ours(label=_LOGINS, settings=required)):
        assert subject.start is not None
        ports[subject.name] = subject.start(place)
        stack.callback(ports[subject.name][0].stop)

    def put(name: str, asks: Sequence[Ask], connections: int, file: Path, seconds: int = seconds) -> LoadResult:
        base = f"http://127.0.0.1:{ports[name][1]}"
        return load.put_asks(base, asks, file, connections=connections, seconds=seconds, on=core)

    runs: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)

    def note(work: str, name: str, seen: LoadResult, cpu: float) -> None:
        runs[work, name, "good answers", "1/s"].append(seen.per_second)
        runs[work, name, "processor time for an answer", "µs"].append(cpu / max(seen.answers, 1) * 1e6)
        runs[work, name, "p99 latency", "ms"].append(seen.p99)
        runs[work, name, "errors in a run", "1"].append(seen.errors)

    with_logins = f"{OURS}{_LOGINS}"
    usual = f"GET, fast upstream, {_CONNECTIONS} connections, {_TOKENS:,} tokens"
    good, forged = (place.folder / name for name in ("good.tsv", "forged.tsv"))
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        asks = {OURS: [_ASK], with_logins: with_tokens([_ASK], logins.tokens())}
        for name, wanted in asks.items():
            put(name, wanted, _CONNECTIONS, good, 1)
            before = ports[name][0].cpu_seconds()
            note(usual, name, put(name, wanted, _CONNECTIONS, good), ports[name][0].cpu_seconds() - before)
        for flood in _FLOODS:
            with ThreadPoolExecutor(1) as pool:
                wrong = with_tokens([_ASK], logins.forged())
                flooding = pool.submit(put, with_logins, wrong, flood, forged, seconds + 1)
                before = ports[with_logins][0].cpu_seconds()
                seen = put(with_logins, asks[with_logins], _CONNECTIONS, good)
                cpu = ports[with_logins][0].cpu_seconds() - before
                refused = flooding.result()
            work = f"{usual}, beside forged ones on {flood}"
            note(work, with_logins, seen, cpu)
            runs[work, with_logins, "forged tokens refused", "1/s"].append(refused.errors / (seconds + 1))
    return [ReportRow(*about, tuple(values)) for about, values in runs.items()]
