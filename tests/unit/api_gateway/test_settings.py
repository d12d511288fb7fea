"""The gateway's settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from api_gateway.settings import GatewaySettings
from servicekit.process.services import services
from servicekit.process.settings import SettingsError, load
from tests.support.certificates import Authority


def test_without_any_variable_it_runs_on_loopback() -> None:
    settings = load(GatewaySettings)
    assert settings.gateway_bind == "127.0.0.1:8000"
    assert settings.upstream_urls() == {
        **{row.name: row.default_url for row in services().values()},
        "users": "http://127.0.0.1:8001",
        "orders": "http://127.0.0.1:8002",
        "tasks": "http://127.0.0.1:8003",
        "events": "http://127.0.0.1:8004",
    }
    assert settings.admin_token is None
    assert settings.allowed_origins() == frozenset()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY_BIND", "8000"),
        ("USERS_URL", "127.0.0.1:8001"),
        ("TRUSTED_PROXIES", "localhost"),
        ("CORS_ORIGINS", "app.example.com"),
        ("CORS_ORIGINS", "https://app.example.com/"),
        ("CORS_ORIGINS", "https://app.example.com, *"),
        ("CORS_ORIGINS", "https://app.example.com:0"),
        ("CORS_ORIGINS", "https://app.example.com:65536"),
        ("ALLOWED_HOSTS", "*"),
        ("ALLOWED_HOSTS", "api.example.com:8000"),
        ("ALLOWED_HOSTS", "http://api.example.com"),
        ("ADMIN_TOKEN", "fifteen letters"),
        ("ADMIN_TOKEN", "a token of some lëngth"),
        ("GATEWAY_UPSTREAM_CONNECTIONS", "0"),
        ("GATEWAY_RATE_LIMIT", "100"),
    ],
)
def test_a_wrong_value_stops_the_start_and_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable):
        load(GatewaySettings)


def test_a_short_admin_token_does_not_start_and_the_error_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "a" * 15)
    with pytest.raises(SettingsError, match=r"^ADMIN_TOKEN: has less than 16 characters; make one with: python3 -c "):
        load(GatewaySettings)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://a.example, https://b.example", {"https://a.example", "https://b.example"}),
        ("HTTPS://App.Example", {"https://app.example"}),
        ("https://a.example:443, http://a.example:80", {"https://a.example", "http://a.example"}),
        ("http://a.example:443,https://a.example:08443", {"http://a.example:443", "https://a.example:8443"}),
        ("http://[0:0::1]:3000", {"http://[::1]:3000"}),
    ],
)
def test_origins_are_a_list_kept_as_browsers_send_them(
    monkeypatch: pytest.MonkeyPatch, written: str, sent: set[str]
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", written)
    assert load(GatewaySettings).allowed_origins() == sent


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("certificate.pem", None, r"GATEWAY_TLS_KEY_FILE: is not set, but GATEWAY_TLS_CERT_FILE is"),
        (None, "key.pem", r"GATEWAY_TLS_CERT_FILE: is not set, but GATEWAY_TLS_KEY_FILE is"),
        ("missing.pem", "key.pem", r"GATEWAY_TLS_CERT_FILE: Path does not point to a file"),
        ("key.pem", "key.pem", r"GATEWAY_TLS_CERT_FILE: holds no certificate in PEM"),
        ("nothing.pem", "key.pem", r"GATEWAY_TLS_CERT_FILE: holds no certificate in PEM"),
        ("certificate.pem", "nothing.pem", r"GATEWAY_TLS_KEY_FILE: holds no private key in PEM"),
        ("certificate.pem", "locked.pem", r"GATEWAY_TLS_KEY_FILE: holds no private key in PEM, or one with a password"),
        ("certificate.pem", "other.pem", r"GATEWAY_TLS_KEY_FILE: is not the key of the certificate"),
    ],
)
def test_a_wrong_certificate_or_key_stops_the_start_and_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: str | None, key: str | None, said: str
) -> None:
    authority = Authority()
    authority.write_pair(tmp_path, "localhost")[1].rename(tmp_path / "other.pem")
    text = authority.write_pair(tmp_path, "localhost")[1].read_bytes()
    (tmp_path / "nothing.pem").write_bytes(b"nothing")
    locked = BestAvailableEncryption(b"a password")
    (tmp_path / "locked.pem").write_bytes(
        load_pem_private_key(text, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    )
    for variable, name in (("GATEWAY_TLS_CERT_FILE", certificate), ("GATEWAY_TLS_KEY_FILE", key)):
        if name is not None:
            monkeypatch.setenv(variable, str(tmp_path / name))
    with pytest.raises(SettingsError, match=said):
        load(GatewaySettings)
