"""A day of each who works with the console."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.console import (
    Building,
    Watch,
    confirm,
    failed_tasks,
    heading,
    log_in,
    pass_time,
    settle,
    show,
    sql,
    stop_time,
    type_and_keep,
)
from tests.support.logins import SAME_SITE
from tests.support.system import RunningSystem
from tests.support.waiting import eventually

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}


def test_an_engineers_defect_goes_from_its_entry_on_a_phone_to_its_acceptance(
    building: Building, new_context: Callable[..., BrowserContext]
) -> None:
    url = building.closed.system.url
    page = new_context(base_url=url, **PHONE).new_page()
    log_in(page, building.engineer)
    page.get_by_role("link", name="Register something").click()
    page.get_by_label("What is wrong, or to do").fill("Crack above the window")
    page.get_by_label("Severity").select_option("Critical")
    page.get_by_role("button", name="Register", exact=True).click()
    expect(heading(page)).to_contain_text("Crack above the window")
    item = page.url.rpartition("/")[2]
    type_and_keep(page.get_by_label("New comment"), "It goes through the wall")
    page.reload()
    expect(page.get_by_label("New comment")).to_have_value("It goes through the wall")
    page.get_by_role("button", name="Comment", exact=True).click()
    expect(page.get_by_role("article")).to_contain_text("It goes through the wall")
    expect(page.get_by_label("New comment")).to_have_value("")
    building.step(item, "assign", who=building.manager, assignee_id=building.contractor.id)

    theirs = new_context(base_url=url, **PHONE).new_page()
    log_in(theirs, building.contractor)
    theirs.get_by_role("link", name=re.compile("Crack above the window")).click()
    theirs.get_by_role("button", name="Start").click()
    theirs.get_by_role("dialog").get_by_role("button", name="Start").click()
    expect(theirs.get_by_role("main")).to_contain_text("in progress")
    theirs.get_by_role("button", name="Report done").click()
    expect(theirs.get_by_label("What was done")).to_be_focused()
    theirs.get_by_label("What was done").fill("Filled with mortar")
    theirs.keyboard.press("Escape")
    theirs.get_by_role("button", name="Report done").click()
    expect(theirs.get_by_label("What was done")).to_have_value("Filled with mortar")
    theirs.get_by_role("dialog").get_by_role("button", name="Report done").click()
    expect(theirs.get_by_role("main")).to_contain_text("reported done")
    assert theirs.evaluate("Object.keys(localStorage).filter((key) => key.includes('report_done'))") == []

    # It comes to the engineer by itself.
    page.get_by_role("button", name="Accept", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Accept", exact=True).click()
    expect(page.get_by_role("main")).to_contain_text("closed")
    expect(page.get_by_role("button", name="Reopen")).to_be_visible()


def test_a_managers_monday_goes_from_the_board_to_a_report_and_back_to_its_items(
    building: Building, new_context: Callable[..., BrowserContext]
) -> None:
    items = [building.item(f"Monday {number}") for number in range(3)]
    page = new_context(base_url=building.closed.system.url).new_page()
    log_in(page, building.manager)
    # Whatever is sought, the counts are of all there is; and each that is opened is one step back, a letter none.
    views = page.get_by_role("group", name="Show", exact=True)
    drafts, everything = (views.get_by_role("button", name=re.compile(rf"^\d+ {name}$")) for name in ("Drafts", "All"))
    drafts.click()
    everything.click()
    counted = everything.inner_text()
    page.get_by_label("Title or key").press_sequentially("day 2")
    expect(page.get_by_role("table", name="Work").get_by_role("link")).to_have_text([re.compile("Monday 2")])
    expect(everything).to_have_text(counted)
    page.go_back()
    expect(drafts).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Title or key")).to_have_value("")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Sites").click()
    page.get_by_role("link", name=building.name).click()
    expect(heading(page)).to_have_text(building.name)
    work = page.get_by_role("table", name="Work").get_by_role("link", name=re.compile("Monday"))
    expect(work).to_have_count(3)

    # One by one: the date and who does it.
    work.filter(has_text="Monday 0").click()
    page.get_by_role("button", name="Assign", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("To whom").select_option(building.contractor.id)
    dialog.get_by_role("button", name="Assign", exact=True).click()
    expect(page.get_by_role("definition").filter(has_text="Conrad Mason")).to_be_visible()
    page.get_by_role("button", name="Move the deadline").click()
    dialog.get_by_label("Due on").fill("2090-03-01")
    dialog.get_by_label("Why").fill("The delivery is late")
    dialog.get_by_role("button", name="Move the deadline").click()
    expect(page.get_by_role("main")).to_contain_text("Mar 1, 2090")

    # Two at once.
    show(page, f"/sites/{building.id}?q=Monday")
    for number in (1, 2):
        page.get_by_role("checkbox", name=re.compile(f"Monday {number}")).check()
    page.get_by_role("group", name="2 chosen").get_by_role("button", name=re.compile("^Assign")).click()
    dialog.get_by_label("To whom").select_option(building.contractor.id)
    dialog.get_by_role("button", name=re.compile("^Assign")).click()
    expect(page.get_by_role("main")).to_contain_text("Done for 2.")
    given = [building.ask("GET", f"/work-items/{item}")["assignee"]["name"] for item in items]
    assert given == ["Conrad Mason"] * 3

    # A figure of the board opens what it counts, and is one step back.
    dialog.get_by_role("button", name="Close").last.click()
    masons = page.get_by_role("table", name="By contractor").get_by_role("row").filter(has_text="Masons")
    masons.get_by_role("link").nth(1).click()
    expect(page.get_by_text("Masons: Not closed")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Title or key")).to_have_value("Monday")

    # The report, whose figure opens what it counts.
    show(page, f"/reports/contractors?site_id={building.id}")
    row = page.get_by_role("table", name="Not closed, by contractor").get_by_role("row").filter(has_text="Masons")
    figure = row.get_by_role("button").or_(row.get_by_role("link")).filter(has_text=re.compile(r"^\d+$")).first
    number = int(figure.inner_text())
    assert number >= 3
    # The chart's figures are in the table, where a keyboard comes to each.
    for _ in range(100):
        page.keyboard.press("Tab")
        if figure.evaluate("(one) => one === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("table", name="Work").get_by_role("row")).to_have_count(number + 1)
    expect(page.get_by_role("link", name=re.compile("Monday 2"))).to_be_visible()
    expect(page.get_by_role("heading", name="Items counted · Not closed · Masons")).to_be_visible()
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "light"
    expect(page.get_by_role("table", name="Work")).to_be_visible()
    expect(
        page.get_by_role("button").or_(page.get_by_role("checkbox")).or_(page.get_by_role("navigation"))
    ).to_have_count(0)
    page.emulate_media(media="screen")
    page.go_back()
    expect(page.get_by_role("table", name="Work")).to_have_count(0)
    expect(figure).to_be_visible()


def test_a_customer_sees_that_it_is_done_and_none_of_the_talk(
    building: Building, new_context: Callable[..., BrowserContext], watch: Watch
) -> None:
    watch.expected.add(412)
    item = building.item("Draught at the window", place="Kitchen")
    building.ask("PUT", f"/work-items/{item}", {"visible_to_customer": True}, who=building.manager, **{"If-Match": "*"})
    building.step(item, "assign", who=building.manager, assignee_id=building.contractor.id)
    building.comment(item, "They always do it like that", who=building.manager, audience="internal")
    building.comment(item, "It was our fault", who=building.contractor)
    building.step(item, "report_done", who=building.contractor, note="Sealed it secretly")
    building.step(item, "accept", who=building.engineer)
    building.comment(item, "It is sealed now", who=building.manager, audience="customer")

    page = new_context(base_url=building.closed.system.url).new_page()
    log_in(page, building.customer)
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Sites").click()
    page.get_by_role("link", name=building.name).click()
    page.get_by_role("link", name=re.compile("Draught at the window")).click()
    main = page.get_by_role("main")
    expect(main).to_contain_text("It is sealed now")
    expect(main).to_contain_text("done")
    settle(page)
    shown = main.inner_text()
    for hidden in ("always", "fault", "secretly", "Conrad", "Masons", "significant", "Eva"):
        assert hidden not in shown

    # Their own remark they may correct until it is admitted.
    said = {"kind": "customer_remark", "title": "A doar sticks"}
    hall = building.ask("POST", f"/sites/{building.id}/locations", {"name": "Hall"})["id"]
    building.ask("POST", f"/sites/{building.id}/locations", {"name": "Gallery", "parent_id": hall})
    remark = building.ask("POST", f"/sites/{building.id}/work-items", said, who=building.customer)["id"]
    page.goto(f"/console#/items/{remark}")
    edit, dialog = page.get_by_role("button", name="Edit"), page.get_by_role("dialog")
    edit.click()
    wording = {"description": "In the hall", "reason": "On the telephone"}
    building.ask("PUT", f"/work-items/{remark}", wording, **{"If-Match": "*"})
    dialog.get_by_label("Title").fill("A door sticks")
    dialog.get_by_label("Location").select_option("\u2003Gallery")
    expect(dialog).to_contain_text("Hall / Gallery")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_contain_text("Somebody changed this meanwhile")
    dialog.get_by_role("button", name="Save").click()
    expect(main).to_contain_text("In the hall")
    expect(page.get_by_role("heading", name="A door sticks")).to_be_visible()
    expect(main).to_contain_text("Hall / Gallery")
    building.step(remark, "admit", who=building.manager)
    page.reload()
    expect(main).to_contain_text("In the hall")
    expect(edit).to_have_count(0)


def test_an_operators_incident_opens_the_circuit_on_screen_and_closes_it_again(
    open_system: RunningSystem, open_page: Page, watch: Watch
) -> None:
    watch.expected.add(503)
    open_page.clock.install()
    show(open_page, "/services")
    card = (
        open_page.get_by_role("main")
        .get_by_role("listitem")
        .filter(has=open_page.get_by_role("heading", name="orders", exact=True))
    )
    expect(card).to_contain_text("closed")
    stop_time(open_page)
    open_system.cli("stop", "orders")
    try:
        with ThreadPoolExecutor(1) as threads:
            ended = threading.Event()
            traffic = threads.submit(_ask_until, open_system, ended)
            try:
                eventually(
                    lambda: _saw_it_open(open_system, open_page, "orders"),
                    timeout=60, what="the circuit is open for two seconds of the page",
                )  # fmt: skip
                expect(card).to_contain_text("Too many calls failed")
            finally:
                ended.set()
            assert traffic.result() > 0
    finally:
        open_system.cli("start", "orders")
    eventually(lambda: _circuit(open_system, "orders")["state"] == "closed", timeout=60, what="the circuit closes")
    pass_time(open_page, 2)
    expect(card).to_contain_text("Every request is passed on")


def _ask_until(system: RunningSystem, ended: threading.Event) -> int:
    """Ask for orders until it ends; return how many were refused."""
    refused = 0
    with requests.Session() as session:
        session.trust_env = False
        while not ended.wait(0.05):
            refused += session.get(f"{system.url}/orders", timeout=30).status_code == 503
    return refused


def _circuit(system: RunningSystem, name: str) -> dict[str, Any]:
    seen: dict[str, Any] = system.get("/health").body["data"]["upstreams"][name]
    return seen


def _saw_it_open(system: RunningSystem, page: Page, name: str) -> bool:
    """Let two seconds of the page's time pass, and tell whether the circuit was open all the time."""
    before = _circuit(system, name)
    if before["state"] != "open":
        return False
    pass_time(page, 2)
    return _circuit(system, name)["generation"] == before["generation"]


