"""E-mails to a real SMTP server on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
from uuid import uuid4

import psutil
import pytest

from service_tasks.domain.task import State
from service_tasks.task_types import GiveUp
from service_tasks.task_types import send_email as module
from service_tasks.task_types.send_email import Email, EmailNotSent, SendEmailSettings, SentEmail, send_email
from tests.support.certificates import Authority
from tests.support.mail_server import MailServer
from tests.support.ports import free_ports


class Context:
    """As much of a context as the handler looks at."""

    def __init__(self) -> None:
        self.task_id = uuid4()


def settings_for(port: int, **more) -> SendEmailSettings:
    plain = {"smtp_host": "localhost", "smtp_port": port, "smtp_from": "Office <robot@example.com>", "smtp_tls": "none"}
    return SendEmailSettings(**{**plain, **more}, _env_file=None)


def send(settings: SendEmailSettings, **changes) -> SentEmail:
    email = Email(**{"to": ["user@example.com"], "subject": "Бетон", "text": "Завтра в 8:00", **changes})
    return asyncio.run(_send(email, settings))


async def _send(email: Email, settings: SendEmailSettings) -> SentEmail:
    try:
        return await send_email(Context(), email, settings=settings)
    finally:
        # As in a worker the event loop goes on: TLS says goodbye before its connection is closed, and it always is.
        async with asyncio.timeout(10):
            while _connections_to(settings.smtp_port):
                await asyncio.sleep(0.01)


def _connections_to(port: int) -> int:
    return sum(1 for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == port)


@pytest.fixture
def server():
    with MailServer() as server:
        yield server


def test_other_tasks_go_on_while_a_message_is_written(server, monkeypatch):
    message_bytes, lively = module.message_bytes, threading.Event()

    async def write_while_the_loop_turns() -> SentEmail:
        asyncio.get_running_loop().call_later(0.01, lively.set)
        return await _send(Email(to="user@example.com", subject="Бетон"), settings_for(server.port))

    def slow(message):
        # What a hundred long names take in earnest.
        assert lively.wait(10), "the event loop stood still"
        return message_bytes(message)

    monkeypatch.setattr(module, "message_bytes", slow)

    asyncio.run(write_while_the_loop_turns())

    assert len(server.taken) == 1


def test_a_message_arrives_as_it_was_written(server):
    sent = send(
        settings_for(server.port),
        to=["Белов <belov@example.com>", "belov@example.com"],
        cc=["c@example.com"],
        html="<b>Завтра</b>",
        text="..\n.\nконец",
    )

    (taken,) = server.taken
    assert (taken.sender, taken.recipients) == ("robot@example.com", ["belov@example.com", "c@example.com"])
    assert taken.message["Subject"] == "Бетон"
    assert taken.message["Message-ID"] == sent.message_id
    text, html = taken.message.iter_parts()
    assert text.get_content().splitlines() == ["..", ".", "конец"]
    assert html.get_content().strip() == "<b>Завтра</b>"
    assert (sent.accepted, sent.refused) == (["belov@example.com", "c@example.com"], {})


@pytest.mark.parametrize("command", ["MAIL", "DATA", "user@example.com"])
@pytest.mark.parametrize(("reply", "error"), [("451 4.7.1 later please", EmailNotSent), ("550 5.7.1 never", GiveUp)])
def test_4xx_is_tried_again_and_5xx_is_not(server, command, reply, error):
    server.replies[command] = reply

    with pytest.raises(error, match=reply[4:].replace(".", r"\.")):
        send(settings_for(server.port))
    assert server.taken == []


def test_some_refused_recipients_do_not_stop_the_others_from_getting_it_once(server):
    server.replies["gone@example.com"] = "550 no such user"
    server.replies["busy@example.com"] = "451 later"

    sent = send(settings_for(server.port), to=["gone@example.com", "user@example.com"], cc=["busy@example.com"])

    assert sent.accepted == ["user@example.com"]
    assert sent.refused == {"gone@example.com": "550 no such user", "busy@example.com": "451 later"}
    assert len(server.taken) == 1


def test_while_one_of_all_refused_recipients_may_be_written_to_later_it_is_tried_again(server):
    server.replies = {"gone@example.com": "550 no such user", "busy@example.com": "451 later"}

    with pytest.raises(EmailNotSent, match=r"gone@example\.com: 550 no such user; busy@example\.com: 451 later"):
        send(settings_for(server.port), to=["gone@example.com", "busy@example.com"])


def test_a_server_that_is_away_is_asked_again():
    port = free_ports(1)

    with pytest.raises(EmailNotSent, match=f"localhost:{port}: "):
        send(settings_for(port))


# TLS and signing in


@pytest.fixture
def trusting(monkeypatch):
    authority = Authority()
    monkeypatch.setattr(module, "system_trust", lambda: authority.trusting)
    return authority


def test_by_default_nothing_is_said_in_the_clear(trusting):
    with MailServer(tls=trusting.server("localhost"), password="hush") as server:
        settings = settings_for(server.port, smtp_tls="starttls", smtp_user="robot", smtp_password="hush")
        send(settings)

        (taken,) = server.taken
        assert (taken.encrypted, taken.user) == (True, "robot")


def test_a_server_without_starttls_gets_nothing(server):
    with pytest.raises(EmailNotSent, match="STARTTLS"):
        send(settings_for(server.port, smtp_tls="starttls"))
    assert server.taken == []


def test_a_server_that_nobody_vouches_for_gets_nothing(trusting):
    with (
        MailServer(tls=trusting.server("somebody.else.test")) as server,
        pytest.raises(EmailNotSent, match=r"(?i)certificate"),
    ):
        send(settings_for(server.port, smtp_tls="starttls"))
    assert server.taken == []


def test_a_wrong_password_is_not_tried_over_and_over(trusting):
    with (
        MailServer(tls=trusting.server("localhost"), password="hush") as server,
        pytest.raises(GiveUp, match="the mail server answered 535"),
    ):
        send(settings_for(server.port, smtp_tls="starttls", smtp_user="robot", smtp_password="wrong"))


# In a worker


def test_a_worker_sends_what_was_asked_for(bench, start_worker, server):
    start_worker(send_email.with_settings(settings_for(server.port)))
    task_id = bench.add("send_email", payload='{"to": "user@example.com", "subject": "Напоминание"}')

    task = bench.wait_for(task_id, State.COMPLETED)

    assert json.loads(task.result or "")["message_id"] == f"<{task_id}@example.com>"
    assert server.taken[0].message["Subject"] == "Напоминание"
