"""Every page while the API answers with an error, or not at all: it says in words what to do."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.test_accessibility import PAGES
from tests.support.console import Watch, settle, show
from tests.support.waiting import eventually

NOBODY = "01a2246a-8071-7672-83cd-0d9340094c8d"
#: Those that ask the API for something as soon as they are shown.
ASKING = [
    name
    for name, (address, _) in PAGES.items()
    if address.split("/")[1] not in ("account", "link", "nowhere", "%E0%A4%A")
]
EMPTY = re.compile("Nothing here|You are on no site")
REFUSALS = {
    500: ("internal_error", "Something went wrong inside."),
    503: ("circuit_open", "The service is away."),
    429: ("rate_limited", "Too many requests."),
}


@pytest.mark.parametrize("status", [*REFUSALS, 0])
def test_each_page_says_in_words_what_went_wrong(open_page: Page, watch: Watch, status: int) -> None:
    watch.expected |= {status, 400, 409}
    ids = dict.fromkeys(("site", "item", "order", "user", "task"), NOBODY)
    show(open_page, "/services")

    def refuse(route: Route) -> None:
        if "/console" in route.request.url or route.request.url.endswith("/auth/me"):
            route.continue_()
        elif status == 0:
            route.abort()
        else:
            code, message = REFUSALS[status]
            body = {"success": False, "error": {"code": code, "message": message}}
            headers = {"X-Request-ID": "request-of-this-test", "Retry-After": "5"}
            route.fulfill(status=status, headers=headers, content_type="application/json", body=json.dumps(body))

    open_page.route("**/*", refuse)
    for name in ASKING:
        show(open_page, PAGES[name][0].format_map(ids))
        problem = open_page.get_by_role("main").get_by_role("alert").first
        expect(problem, name).to_be_visible()
        said = problem.inner_text()
        assert ("request-of-this-test" in said) == (status != 0), name
        assert len(said.split()) > 3, name
        # What is not known is not nothing.
        expect(open_page.get_by_role("main"), name).not_to_contain_text(EMPTY)
    open_page.unroute_all(behavior="ignoreErrors")


def test_what_is_wrong_with_a_field_is_said_in_the_readers_language(open_page: Page, watch: Watch) -> None:
    watch.expected.add(400)
    open_page.add_init_script("localStorage.setItem('language', 'ru')")
    show(open_page, "/tasks?user_id=nobody")
    expect(open_page.get_by_role("main")).to_contain_text("нужен идентификатор вида 018f3c1e")


def test_a_page_that_asks_once_asks_again_for_what_was_away(open_page: Page, watch: Watch) -> None:
    watch.expected |= {503}
    body = json.dumps({"success": False, "error": {"code": "circuit_open", "message": "The service is away."}})
    open_page.clock.install()
    open_page.route("**/sites?*", lambda route: route.fulfill(status=503, headers={"Retry-After": "60"}, body=body))
    show(open_page, "/items/new")
    problem = open_page.get_by_role("alert")
    expect(problem).to_contain_text("in 60 seconds")
    open_page.unroute("**/sites?*")
    open_page.clock.fast_forward(61_000)
    expect(problem).to_have_count(0)


def test_a_page_whose_file_is_gone_offers_the_new_one(open_page: Page, watch: Watch) -> None:
    show(open_page, "/services")
    open_page.route("**/pages/orders/page.js", lambda route: route.fulfill(status=404, body=""))
    open_page.get_by_role("navigation", name="Pages").get_by_role("link", name="Orders").click()
    open_page.get_by_role("button", name="Load it").wait_for()


def test_while_the_gateway_is_away_a_page_keeps_what_it_has(open_page: Page, watch: Watch) -> None:
    watch.expected |= {0}
    lost: list[str] = []

    def lose_the_first(route: Route) -> None:
        lost.append(route.request.url)
        if len(lost) == 1:
            route.abort()
        else:
            route.continue_()

    open_page.route("**/status", lose_the_first)
    show(open_page, "/services")
    eventually(lambda: open_page.title() and len(lost) > 1, what="it is asked again")
    settle(open_page)
    expect(open_page.get_by_role("alert")).to_have_count(0)
    cards = open_page.get_by_role("main").get_by_role("listitem")
    before = cards.count()
    assert before > 3
    open_page.route("**/health", lambda route: route.abort())
    problem = open_page.get_by_role("alert").filter(has_text="The server does not answer")
    expect(problem).to_be_visible()
    assert cards.count() == before
    open_page.unroute("**/health")
    expect(problem).to_have_count(0)
