"""Errors that the gateway itself may answer instead of an upstream.

Invalid ⊃ BadPath                  400 invalid_path
Forbidden ⊃ ConsoleReadOnly        403 console_read_only
TooManyRequests ⊃ TooManyStreams   429 too_many_streams
                ⊃ TooManyCredentials 429 too_many_credentials
Unavailable ⊃ UpstreamUnavailable  503 <name>_unavailable
            ⊃ UpstreamCircuitOpen  503 circuit_open
            ⊃ UpstreamSaturated    503 upstream_saturated
            ⊃ CircuitHeldUp        503 circuit_held_up
BadGateway ⊃ BadUpstreamAnswer     502 bad_upstream_answer
Unavailable ⊃ Overloaded           503 overloaded (servicekit)
DeadlineExceeded                   504 deadline_exceeded (servicekit)
"""

from __future__ import annotations

from servicekit.wire.errors import BadGateway, Forbidden, Invalid, TooManyRequests, Unavailable


def proxy_status(upstream: str, error: str, *, received: int | None = None, details: str = "") -> dict[str, str]:
    """The Proxy-Status field of an answer made here because of `upstream` (RFC 9209).

    `error` is one of the standard's types, `received` the upstream's status, if any. `details` is our own text: an
    exception's may name hosts.
    """
    value = f"siteworks; error={error}; next-hop={upstream}"
    if received is not None:
        value += f"; received-status={received}"
    if details:
        value += f'; details="{details}"'
    return {"Proxy-Status": value}


class BadPath(Invalid):
    """The path cannot be used.

    It could lead elsewhere once decoded: `..`, `%2f`, a backslash, control characters.
    """

    code = "invalid_path"


class ConsoleReadOnly(Forbidden):
    """The console here only shows; it changes nothing.

    CONSOLE_READ_ONLY is set; programs may still do what their role permits.
    """

    code = "console_read_only"


class TooManyStreams(TooManyRequests):
    """This client has too many event streams open; close some.

    As many as GATEWAY_EVENT_STREAMS_PER_CLIENT. Are all clients one because TRUSTED_PROXIES lacks a proxy?
    """

    code = "too_many_streams"


class TooManyCredentials(TooManyRequests):
    """Too many tokens, keys or cookies from your address were not valid; wait.

    What this gateway knows as good is let through all the same. Are all clients one because TRUSTED_PROXIES lacks a
    proxy?
    """

    code = "too_many_credentials"

    def __init__(self, seconds: int) -> None:
        super().__init__(headers={"Retry-After": str(seconds)})


class UpstreamUnavailable(Unavailable):
    """The service behind this address cannot be reached.

    It is not running, or its address is wrong: `./scripts/run status`, then its log. Where a service asks another,
    it may be that one.
    """

    def __init__(self, upstream: str, fault: str = "destination_unavailable") -> None:
        """`fault` is the Proxy-Status error type."""
        super().__init__(
            f"The {upstream} service cannot be reached at the moment; try again.",
            retry_after=1,
            headers=proxy_status(upstream, fault),
        )
        # On the instance, because the code names the service.
        self.code = f"{upstream}_unavailable"  # type: ignore[misc]  # a class attribute in every other error


class UpstreamCircuitOpen(Unavailable):
    """The service behind this address has been failing and is given a pause.

    It is tried again by itself; look at why it failed.
    """

    code = "circuit_open"

    def __init__(self, upstream: str, retry_in: float) -> None:
        super().__init__(
            f"The {upstream} service has been failing and is given a pause; try again later.",
            retry_after=retry_in,
            headers=proxy_status(upstream, "destination_unavailable", details="circuit open"),
        )


class UpstreamSaturated(Unavailable):
    """Too many requests wait for the service behind this address.

    It is slower than requests come in: more threads or processes for it, or a higher GATEWAY_UPSTREAM_CONNECTIONS
    (of event streams, GATEWAY_EVENT_STREAMS).
    """

    code = "upstream_saturated"

    def __init__(self, upstream: str) -> None:
        super().__init__(
            f"Too many requests wait for the {upstream} service; try again.",
            retry_after=1,
            headers=proxy_status(upstream, "connection_limit_reached"),
        )


class CircuitHeldUp(Unavailable):
    """A process of the gateway that does not run holds the circuit up; try again.

    A stopped or paused process has its lock; it is free when that process goes on or is replaced.
    """

    code = "circuit_held_up"


class BadUpstreamAnswer(BadGateway):
    """The service behind this address gave an answer that cannot be used."""

    code = "bad_upstream_answer"

    def __init__(self, upstream: str, fault: str = "http_protocol_error", received: int | None = None) -> None:
        """`fault` is the Proxy-Status error type, `received` the status of the answer, if it had one."""
        super().__init__(
            f"The {upstream} service gave an answer that cannot be used.",
            headers=proxy_status(upstream, fault, received=received),
        )
