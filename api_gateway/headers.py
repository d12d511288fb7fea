"""Which header fields are forwarded, and which are set here. Pure.

RFC 9110 sections 7.6.1 (hop-by-hop) and 7.6.3 (Via), RFC 7239 (Forwarded), W3C Trace Context.
Fields are (name, value) pairs of bytes, names in lower case, as ASGI has them.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from servicekit.http_server.request import Fields, RequestFields, field_lines
from servicekit.process.hosts import read_address, read_authority

VIA_NAME = b"siteworks"

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
#: What shows who sends a request. Where somebody has to, services see access tokens alone, and no memory of fields has
#: any.
CREDENTIALS = frozenset({b"authorization", b"cookie", b"x-act-as"})
#: The same where nobody has to: a token that is shown there says nothing, and services would believe it.
CREDENTIALS_OF_OPEN = frozenset({b"authorization", b"x-act-as"})
#: Not hop-by-hop, but set here: the body is reframed, and the gateway meets expectations.
_SET_HERE_UP = HOP_BY_HOP | {
    b"content-length",
    b"expect",
    b"host",
    b"traceparent",
    b"via",
    b"x-request-id",
    b"x-request-timeout-ms",
}
_NONE: frozenset[bytes] = frozenset()
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"})
#: Fields by which some servers let a proxy rewrite an address; no client may send them. Also those by which browsers
#: are judged: that happens here, since the services are called under another Host.
_NEVER_UP = frozenset(
    {
        b"origin",
        b"sec-fetch-site",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-server",
        b"x-original-url",
        b"x-real-ip",
        b"x-rewrite-url",
    }
)
#: Only a proxy may set Proxy-Status (RFC 9209 section 2), and the services are not proxies. They do not know the page
#: that asks either, since Origin stays here, so the CORS fields are set here.
_SET_HERE_DOWN = HOP_BY_HOP | {
    b"access-control-allow-credentials",
    b"access-control-allow-headers",
    b"access-control-allow-methods",
    b"access-control-allow-origin",
    b"access-control-allow-private-network",
    b"access-control-expose-headers",
    b"access-control-max-age",
    b"content-length",
    b"proxy-status",
    b"server",
    b"x-request-id",
}

#: For the gateway's own answers, unless they have other ones: nothing in them is a page, and no page may frame them.
GUARDS: Fields = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
_STRICT: Fields = [(b"strict-transport-security", b"max-age=31536000")]

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
#: The start of a relative address that names another host, as browsers read it: they skip tabs, and take `\` for `/`.
_OTHER_HOST = re.compile(rb"/\t*[/\\]")
#: A node of X-Forwarded-For or Forwarded with its optional port, unless it is an IPv6 address alone.
_NODE = re.compile(r"(?:\[([^\[\]]+)\]|([0-9.]+))(?::[A-Za-z0-9._-]+)?")
_PAIR = re.compile(r"""\s*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^\s",;]+))?\s*([,;]|$)""")
_FIELD_NAMES = re.compile(rb"[A-Za-z0-9-]+(?:\s*,\s*[A-Za-z0-9-]+)*")


class TrustedProxies:
    """Peers whose forwarded fields are trusted: addresses and networks, separated by commas."""

    def __init__(self, text: str = "") -> None:
        self._networks = tuple(_network(part.strip()) for part in text.split(",") if part.strip())

    def __contains__(self, address: str) -> bool:
        if not self._networks:
            return False
        parsed = read_address(address)
        return parsed is not None and any(parsed in network for network in self._networks)


@dataclass(slots=True)
class Peer:
    """The peer of a connection, and how it addressed us."""

    address: str
    scheme: str
    host: str
    trusted: bool
    #: The client's address, as `client_address` tells it, if that is another.
    client: str = ""


class Passed:
    """The part of a request's head that is forwarded whatever its target; reused while a connection repeats its
    head."""

    __slots__ = ("fields", "lines", "of", "peer", "traceparent")

    def __init__(self, of: RequestFields, peer: Peer, http_version: str, *, without: frozenset[bytes] = _NONE) -> None:
        """`without` are the names of fields that stay here."""
        self.of = of
        self.peer = peer
        self.fields, self.traceparent = _passed_up(of.pairs, peer, http_version, without)
        #: The fields as sent.
        self.lines = field_lines(self.fields)


