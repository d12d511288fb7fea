"""Who shares a count of wrong passwords."""

from __future__ import annotations

import pytest

from service_users.accounts.throttles import network


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("198.51.100.7", "198.51.100.0/24"),
        # As a socket for both kinds shows it; one network for all of these would be one for the whole internet.
        ("::ffff:198.51.100.7", "198.51.100.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unknown", "unknown"),
    ],
)
def test_a_network_is_what_one_person_can_fill(address: str, expected: str) -> None:
    assert network(address) == expected
