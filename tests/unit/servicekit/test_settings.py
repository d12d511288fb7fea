"""Settings: a wrong value stops the start and names the variable, never the value."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from service_orders.settings import OrdersSettings
from service_users.settings import UsersSettings
from servicekit.events.relay_settings import relay_settings
from servicekit.process.settings import SettingsError, load, load_or_exit

URL = "postgresql://users:secret@127.0.0.1:5432/users"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_database_url_alone_suffices(monkeypatch):
    monkeypatch.setenv("USERS_DATABASE_URL", URL)

    settings = load(UsersSettings)

    assert settings.users_database_url == "postgresql+psycopg2://users:secret@127.0.0.1:5432/users"
    assert (settings.users_bind, settings.service_threads) == ("127.0.0.1:8001", 8)
    assert (settings.log_format, settings.log_level) == ("json", "info")


def test_a_missing_variable_is_named():
    with pytest.raises(SettingsError, match=r"^USERS_DATABASE_URL: is not set$"):
        load(UsersSettings)


def test_an_empty_variable_counts_as_missing(monkeypatch):
    monkeypatch.setenv("USERS_DATABASE_URL", "")
    with pytest.raises(SettingsError, match="USERS_DATABASE_URL: is not set"):
        load(UsersSettings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("USERS_DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("USERS_DATABASE_URL", "hunter2"),
        ("USERS_DATABASE_URL", "postgresql://"),
        ("USERS_DATABASE_URL", "postgresql://u:hunter2@h:port/d"),
        ("USERS_BIND", "hunter2"),
        ("USERS_BIND", "hunter2:"),
        ("USERS_BIND", ":8001"),
        ("USERS_BIND", "hunter2:65536"),
        ("USERS_BIND", "hunter2:٨٠"),
        ("SERVICE_THREADS", "0"),
        ("SERVICE_PROCESSES", "0"),
        ("SERVICE_PROCESSES", "65"),
        ("SERVICE_THREADS", "257"),
        ("SERVICE_THREADS", "hunter2"),
        ("SERVICE_THREADS", "1.5"),
        ("LOG_FORMAT", "hunter2"),
        ("LOG_LEVEL", "hunter2"),
    ],
)
def test_a_wrong_value_names_its_variable_and_hides_itself(monkeypatch, variable, value):
    monkeypatch.setenv("USERS_DATABASE_URL", URL)
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as caught:
        load(UsersSettings)

    assert str(caught.value).startswith(f"{variable}: ")
    assert "hunter2" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["127.0.0.1:8001", "0.0.0.0:0", "[::1]:8001", "localhost:65535"])
def test_an_address_to_listen_on_is_a_host_and_a_port(monkeypatch, value):
    monkeypatch.setenv("USERS_DATABASE_URL", URL)
    monkeypatch.setenv("USERS_BIND", value)
    assert load(UsersSettings).users_bind == value


@pytest.mark.parametrize(
    ("value", "kept"),
    [("http://users:8001", "http://users:8001"), ("https://users/", "https://users"), ("http://[::1]:1", None)],
)
def test_the_address_of_another_service_has_no_slash_at_its_end(monkeypatch, value, kept):
    monkeypatch.setenv("ORDERS_DATABASE_URL", URL)
    monkeypatch.setenv("USERS_URL", value)
    assert load(OrdersSettings).users_url == (kept or value)


@pytest.mark.parametrize(
    "value", ["users:8001", "ftp://users", "http://", "http://:8001", "http://users:x", "http://u?x=1", "http://u #"]
)
def test_the_address_of_another_service_must_be_one(monkeypatch, value):
    monkeypatch.setenv("ORDERS_DATABASE_URL", URL)
    monkeypatch.setenv("USERS_URL", value)
    with pytest.raises(SettingsError, match="USERS_URL: write it as http://HOST:PORT"):
        load(OrdersSettings)


def test_every_wrong_variable_is_named_at_once(monkeypatch):
    monkeypatch.setenv("SERVICE_THREADS", "many")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(SettingsError) as caught:
        load(UsersSettings)
    for variable in ("USERS_DATABASE_URL", "SERVICE_THREADS", "LOG_LEVEL"):
        assert f"{variable}: " in str(caught.value)


def test_a_file_named_env_is_read_and_the_environment_wins(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text(f"USERS_DATABASE_URL={URL}\nSERVICE_THREADS=3\nSOMETHING_ELSE=1\n")
    assert load(UsersSettings).service_threads == 3
    monkeypatch.setenv("SERVICE_THREADS", "4")
    assert load(UsersSettings).service_threads == 4


def test_settings_do_not_change_once_read(monkeypatch):
    monkeypatch.setenv("USERS_DATABASE_URL", URL)
    with pytest.raises(ValidationError):
        load(UsersSettings).service_threads = 5


def test_a_process_ends_with_one_line_that_names_itself_and_the_variable():
    with pytest.raises(SystemExit) as caught:
        load_or_exit(UsersSettings, "service_users")
    assert str(caught.value) == (
        "service_users cannot start: USERS_DATABASE_URL: is not set (every variable is explained in .env.example)"
    )


def test_a_relay_needs_a_token_from_the_environment_or_a_file(monkeypatch, tmp_path):
    with pytest.raises(SettingsError, match="INTERNAL_TOKEN is not set, nor INTERNAL_TOKEN_FILE"):
        load(relay_settings())
    file = tmp_path / "token"
    file.write_text("short\n")
    monkeypatch.setenv("INTERNAL_TOKEN_FILE", str(file))
    with pytest.raises(SettingsError, match="INTERNAL_TOKEN_FILE: the token in it has less than 16 characters"):
        load(relay_settings())

    file.write_text("a token of some length\n")
    assert load(relay_settings()).token == "a token of some length"
    monkeypatch.setenv("INTERNAL_TOKEN", "another that wins over it")
    assert load(relay_settings()).token == "another that wins over it"


def test_a_file_named_env_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / ".env").write_bytes(b"SERVICE_THREADS=3\n\xff\xfe\n")
    with pytest.raises(SettingsError, match=r"^\.env: is not UTF-8"):
        load(UsersSettings)