def client_address(fields: Sequence[tuple[bytes, bytes]], peer: str, trusted: TrustedProxies) -> str:
    """The client's address: the peer, or what trusted proxies report.

    In X-Forwarded-For, or Forwarded if there is none, the last address that is not a trusted proxy counts, because
    everything before it may be forged. Where a proxy does not tell an address, its own counts.
    """
    address = peer
    if peer not in trusted:
        return address
    nodes = [
        node for key, value in fields if key == b"x-forwarded-for" for node in value.decode("latin-1").split(",")
    ] or [node for key, value in fields if key == b"forwarded" for node in _forwarded_for(value.decode("latin-1"))]
    for node in reversed(nodes):
        parsed = _node_address(node)
        if parsed is None:
            break
        address = str(parsed)
        if address not in trusted:
            break
    return address


def client_key(address: str) -> str:
    """What counts as one client: an IPv4 address, or the 64-bit network of an IPv6 address, which is one host's."""
    if ":" not in address:
        return address
    parsed = read_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address if parsed is None else str(parsed)


def get(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a field."""
    for key, value in fields:
        if key == name:
            return value
    return None


def named_by_connection(fields: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The field names listed in Connection, which are never forwarded."""
    values = [value for key, value in fields if key == b"connection"]
    if not values:
        return _NONE
    return frozenset(option.strip().lower() for value in values for option in value.split(b",") if option.strip())


def lines_of_this_request(request_id: str, traceparent: bytes | None) -> bytes:
    """The field lines unique to a request: its id, and its trace (None: a new one)."""
    return b"x-request-id: %b\r\ntraceparent: %b\r\n" % (request_id.encode("ascii"), traceparent or new_traceparent())


def _passed_up(
    fields: Sequence[tuple[bytes, bytes]], peer: Peer, http_version: str, without: frozenset[bytes]
) -> tuple[Fields, bytes | None]:
    """The fields determined by head and connection alone, and the trace to continue, if any."""
    dropped = named_by_connection(fields) | without
    passed: Fields = []
    forwarded: dict[bytes, list[bytes]] = {}
    via: list[bytes] = []
    trace: list[bytes] = []
    for key, value in fields:
        if key == b"via":
            via.append(value)
        elif key == b"traceparent":
            trace.append(value)
        elif key in _FORWARDED:
            if peer.trusted and key not in dropped:
                forwarded.setdefault(key, []).append(value)
        elif key not in _SET_HERE_UP and key not in _NEVER_UP and key not in dropped and b"_" not in key:
            passed.append((key, value))
    traceparent = trace[0] if len(trace) == 1 and valid_traceparent(trace[0]) else None
    if traceparent is None:
        passed = [field for field in passed if field[0] != b"tracestate"]
    passed += _forwarded_fields(forwarded, peer)
    if peer.client:
        # Services know no proxies: to them the last of the others is the client.
        passed.append((b"x-real-ip", peer.client.encode("ascii")))
    via.append(http_version.encode("ascii") + b" " + VIA_NAME)
    passed.append((b"via", b", ".join(via)))
    return passed, traceparent


def down(fields: Sequence[tuple[bytes, bytes]], origin: bytes = b"", *, http_version: str = "1.1") -> Fields:
    """The end-to-end fields of an answer of the upstream at `origin`; repeated fields stay separate.

    The sender sets the framing.
    """
    dropped = named_by_connection(fields)
    passed: Fields = []
    via = b""
    for key, value in fields:
        if key == b"via":
            via += value + b", "
        elif key == b"location":
            if key not in dropped:
                passed.append((key, own_location(value, origin) if origin else value))
        elif key not in _SET_HERE_DOWN and key not in dropped:
            passed.append((key, value))
    passed.append((b"via", b"%b%b %b" % (via, http_version.encode("ascii"), VIA_NAME)))
    return passed


def cors(
    origin: bytes | None, allowed: frozenset[str], *, preflight_allow: str | None = None, wanted: bytes | None = None
) -> Fields:
    """The CORS fields of an answer; none when no origin is configured.

    `preflight_allow` holds the methods of the address, for the answer to OPTIONS; `wanted` the fields that a preflight
    asks for.
    """
    if not allowed:
        return []
    fields: Fields = [(b"vary", b"Origin")]
    if origin is None or origin.decode("latin-1") not in allowed:
        return fields
    fields.append((b"access-control-allow-origin", origin))
    if preflight_allow is None:
        fields.append(
            (
                b"access-control-expose-headers",
                b"X-Request-ID, Allow, ETag, Existing-Task, Idempotency-Replayed, Location, Proxy-Status, RateLimit, "
                b"RateLimit-Policy, Retry-After, WWW-Authenticate",
            )
        )
        return fields
    fields.append((b"access-control-allow-methods", preflight_allow.encode("ascii")))
    if wanted is not None and _FIELD_NAMES.fullmatch(wanted):
        fields.append((b"access-control-allow-headers", wanted))
    fields.append((b"access-control-max-age", b"600"))
    return fields


@lru_cache(maxsize=256)
def strict_transport(host: bytes) -> Fields:
    """The field that keeps browsers to TLS for a year (RFC 6797); none for addresses, where they ignore it, and for
    localhost, whose other ports may speak plain HTTP."""
    named = read_authority(host.decode("latin-1"))
    name = "" if named is None else named[0]
    is_public = not name.startswith("[") and read_address(name) is None and name.rpartition(".")[2] != "localhost"
    return _STRICT if name and is_public else []


def own_location(value: bytes, upstream_origin: bytes) -> bytes:
    """Make a Location within the upstream's own origin relative; leave any other as it is."""
    if value.startswith(upstream_origin):
        rest = value[len(upstream_origin) :]
        if not rest or rest[:1] in (b"/", b"?", b"#"):
            if not rest.startswith(b"/"):
                return b"/" + rest
            return b"/." + rest if _OTHER_HOST.match(rest) else rest
    return value


def valid_traceparent(value: bytes) -> bool:
    """Whether a value is valid W3C Trace Context (version 00, or a later version with more at its end)."""
    found = _TRACEPARENT.fullmatch(value)
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[4] is not None):
        return False
    return found[2].strip(b"0") != b"" and found[3].strip(b"0") != b""


