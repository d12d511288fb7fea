"""People's work in the console: nobody is offered what is refused them, and nothing that was typed or sent is lost."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.support.console import Building, Watch, heading, log_in, settle, type_and_keep

ROLES = ("manager", "engineer", "executive", "contractor", "customer")
Contexts = Callable[..., BrowserContext]


def page_of(building: Building, role: str, new_context: Contexts, to: str) -> Page:
    page = new_context(base_url=building.closed.system.url).new_page()
    log_in(page, getattr(building, role), to=to)
    return page


@pytest.mark.parametrize("role", ROLES)
def test_whatever_is_offered_to_a_role_the_api_answers(
    building: Building, new_context: Contexts, watch: Watch, role: str
) -> None:
    item = building.item(f"Seen by all, {role} too", visible_to_customer=True)
    building.step(item, "assign", who=building.manager, assignee_id=building.contractor.id)
    page = page_of(building, role, new_context, "/items")
    views = page.get_by_role("group", name="Show", exact=True).get_by_role("button")
    expect(views.first).to_be_visible()
    for place in range(views.count()):
        views.nth(place).click()
        expect(views.nth(place)).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("main").get_by_text(re.compile(r"^(\d+ of \d+|Nothing here\.)$"))).to_be_visible()
    for address in (f"/sites/{building.id}", f"/reports?site_id={building.id}"):
        page.goto(f"console#{address}")
        tabs = page.locator("nav.tabs a")
        expect(tabs.first).to_be_visible()
        for place in range(tabs.count()):
            tabs.nth(place).click()
            expect(tabs.nth(place)).to_have_attribute("aria-current", "page")
            expect(page.get_by_role("main").locator("[aria-busy]")).to_have_count(0)
    page.goto(f"console#/items/{item}")
    expect(page.get_by_role("heading", name="Comments")).to_be_visible()
    steps = page.get_by_role("group", name="What you may do now").get_by_role("button")
    shown = building.ask("GET", f"/work-items/{item}", who=getattr(building, role))
    assert steps.count() == len(shown.get("permitted_steps", []))
    # A refusal would be a fault.
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_step_of_many_items_says_how_many_and_what_became_of_each(building: Building, new_context: Contexts) -> None:
    titles = [f"Leak {number}" for number in range(4)]
    items = [building.item(title) for title in titles]
    building.step(items[3], "void", who=building.manager, resolution="mistake")
    page = page_of(building, "manager", new_context, f"/sites/{building.id}?q=Leak")
    page.get_by_label("Choose all that are shown").check()
    bar = page.get_by_role("group", name="3 chosen")
    bar.get_by_role("button", name="Assign (3)").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("To whom").select_option(value=building.contractor.id)
    page.keyboard.press("Escape")
    bar.get_by_role("button", name="Assign (3)").click()
    building.ask("PUT", f"/work-items/{items[1]}", {"priority": 2}, who=building.manager, **{"If-Match": '"1"'})
    expect(dialog).to_contain_text("3 work items are changed at once.")
    expect(dialog.get_by_label("To whom")).to_have_value(building.contractor.id)
    dialog.get_by_role("button", name="Assign: 3").click()
    expect(dialog).to_contain_text("Done for 2. 1 was refused and stays chosen.")
    expect(dialog.get_by_role("row", name="Leak 1")).to_contain_text("Priority: changed by Mara Manager")
    dialog.get_by_role("button", name="Close").last.click()
    page.get_by_role("group", name="1 chosen").get_by_role("button", name="Assign (1)").click()
    expect(dialog.get_by_label("To whom")).to_have_value(building.contractor.id)
    dialog.get_by_role("button", name="Assign: 1").click()
    expect(dialog).to_contain_text("Done for 1.")
    given = [building.ask("GET", f"/work-items/{item}", who=building.manager)["assignee"] for item in items]
    assert [one and one["id"] for one in given] == [building.contractor.id] * 3 + [None]


def test_a_defect_whose_answer_is_lost_is_there_once_also_after_the_page_was_opened_anew(
    building: Building, new_context: Contexts, watch: Watch
) -> None:
    watch.expected.add(0)
    page = page_of(building, "engineer", new_context, "/items/new")
    page.get_by_label("What is wrong, or to do").fill("Chipped tread")
    type_and_keep(page.get_by_label("Where exactly"), "third from below")

    lost: list[Route] = []

    def lose(route: Route) -> None:
        lost.append(route)
        route.fetch()
        route.abort()

    page.route("**/work-items/*", lose)
    page.get_by_role("button", name="Register", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    assert len(lost) == 1
    page.unroute("**/work-items/*")
    page.reload()
    expect(page.get_by_label("Where exactly")).to_have_value("third from below")
    page.get_by_role("button", name="Register", exact=True).click()
    expect(heading(page)).to_contain_text("Chipped tread")
    assert building.ask("GET", "/work-items?q=Chipped", who=building.engineer)["total"] == 1


def test_whoever_comes_second_is_told_what_was_changed_and_loses_nothing_typed(
    building: Building, new_context: Contexts, watch: Watch
) -> None:
    watch.expected.add(412)
    item = building.item("Loose railing")
    page = page_of(building, "engineer", new_context, f"/items/{item}")
    page.get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Subtype").fill("a slip of the finger")
    dialog.get_by_role("button", name="Discard what was typed").click()
    dialog.get_by_label("Description").fill("Two bolts are gone")
    building.ask(
        "PUT", f"/work-items/{item}", {"title": "Railing is loose"}, who=building.manager, **{"If-Match": '"1"'}
    )
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Title changed by Mara Manager (manager)")
    expect(dialog.get_by_label("Description")).to_have_value("Two bolts are gone")
    # Found again, what was typed on an older version is not saved over a newer one unawares.
    page.reload()
    page.get_by_role("button", name="Edit").click()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Title changed by Mara Manager (manager)")
    expect(dialog.get_by_label("Description")).to_have_value("Two bolts are gone")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("main")).to_contain_text("Two bolts are gone")
    expect(heading(page)).to_contain_text("Railing is loose")
    page.get_by_role("button", name="Edit").click()
    expect(dialog.get_by_label("Subtype")).to_have_value("")
    expect(dialog.get_by_role("button", name="Discard what was typed")).to_have_count(0)


def test_a_step_that_somebody_else_made_impossible_is_no_longer_offered(
    building: Building, new_context: Contexts, watch: Watch
) -> None:
    watch.expected.add(412)
    item = building.item("Cracked pane")
    building.step(item, "assign", who=building.manager, assignee_id=building.contractor.id)
    building.step(item, "report_done", who=building.contractor, note="A new pane")
    page = page_of(building, "engineer", new_context, f"/items/{item}")
    page.get_by_role("button", name="Return").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why").fill("Still cracked")
    building.step(item, "accept", who=building.manager)
    dialog.get_by_role("button", name="Return").click()
    expect(dialog.get_by_role("alert")).to_contain_text("State changed by Mara Manager (manager)")
    expect(dialog).to_contain_text("This step is no longer open to you.")
    expect(dialog.get_by_role("button", name="Return")).to_have_count(0)
    expect(dialog.get_by_label("Why")).to_have_value("Still cracked")


def test_rows_stay_where_they_are_until_the_new_ones_are_wanted(building: Building, new_context: Contexts) -> None:
    building.item("Row one")
    second = building.item("Row two")
    page = new_context(base_url=building.closed.system.url).new_page()
    page.clock.install()
    log_in(page, building.engineer, to=f"/sites/{building.id}?q=Row")
    rows = page.get_by_role("link", name=re.compile("Row "))
    expect(rows).to_have_count(2)
    # The board's figures are above them.
    settle(page)
    where = rows.nth(1).bounding_box()
    building.item("Row three")
    building.step(second, "assign", who=building.manager, assignee_id=building.contractor.id)
    page.clock.run_for(16_000)
    # What changed is shown in its place.
    expect(page.get_by_role("row", name="Row two")).to_contain_text("Conrad Mason")
    expect(rows).to_have_count(2)
    assert rows.nth(1).bounding_box() == where
    page.get_by_role("button", name="1 new: show it").click()
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("Row three")
