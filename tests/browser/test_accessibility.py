"""Every page and every dialog under axe: light, dark, forced colours, narrow, and in both languages.

All that people typed is markup here: it is on each page, and must run on none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from api_gateway.console import FOLDER
from tests.browser.conftest import PATIENCE
from tests.support.console import MARKUP, Building, Watch, failed_tasks, log_in, settle, show
from tests.support.logins import ClosedSystem, Person

#: What each page is called here, its address, and whether it has something that somebody typed.
PAGES = {
    "my work": ("/items", False),
    "all work": ("/items?view=all", True),
    "an item": ("/items/{item}", True),
    "a new item": ("/items/new?site_id={site}", False),
    "sites": ("/sites", True),
    "a site": ("/sites/{site}", True),
    "a site's people": ("/sites/{site}/people", True),
    "a site's locations": ("/sites/{site}/locations", True),
    "a site's calendar": ("/sites/{site}/calendar", True),
    "a site's settings": ("/sites/{site}/settings", True),
    "progress": ("/reports/progress", True),
    "contractors": ("/reports/contractors", True),
    "returns": ("/reports/returns?by=week&from=2026-01-01", True),
    "orders": ("/orders", True),
    "an order": ("/orders/{order}", True),
    "people": ("/users", True),
    "a person": ("/users/{user}", True),
    "tasks": ("/tasks", True),
    "a task": ("/tasks/{task}", True),
    "types and workers": ("/types", False),
    "schedules": ("/schedules", False),
    "rejected messages": ("/messages", False),
    "the audit": ("/audit", True),
    "a mailed link": ("/link/reset/0123456789", False),
    "services": ("/services", False),
    "one's account": ("/account", True),
    "no page": ("/nowhere", False),
    "a broken address": ("/%E0%A4%A", False),
}
#: In a window of this width; the text is as large as ever.
NARROW = {"width": 320, "height": 640}
WIDE = {"width": 1280, "height": 800}

#: What a press leads to is shown by then.
TWO_FRAMES = """new Promise((done) =>
  requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(() => setTimeout(done)))))"""

#: Language and colours, which some pages have in their title.
LOOK = ("Русский", "◐")

#: What other colours may break.
OF_COLOURS = ("color-contrast", "link-in-text-block")

axe = Axe()


@pytest.fixture(scope="module")
def ids(closed: ClosedSystem) -> dict[str, str]:
    """Something of each kind, with markup wherever somebody may type."""
    site = Building(closed, prefix=f"{MARKUP} ")
    item = site.item(f"{MARKUP} Crack", description=MARKUP, place=MARKUP, visible_to_customer=True)
    site.step(item, "assign", who=site.manager, assignee_id=site.contractor.id)
    site.step(item, "report_done", who=site.contractor, note=MARKUP)
    site.step(item, "return", who=site.engineer, reason=MARKUP)
    site.comment(item, MARKUP, who=site.customer)
    line = {"product": f"{MARKUP} cement", "quantity": 2, "price": "10.50"}
    order = site.ask("POST", "/orders", {"user_id": site.engineer.id, "items": [line, line]})["id"]
    task = failed_tasks(closed.system, 3, title=f"{MARKUP} Report", error=MARKUP)
    return {"site": site.id, "item": item, "order": order, "user": site.engineer.id, "task": task}


@pytest.fixture(scope="module")
def reader(closed: ClosedSystem, browser: Browser) -> Iterator[tuple[Page, Watch]]:
    """The administrator, for whom every page has something, logged in once."""
    context = browser.new_context(base_url=f"{closed.system.url}/", viewport=WIDE)
    context.set_default_timeout(PATIENCE)
    watch = Watch()
    watch.begin(context, closed.system.url)
    page = context.new_page()
    log_in(page, closed.person("admin", name=f"{MARKUP} Ada"))
    yield page, watch
    context.close()


@pytest.fixture
def page(reader: tuple[Page, Watch]) -> Iterator[Page]:
    """A page of the administrator, as a browser shows it that was told nothing."""
    page, watch = reader
    watch.faults.clear()
    page.emulate_media(color_scheme="light", forced_colors="none")
    page.set_viewport_size(WIDE)
    yield page
    assert watch.faults == []


def found(page: Page, mode: str, *rules: str) -> list[str]:
    """What axe has against a page, by all of its rules or these."""
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    seen: dict[str, Any] = axe.run(page, options=options).response
    return [
        f"{mode}: {rule['id']}: {rule['help']}: {node['html']} {node['failureSummary']}"
        for rule in seen["violations"]
        for node in rule["nodes"]
    ]


def in_every_mode(page: Page) -> list[str]:
    seen = found(page, "light")
    page.emulate_media(color_scheme="dark")
    seen += found(page, "dark", *OF_COLOURS)
    page.emulate_media(color_scheme="light", forced_colors="active")
    seen += found(page, "forced colours", *OF_COLOURS)
    page.emulate_media(forced_colors="none")
    page.set_viewport_size(NARROW)
    seen += found(page, "narrow")
    width = page.evaluate("document.scrollingElement.scrollWidth")
    return seen + ([f"narrow: {width} px wide"] if width > NARROW["width"] else [])


def dialogs(page: Page) -> Iterator[str]:
    """Open each dialog that a button of the page opens, and close it by its key."""
    buttons = page.get_by_role("main").get_by_role("button")
    dialog = page.get_by_role("dialog")
    pressed = set()
    number = -1
    while (number := number + 1) < buttons.count():
        button = buttons.nth(number)
        # The days of a calendar open one dialog.
        name = re.sub(r"\d+", "#", button.inner_text())
        acts_at_once = button.get_attribute("type") == "submit" or button.get_attribute("aria-pressed") is not None
        if acts_at_once or name in (*LOOK, *pressed) or not button.is_visible():
            continue
        pressed.add(name)
        button.click()
        page.evaluate(TWO_FRAMES)
        if dialog.count():
            settle(page)
            yield name
            page.keyboard.press("Escape")
            dialog.wait_for(state="hidden")


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_on_a_page_and_what_people_typed_runs_nowhere(
    page: Page, ids: dict[str, str], name: str
) -> None:
    address, is_typed = PAGES[name]
    show(page, address.format_map(ids))
    shown = page.get_by_role("main").inner_text()
    assert MARKUP in shown or not is_typed
    assert page.locator("#app img, #app script").count() == 0
    seen = in_every_mode(page)
    page.set_viewport_size(WIDE)
    for dialog in dialogs(page):
        seen += found(page, f"dialog {dialog}")
    assert seen == []


def test_axe_finds_nothing_in_russian(page: Page, ids: dict[str, str]) -> None:
    page.get_by_role("button", name="Русский").click()
    page.get_by_role("button", name="English").wait_for()
    try:
        seen = []
        page.set_viewport_size(NARROW)
        for name, (address, _) in PAGES.items():
            show(page, address.format_map(ids))
            seen += found(page, f"{name} in Russian")
            assert page.evaluate("document.scrollingElement.scrollWidth") <= NARROW["width"], name
        assert page.evaluate("document.documentElement.lang") == "ru"
    finally:
        page.get_by_role("button", name="English").click()
        page.get_by_role("button", name="Русский").wait_for()
    assert seen == []


def test_axe_finds_nothing_at_the_way_in(closed: ClosedSystem, new_context: Callable[..., Any]) -> None:
    page = new_context(base_url=closed.system.url).new_page()
    page.goto("console")
    page.get_by_label("Password").wait_for()
    seen = in_every_mode(page)
    nobody = Person("", "nobody@example.com", "user")
    page.get_by_label("E-mail address").fill(nobody.email)
    page.get_by_label("Password").fill("no password of anybody")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").wait_for()
    assert seen + found(page, "refused") == []


def test_axe_finds_nothing_where_one_looks_at_it_as_somebody(open_page: Page) -> None:
    show(open_page, "/services")
    open_page.get_by_role("button", name="Look at it as").click()
    open_page.get_by_role("dialog").get_by_label("Name or address").wait_for()
    assert found(open_page, "whom") == []
    open_page.keyboard.press("Escape")
    assert in_every_mode(open_page) == []


def test_each_page_of_the_console_is_read_here() -> None:
    read = {address.partition("?")[0].split("/")[1] for address, _ in PAGES.values()}
    # The way in has a test of its own.
    assert {folder.name for folder in (FOLDER / "pages").iterdir()} <= read | {"login"}
