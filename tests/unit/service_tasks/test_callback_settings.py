"""What callbacks are signed with, and where they may go, as it is set."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from service_tasks.domain.callback import signature
from service_tasks.task_types.callback import CallbackSettings
from servicekit.process.settings import MissingSettings, SettingsError, load

SECRET = "sixteen letters!"


@pytest.fixture(autouse=True)
def hosts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLBACK_HOSTS", "site.example.com")


def test_without_hosts_there_are_no_callbacks_and_nothing_is_wrong(monkeypatch):
    monkeypatch.delenv("CALLBACK_HOSTS")

    with pytest.raises(MissingSettings) as missing:
        load(CallbackSettings)
    assert missing.value.variables == ("CALLBACK_HOSTS",)


@pytest.mark.parametrize("secret", [SECRET, f"{SECRET},{SECRET}2", f" {SECRET} , {SECRET}2 ,"])
def test_one_or_two_secrets_will_do(monkeypatch, secret):
    monkeypatch.setenv("CALLBACK_SECRET", secret)

    assert load(CallbackSettings).secrets() == (SECRET.encode(), f"{SECRET}2".encode())[: secret.count("2") + 1]


@pytest.mark.parametrize("secret", [None, "", "fifteen letters", f"{SECRET},short", ",".join([SECRET] * 3), ",,"])
def test_a_secret_that_is_missing_or_weak_stops_the_worker_without_being_shown(monkeypatch, secret):
    if secret is not None:
        monkeypatch.setenv("CALLBACK_SECRET", secret)

    with pytest.raises(SettingsError, match="CALLBACK_SECRET") as wrong:
        load(CallbackSettings)
    assert not isinstance(wrong.value, MissingSettings)
    assert not any(part in str(wrong.value) for part in (secret or "").split(",") if part)


def test_a_file_that_cannot_be_read_and_two_sources_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("CALLBACK_SECRET_FILE", str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match="CALLBACK_SECRET_FILE cannot be read: FileNotFoundError"):
        load(CallbackSettings)

    monkeypatch.setenv("CALLBACK_SECRET", SECRET)
    with pytest.raises(SettingsError, match="one of them"):
        load(CallbackSettings)


def test_the_signature_is_of_the_second_a_dot_and_the_body():
    expected = hmac.new(b"key", b"1795225077.{}", hashlib.sha256).hexdigest()
    other = hmac.new(b"old", b"1795225077.{}", hashlib.sha256).hexdigest()

    assert signature([b"key"], 1795225077, b"{}") == f"t=1795225077,v1={expected}"
    assert signature([b"key", b"old"], 1795225077, b"{}") == f"t=1795225077,v1={expected},v1={other}"