def new_traceparent() -> bytes:
    """A new trace, not sampled."""
    # They have to be unique, not secret. Neither may be zero.
    return b"00-%032x-%016x-00" % (random.getrandbits(128) | 1, random.getrandbits(64) | 1)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    network = ipaddress.ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _node_address(node: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of a node (RFC 7239 section 6); None if it is `unknown`, an obfuscated name or none at all."""
    node = node.strip(' \t"')
    found = _NODE.fullmatch(node)
    return read_address(node if found is None else found[1] or found[2])


def _forwarded_for(line: str) -> list[str]:
    """The node that each element of a Forwarded line names; one empty node for a line that breaks the rules."""
    nodes, at = [""], 0
    while at < len(line):
        pair = _PAIR.match(line, at)
        if pair is None:
            return [""]
        if pair[1] is not None and pair[1].lower() == "for":
            nodes[-1] = pair[2]
        if pair[3] == ",":
            nodes.append("")
        at = pair.end()
    return nodes


def _forwarded_fields(incoming: dict[bytes, list[bytes]], peer: Peer) -> Fields:
    address, host, scheme, element = _peer_values(peer.address, peer.host, peer.scheme)
    if not incoming:
        return [
            (b"x-forwarded-for", address),
            (b"x-forwarded-host", host),
            (b"x-forwarded-proto", scheme),
            (b"forwarded", element),
        ]
    return [
        (b"x-forwarded-for", b", ".join([*incoming.get(b"x-forwarded-for", []), address])),
        (b"x-forwarded-host", (incoming.get(b"x-forwarded-host") or [host])[-1]),
        (b"x-forwarded-proto", (incoming.get(b"x-forwarded-proto") or [scheme])[-1]),
        (b"forwarded", b", ".join([*incoming.get(b"forwarded", []), element])),
    ]


@lru_cache(maxsize=1024)
def _peer_values(address: str, host: str, scheme: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Address, host, scheme and the Forwarded element, shared by all requests of a connection."""
    return (
        address.encode("ascii", "replace"),
        host.encode("latin-1", "replace"),
        scheme.encode("ascii", "replace"),
        f"for={_node(address)};host={_quoted(host)};proto={scheme}".encode("latin-1", "replace"),
    )


def _node(address: str) -> str:
    return f'"[{address}]"' if ":" in address else address or "unknown"


def _quoted(host: str) -> str:
    """A Forwarded value; anything but a plain host is quoted (RFC 7239 section 4)."""
    if re.fullmatch(r"[A-Za-z0-9._-]+", host):
        return host
    return '"' + re.sub(r"[^A-Za-z0-9._:\[\]-]", "", host) + '"'
