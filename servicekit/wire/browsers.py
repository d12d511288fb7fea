"""Which pages may use a server through a user's browser: its own, and those of listed origins.

A browser sends requests on behalf of any page it shows to any server it can reach, including loopback and networks
closed to the page's author. Three fields tell them apart:

- Host names the server as the page does. A page whose own name was made to resolve here (DNS rebinding) sends that
  name.
- Origin (RFC 6454) identifies the page; browsers add it to any request that could change something or be read by the
  page.
- Sec-Fetch-Site (W3C Fetch Metadata) relates the page to the server, in newer browsers.

Clients other than browsers send neither of the last two.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from servicekit.process.hosts import DEFAULT_PORTS, ORIGIN, is_loopback, read_authority, read_hosts
from servicekit.wire.errors import AppError, ForeignPage, MisdirectedRequest

#: For machines, which may use any address: these change nothing and reveal no data.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics"})

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({None, "same-origin", "none"})
_EVERY_ADDRESS = frozenset({"0.0.0.0", "[::]"})
#: Verdicts are cached for fields of up to this total length; no real names are longer.
_LONGEST = 1000
_KEPT = 256


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a request's fields: the error it is refused with, if any, depending on its method."""

    safe: type[AppError] | None = None
    unsafe: type[AppError] | None = None

    def check(self, method: str) -> None:
        """Raise `MisdirectedRequest` or `ForeignPage`, or return."""
        refusal = self.safe if method in _SAFE else self.unsafe
        if refusal is not None:
            raise refusal()


#: The verdict on nearly every request.
NOTHING_FOREIGN = Verdict()


class BrowserRules:
    """Decides which requests a server accepts. Loopback names are always its own."""

    def __init__(self, allowed_hosts: str = "", bind: str = "", *, origins: Collection[str] = ()) -> None:
        """`allowed_hosts`: see `read_hosts`. `bind` is the HOST:PORT where the server listens, whose host is its own
        name too. Pages of `origins` may do everything."""
        listens = read_authority(bind)
        own = set() if listens is None else {listens[0]} - _EVERY_ADDRESS
        self._hosts = read_hosts(allowed_hosts) | own
        self._origins = frozenset(origins)
        self._kept = lru_cache(_KEPT)(self._verdict)

    def verdict(self, host: str | None, origin: str | None, site: str | None, forwarded_host: str = "") -> Verdict:
        """Judge a request by its fields Host, Origin and Sec-Fetch-Site; None for absent ones.

        `forwarded_host` is the X-Forwarded-Host of a trusted proxy: the Host that the browser sent.
        """
        is_short = len(host or "") + len(origin or "") + len(site or "") + len(forwarded_host) <= _LONGEST
        judge = self._kept if is_short else self._verdict
        return judge(host, origin, site, forwarded_host)

    def check(self, method: str, path: str, host: str | None, origin: str | None, site: str | None) -> None:
        """Raise for a request that is not allowed, as `Verdict.check` does; `path` may be one of OPEN_PATHS."""
        if path not in OPEN_PATHS:
            self.verdict(host, origin, site).check(method)

    def _verdict(self, host: str | None, origin: str | None, site: str | None, forwarded_host: str) -> Verdict:
        # A request without Host (HTTP/1.0) does not come from a browser.
        named = [] if host is None else [host]
        forwarded = [part.strip() for part in forwarded_host.split(",") if part.strip()]
        for name in (*named, *forwarded):
            read = read_authority(name)
            if read is None or not (read[0] in self._hosts or is_loopback(read[0])):
                return Verdict(MisdirectedRequest, MisdirectedRequest)
        if origin is not None and origin in self._origins:
            return NOTHING_FOREIGN
        if origin is not None and not any(_is_same(origin, name) for name in forwarded or named):
            return Verdict(ForeignPage, ForeignPage)
        return NOTHING_FOREIGN if site in _OWN_SITES else Verdict(None, ForeignPage)


def _is_same(origin: str, host: str) -> bool:
    """Whether an origin is the server that was called `host`. The scheme is ignored, which only a TLS proxy in front of
    us knows: without a port, Host means the default port of the origin's scheme."""
    found = ORIGIN.fullmatch(origin.lower())
    page = None if found is None else read_authority(found[2])
    server = read_authority(host)
    if found is None or page is None or server is None:
        return False
    default = DEFAULT_PORTS[found[1]]
    return (page[0], page[1] or default) == (server[0], server[1] or default)
