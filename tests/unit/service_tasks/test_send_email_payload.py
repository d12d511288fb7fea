"""What an e-mail may be, how it is written, and what its server's settings must be."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service_tasks.task_types import GiveUp
from service_tasks.task_types.send_email import Email, SendEmailSettings, message_bytes, message_of, send_email
from servicekit.process.settings import SettingsError, load

TASK = UUID("018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f")
GOOD = {"to": "user@example.com", "subject": "Reminder"}


def test_a_recipient_and_a_subject_are_enough_and_several_may_be_named():
    assert send_email.parse(json.dumps(GOOD)).to == ["user@example.com"]

    several = ["Белов Ярослав <belov@example.com>", "b@бетон.рф"]
    assert send_email.parse(json.dumps({**GOOD, "to": several, "cc": "c@site.local"})).to == several


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"to": []}, "to"),
        ({"to": "nobody"}, "to.0"),
        ({"to": "a@b@example.com"}, "to.0"),
        ({"to": "a@example.com, b@example.com"}, "to.0"),
        ({"to": "a@example.com\r\nBcc: everybody@example.com"}, "to.0"),
        ({"to": "Belov\nX: y <a@example.com>"}, "to.0"),
        ({"to": "белов@example.com"}, "to.0"),
        ({"to": ".a@example.com"}, "to.0"),
        ({"to": "a@-x-.com"}, "to.0"),
        ({"to": "a@example..com"}, "to.0"),
        ({"to": "a@[127.0.0.1]"}, "to.0"),
        ({"to": "a" * 65 + "@example.com"}, "to.0"),
        ({"to": ["a@example.com"] * 101}, "to"),
        ({"to": ["a@example.com"] * 60, "cc": ["a@example.com"] * 60}, ""),
        ({"cc": ["a@example.com", "x"]}, "cc.1"),
        ({"reply_to": "x"}, "reply_to.0"),
        ({"subject": ""}, "subject"),
        ({"subject": "Reminder\r\nBcc: everybody@example.com"}, "subject"),
        ({"subject": "Reminder\x0bBcc: x"}, "subject"),
        ({"subject": "Reminder\u2028Bcc: x"}, "subject"),
        ({"subject": "x" * 501}, "subject"),
        ({"subject": 5}, "subject"),
        ({"bcc": "a@example.com"}, "bcc"),
        ({"from": "a@example.com"}, "from"),
    ],
)
def test_what_is_no_email_is_refused_by_its_field(changes, field):
    with pytest.raises(ValidationError) as refused:
        send_email.parse(json.dumps({**GOOD, **changes}))

    assert [".".join(map(str, error["loc"])) for error in refused.value.errors()] == [field]


HIDDEN = [
    "=?utf-8?q?x=0d=0aBcc=3a_v=40evil.example?=",
    "=?utf-8?q?x=0d=0a=0d=0aanother_body?=",
    "=?UTF-8?B?eA0KQmNjOiB2?=",
    "=?utf-8?q?x=0aBcc=3a_v?=",
    "=?utf-8?q?x=0dBcc=3a_v?=",
    "=?utf-7?q?x+AA0ACg-Bcc?=",
    "=?nonsense?q?=0d=0aBcc=3a?=",
    "=?utf-8*en?q?=0d=0aBcc=3a_v?=",
    "=?utf-8?q?a?= =?utf-8?q?=0d=0aBcc=3a?=",
    "a=?utf-8?q?=0d=0aBcc=3a?=b",
    "=?idna?q?a=0ab?=",
    "=?utf-8?q?=00?=",
    "=?utf-8?q?=E2=80=A8Bcc=3a?=",
]


@pytest.mark.parametrize("text", HIDDEN)
@pytest.mark.parametrize("field", ["subject", "to", "cc", "reply_to"])
def test_a_line_break_in_an_encoded_word_is_refused_as_any_other(field, text):
    value = text if field == "subject" else f"{text} <a@example.com>"
    with pytest.raises(ValidationError, match="must be one line"):
        send_email.parse(json.dumps({**GOOD, field: value}))


words = st.builds(
    "=?{}?{}?{}?=".format,
    st.sampled_from(["utf-8", "UTF-7", "ascii", "latin-1", "utf-16", "idna", "x"]),
    st.sampled_from("qQbB"),
    st.text("=0dDaA9_?:AQo+-Bc", max_size=20),
)
hostile = st.lists(words | st.text('ab "=?:,;()[]@.ж', max_size=5), min_size=1, max_size=4).map("".join)


@given(subject=hostile, name=hostile)
@settings(max_examples=300)
def test_whatever_is_accepted_makes_the_header_fields_that_were_asked_for_and_no_others(subject, name):
    try:
        email = Email(to=[f"{name} <a@example.com>"], reply_to=[f"{name} <b@example.com>"], subject=subject, text="hi")
        raw = message_bytes(message_of(email, "robot@example.com", task_id=TASK))
    except (ValidationError, GiveUp):
        return

    head, _, body = raw.partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    assert names == [
        *(b"Date", b"From", b"To", b"Reply-To", b"Subject", b"Message-ID", b"Auto-Submitted"),
        *(b"Content-Type", b"Content-Transfer-Encoding", b"MIME-Version"),
    ]
    assert b"\r" not in head.replace(b"\r\n", b"")
    assert b"\n" not in head.replace(b"\r\n", b"")
    assert body == b"hi\r\n"


def test_what_an_encoded_word_says_is_kept_when_it_is_one_line():
    email = Email(to="=?utf-8?q?B=C3=B6rn?= <a@example.com>", subject="=?utf-8?q?gr=C3=BCn?=")

    message = message_of(email, "robot@example.com", task_id=TASK)

    assert message["Subject"] == "grün"


def test_a_message_is_written_as_the_standard_says():
    email = Email(
        to=["Белов, Ярослав <belov@example.com>"],
        cc=["c@бетон.рф"],
        reply_to=["office@example.com"],
        subject="Бетон завтра в 8:00",
        text="Привет,\nбетон.\n" + "x" * 2000,
        html="<b>бетон</b>",
    )

    message = message_of(email, "Site Office <robot@example.com>", task_id=TASK)

    raw = message.as_bytes()
    raw.decode("ascii")
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    assert message["From"] == "Site Office <robot@example.com>"
    assert message["To"].addresses[0].display_name == "Белов, Ярослав"
    assert message["Cc"].addresses[0].addr_spec == "c@" + "бетон.рф".encode("idna").decode()
    assert message["Reply-To"] == "office@example.com"
    assert message["Subject"] == "Бетон завтра в 8:00"
    assert message["Message-ID"] == f"<{TASK}@example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert text.get_content().splitlines()[:2] == ["Привет,", "бетон."]


# Settings


@pytest.fixture
def configured(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMTP_HOST", "mail.example.com")
    monkeypatch.setenv("SMTP_FROM", "robot@example.com")
    return monkeypatch


def test_a_host_and_a_sender_are_enough(configured):
    settings = load(SendEmailSettings)

    assert (settings.smtp_port, settings.smtp_tls, settings.password()) == (587, "starttls", None)
    assert send_email.needs == ("SMTP_HOST", "SMTP_FROM")


def test_a_password_may_lie_in_a_file_and_change_there(configured, tmp_path):
    file = tmp_path / "password"
    file.write_text("first\n", encoding="utf-8")
    configured.setenv("SMTP_USER", "robot")
    configured.setenv("SMTP_PASSWORD_FILE", str(file))

    settings = load(SendEmailSettings)
    assert settings.password() == "first"
    file.write_text("second", encoding="utf-8")
    assert settings.password() == "second"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SMTP_FROM": "nobody"}, "SMTP_FROM: must be an e-mail address"),
        ({"SMTP_FROM": "a@example.com\nBcc: b@example.com"}, "SMTP_FROM: must be one line"),
        ({"SMTP_PORT": "0"}, "SMTP_PORT"),
        ({"SMTP_TLS": "maybe"}, "SMTP_TLS"),
        ({"SMTP_USER": "robot"}, "SMTP_USER needs SMTP_PASSWORD"),
        ({"SMTP_PASSWORD": "hush"}, "SMTP_USER needs SMTP_PASSWORD"),
        ({"SMTP_USER": "robot", "SMTP_PASSWORD": "hush", "SMTP_TLS": "none"}, "in the clear"),
        ({"SMTP_USER": "robot", "SMTP_PASSWORD": "hush", "SMTP_PASSWORD_FILE": "f"}, "are both set"),
        ({"SMTP_USER": "robot", "SMTP_PASSWORD_FILE": "no/such"}, "SMTP_PASSWORD_FILE cannot be read: FileNotFound"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(configured, changes, said):
    for name, value in changes.items():
        configured.setenv(name, value)

    with pytest.raises(SettingsError) as refused:
        load(SendEmailSettings)
    assert said in str(refused.value)
    assert "hush" not in str(refused.value)
