"""The composition root of the gateway process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from a2wsgi import WSGIMiddleware

from api_gateway import shared_quotas
from api_gateway.console import ConsoleFiles
from api_gateway.control import make_control
from api_gateway.forward import Lane
from api_gateway.front import Front
from api_gateway.headers import TrustedProxies
from api_gateway.identity import ActAs, Identity
from api_gateway.limits import Bulkhead, EventLoopLag, LagWatch, RetryBudget
from api_gateway.metrics import SAME_IN_EVERY_PROCESS, GatewayMetrics
from api_gateway.refusals import Refusals
from api_gateway.revocations import Revocations
from api_gateway.route_table import RouteTable
from api_gateway.settings import GatewaySettings
from api_gateway.upstream import Upstream, fetch
from servicekit.circuits import Circuit, CircuitSettings, Prober, shared_state
from servicekit.http_server.application import Application, AsgiApp, Scope, Send
from servicekit.http_server.request import Receive
from servicekit.identity.enforcement import open_to_all, verifier_with
from servicekit.observing import shortage
from servicekit.observing.logs import get_logger
from servicekit.observing.metrics import Metrics
from servicekit.process.lifecycle import stop_this_process
from servicekit.web.health import Check
from servicekit.wire.browsers import BrowserRules
from servicekit.wire.memory import MIB, Budget

#: What all processes together may hold of bodies and large answers, in bytes. In a container of 512 MiB, one process
#: and its master take 170 MiB; buffers of up to 64 KiB are not counted.
GATEWAY_MEMORY = 192 * MIB
#: Enough for the largest body or answer of one request.
LEAST_MEMORY = 48 * MIB
_CONTROL_THREADS = 4
#: Requests that queue for one service. At a few hundred a second, any further back would only time out.
_WAITING = 2048
#: Event-loop lag beyond which new requests are refused: a client's patience, more than a pause for garbage collection.
_LONGEST_LAG_SECONDS = 1.0
_PROBE_SECONDS = 1.0
_DOCUMENT_SECONDS = 2.0

log = get_logger(__name__)


class Gateway(Application):
    """The application: ASGI serves the gateway's own pages, `Front` everything else."""

    handler: Front

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self.tls = settings.tls()
        self._metrics = Metrics("api_gateway", same_everywhere=SAME_IN_EVERY_PROCESS)
        self._lanes: dict[str, Lane] = {}
        self._prober: Prober | None = None
        self._watch: LagWatch | None = None
        self._asking: asyncio.Task[None] | None = None
        self._refusals: Refusals | None = None
        self._telling: asyncio.Task[None] | None = None

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.handler.page(scope, receive, send)

    def start(self) -> None:
        """Build all parts; called on the running event loop."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        metrics = self._metrics
        gateway_metrics = GatewayMetrics(metrics.registry)
        for name, url in settings.upstream_urls().items():
            self._lanes[name] = Lane(
                name=name,
                upstream=Upstream(name, url),
                circuit=Circuit(
                    name,
                    store=shared_state.store_for("api_gateway", name, CircuitSettings()),
                    listeners=[gateway_metrics.circuit_moved],
                    on_uncounted=gateway_metrics.uncounted,
                ),
                bulkhead=Bulkhead(places=settings.places(name), max_waiting=_WAITING),
                budget=RetryBudget(),
                on_retry=gateway_metrics.retried,
                on_call=gateway_metrics.called,
            )
        lanes = self._lanes
        for lane in lanes.values():
            gateway_metrics.watch(lane.circuit, lane.bulkhead, lane.budget)
        circuits = {name: lane.circuit for name, lane in lanes.items()}

        async def fetch_document(lane: Lane) -> bytes | None:
            try:
                return await fetch(lane.upstream, b"/openapi.json", seconds=_DOCUMENT_SECONDS)
            except OSError as error:
                shortage.report(error, at=lane.name)
                return None

        async def fetch_all() -> Mapping[str, bytes | None]:
            return dict(zip(lanes, await asyncio.gather(*map(fetch_document, lanes.values())), strict=True))

        def fetch_documents() -> Mapping[str, bytes | None]:
            return asyncio.run_coroutine_threadsafe(fetch_all(), loop).result(2 * _DOCUMENT_SECONDS)

        def ask_ready(name: str) -> bool:
            asked = fetch(lanes[name].upstream, b"/readyz", seconds=_PROBE_SECONDS)
            return asyncio.run_coroutine_threadsafe(asked, loop).result(2 * _PROBE_SECONDS) is not None

        shared = shared_state.inherited("api_gateway")
        table = RouteTable()
        token = settings.admin_token
        verifier = verifier_with(settings)
        # Where nobody logs in.
        everybody = open_to_all(settings)
        users, revocations = lanes["users"], None
        identity: Identity | ActAs
        checks: dict[str, Check] = {}
        if verifier is None:
            identity = ActAs(everybody, users, settings.gateways_token)
        else:
            assert settings.gateways_token is not None
            revocations = Revocations(users.upstream, settings.gateways_token, file=settings.revocations_file())
            identity = Identity(
                verifier, revocations, users, settings.gateways_token, origins=settings.allowed_origins()
            )
            gateway_metrics.watch_revocations(revocations)
            checks["identity"] = identity.require_ready
        if settings.gateways_token is not None:
            self._refusals = Refusals(users.upstream, settings.gateways_token)
            self._telling = loop.create_task(self._refusals.run())

        def on_forced(actor: UUID | None, address: str, circuit: str, state: str) -> None:
            if self._refusals is not None:
                loop.call_soon_threadsafe(self._refusals.forced, actor, address, circuit, state)

        control = make_control(
            circuits=circuits,
            routes=table.routes,
            metrics=metrics,
            fetch_documents=fetch_documents,
            admin_token=None if token is None else token.get_secret_value(),
            processes=None if shared is None else shared.living,
            identify=everybody if verifier is None else verifier.identify,
            checks=checks,
            on_forced=on_forced,
        )
        quota = settings.quota()
        lag = EventLoopLag(_LONGEST_LAG_SECONDS)
        gateway_metrics.watch_lag(lag)
        self._watch = LagWatch(lag)
        self._watch.start()
        self.handler = front = Front(
            table=table,
            lanes=lanes,
            control=cast(AsgiApp, WSGIMiddleware(cast(Any, control), workers=_CONTROL_THREADS)),
            metrics=metrics,
            trusted=TrustedProxies(settings.trusted_proxies),
            origins=settings.allowed_origins(),
            browsers=BrowserRules(settings.own_names(), settings.gateway_bind, origins=settings.allowed_origins()),
            gateway_metrics=gateway_metrics,
            limiter=None if quota is None else shared_quotas.limiter_for(quota),
            streams_per_client=settings.gateway_event_streams_per_client,
            lag=lag,
            budget=Budget(max(GATEWAY_MEMORY // settings.gateway_processes, LEAST_MEMORY)),
            console=ConsoleFiles(read_only=settings.console_read_only),
            console_read_only=settings.console_read_only,
            identity=identity,
            refusals=self._refusals,
        )
        if revocations is not None:
            known = revocations
            known.on_change = lambda: front.end_revoked_streams(known)
            self._asking = loop.create_task(known.run())
            self._asking.add_done_callback(_asked_no_more)
        self._prober = Prober(
            list(circuits.values()),
            ask_ready,
            # A process that is late itself would find everybody late.
            elected=lambda: not lag.overloaded and (shared is None or shared.elected()),
        )
        self._prober.start()
        log.info("gateway_started", upstreams=sorted(self._lanes))

    async def stop(self) -> None:
        """Stop the prober and close kept connections; idempotent, also before start."""
        if self._prober is not None:
            # On a thread, because the prober may be waiting for this event loop.
            await asyncio.to_thread(self._prober.stop)
        if self._watch is not None:
            self._watch.stop()
        if self._asking is not None:
            self._asking.cancel()
        if self._telling is not None and self._refusals is not None:
            self._telling.cancel()
            await self._refusals.tell_all()
        for lane in self._lanes.values():
            lane.upstream.close()


def _asked_no_more(asking: asyncio.Task[None]) -> None:
    """A process that learns of no revocations must not go on."""
    if not asking.cancelled():
        log.critical("revocations_died", exc_info=asking.exception())
        stop_this_process()


def create_app(settings: GatewaySettings) -> Gateway:
    return Gateway(settings)
