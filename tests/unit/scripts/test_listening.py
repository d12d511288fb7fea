"""Where a start has the gateway listen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scripts.instance.errors import InstanceError, PortTaken
from scripts.instance.layout import Layout
from scripts.instance.listening import Listening, choose_listening
from scripts.instance.ports import Ports, row_length
from tests.support.certificates import Authority
from tests.support.ports import free_ports

LAN, EVERYWHERE = "192.168.1.5", "0.0.0.0"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate and its key."""
    certificate, key = Authority().write_pair(
        tmp_path_factory.mktemp("tls"), "*.example.com", "sites.example.com", LAN, "2001:db8::1"
    )
    return str(certificate), str(key)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.create()
    return layout


def test_it_is_remembered_until_it_is_taken_back(layout: Layout, pair: tuple[str, str]) -> None:
    assert Listening.of(layout) == Listening()
    everywhere = choose_listening(Listening(), EVERYWHERE, pair, closed=True)
    everywhere.remember(layout)
    assert Listening.of(layout) == everywhere == Listening(EVERYWHERE, *pair)
    assert choose_listening(everywhere, None, None, closed=True) == everywhere
    assert choose_listening(everywhere, LAN, None, closed=True) == Listening(LAN, *pair)
    for back in (
        choose_listening(everywhere, "127.0.0.1", None, closed=True),
        choose_listening(everywhere, None, None, closed=False),
    ):
        back.remember(layout)
        assert Listening.of(layout) == Listening()
    layout.listening.write_text('{"adress": "0.0.0.0"}')
    with pytest.raises(InstanceError, match="is damaged"):
        Listening.of(layout)


@pytest.mark.parametrize(
    ("address", "url", "asked"),
    [
        # By a name for which browsers know the certificate.
        (EVERYWHERE, "https://sites.example.com:8000", "127.0.0.1"),
        ("::", "https://sites.example.com:8000", "::1"),
        (LAN, f"https://{LAN}:8000", LAN),
        ("2001:db8::1", "https://[2001:db8::1]:8000", "2001:db8::1"),
        ("192.168.1.6", "https://sites.example.com:8000", "192.168.1.6"),
    ],
)
def test_it_is_opened_by_a_name_of_the_certificate(address: str, url: str, asked: str, pair: tuple[str, str]) -> None:
    listening = choose_listening(Listening(), address, pair, closed=True)
    assert (listening.url(8000), listening.asked) == (url, asked)
    assert listening.url(443) == url.removesuffix(":8000")
    assert Listening().url(8000) == "http://localhost:8000"


def test_what_cannot_be_is_refused_in_one_line(pair: tuple[str, str], tmp_path: Path) -> None:
    certificate, key = pair
    _, other = map(str, Authority().write_pair(tmp_path, "sites.example.com"))
    text = tmp_path / "text.pem"
    text.write_text("no PEM")
    for address, tls, closed, told in (
        (LAN, pair, False, "--listen goes only with --auth"),
        (None, pair, False, "--tls goes only with --auth"),
        (LAN, None, True, "needs --tls CERT KEY"),
        ("sites.example.com", pair, True, "write an address of this machine"),
        ("1.2.3", pair, True, "write an address of this machine"),
        (LAN, (str(tmp_path / "none"), key), True, "none cannot be read: No such file"),
        (LAN, (certificate, str(tmp_path)), True, "cannot be read: Is a directory"),
        (LAN, (str(text), key), True, "text.pem holds no certificate in PEM"),
        (LAN, (certificate, str(text)), True, "text.pem holds no private key in PEM"),
        (LAN, (certificate, other), True, "is not the key of the certificate in"),
        (LAN, (key, certificate), True, "holds no certificate in PEM"),
    ):
        with pytest.raises(InstanceError, match=told) as refused:
            choose_listening(Listening(), address, tls, closed=closed)
        assert "\n" not in str(refused.value)
    # Gone since it was remembered.
    moved = Listening(LAN, certificate, str(tmp_path / "moved"))
    with pytest.raises(InstanceError, match="moved cannot be read"):
        choose_listening(moved, None, None, closed=True)
    shutil.copy(key, moved.key or "")
    assert choose_listening(moved, None, None, closed=True) == moved


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(PortTaken, match=r"--listen 192\.0\.2\.1 is no address of this machine"):
        Ports(free_ports(row_length())).require_free(gateway="192.0.2.1")
