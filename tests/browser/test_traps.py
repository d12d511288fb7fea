"""What goes wrong in other consoles."""

from __future__ import annotations

import http.client
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Response, Route, expect

from service_tasks.domain.task import MAX_ERROR_CHARACTERS
from tests.browser.test_accessibility import dialogs
from tests.support.console import Building, failed_tasks, heading, log_in, pass_time, settle, show, stop_time
from tests.support.system import RunningSystem
from tests.support.waiting import eventually

#: Pages that ask again by themselves.
REPEATING = ("/services", "/tasks", "/tasks/{task}", "/types", "/schedules", "/messages", "/orders", "/items?view=all")
PREFIX = "/ops/siteworks"
#: As few bytes as a list of 50 rows takes, whatever its rows hold.
LIST_BYTES = 200_000


@pytest.fixture
def below_a_prefix(open_system: RunningSystem) -> Iterator[str]:
    """The address of a reverse proxy that passes on what is below its prefix."""
    gateway = open_system.port

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(f"{PREFIX}/"):
                self.send_error(404)
                return
            with closing(http.client.HTTPConnection("127.0.0.1", gateway, timeout=30)) as connection:
                length = int(self.headers.get("Content-Length", 0))
                connection.request(self.command, self.path[len(PREFIX) :], self.rfile.read(length), dict(self.headers))
                answer = connection.getresponse()
                body = answer.read()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            # A page that is left waits for nothing more.
            with suppress(ConnectionError):
                self.wfile.write(body)

        do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_works_below_a_prefix(below_a_prefix: str, new_context: Callable[..., BrowserContext]) -> None:
    page = new_context(base_url=below_a_prefix).new_page()
    show(page, "/services")
    for name in ("Tasks", "People", "Work"):
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        expect(heading(page)).to_have_text(name)
        expect(page.get_by_role("alert")).to_have_count(0)
    page.goto("console/")
    expect(page).to_have_url(re.compile(f"{PREFIX}/console$"))


def test_an_api_that_takes_ten_seconds_is_not_asked_twice_at_a_time(open_page: Page) -> None:
    asked: list[Route] = []
    open_page.clock.install()
    show(open_page, "/services")
    stop_time(open_page)
    pass_time(open_page, 0.1)
    open_page.route("**/health", lambda route: asked.append(route))

    def asked_after_a_second() -> int:
        open_page.clock.run_for(1000)
        return len(asked)

    for number in (1, 2):
        eventually(lambda number=number: asked_after_a_second() == number, what="it is asked")
        open_page.clock.run_for(10_000)
        assert asked_after_a_second() == number
        asked[-1].continue_()
    open_page.unroute_all(behavior="ignoreErrors")


def test_a_hidden_page_asks_nothing(open_page: Page) -> None:
    asked: list[Request] = []
    open_page.clock.install()
    show(open_page, "/services")
    stop_time(open_page)
    pass_time(open_page, 2)
    open_page.on("request", lambda request: asked.append(request))
    # A browser without windows hides no page.
    open_page.evaluate("Object.defineProperty(document, 'hidden', {configurable: true, get: () => true})")
    pass_time(open_page, 11)
    assert [request.url for request in asked] == []
    open_page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    pass_time(open_page, 0.5)
    assert "health" in [request.url.rpartition("/")[2] for request in asked]


def test_what_a_page_asks_again_is_answered_with_what_another_console_got(
    open_system: RunningSystem, open_page: Page
) -> None:
    task = failed_tasks(open_system, 1, title="Asked again")
    answers: list[Response] = []
    open_page.on("response", lambda answer: answers.append(answer))
    open_page.clock.install()
    for page in REPEATING:
        show(open_page, page.format(task=task))
        answers.clear()
        open_page.clock.fast_forward(16_000)
        eventually(lambda: open_page.title() and answers, what=f"{page} asks again")
        settle(open_page)
        seen = {urlsplit(answer.url).path: answer.headers for answer in answers}
        # What the gateway has counted itself is in its memory.
        assert [path for path in seen.keys() - {"/health", "/status"} if "age" not in seen[path]] == [], page


def test_the_seventh_tab_loads(open_system: RunningSystem, new_context: Callable[..., BrowserContext]) -> None:
    task = open_system.post("/tasks", {"task_type": "io", "payload": {"seconds": 600}, "title": "A long one"}).data[
        "id"
    ]
    context = new_context(base_url=open_system.url)
    for _ in range(7):
        tab = context.new_page()
        show(tab, f"/tasks/{task}")
        expect(heading(tab)).to_have_text("A long one")
    open_system.delete(f"/tasks/{task}")


