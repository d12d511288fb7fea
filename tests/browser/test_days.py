"""A day of each who works with the console."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import BrowserContext, expect

from tests.support.console import Building, heading, log_in

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}


def test_an_engineers_defect_goes_from_its_entry_on_a_phone_to_its_acceptance(
    building: Building, new_context: Callable[..., BrowserContext]
) -> None:
    url = building.closed.system.url
    page = new_context(base_url=url, **PHONE).new_page()
    log_in(page, building.engineer)
    page.get_by_role("link", name="Register something").click()
    page.get_by_label("What is wrong, or to do").fill("Crack above the window")
    page.get_by_label("How dangerous").select_option("Critical")
    page.get_by_role("button", name="Register", exact=True).click()
    expect(heading(page)).to_contain_text("Crack above the window")
    item = page.url.rpartition("/")[2]
    building.step(item, "assign", who=building.manager, assignee_id=building.contractor.id)

    theirs = new_context(base_url=url, **PHONE).new_page()
    log_in(theirs, building.contractor)
    theirs.get_by_role("link", name=re.compile("Crack above the window")).click()
    theirs.get_by_role("button", name="Start").click()
    theirs.get_by_role("dialog").get_by_role("button", name="Start").click()
    expect(theirs.get_by_role("main")).to_contain_text("in progress")
    theirs.get_by_role("button", name="Report done").click()
    theirs.get_by_label("What was done").fill("Filled with mortar")
    theirs.get_by_role("dialog").get_by_role("button", name="Report done").click()
    expect(theirs.get_by_role("main")).to_contain_text("reported done")

    # It comes to the engineer by itself.
    page.get_by_role("button", name="Accept", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Accept", exact=True).click()
    expect(page.get_by_role("main")).to_contain_text("closed")
    expect(page.get_by_role("button", name="Reopen")).to_be_visible()
