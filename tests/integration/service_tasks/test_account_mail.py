"""The mail of accounts: from the event that wants it to a real SMTP server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from service_tasks.domain.task import State
from service_tasks.engine.registry import load_registry
from service_tasks.persistence.task_store import TaskStore
from service_tasks.settings import BUILT_IN_MODULES
from service_tasks.task_types import GiveUp
from service_tasks.task_types.account_mail import AccountMail, AccountMailSettings, SentAccountMail, account_mail
from service_tasks.task_types.send_email import EmailNotSent
from service_tasks.use_cases.account_mail import MailOfAccounts
from servicekit.events.cloudevents import Event
from servicekit.events.inbox import Inbox
from servicekit.process.clock import utc_now
from tests.support.mail_server import MailServer
from tests.support.upstream import ScriptedUpstream, bad, good

TOKEN = "what only the workers know"
WRITTEN = {"to": "anna@example.com", "subject": "Set a new password", "text": "swl_secret"}


class Context:
    """As much of a context as the handler looks at."""

    task_id = UUID(int=7, version=4)


@pytest.fixture
def users() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as users:
        yield users


def send(users: ScriptedUpstream, smtp_port: int, link: UUID) -> SentAccountMail:
    settings = AccountMailSettings(
        smtp_host="localhost", smtp_port=smtp_port, smtp_from="robot@example.com", smtp_tls="none",
        mail_token=SecretStr(TOKEN), users_url=f"http://127.0.0.1:{users.port}", _env_file=None,
    )  # fmt: skip
    return asyncio.run(account_mail(Context(), AccountMail(id=link), settings=settings))


def test_an_event_makes_one_task_that_holds_the_id_of_a_link_and_nothing_else(bench):
    link = uuid4()
    wanted = Event(type="mail.wanted", subject=link, data={"id": str(link)}, time=utc_now())
    inbox = Inbox(bench.database, {"mail.wanted": MailOfAccounts(TaskStore(bench.database)).act})
    assert [inbox.take([wanted]).processed for _ in range(2)] == [1, 0]
    ((kind, payload, owner, title, state),) = bench.sql("SELECT task_type, payload, user_id, title, state FROM tasks")
    assert (kind, payload, owner, title, state) == ("account_mail", {"id": str(link)}, None, None, State.READY)
    kept = load_registry(BUILT_IN_MODULES).get("account_mail")
    assert kept is not None
    assert kept.parse(json.dumps(payload)) == AccountMail(id=link)


def test_a_message_is_fetched_when_it_is_sent_and_nothing_of_it_is_kept(users):
    link = uuid4()
    users.script(good(WRITTEN))
    with MailServer() as server:
        sent = send(users, server.port, link)
    (taken,) = server.taken
    assert (taken.recipients, taken.message["Subject"]) == (["anna@example.com"], "Set a new password")
    assert "swl_secret" in taken.message.get_content()
    (asked,) = users.requests()
    assert (json.loads(asked.body), asked.value("Authorization")) == ({"id": str(link)}, f"Bearer {TOKEN}")
    assert sent.model_dump() == {"message_id": "<00000000-0000-4000-8000-000000000007@example.com>"}


@pytest.mark.parametrize(
    ("answer", "reply", "error", "said"),
    [
        (bad(404, "mail_not_found"), "", GiveUp, "used"),
        (bad(401, "unauthorized"), "", EmailNotSent, "401"),
        (good(WRITTEN), "550 no such user", GiveUp, "550 no such user"),
        (good(WRITTEN), "451 <Anna@EXAMPLE.com>: later", EmailNotSent, "451 <the recipient>: later"),
    ],
)
def test_what_goes_wrong_is_told_without_the_address(users, answer, reply, error, said):
    users.script(answer)
    with MailServer() as server:
        if reply:
            server.replies["anna@example.com"] = reply
        with pytest.raises(error, match=said) as refused:
            send(users, server.port, uuid4())
    assert server.taken == []
    assert "anna@example.com" not in str(refused.value).lower()
    assert refused.value.__context__ is refused.value.__cause__ is None
