"""Names of hosts and origins, as written in settings and as sent by browsers."""

from __future__ import annotations

import ipaddress
import re

_AUTHORITY = re.compile(r"([a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?")
#: Scheme and authority of an origin (RFC 6454).
ORIGIN = re.compile(r"(https?)://([^/?#]+)")
DEFAULT_PORTS = {"http": 80, "https": 443}


def read_hosts(text: str) -> frozenset[str]:
    """Parse names and addresses without ports, separated by commas, normalised for comparison.

    Raises ValueError for anything else.
    """
    return frozenset(_read_host(part.strip()) for part in text.split(",") if part.strip())


def read_origins(text: str) -> frozenset[str]:
    """Parse origins separated by commas, and write them as browsers do: in lower case, without a default port.

    Raises ValueError for anything else, including `*` and a path.
    """
    return frozenset(_read_origin(part.strip().lower()) for part in text.split(",") if part.strip())


def read_authority(text: str) -> tuple[str, int | None] | None:
    """Host, normalised for comparison, and port of HOST[:PORT]; None for anything else."""
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None:
        return None
    host, port = found[1].removesuffix("."), int(found[2]) if found[2] else None
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ValueError:
            return None
    return (host, port) if host else None


def read_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an IP address; None for anything else. IPv4 as a socket for IPv6 shows it (`::ffff:…`) is IPv4. A zone
    (RFC 4007) is dropped: it says nothing about the host that has the address."""
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def is_loopback(host: str) -> bool:
    """Whether a host, normalised for comparison, is this machine by its name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _read_host(text: str) -> str:
    read = read_authority(text)
    if read is None or text.endswith(":") or read[1] is not None:
        raise ValueError(text)
    return read[0]


def _read_origin(text: str) -> str:
    found = ORIGIN.fullmatch(text)
    read = None if found is None else read_authority(found[2])
    if found is None or read is None:
        raise ValueError(text)
    scheme, (host, port) = found[1], read
    if port is not None and not 0 < port < 65536:
        raise ValueError(text)
    return f"{scheme}://{host}" if port in (None, DEFAULT_PORTS[scheme]) else f"{scheme}://{host}:{port}"