def test_a_list_is_small_whatever_its_rows_hold_and_a_payload_comes_when_it_is_wanted(
    open_system: RunningSystem, open_page: Page
) -> None:
    failed_tasks(open_system, 60, title="Verbose", error="e" * MAX_ERROR_CHARACTERS)
    big = {"text": "p" * 200_000}
    task = open_system.post("/tasks", {"task_type": "noop", "payload": big, "execute_at": "2090-01-01T00:00:00Z"})
    sizes: dict[str, int] = {}
    open_page.on(
        "response",
        lambda answer: sizes.update({urlsplit(answer.url).path: int(answer.headers.get("content-length", 0))}),
    )
    show(open_page, "/tasks?status=failed")
    expect(open_page.get_by_role("link", name="Verbose").first).to_be_visible()
    assert max(sizes.values()) < LIST_BYTES
    sizes.clear()
    show(open_page, f"/tasks/{task.data['id']}")
    # The list may have been asked for once more as it was left.
    sizes.pop("/tasks", None)
    assert max(sizes.values()) < 20_000
    payload = open_page.locator("section", has=open_page.get_by_role("heading", name="Payload"))
    payload.get_by_role("button", name="Show").click()
    expect(payload).to_contain_text("ppp")
    assert max(sizes.values()) > 200_000


def test_a_refresh_keeps_focus_scroll_and_selection(open_system: RunningSystem, open_page: Page) -> None:
    failed_tasks(open_system, 40, title="Kept", task_type="kept")
    open_page.clock.install()
    open_page.set_viewport_size({"width": 900, "height": 500})
    show(open_page, "/tasks?task_type=kept")
    link = open_page.get_by_role("link", name="Kept").nth(20)
    link.focus()
    link.scroll_into_view_if_needed()
    where = """() => [document.activeElement.getAttribute("href"), scrollY, String(getSelection())]"""
    open_page.evaluate("getSelection().selectAllChildren(document.activeElement)")
    before = open_page.evaluate(where)
    assert before[1] > 100
    assert before[2] == "Kept"
    stop_time(open_page)
    failed_tasks(open_system, 5, title="Another", task_type="kept")
    pass_time(open_page, 7)
    assert open_page.evaluate(where) == before


@pytest.mark.parametrize("role", ["admin", "manager"])
def test_where_the_console_only_shows_no_page_begins_a_deed(
    building: Building, new_context: Callable[..., BrowserContext], role: str
) -> None:
    person = building.manager if role == "manager" else building.closed.person("admin")
    item = building.item("Shown only")
    line = {"product": "cement", "quantity": 1, "price": "1.00"}
    order = building.ask("POST", "/orders", {"user_id": building.manager.id, "items": [line]})["id"]
    page = new_context(base_url=building.closed.system.url).new_page()
    log_in(page, person)
    page.route("**/console", _read_only)
    page.reload()
    page.get_by_role("region", name="This console only shows").wait_for()
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    begun = []
    site, user = f"/sites/{building.id}", f"/users/{building.manager.id}"
    addresses = {
        "admin": (user, "/tasks", "/types", "/services"),
        "manager": (
            f"/items/{item}",
            site,
            f"{site}/people",
            f"{site}/calendar",
            f"/orders/{order}",
            "/orders/new",
            "/account",
        ),
    }
    for address in addresses[role]:
        show(page, address)
        assert page.get_by_role("main").locator("form [type=submit]").count() == 0, address
        for button in dialogs(page):
            begun += [(address, button)] * page.get_by_role("dialog").locator("form").count()
    assert begun == []
    assert {request.method for request in asked} == {"GET"}


def _read_only(route: Route) -> None:
    """Answer as a gateway with CONSOLE_READ_ONLY does."""
    answer = route.fetch()
    body = answer.text()
    assert 'data-mode=""' in body
    route.fulfill(response=answer, body=body.replace('data-mode=""', 'data-mode="read-only"'))


def test_another_sites_form_pauses_nothing(open_system: RunningSystem, browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    target = f"{open_system.url}/task-types/noop/pause"
    page.route(
        "http://evil.example/",
        lambda route: route.fulfill(
            content_type="text/html", body=f"<form method=post action='{target}'><button>Win</button></form>"
        ),
    )
    page.goto("http://evil.example/")
    with page.expect_response(target) as refused:
        page.get_by_role("button").click()
    assert refused.value.status == 403
    types = open_system.get("/task-types").data["task_types"]
    assert [one["paused"] for one in types if one["name"] == "noop"] == [False]
    context.close()


def test_a_session_is_nowhere_that_a_page_can_read(
    building: Building, new_context: Callable[..., BrowserContext]
) -> None:
    context = new_context(base_url=building.closed.system.url)
    page = context.new_page()
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    log_in(page, building.engineer)
    cookies = [cookie for cookie in context.cookies() if cookie["name"].startswith("siteworks")]
    assert cookies
    assert all(cookie["httpOnly"] and cookie["sameSite"] in ("Lax", "Strict") for cookie in cookies)
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
    assert not any(cookie["value"] in text for text in [*seen, kept] for cookie in cookies)


def test_every_deed_is_shown_as_a_line_that_does_it_at_a_terminal(open_system: RunningSystem, open_page: Page) -> None:
    task = failed_tasks(open_system, 1, title="It's one")
    show(open_page, f"/tasks/{task}")
    open_page.get_by_role("button", name="Run again").click()
    dialog = open_page.get_by_role("dialog")
    dialog.get_by_text("The same at a terminal").click()
    line = dialog.locator("code").inner_text()
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, check=True)
    assert '"success":true' in done.stdout.replace(" ", "")
    open_system.wait_for_task(task, "completed")