def test_an_operator_runs_ten_thousand_failed_tasks_again_by_filter(
    open_system: RunningSystem, open_page: Page
) -> None:
    failed_tasks(open_system, 10_000, title="Lost", task_type="lost_and_found")
    failed_tasks(open_system, 5, title="Not meant")
    show(open_page, "/tasks?status=failed&task_type=lost_and_found")
    open_page.get_by_role("button", name="Run all of these again").click()
    dialog = open_page.get_by_role("dialog")
    expect(dialog).to_contain_text("10,000 tasks match")
    dialog.get_by_role("button", name="Run 10,000 again").click()
    expect(dialog).to_contain_text("10,000 run again.", timeout=60_000)
    dialog.get_by_role("button", name="Close").last.click()
    counted = sql(
        open_system,
        "tasks",
        "SELECT title, state, count(*) FROM tasks WHERE title IN ('Lost', 'Not meant') GROUP BY 1, 2",
    )
    assert sorted(counted) == [("Lost", "ready", 10_000), ("Not meant", "failed", 5)]
    sql(open_system, "tasks", "DELETE FROM tasks WHERE task_type = 'lost_and_found'")


def test_somebody_whom_an_administrator_disables_is_out_in_their_open_tab(
    building: Building, new_context: Callable[..., BrowserContext]
) -> None:
    url = building.closed.system.url
    theirs = new_context(base_url=url).new_page()
    theirs.clock.install()
    person = building.closed.person(name="Otto Out")
    log_in(theirs, person)
    settle(theirs)
    stop_time(theirs)

    page = new_context(base_url=url).new_page()
    log_in(page, building.closed.person("admin", name="Ada Administrator"))
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="People").click()
    page.get_by_label("Name or address").fill("Otto Out")
    page.get_by_role("link", name="Otto Out").click()
    confirm(page, "Disable")
    page.get_by_role("dialog").wait_for(state="hidden")
    cookies = {cookie["name"]: cookie["value"] for cookie in theirs.context.cookies()}
    eventually(
        lambda: requests.get(f"{url}/auth/me", cookies=cookies, headers=SAME_SITE, timeout=30).status_code == 401,
        timeout=30, what="the session has ended",
    )  # fmt: skip
    pass_time(theirs, 5)
    expect(theirs.get_by_role("button", name="Log in")).to_be_visible()
    expect(theirs.get_by_role("button", name="Log out")).to_have_count(0)
