"""Where outgoing requests may go: to listed hosts, and only to their public or explicitly allowed addresses. No I/O.

Without the second rule, a listed name that resolves to 127.0.0.1 or 169.254.169.254 would open what lies behind the
firewall (server-side request forgery, CWE-918).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_PORTS = {"http": 80, "https": 443}

# Public according to some versions of the standard library, but not to IANA's special-purpose registries.
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's address of a VM's host
        "192.0.0.0/24",  # protocol assignments, with Oracle's metadata service
        "192.88.99.0/24",  # relays of 6to4
        "64:ff9b:1::/48",  # local-use NAT64
        "2001::/23",
        "3fff::/20",
        "5f00::/16",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAME = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_ENTRY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry of the list. `name` is in lower case and may begin with `*.`; without a `port`, only the scheme's
    default port is allowed."""

    name: str
    port: int | None
    address: Address | None = None

    def allows(self, scheme: str, host: str, port: int) -> bool:
        if port != (DEFAULT_PORTS.get(scheme) if self.port is None else self.port):
            return False
        if self.name.startswith("*."):
            return host.endswith(self.name[1:]) and len(host) > len(self.name) - 1
        return host == self.name


@dataclass(frozen=True, slots=True)
class Destinations:
    """The rules for one kind of request. `hosts_name` is the variable with the hosts, for messages."""

    hosts: tuple[AllowedHost, ...]
    networks: tuple[Network, ...]
    hosts_name: str


def read_allowed_hosts(text: str) -> tuple[AllowedHost, ...]:
    """`api.example.com, *.example.org, printer.local:8080, [::1]:9000` as entries; raises `ValueError`."""
    return tuple(_host(entry, number) for number, entry in enumerate(_split(text), start=1))


def read_networks(text: str) -> tuple[Network, ...]:
    """`10.0.0.0/8, 192.168.1.20` as networks; raises `ValueError`."""
    networks = []
    for number, entry in enumerate(_split(text), start=1):
        try:
            networks.append(ipaddress.ip_network(entry))
        except ValueError:
            raise ValueError(f"entry {number} is no network such as 10.0.0.0/8") from None
    return tuple(networks)


def hosts_text(value: str) -> str:
    """Return the text if `read_allowed_hosts` can read it; raises `ValueError`."""
    read_allowed_hosts(value)
    return value


def networks_text(value: str) -> str:
    """The same for `read_networks`."""
    read_networks(value)
    return value


def http_url(value: str) -> str:
    """Return the URL; raises `ValueError` if no plain request could be sent to it."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"must be a URL: {exc}") from exc
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in value) or "\\" in value:
        raise ValueError("must be a URL without spaces, control characters and backslashes")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("must be a URL that begins with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no name and password")
    return value


def ascii_http_url(value: str) -> str:
    """The same, with an international name in its ASCII form."""
    if not value.isascii():
        raise ValueError("must be a URL in ASCII; write other letters as %D0%B1, those of a host as xn--…")
    return http_url(value)


def destination_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL that `http_url` accepts."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme, host, parts.port or DEFAULT_PORTS[parts.scheme]


def is_allowed(hosts: Iterable[AllowedHost], scheme: str, host: str, port: int) -> bool:
    """Whether the list has this destination; `host` as in the URL, international names in ASCII form."""
    plain = host.lower().removesuffix(".")
    return any(entry.allows(scheme, plain, port) for entry in hosts)


def may_connect(address: Address, *, host: str, hosts: Iterable[AllowedHost], networks: Iterable[Network]) -> bool:
    """Whether a connection may be made to this address of an allowed host.

    Always to public addresses; to any other only in one of the networks, or if the list has that address.
    """
    meant = _meant(address)
    if is_public(meant) or any(meant in network for network in networks):
        return True
    return any(entry.address == meant and entry.name == host.lower() for entry in hosts)


def is_public(address: Address) -> bool:
    """False for private, loopback, link-local, shared, reserved, documentation, multicast and metadata addresses."""
    meant = _meant(address)
    if (
        any(meant in network for network in _NEVER_PUBLIC)
        or meant.is_multicast
        or meant.is_reserved
        or not meant.is_global
    ):
        return False
    if isinstance(meant, ipaddress.IPv6Address):
        # 6to4 and Teredo lead to an embedded IPv4 address.
        return not (meant.is_site_local or meant.sixtofour or meant.teredo)
    return True


def _meant(address: Address) -> Address:
    """The IPv4 address behind its IPv6 forms (RFC 4291 section 2.5.5.2, RFC 6052)."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _host(entry: str, number: int) -> AllowedHost:
    # Errors give the entry's number only: a wrong setting may hold anything, and the text goes to a log.
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ValueError(f"entry {number} is no host such as api.example.com, *.example.com or localhost:8080")
    name, port = match[1].lower().removesuffix("."), match[2]
    if port is not None and not 1 <= int(port) <= 65_535:
        raise ValueError(f"entry {number} has no port from 1 to 65535")
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        address = None
    if address is None and (not name.isascii() or not _NAME.fullmatch(name)):
        raise ValueError(f"entry {number} is no host such as api.example.com, *.example.com or localhost:8080")
    return AllowedHost(
        name if address is None else str(address),
        None if port is None else int(port),
        None if address is None else _meant(address),
    )


def _split(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]
