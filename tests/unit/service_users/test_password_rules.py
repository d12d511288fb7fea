"""Which new passwords are taken."""

from __future__ import annotations

import pytest

from service_users.accounts import password_rules
from service_users.accounts.password_rules import weakness

CONTEXT = ("anna.belova@beton-nord.example", "Белова Анна Сергеевна")


@pytest.mark.parametrize(
    "password",
    [
        "seven brown cranes at noon",
        "three cranes turn to the left",
        "семь кранов стоят у реки",
        "Zq8#rT2vLk5!wPx9",
        "password" + "kq4vz8tm",
        "x" * 100 + "kq4vz8tm",
        "ключ 漢字と仮名まじり文です 12",
    ],
)
def test_a_long_password_of_ones_own_is_taken(password: str) -> None:
    assert weakness(password, CONTEXT) is None


@pytest.mark.parametrize(
    "password",
    [
        "kq4vz8tm",
        "kq4vz8tmkq4vz8",
        "k" * 129,
        "aaaaaaaaaaaaaaaaaaaa",
        "abcabcabcabcabcabc",
        "abcdefghijklmnopqrst",
        "98765432109876543210",
        "qwertyuiopasdfghjkl",
        "йцукенгшщзхъфывапролджэ",
        "Password1234567890",
        "PaSSwOrD-welcome-2026",
        "correct horse battery staple",
        "siteworks siteworks 2026",
        "anna.belova beton nord 1",
        "белова анна сергеевна 85",
        "любовь солнце привет 123",
    ],
)
def test_a_short_or_common_one_a_pattern_or_words_of_its_owner_are_refused(password: str) -> None:
    assert weakness(password, CONTEXT) is not None


def test_runs_are_looked_for_in_work_that_grows_with_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    def counting(part: str) -> bool:
        nonlocal looked_at
        looked_at += len(part)
        return is_run(part)

    is_run = password_rules._is_run
    monkeypatch.setattr(password_rules, "_is_run", counting)
    # Each is three letters once its case is folded.
    weakness("\N{LATIN SMALL LIGATURE FFI}" * 128)
    assert looked_at <= 3 * 128 * 5
