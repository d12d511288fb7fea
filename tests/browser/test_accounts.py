"""Accounts in the console: how somebody comes in, and how they are put out."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable

from playwright.sync_api import BrowserContext, expect

from scripts.instance.closing import ADMINISTRATOR
from tests.support.console import Watch, heading, log_in
from tests.support.logins import PASSWORD, ClosedSystem, bearer

Contexts = Callable[..., BrowserContext]
#: How soon whoever is disabled is out, in ms.
OUT = 5_000


def test_whoever_is_invited_comes_in_by_a_link_that_nothing_keeps_and_is_out_soon_after_being_disabled(
    closed: ClosedSystem, new_context: Contexts, watch: Watch
) -> None:
    watch.expected.add(409)
    page = new_context(base_url=closed.system.url).new_page()
    log_in(page, closed.person("admin", name="Ada Admin"), to="/users")
    page.get_by_role("button", name="Add a person").click()
    window = page.get_by_role("dialog")
    window.get_by_label("Name").fill("<img src=x onerror=alert(1)>")
    email = "invited@example.com"
    window.get_by_label("E-mail address").fill(ADMINISTRATOR)
    window.get_by_role("button", name="Add a person").click()
    # It stands once, beside the field, and that is where one goes on.
    address = window.get_by_label("E-mail address")
    expect(address).to_be_focused()
    expect(address).to_have_accessible_description(re.compile("."))
    expect(window.get_by_role("alert").get_by_role("listitem")).to_have_count(0)
    window.get_by_label("E-mail address").fill(email)
    window.get_by_role("button", name="Add a person").click()
    expect(heading(page)).to_have_text("<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Make a link").click()
    expect(window.get_by_label("Invite")).to_be_checked()
    window.get_by_text("The same at a terminal").click()
    line = window.locator("code").inner_text()
    of_admin = {**os.environ, "TOKEN": closed.admin["Authorization"].removeprefix("Bearer ")}
    done = subprocess.run(["sh", "-c", line], env=of_admin, capture_output=True, text=True, check=True)
    assert '"success":true' in done.stdout.replace(" ", "")
    window.get_by_role("button", name="Make a link").click()
    link = window.locator("pre").inner_text()
    token = link.rpartition("/")[2]
    window.get_by_role("button", name="I have kept it").click()

    guest = new_context(base_url=closed.system.url)
    asked: list[str] = []
    guest.on("request", lambda request: asked.append(f"{request.url} {request.headers}"))
    theirs = guest.new_page()
    theirs.goto(link)
    theirs.get_by_label("New password").fill(PASSWORD)
    assert token not in theirs.url
    theirs.get_by_role("button", name="Set your password").click()
    theirs.get_by_role("button", name="To the console").click()
    theirs.get_by_label("E-mail address").fill(email)
    theirs.get_by_label("Password").fill(PASSWORD)
    theirs.get_by_role("button", name="Log in").click()
    theirs.get_by_role("button", name="Log out").wait_for()
    assert [one for one in asked if token in one] == []
    logs = [path for path in (closed.system.data / "logs").rglob("*") if path.is_file()]
    assert [path.name for path in logs if token in path.read_text(errors="replace")] == []

    page.get_by_role("button", name="Disable").click()
    window.get_by_role("button", name="Disable").click()
    expect(theirs.get_by_text("your session has ended")).to_be_visible(timeout=OUT)
    expect(page.get_by_role("main").get_by_text("account disabled")).to_be_visible()


def test_a_password_of_an_administrators_is_changed_before_anything_else(
    closed: ClosedSystem, new_context: Contexts, watch: Watch
) -> None:
    email, given = "given@example.com", "a crane for each of them"
    body = {"email": email, "name": "Gina Given", "password": given}
    assert closed.system.post("/users", body, headers=closed.admin).status == 201
    page = new_context(base_url=closed.system.url).new_page()
    watch.expected.add(400)
    page.goto("console")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(given)
    page.get_by_role("button", name="Log in").click()
    for tried in ("gina given gina given", PASSWORD):
        page.get_by_label("New password").fill(tried)
        page.get_by_role("button", name="Choose your own password").click()
        if tried != PASSWORD:
            expect(page.get_by_label("New password")).to_have_accessible_description(re.compile("guess"))
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    expect(heading(page)).to_have_text("Work")
    me = closed.system.request("GET", "/auth/me", headers=bearer(closed.log_in(email)["access_token"])).data
    assert me["must_change_password"] is False
