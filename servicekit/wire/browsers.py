"""Who may use a server of ours through somebody's browser: its own pages, and those of listed origins.

A browser sends requests on behalf of any page that it shows, to any server that it reaches, on loopback and in networks
where the page's author has no way in. Three fields tell them apart:

- Host names the server as the page does. A page whose own name was made to lead here (DNS rebinding) says that name.
- Origin (RFC 6454) says whose page it is; browsers add it to whatever could change something or be read by the page.
- Sec-Fetch-Site (W3C Fetch Metadata) says how the page and the server are related, in newer browsers.

What is no browser sends neither of the last two.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from servicekit.process.hosts import ORIGIN, read_authority, read_hosts
from servicekit.wire.errors import AppError, ForeignPage, MisdirectedRequest

#: For machines, which use any address they have: these change nothing and show no data.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics"})

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({None, "same-origin", "none"})
_EVERY_ADDRESS = frozenset({"0.0.0.0", "[::]"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Of the fields a page sends, all together: longer ones are no names, and are not kept.
_LONGEST = 1000
_KEPT = 256


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a request's fields mean for it: the error it is refused with, if any, by what its method may do."""

    safe: type[AppError] | None = None
    unsafe: type[AppError] | None = None

    def check(self, method: str) -> None:
        """Raise `MisdirectedRequest` or `ForeignPage`, or return."""
        refusal = self.safe if method in _SAFE else self.unsafe
        if refusal is not None:
            raise refusal()


#: What nearly every request gets.
NOTHING_FOREIGN = Verdict()


class BrowserRules:
    """Which requests a server takes. Loopback's names are always its own."""

    def __init__(self, allowed_hosts: str = "", bind: str = "", *, origins: Collection[str] = ()) -> None:
        """`allowed_hosts` as in `read_hosts`; `bind` is the HOST:PORT where the server listens, whose host is its own
        name too; `origins` are those whose pages may do everything."""
        listens = read_authority(bind)
        own = set() if listens is None else {listens[0]} - _EVERY_ADDRESS
        self._hosts = read_hosts(allowed_hosts) | own
        self._origins = frozenset(origins)
        self._kept = lru_cache(_KEPT)(self._verdict)

    def verdict(self, host: str | None, origin: str | None, site: str | None, forwarded_host: str = "") -> Verdict:
        """Judge a request by its fields Host, Origin and Sec-Fetch-Site, None where there is none.

        `forwarded_host` is the X-Forwarded-Host of a proxy that is believed: what the browser called Host.
        """
        is_short = len(host or "") + len(origin or "") + len(site or "") + len(forwarded_host) <= _LONGEST
        judge = self._kept if is_short else self._verdict
        return judge(host, origin, site, forwarded_host)

    def check(self, method: str, path: str, host: str | None, origin: str | None, site: str | None) -> None:
        """Raise for a request that may not be made, as `Verdict.check` does; `path` may be one of OPEN_PATHS."""
        if path not in OPEN_PATHS:
            self.verdict(host, origin, site).check(method)

    def _verdict(self, host: str | None, origin: str | None, site: str | None, forwarded_host: str) -> Verdict:
        # A request without Host (HTTP/1.0) comes from no browser.
        named = [] if host is None else [host]
        forwarded = [part.strip() for part in forwarded_host.split(",") if part.strip()]
        for name in (*named, *forwarded):
            read = read_authority(name)
            if read is None or not (read[0] in self._hosts or _is_loopback(read[0])):
                return Verdict(MisdirectedRequest, MisdirectedRequest)
        if origin is not None and origin in self._origins:
            return NOTHING_FOREIGN
        if origin is not None and not any(_is_same(origin, name) for name in forwarded or named):
            return Verdict(ForeignPage, ForeignPage)
        return NOTHING_FOREIGN if site in _OWN_SITES else Verdict(None, ForeignPage)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_same(origin: str, host: str) -> bool:
    """Whether an origin is the server that was called `host`. Not by its scheme, which only a proxy may know that ends
    TLS in front of us: without a port, Host is the default one of the origin's."""
    found = ORIGIN.fullmatch(origin.lower())
    page = None if found is None else read_authority(found[2])
    server = read_authority(host)
    if found is None or page is None or server is None:
        return False
    default = _DEFAULT_PORTS[found[1]]
    return (page[0], page[1] or default) == (server[0], server[1] or default)
