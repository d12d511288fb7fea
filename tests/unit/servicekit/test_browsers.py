"""Which requests of a browser a server takes, by Host, Origin and Sec-Fetch-Site."""

from __future__ import annotations

import pytest

from servicekit.wire.browsers import BrowserRules
from servicekit.wire.errors import AppError, ForeignPage, MisdirectedRequest

RULES = BrowserRules(
    "api.example.com, service_users, 10.1.2.3, [2001:DB8::1]", "192.168.7.7:8000", origins={"https://app.example.com"}
)


def refusal(
    method: str = "GET",
    host: str | None = "localhost:8000",
    origin: str | None = None,
    site: str | None = None,
    forwarded_host: str = "",
) -> type[AppError] | None:
    try:
        RULES.verdict(host, origin, site, forwarded_host).check(method)
    except AppError as error:
        return type(error)
    return None


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8000", "LOCALHOST:1", "localhost.", "localhost.:8000", "localhost:", "127.0.0.1",
        "127.8.9.10:8000", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]:8000", "api.example.com", "API.Example.COM.:443",
        "service_users:8001", "10.1.2.3:8000", "[2001:db8:0::1]:8000", "192.168.7.7:8000", "192.168.7.7", None,
    ],
)  # fmt: skip
def test_a_server_is_asked_by_its_names(host):
    assert refusal(host=host) is None
    assert refusal("POST", host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost",
        "api.example.com.evil.example", "x.api.example.com", "localhost..", "10.1.2.4", "0.0.0.0:8000", "[::]:8000",
        "128.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "[::2]", "[::1", "::1", "[127.0.0.1]", "[::ffff:127.0.0.1]",
        "user@localhost", "localhost@evil.example", "localhost:8000:1", "localhost:x", "localhost/", "localhost#", "",
        ".", " localhost", "localhost,evil.example", "l\u00f6calhost", "localho\u017ft", "a" * 9000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nobody_asks_it_by_another_name(method, host):
    assert refusal(method, host=host) is MisdirectedRequest
    # Whatever else is said.
    assert refusal(method, host=host, origin=f"http://{host}", site="same-origin") is MisdirectedRequest
    assert refusal(method, host=host, origin="https://app.example.com") is MisdirectedRequest


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        # Behind a proxy that ends TLS.
        ("api.example.com", "https://api.example.com"),
        ("api.example.com:443", "https://api.example.com"),
        ("api.example.com:8443", "https://api.example.com:8443"),
        ("API.example.com.", "https://api.example.com"),
        # Listed.
        ("localhost:8000", "https://app.example.com"),
    ],
)
def test_its_own_pages_and_listed_ones_may_do_everything(host, origin):
    for method in ("GET", "OPTIONS", "POST", "DELETE"):
        assert refusal(method, host, origin) is None


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "https://evil.example", "http://evil.example:8000", "http://localhost", "http://localhost:3000",
        "https://localhost", "http://127.0.0.1:8000", "http://localhost:8000.evil.example", "ftp://localhost:8000",
        "http://user@localhost:8000", "http://localhost:8000/", "localhost:8000", "http://localhost:8000,http://a",
        "https://app.example.com.evil.example", "https://app.example.com:444", "http://app.example.com", "*",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
def test_a_page_of_somebody_else_may_do_nothing(method, origin):
    assert refusal(method, origin=origin) is ForeignPage
    assert refusal(method, origin=origin, site="same-origin") is ForeignPage


@pytest.mark.parametrize(
    ("site", "foreign"),
    [("same-origin", False), ("none", False), (None, False), ("cross-site", True), ("same-site", True), ("x", True)],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "BREW"])
def test_what_could_change_something_comes_from_its_own_site(method, site, foreign):
    unsafe = method not in {"GET", "HEAD", "OPTIONS"}
    assert refusal(method, site=site) is (ForeignPage if foreign and unsafe else None)
    assert refusal(method, origin="https://app.example.com", site=site) is None


def test_a_believed_proxy_says_how_the_browser_called_it():
    named = "api.example.com"
    own = {"host": "10.1.2.3:8000", "origin": f"https://{named}", "site": "same-origin"}
    assert refusal("POST", **own) is ForeignPage
    assert refusal("POST", **own, forwarded_host=named) is None
    assert refusal("POST", **own, forwarded_host=f"{named}, localhost") is None
    assert refusal("POST", **own, forwarded_host="evil.example") is MisdirectedRequest
    assert refusal("POST", **own, forwarded_host=f"{named}, evil.example") is MisdirectedRequest
    assert refusal("POST", **{**own, "host": "evil.example"}, forwarded_host=named) is MisdirectedRequest


def test_a_page_never_speaks_without_naming_a_host():
    assert refusal("POST", host=None, origin="http://localhost:8000") is ForeignPage


def test_one_that_listens_everywhere_has_no_name_from_that():
    for bind in ("0.0.0.0:8000", "[::]:8000"):
        with pytest.raises(MisdirectedRequest):
            BrowserRules("", bind).verdict(bind, None, None).check("GET")
