"""Which fields travel, and which are set at the gateway."""

from __future__ import annotations

import re

import pytest

from api_gateway import headers
from api_gateway.headers import Peer, TrustedProxies
from servicekit.http_server.request import RequestFields
from tests.support.markdown import CHECKOUT

STRANGER = Peer(address="203.0.113.9", scheme="http", host="api.example.com", trusted=False)
PROXY = Peer(address="10.0.0.1", scheme="http", host="inside:8000", trusted=True)


def up(
    fields: list[tuple[bytes, bytes]], peer: Peer = STRANGER, http_version: str = "1.1"
) -> list[tuple[bytes, bytes]]:
    passed = headers.Passed(RequestFields(fields), peer, http_version)
    lines = passed.lines + headers.lines_of_this_request("abc", passed.traceparent)
    assert lines.endswith(b"\r\n")
    pairs = [line.partition(b": ") for line in lines.split(b"\r\n")[:-1]]
    return [(name, value) for name, _, value in pairs]


def values(fields: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in fields if key == name]


@pytest.mark.parametrize("name", sorted(headers.HOP_BY_HOP))
def test_hop_by_hop_fields_end_here_in_both_directions(name: bytes) -> None:
    assert values(up([(name, b"x")]), name) == []
    assert values(headers.down([(name, b"x")]), name) == []


@pytest.mark.parametrize("connection", [b"close, X-Api-Key", b"x-api-key", b" X-API-KEY ,", b"keep-alive,,x-api-key"])
def test_what_connection_names_ends_here_in_both_directions(connection: bytes) -> None:
    fields = [(b"connection", connection), (b"x-api-key", b"secret"), (b"accept", b"*/*")]
    assert values(up(fields), b"x-api-key") == []
    assert values(up(fields), b"accept") == [b"*/*"]
    assert values(headers.down(fields), b"x-api-key") == []


def test_a_client_cannot_name_our_own_fields_away() -> None:
    sent = up([(b"connection", b"x-request-id, x-forwarded-for, via, traceparent")])
    assert values(sent, b"x-request-id") == [b"abc"]
    assert values(sent, b"x-forwarded-for") == [b"203.0.113.9"]
    assert values(sent, b"via") == [b"1.1 siteworks"]
    assert len(values(sent, b"traceparent")) == 1


@pytest.mark.parametrize(
    "name",
    [
        b"host",
        b"content-length",
        b"expect",
        b"x-real-ip",
        b"x-original-url",
        b"x-rewrite-url",
        b"x_forwarded_for",
        b"origin",
        b"sec-fetch-site",
    ],
)
def test_fields_that_are_set_or_judged_here_or_rewrite_addresses_do_not_pass(name: bytes) -> None:
    assert values(up([(name, b"x")]), name) == []


def test_ordinary_fields_pass_in_order_and_apart() -> None:
    fields = [(b"accept", b"a"), (b"authorization", b"Bearer t"), (b"accept", b"b"), (b"cookie", b"c=\xff")]
    assert [field for field in up(fields) if field in fields] == fields


