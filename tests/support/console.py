"""The console as somebody sees it who sits before a browser."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg2

from scripts.instance.ports import Ports
from servicekit.process.ids import new_id
from tests.support.logins import PASSWORD, ClosedSystem, Fields, Person, bearer
from tests.support.system import RunningSystem
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Locator, Page, Request, WebError

#: What would run if a page took a text for a part of itself.
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
_ANSWER = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
_NO_ANSWER = re.compile(r"Failed to load resource: net::")
_numbers = itertools.count(1)
_SCRIPT = """
addEventListener("securitypolicyviolation", (event) =>
  console.error("policy", event.violatedDirective, event.blockedURI, event.sample));
const ask = fetch;
let asked = 0;
window.underWay = 0;
window.fetch = async (...given) => {
  asked += 1;
  window.underWay += 1;
  try {
    const answer = await ask(...given);
    await answer.clone().arrayBuffer().catch(() => {});
    return answer;
  } finally { window.underWay -= 1; }
};
const frame = () => new Promise((done) => {
  const drawn = () => setTimeout(done);
  requestAnimationFrame(drawn);
  setTimeout(drawn, 50);
});
// What an answer brings onto the page asks for more itself, after the next frame.
window.isSettled = async () => {
  const before = asked;
  const isStill = () => underWay === 0 && asked === before && !document.querySelector("[aria-busy=true]");
  for (let frames = 0; frames < 2; frames += 1) {
    if (!isStill()) return false;
    await frame();
  }
  return isStill();
};
"""

_TYPED = """(field, text) => {
  field.value = text;
  field.dispatchEvent(new Event("input", {bubbles: true}));
  return JSON.stringify({...localStorage}).includes(text);
}"""


@dataclass
class Watch:
    """What pages did that they must not: break their policy, fail, complain, or ask another host."""

    faults: list[str] = field(default_factory=list)
    #: The statuses that the API may answer; 0: no answer.
    expected: set[int] = field(default_factory=lambda: {401, 404})

    def begin(self, context: BrowserContext, url: str) -> None:
        """Look at all that the context's pages do."""
        context.on("console", self._said)
        context.on("weberror", self._failed)
        context.on("dialog", self._opened)
        context.on("request", lambda request: self._asked(request, url))
        context.add_init_script(_SCRIPT)

    def _said(self, message: ConsoleMessage) -> None:
        # Another program changed this machine's network, such as by starting a container.
        if message.type not in ("error", "warning") or "ERR_NETWORK_CHANGED" in message.text:
            return
        answered = _ANSWER.match(message.text)
        if answered:
            expected = int(answered[1]) in self.expected
        else:
            expected = 0 in self.expected and _NO_ANSWER.match(message.text) is not None
        if not expected:
            self.faults.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def _failed(self, error: WebError) -> None:
        self.faults.append(f"not caught: {error.error}")

    def _opened(self, dialog: Dialog) -> None:
        self.faults.append(f"ran: {dialog.message}")
        dialog.dismiss()

    def _asked(self, request: Request, url: str) -> None:
        if not request.url.startswith((f"{url}/", "data:", "blob:")):
            self.faults.append(f"another host: {request.method} {request.url}")


