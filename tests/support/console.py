"""The console as somebody sees it who sits before a browser."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.logins import PASSWORD, ClosedSystem, Fields, Person, bearer

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, WebError

_ANSWER = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
_NO_ANSWER = re.compile(r"Failed to load resource: net::")
_numbers = itertools.count(1)


@dataclass
class Watch:
    """What pages did that they must not: break their policy, fail, complain, or ask another host."""

    faults: list[str] = field(default_factory=list)
    #: The statuses that a test makes the API answer; 0: no answer.
    expected: set[int] = field(default_factory=lambda: {401})

    def begin(self, context: BrowserContext, url: str) -> None:
        """Look at all that the context's pages do."""
        context.on("console", self._said)
        context.on("weberror", self._failed)
        context.on("request", lambda request: self._asked(request, url))
        context.add_init_script(
            "addEventListener('securitypolicyviolation', (event) =>"
            " console.error('policy', event.violatedDirective, event.blockedURI, event.sample))"
        )

    def _said(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        answered = _ANSWER.match(message.text)
        is_expected = (
            int(answered[1]) in self.expected if answered else (0 in self.expected and _NO_ANSWER.match(message.text))
        )
        if not is_expected:
            self.faults.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def _failed(self, error: WebError) -> None:
        self.faults.append(f"not caught: {error.error}")

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


def heading(page: Page) -> Any:
    """The title of the page."""
    return page.get_by_role("main").get_by_role("heading", level=1)


class Building:
    """A site with somebody of each role."""

    def __init__(self, closed: ClosedSystem, *, name: str = "Harbour hall") -> None:
        self.closed = closed
        self.name = name
        self.manager = closed.person(name="Mara Manager")
        self.engineer = closed.person(name="Eva Engineer")
        self.contractor = closed.person(name="Conrad Mason")
        self.customer = closed.person(name="Cuno Customer")
        self.executive = closed.person(name="Xenia Executive")
        wanted = {
            "key": f"B{next(_numbers)}", "name": name, "time_zone": "Europe/Berlin",
            "manager": {"user_id": self.manager.id, "organisation": "Builders"},
            "deadline_rules": {"critical": 2, "significant": 10, "minor": 20},
        }  # fmt: skip
        self.id: str = self.ask("POST", "/sites", wanted, who=None)["id"]
        for role, firm in (
            ("engineer", "Builders"), ("contractor", "Masons"), ("customer", "Owners"), ("executive", "Builders"),
        ):  # fmt: skip
            person: Person = getattr(self, role)
            member = {"user_id": person.id, "role": role, "organisation": firm}
            self.ask("POST", f"/sites/{self.id}/members", member, who=self.manager)

    def fields(self, who: Person | None) -> Fields:
        """How the API knows somebody; None is the administrator."""
        return self.closed.admin if who is None else bearer(self.closed.token(who))

    def ask(self, method: str, path: str, body: Any = None, *, who: Person | None, **fields: str) -> Any:
        """Do something over the API."""
        return self.closed.system.request(method, path, body, headers={**self.fields(who), **fields}).data

    def item(self, title: str, **more: Any) -> str:
        """Register a defect; return its id."""
        body = {"title": title, "severity": "significant", **more}
        made: str = self.ask("POST", f"/sites/{self.id}/work-items", body, who=self.engineer)["id"]
        return made

    def step(self, item: str, step: str, *, who: Person, **more: Any) -> None:
        """Take a step of an item."""
        from uuid import uuid4

        body = {"step": step, "op_id": str(uuid4()), **more}
        self.ask("POST", f"/work-items/{item}/steps", body, who=who, **{"If-Match": "*"})