class TestForwarded:
    def test_a_strangers_fields_are_replaced(self) -> None:
        sent = up([(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-proto", b"https"), (b"forwarded", b"for=6.6.6.6")])
        assert values(sent, b"x-forwarded-for") == [b"203.0.113.9"]
        assert values(sent, b"x-forwarded-proto") == [b"http"]
        assert values(sent, b"x-forwarded-host") == [b"api.example.com"]
        assert values(sent, b"forwarded") == [b"for=203.0.113.9;host=api.example.com;proto=http"]

    def test_a_trusted_proxys_fields_are_kept_and_continued(self) -> None:
        sent = up(
            [
                (b"x-forwarded-for", b"198.51.100.7"),
                (b"x-forwarded-proto", b"https"),
                (b"x-forwarded-host", b"api.example.com"),
                (b"forwarded", b"for=198.51.100.7"),
            ],
            PROXY,
        )
        assert values(sent, b"x-forwarded-for") == [b"198.51.100.7, 10.0.0.1"]
        assert values(sent, b"x-forwarded-proto") == [b"https"]
        assert values(sent, b"x-forwarded-host") == [b"api.example.com"]
        assert values(sent, b"forwarded") == [b'for=198.51.100.7, for=10.0.0.1;host="inside:8000";proto=http']

    @pytest.mark.parametrize("client", ["198.51.100.7", ""])
    def test_the_client_that_a_proxy_tells_of_is_named_and_no_other(self, client: str) -> None:
        peer = Peer(address="10.0.0.1", scheme="http", host="inside:8000", trusted=True, client=client)
        sent = up([(b"x-real-ip", b"6.6.6.6"), (b"x-forwarded-for", b"198.51.100.7")], peer)
        assert values(sent, b"x-real-ip") == [client.encode()] * bool(client)

    def test_an_ipv6_peer_is_quoted(self) -> None:
        peer = Peer(address="2001:db8::1", scheme="https", host='evil";for=x', trusted=False)
        assert values(up([], peer), b"forwarded") == [b'for="[2001:db8::1]";host="evilforx";proto=https']


@pytest.mark.parametrize(
    ("proxies", "address", "trusted"),
    [
        ("", "127.0.0.1", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8, 127.0.0.1", "127.0.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1", True),
        ("::ffff:10.0.0.1", "10.0.0.2", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("fe80::1%eth0", "fe80::1", True),
        ("10.0.0.0/8", "", False),
        ("10.0.0.0/8", "not an address", False),
    ],
)
def test_only_configured_peers_are_trusted(proxies: str, address: str, trusted: bool) -> None:
    assert (address in TrustedProxies(proxies)) is trusted


def test_a_proxy_list_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        TrustedProxies("localhost")


class TestVia:
    def test_it_is_added_to_those_on_the_way(self) -> None:
        assert values(up([(b"via", b"1.0 a"), (b"via", b"1.1 b")]), b"via") == [b"1.0 a, 1.1 b, 1.1 siteworks"]
        assert values(headers.down([(b"via", b"1.1 inner")]), b"via") == [b"1.1 inner, 1.1 siteworks"]

    def test_it_names_the_version_that_was_received(self) -> None:
        assert values(up([], http_version="1.0"), b"via") == [b"1.0 siteworks"]


GOOD_TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (GOOD_TRACE, True),
        (b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", True),
        (GOOD_TRACE + b"-x", False),  # version 00 has four parts
        (b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        (b"00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        (b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        (GOOD_TRACE.upper(), False),
        (b"", False),
        (b"00-4bf9-00f0-01", False),
    ],
)
def test_traceparent_is_checked(value: bytes, valid: bool) -> None:
    assert headers.valid_traceparent(value) is valid


def test_a_valid_trace_passes_with_its_state() -> None:
    sent = up([(b"traceparent", GOOD_TRACE), (b"tracestate", b"a=1")])
    assert values(sent, b"traceparent") == [GOOD_TRACE]
    assert values(sent, b"tracestate") == [b"a=1"]


@pytest.mark.parametrize("given", [[], [b"nonsense"], [GOOD_TRACE, GOOD_TRACE]])
def test_otherwise_a_new_trace_begins_without_state(given: list[bytes]) -> None:
    sent = up([*((b"traceparent", value) for value in given), (b"tracestate", b"a=1")])
    (made,) = values(sent, b"traceparent")
    assert headers.valid_traceparent(made)
    assert made != GOOD_TRACE
    assert values(sent, b"tracestate") == []


def test_going_down_several_cookies_stay_several_and_framing_is_dropped() -> None:
    passed = headers.down(
        [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"content-length", b"5"), (b"server", b"gunicorn")]
    )
    assert values(passed, b"set-cookie") == [b"a=1", b"b=2"]
    assert values(passed, b"content-length") == []
    assert values(passed, b"server") == []


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        (b"http://127.0.0.1:8001/users/1", b"/users/1"),
        (b"http://127.0.0.1:8001", b"/"),
        (b"http://127.0.0.1:8001?a=1", b"/?a=1"),
        (b"/users/1", b"/users/1"),
        (b"http://127.0.0.1:8001//evil.example/", b"/.//evil.example/"),
        (b"http://127.0.0.1:8001/\\evil.example", b"/./\\evil.example"),
        (b"http://127.0.0.1:8001/\t/evil.example", b"/./\t/evil.example"),
        (b"http://127.0.0.1:8001/a//b", b"/a//b"),
        (b"http://127.0.0.1:8001@evil.example/", b"http://127.0.0.1:8001@evil.example/"),
        (b"http://127.0.0.1:80011/x", b"http://127.0.0.1:80011/x"),
        (b"https://elsewhere.example/x", b"https://elsewhere.example/x"),
    ],
)
def test_a_location_never_shows_the_upstreams_address(location: bytes, seen: bytes) -> None:
    assert headers.own_location(location, b"http://127.0.0.1:8001") == seen


class TestCors:
    ALLOWED = frozenset({"https://app.example.com"})

    def test_nothing_is_said_when_nothing_is_configured(self) -> None:
        assert headers.cors(b"https://app.example.com", frozenset()) == []

    def test_a_known_origin_may_read(self) -> None:
        fields = dict(headers.cors(b"https://app.example.com", self.ALLOWED))
        assert fields[b"access-control-allow-origin"] == b"https://app.example.com"
        assert fields[b"vary"] == b"Origin"

    def test_a_page_may_read_every_field_that_the_documentation_explains(self) -> None:
        page = (CHECKOUT / "docs" / "http_api.md").read_text(encoding="utf-8")
        rows = page.partition("| answer field |")[2].partition("\n\n")[0].splitlines()[2:]
        named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
        assert {"ETag", "Existing-Task", "RateLimit", "RateLimit-Policy"} < named
        fields = dict(headers.cors(b"https://app.example.com", self.ALLOWED))
        exposed = fields[b"access-control-expose-headers"].decode().split(", ")
        assert sorted(exposed) == sorted({*named, "X-Request-ID"})

    @pytest.mark.parametrize("origin", [None, b"https://evil.example", b"https://app.example.com.evil.example"])
    def test_an_unknown_origin_may_not(self, origin: bytes | None) -> None:
        assert headers.cors(origin, self.ALLOWED) == [(b"vary", b"Origin")]

    @pytest.mark.parametrize(
        ("wanted", "allowed"),
        [(b"content-type, x-a", b"content-type, x-a"), (b"bad header\r\n", None), (None, None)],
    )
    def test_a_preflight_names_methods_and_harmless_fields(self, wanted: bytes | None, allowed: bytes | None) -> None:
        fields = dict(
            headers.cors(b"https://app.example.com", self.ALLOWED, preflight_allow="GET, OPTIONS", wanted=wanted)
        )
        assert fields[b"access-control-allow-methods"] == b"GET, OPTIONS"
        assert fields.get(b"access-control-allow-headers") == allowed


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("1.1.1.1", [b"6.6.6.6"], "1.1.1.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", [b"6.6.6.6, 2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", [b"6.6.6.6, 2.2.2.2, 10.0.0.2"], "2.2.2.2"),
        ("10.0.0.1", [b"6.6.6.6", b"2.2.2.2,10.0.0.2"], "2.2.2.2"),
        ("10.0.0.1", [b"2.2.2.2, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [b"nonsense, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [b""], "10.0.0.1"),
        ("::ffff:10.0.0.1", [b"2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", [b"2.2.2.2:5123"], "2.2.2.2"),
        ("10.0.0.1", [b"6.6.6.6, 2.2.2.2:5123, 10.0.0.2:80"], "2.2.2.2"),
        ("10.0.0.1", [b"2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", [b"[2001:DB8::1]"], "2001:db8::1"),
        ("10.0.0.1", [b"[2001:db8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", [b'"[2001:db8::1]:443"'], "2001:db8::1"),
        ("10.0.0.1", [b"\t2.2.2.2 , "], "10.0.0.1"),
        ("10.0.0.1", [b"\t2.2.2.2\t,10.0.0.2 "], "2.2.2.2"),
        ("10.0.0.1", [b"fe80::1%eth0"], "fe80::1"),
        ("10.0.0.1", [b"[fe80::1%eth0]:443"], "fe80::1"),
        ("10.0.0.1", [b"::ffff:2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", [b"2.2.2.2, ::ffff:10.0.0.2"], "2.2.2.2"),
        ("10.0.0.1", [b"2.2.2.2, unknown"], "10.0.0.1"),
        ("10.0.0.1", [b"_hidden"], "10.0.0.1"),
        ("10.0.0.1", [b"2.2.2.2:port:1"], "10.0.0.1"),
        ("10.0.0.1", [b"[2001:db8::1"], "10.0.0.1"),
        ("10.0.0.1", [b"02.2.2.2"], "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxy(
    peer: str, forwarded: list[bytes], client: str
) -> None:
    fields = [(b"x-forwarded-for", value) for value in forwarded]
    assert headers.client_address(fields, peer, TrustedProxies("10.0.0.0/8")) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([b"for=2.2.2.2"], "2.2.2.2"),
        ([b"For=2.2.2.2;proto=https;by=10.0.0.1"], "2.2.2.2"),
        ([b'proto=https; for="2.2.2.2:5123" , for=10.0.0.2'], "2.2.2.2"),
        ([b'for="[2001:db8::1]:443"'], "2001:db8::1"),
        ([b'for="[2001:db8::1]:_port"'], "2001:db8::1"),
        ([b"for=6.6.6.6", b"for=2.2.2.2, for=10.0.0.2"], "2.2.2.2"),
        ([b'for=2.2.2.2;host="a, for=6.6.6.6"'], "2.2.2.2"),
        ([b'for=2.2.2.2;host="\\", for=6.6.6.6"'], "2.2.2.2"),
        ([b'for="6.6.6.6', b"for=2.2.2.2"], "2.2.2.2"),
        ([b'for=2.2.2.2, for="6.6.6.6'], "10.0.0.1"),
        ([b"for=2.2.2.2, for=unknown"], "10.0.0.1"),
        ([b"for=_hidden"], "10.0.0.1"),
        ([b"for=2.2.2.2, proto=https"], "10.0.0.1"),
        ([b"2.2.2.2"], "10.0.0.1"),
        ([b""], "10.0.0.1"),
    ],
)
def test_forwarded_counts_where_there_is_no_x_forwarded_for(forwarded: list[bytes], client: str) -> None:
    fields = [(b"forwarded", value) for value in forwarded]
    trusted = TrustedProxies("10.0.0.0/8")
    assert headers.client_address(fields, "10.0.0.1", trusted) == client
    assert headers.client_address([*fields, (b"x-forwarded-for", b"3.3.3.3")], "10.0.0.1", trusted) == "3.3.3.3"
    assert headers.client_address(fields, "4.4.4.4", trusted) == "4.4.4.4"


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("not:an:address", "not:an:address"),
    ],
)
def test_one_host_with_many_addresses_is_one_client(address: str, key: str) -> None:
    assert headers.client_key(address) == key
