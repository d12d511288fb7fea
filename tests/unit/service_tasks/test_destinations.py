"""Where an outgoing request may go."""

from __future__ import annotations

import ipaddress

import pytest

from service_tasks.domain.destinations import is_allowed, is_public, may_connect, read_allowed_hosts, read_networks


@pytest.mark.parametrize(
    ("listed", "scheme", "host", "port", "allowed"),
    [
        ("api.example.com", "https", "api.example.com", 443, True),
        ("api.example.com", "http", "API.Example.COM.", 80, True),
        ("api.example.com", "https", "api.example.com", 80, False),  # not the port of its scheme
        ("api.example.com", "https", "api.example.com", 8443, False),
        ("api.example.com:8443", "https", "api.example.com", 8443, True),
        ("api.example.com:8443", "https", "api.example.com", 443, False),
        ("api.example.com", "https", "xapi.example.com", 443, False),
        ("api.example.com", "https", "api.example.com.evil.test", 443, False),
        ("api.example.com", "https", "example.com", 443, False),
        ("*.example.com", "https", "a.example.com", 443, True),
        ("*.example.com", "https", "a.b.example.com", 443, True),
        ("*.example.com", "https", "example.com", 443, False),
        ("*.example.com", "https", ".example.com", 443, False),
        ("*.example.com", "https", "evilexample.com", 443, False),
        ("a.test, b.test:81 ,", "http", "b.test", 81, True),
        ("[::1]:9000", "http", "::1", 9000, True),
        ("10.0.0.5", "http", "10.0.0.5", 80, True),
        ("10.0.0.5", "http", "10.0.0.6", 80, False),
        ("", "https", "api.example.com", 443, False),
    ],
)
def test_only_what_the_list_names_is_allowed(listed, scheme, host, port, allowed):
    assert is_allowed(read_allowed_hosts(listed), scheme, host, port) is allowed


@pytest.mark.parametrize(
    "entry", ["*", "*.", "https://example.com", "example.com/path", "a b", "host:0", "host:70000", "a..b", "бетон.рф"]
)
def test_an_entry_that_names_no_host_is_refused(entry):
    with pytest.raises(ValueError, match=r"entry 2 (is no host|has no port)"):
        read_allowed_hosts(f"good.example.com,{entry}")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("127.8.9.10", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),  # shared by the customers of one provider; 100.100.100.200 gives out a cloud's secrets
        ("100.100.100.200", False),
        ("169.254.169.254", False),  # metadata of most clouds
        ("168.63.129.16", False),  # Azure's, a public address by its number
        ("192.0.0.192", False),  # Oracle's
        ("192.0.2.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fec0::1", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),  # Amazon's
        ("ff02::1", False),
        ("2001:db8::1", False),
        ("64:ff9b:1::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::7f00:1", False),  # 127.0.0.1 behind NAT64
        ("64:ff9b::5db8:d70e", True),
        ("2002:7f00:1::", False),  # 127.0.0.1 behind 6to4
    ],
)
def test_public_is_what_lies_on_the_internet_and_nothing_else(address, public):
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    ("address", "host", "allowed"),
    [
        ("10.1.2.3", "crane.test", True),
        ("::ffff:10.1.2.3", "crane.test", True),
        ("192.168.1.1", "crane.test", False),
        ("fd12::7", "crane.test", True),
        ("192.168.7.7", "192.168.7.7", True),  # listed by its number
        ("192.168.7.7", "crane.test", False),  # a name that points there is not
    ],
)
def test_other_addresses_need_a_network_or_their_very_number_in_the_list(address, host, allowed):
    hosts, networks = read_allowed_hosts("crane.test, 192.168.7.7"), read_networks("10.0.0.0/8, fd12::/16")

    assert may_connect(ipaddress.ip_address(address), host=host, hosts=hosts, networks=networks) is allowed


def test_a_network_that_is_none_is_refused():
    with pytest.raises(ValueError, match="entry 2 is no network"):
        read_networks("::1, 10.0.0.1/8")