def log_in(page: Page, person: Person, *, to: str = "") -> None:
    """Come to the console and log in."""
    page.goto(f"console#{to}")
    page.get_by_label("E-mail address").fill(person.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").wait_for()


def show(page: Page, address: str) -> None:
    """Go to a page, and wait for what it loads."""
    page.goto(f"console#{address}")
    heading(page).wait_for()
    settle(page)


def settle(page: Page) -> None:
    """Wait for what is being loaded."""
    eventually(lambda: page.evaluate("isSettled()"), timeout=30, what=f"{page.url} is there")


def heading(page: Page) -> Locator:
    """The title of the page."""
    return page.get_by_role("main").get_by_role("heading", level=1)


def type_and_keep(field: Locator, text: str) -> None:
    """Type a text, and insist that it is kept in that moment: the page may end in the next."""
    assert field.evaluate(_TYPED, text), f"{text!r} is not kept"


def confirm(page: Page, deed: str) -> None:
    """Press a button, and the one of this name in the dialog that asks."""
    page.get_by_role("main").get_by_role("button", name=deed, exact=True).first.click()
    page.get_by_role("dialog").get_by_role("button", name=deed, exact=True).click()


def stop_time(page: Page) -> None:
    """Hold the page's own clock, which has to be installed."""
    page.clock.pause_at(datetime.now(UTC) + timedelta(seconds=10))


def pass_time(page: Page, seconds: float) -> None:
    """Let the page's held clock run on; what is asked meanwhile is answered before it goes on."""
    for _ in range(round(seconds * 10)):
        page.clock.run_for(100)
        eventually(lambda: page.evaluate("underWay") == 0, timeout=30, what="every request is answered")


def sql(system: RunningSystem, service: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement in a service's database; return its rows, if it has any."""
    connection = psycopg2.connect(
        host="127.0.0.1", port=Ports(system.port)["postgres"], user=service, dbname=service,
        password=(system.data / "secrets" / service).read_text().strip(),
    )  # fmt: skip
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def failed_tasks(
    system: RunningSystem, count: int, *, title: str, error: str = "out of luck", task_type: str = "noop"
) -> str:
    """Tasks that have failed; return the id of one."""
    attempt = {"attempt": 1, "type": "Broken", "message": error, "failed_at": "2026-01-01T00:00:00Z", "worker": "w"}
    first = str(new_id())
    sql(
        system,
        "tasks",
        "INSERT INTO tasks (id, state, task_type, title, payload, priority, attempts, max_attempts, lease_no,"
        " execute_at, completed_at, error, errors)"
        " SELECT CASE n WHEN 1 THEN %s::uuid ELSE gen_random_uuid() END, 'failed', %s, %s, '{}', 50, 1, 1, 1,"
        " now(), now(), %s, %s FROM generate_series(1, %s) AS n",
        first, task_type, title, error, json.dumps([attempt]), count,
    )  # fmt: skip
    return first


class Building:
    """A site with somebody of each role."""

    def __init__(self, closed: ClosedSystem, *, prefix: str = "") -> None:
        self.closed = closed
        number = next(_numbers)
        self.name = f"{prefix}Harbour hall {number}"
        self.manager = closed.person(name=f"{prefix}Mara Manager")
        self.engineer = closed.person(name=f"{prefix}Eva Engineer")
        self.contractor = closed.person(name=f"{prefix}Conrad Mason")
        self.customer = closed.person(name=f"{prefix}Cuno Customer")
        self.executive = closed.person(name=f"{prefix}Xenia Executive")
        wanted = {
            "key": f"B{uuid4().hex[:8].upper()}", "name": self.name, "time_zone": "Europe/Berlin",
            "manager": {"user_id": self.manager.id, "organisation": f"{prefix}Builders"},
            "deadline_rules": {"critical": 2, "significant": 10, "minor": 20},
        }  # fmt: skip
        self.id: str = self.ask("POST", "/sites", wanted)["id"]
        for role, firm in (
            ("engineer", "Builders"), ("contractor", "Masons"), ("customer", "Owners"), ("executive", "Builders"),
        ):  # fmt: skip
            person: Person = getattr(self, role)
            member = {"user_id": person.id, "role": role, "organisation": f"{prefix}{firm}"}
            self.ask("POST", f"/sites/{self.id}/members", member, who=self.manager)

    def ask(self, method: str, path: str, body: Any = None, *, who: Person | None = None, **more: str) -> Any:
        """Do something over the API, as the administrator unless it says who."""
        fields: Fields = self.closed.admin if who is None else bearer(self.closed.token(who))
        return self.closed.system.request(method, path, body, headers={**fields, **more}).data

    def item(self, title: str, **more: Any) -> str:
        """Register a defect; return its id."""
        body = {"title": title, "severity": "significant", **more}
        made: str = self.ask("POST", f"/sites/{self.id}/work-items", body, who=self.engineer)["id"]
        return made

    def step(self, item: str, step: str, *, who: Person, **more: Any) -> None:
        """Take a step of an item."""
        body = {"step": step, "op_id": str(uuid4()), **more}
        self.ask("POST", f"/work-items/{item}/steps", body, who=who, **{"If-Match": "*"})

    def comment(self, item: str, text: str, *, who: Person, **more: Any) -> None:
        """Say something about an item."""
        self.ask("POST", f"/work-items/{item}/comments", {"op_id": str(uuid4()), "text": text, **more}, who=who)
