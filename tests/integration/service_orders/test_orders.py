"""The orders service over HTTP on a real database, with users at hand, unknown or away."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from service_orders.app import create_app
from service_orders.domain import OrderStatus
from service_orders.routes import order_routes
from service_orders.settings import OrdersSettings
from service_orders.use_cases import Orders
from servicekit.web.app import make_app
from tests.support.plans import nodes_of, selects_of
from tests.support.upstream import ScriptedUpstream, answer, bad, good

ANNA = "018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f"
BORIS = "018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e60"
NOBODY = "018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4eff"
EVIL = "x'; DROP TABLE orders; --"
CREATED, IN_PROGRESS, COMPLETED, CANCELLED = (status.value for status in OrderStatus)
PATHS = {CREATED: [], IN_PROGRESS: [IN_PROGRESS], COMPLETED: [IN_PROGRESS, COMPLETED], CANCELLED: [CANCELLED]}


class Everybody:
    """A directory in which everybody but NOBODY is known."""

    def exists(self, user_id: UUID, token: str = "") -> bool:
        return str(user_id) != NOBODY


@pytest.fixture
def app(orders_database):
    return make_app("service_orders", routes=[order_routes(Orders(orders_database.database, Everybody()))], checks={})


@pytest.fixture
def client(app) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def users():
    with ScriptedUpstream() as upstream:
        upstream.script(good({"id": ANNA}))
        yield upstream


@pytest.fixture
def composed(orders_database, users) -> FlaskClient:
    """The service as it is composed, asking a scripted users service."""
    settings = OrdersSettings(orders_database_url=orders_database.url, service_threads=2, users_url=users.url)
    return create_app(settings).test_client()


def post(client: FlaskClient, raw: str):
    return client.post("/orders", data=raw.encode(), content_type="application/json")


def wanted(user_id: str = ANNA, *lines: str) -> str:
    return f'{{"user_id": "{user_id}", "items": [{", ".join(lines or [line()])}]}}'


def line(quantity: int | str = 1, price: str = "1", product: str = "Чокопай") -> str:
    return f'{{"product": {json.dumps(product)}, "quantity": {quantity}, "price": {price}}}'


def create(client: FlaskClient, user_id: str = ANNA, *lines: str, status: str = CREATED) -> dict:
    created = post(client, wanted(user_id, *lines))
    assert created.status_code == 201, created.json
    order = created.json["data"]
    for next_status in PATHS[status]:
        order = client.put(f"/orders/{order['id']}", json={"status": next_status}).json["data"]
    return order


def error_of(response, status: int, code: str) -> dict:
    assert response.status_code == status, response.json
    assert response.json["error"]["code"] == code
    return response.json["error"]


def count(orders_database) -> int:
    with orders_database.database.transaction() as session:
        return session.scalar(text("SELECT count(*) FROM orders"))


def test_a_new_order_is_answered_whole_and_found_again(client):
    response = post(client, wanted(ANNA, line(10, "52.00")))

    order = response.json["data"]
    assert response.status_code == 201
    assert response.headers["Location"] == f"/orders/{order['id']}"
    assert UUID(order["id"]).version == 7
    assert {name: order[name] for name in ("user_id", "items", "status", "total_amount")} == {
        "user_id": ANNA,
        "items": [{"product": "Чокопай", "quantity": 10, "price": "52.00"}],
        "status": "created",
        "total_amount": "520.00",
    }
    assert order["created_at"] == order["updated_at"]
    assert client.get(f"/orders/{order['id']}").json == {"success": True, "data": order}


@pytest.mark.parametrize(
    ("lines", "total"),
    [
        ([line(3, "0.1")], "0.30"),  # 3 × 0.1
        ([line(1, "0.1"), line(1, "0.2")], "0.30"),
        ([line(1, "-0.0")], "0.00"),
        ([line(3, "19.99"), line(2, "5.5"), line(1, "1e2")], "170.97"),  # 59.97 + 11.00 + 100.00
        ([line(1, "99999999.99")], "99999999.99"),
        ([line(1, "0.01")] * 200, "2.00"),
    ],
)
def test_totals_are_exact_and_the_same_when_read_again(client, lines, total):
    order = create(client, ANNA, *lines)
    assert order["total_amount"] == total
    assert client.get(f"/orders/{order['id']}").json["data"] == order
    assert all(item["price"].partition(".")[2].isdigit() and item["price"][0] != "-" for item in order["items"])


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ([line(1, "99999999.99"), line(1, "0.01")], "items"),  # 100000000.00
        ([line(1_000_000, "100")], "items"),
        ([line(1, "52.001")], "items.0.price"),
        ([line(1), line(1, "-1")], "items.1.price"),
        ([line('"10"')], "items.0.quantity"),
        ([line("true")], "items.0.quantity"),
        ([line("0")], "items.0.quantity"),
    ],
)
def test_a_line_or_total_that_does_not_fit_is_a_400_naming_it_and_nothing_is_stored(
    client, orders_database, lines, field
):
    error = error_of(post(client, wanted(ANNA, *lines)), 400, "invalid_input")
    assert [detail["field"] for detail in error["details"]] == [field]
    assert count(orders_database) == 0


def test_a_user_who_does_not_exist_is_a_400_on_the_field(client, orders_database):
    error = error_of(post(client, wanted(NOBODY)), 400, "user_not_found")
    assert [detail["field"] for detail in error["details"]] == ["user_id"]
    assert count(orders_database) == 0


@pytest.mark.parametrize("present", PATHS)
@pytest.mark.parametrize("target", PATHS)
def test_every_status_step_is_taken_or_is_a_409_naming_both_states(client, present, target):
    order = create(client, status=present)
    allowed = {CREATED: {IN_PROGRESS, CANCELLED}, IN_PROGRESS: {COMPLETED, CANCELLED}}.get(present, set()) | {present}

    response = client.put(f"/orders/{order['id']}", json={"status": target})

    if target in allowed:
        assert response.status_code == 200
        assert response.json["data"]["status"] == target
    else:
        error = error_of(response, 409, "order_state_conflict")
        assert error["message"] == f"An order that is {present} cannot become {target}."
        assert client.get(f"/orders/{order['id']}").json["data"] == order


@pytest.mark.parametrize("present", PATHS)
def test_items_change_only_while_the_order_is_created(client, present):
    order = create(client, status=present)
    change = f'{{"items": [{line(3, "0.1", "new")}]}}'.encode()
    response = client.put(f"/orders/{order['id']}", data=change, content_type="application/json")
    now = client.get(f"/orders/{order['id']}").json["data"]
    if present == CREATED:
        assert response.json["data"] == now
        assert now["items"] == [{"product": "new", "quantity": 3, "price": "0.10"}]
        assert now["total_amount"] == "0.30"
        assert now["updated_at"] > now["created_at"]
    else:
        assert present in error_of(response, 409, "order_state_conflict")["message"]
        assert now == order


@pytest.mark.parametrize("present", [CREATED, IN_PROGRESS, COMPLETED, CANCELLED])
def test_an_order_as_shown_can_be_sent_back_in_every_status(client, present):
    shown = create(client, ANNA, line(10, "52.00"), line(1, "0.1"), status=present)
    again = client.put(f"/orders/{shown['id']}", json=shown)
    assert again.status_code == 200
    # It changes nothing, so nobody else's If-Match fails by it.
    assert again.json["data"] == shown
    for name, other in (("id", NOBODY), ("user_id", BORIS), ("created_at", "2020-01-01T00:00:00Z")):
        refused = client.put(f"/orders/{shown['id']}", json={**shown, name: other})
        assert (refused.status_code, refused.json["error"]["message"]) == (400, f"{name}: cannot be changed")


def test_items_and_status_may_change_together_and_fail_together(client):
    order = create(client)
    both = {"items": [{"product": "new", "quantity": 2, "price": 3}], "status": "in_progress"}
    changed = client.put(f"/orders/{order['id']}", json=both).json["data"]
    assert (changed["total_amount"], changed["status"]) == ("6.00", "in_progress")

    order = create(client)
    wrong_step = both | {"status": "completed"}
    error_of(client.put(f"/orders/{order['id']}", json=wrong_step), 409, "order_state_conflict")
    assert client.get(f"/orders/{order['id']}").json["data"] == order


def test_a_change_of_items_meets_the_same_limits_as_a_new_order(client):
    order = create(client)
    for price, field in (("52.001", "items.0.price"), ("100000000", "items.0.price")):
        raw = f'{{"items": [{line(1, price)}]}}'.encode()
        error = error_of(
            client.put(f"/orders/{order['id']}", data=raw, content_type="application/json"), 400, "invalid_input"
        )
        assert [detail["field"] for detail in error["details"]] == [field]
    raw = f'{{"items": [{line(2, "99999999.99")}]}}'.encode()
    error_of(client.put(f"/orders/{order['id']}", data=raw, content_type="application/json"), 400, "invalid_input")
    assert client.get(f"/orders/{order['id']}").json["data"] == order


def test_an_empty_change_changes_nothing(client):
    order = create(client)
    assert client.put(f"/orders/{order['id']}", json={}).json["data"] == order


@pytest.mark.parametrize("present", PATHS)
def test_only_created_and_cancelled_orders_can_be_deleted(client, present):
    order = create(client, status=present)
    response = client.delete(f"/orders/{order['id']}")
    if present in {CREATED, CANCELLED}:
        assert response.json["data"] == order
        error_of(client.get(f"/orders/{order['id']}"), 404, "order_not_found")
    else:
        assert present in error_of(response, 409, "order_state_conflict")["message"]
        assert client.get(f"/orders/{order['id']}").json["data"] == order


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PUT", {"status": "cancelled"}), ("DELETE", None)])
def test_an_order_that_does_not_exist_is_a_404(client, method, body):
    error_of(client.open(f"/orders/{NOBODY}", method=method, json=body), 404, "order_not_found")


def test_a_step_that_is_overtaken_is_judged_by_what_the_order_has_become(client, orders_database):
    """The clock is read between the two statements of a change."""
    order = create(client)
    path = f"/orders/{order['id']}"
    others = [{"status": IN_PROGRESS}]

    def overtake() -> datetime:
        if others:
            assert client.put(path, json=others.pop(0)).status_code == 200
        return datetime.now(UTC)

    use_cases = Orders(orders_database.database, Everybody(), clock=overtake)
    overtaken = make_app("o", routes=[order_routes(use_cases)], checks={}).test_client()
    change = {"status": IN_PROGRESS, "items": [{"product": "new", "quantity": 1, "price": 1}]}
    error = error_of(overtaken.put(path, json=change), 409, "order_state_conflict")

    assert IN_PROGRESS in error["message"]
    others = [{"status": CANCELLED}]
    assert overtaken.put(path, json={"status": CANCELLED}).status_code == 200
    now = client.get(path).json["data"]
    assert (now["status"], now["items"]) == (CANCELLED, order["items"])
    with orders_database.database.transaction() as session:
        steps = session.execute(text("SELECT data FROM outbox WHERE type = 'order.status_changed' ORDER BY position"))
        assert [(step["old_status"], step["status"]) for (step,) in steps] == [
            (CREATED, IN_PROGRESS),
            (IN_PROGRESS, CANCELLED),
        ]


def test_of_two_status_steps_at_once_one_wins(app):
    order = create(app.test_client(), status=IN_PROGRESS)
    together = threading.Barrier(2)
    outcomes: list[tuple[int, str]] = []

    def take(target: str) -> None:
        together.wait(10)
        outcomes.append((app.test_client().put(f"/orders/{order['id']}", json={"status": target}).status_code, target))

    threads = [threading.Thread(target=take, args=(target,)) for target in (COMPLETED, CANCELLED)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    (won, winner), (lost, _) = sorted(outcomes)
    assert (won, lost) == (200, 409)
    assert app.test_client().get(f"/orders/{order['id']}").json["data"]["status"] == winner


def test_filters_narrow_the_list_and_its_total(client):
    ids = {}
    for name, user, status in [
        ("a1", ANNA, CREATED), ("a2", ANNA, COMPLETED), ("b1", BORIS, CREATED), ("b2", BORIS, CANCELLED),
    ]:  # fmt: skip
        ids[create(client, user, status=status)["id"]] = name

    for query, names in [
        ("", ["b2", "b1", "a2", "a1"]),
        (f"?user_id={ANNA}", ["a2", "a1"]),
        (f"?userId={ANNA}", ["a2", "a1"]),
        (f"?userId={ANNA.upper()}&user_id={ANNA}", ["a2", "a1"]),
        ("?status=created", ["b1", "a1"]),
        (f"?user_id={BORIS}&status=cancelled", ["b2"]),
        (f"?user_id={NOBODY}", []),
    ]:
        page = client.get(f"/orders{query}").json["data"]
        assert [ids[order["id"]] for order in page["orders"]] == names, query
        assert (page["total"], page["limit"], page["offset"]) == (len(names), 50, 0)


def test_lists_come_in_pages_in_a_stable_order(orders_database):
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    use_cases = Orders(orders_database.database, Everybody(), clock=lambda: moment)
    client = make_app("o", routes=[order_routes(use_cases)], checks={}).test_client()
    ids = [create(client)["id"] for _ in range(5)]
    pages = [client.get(f"/orders?limit=2&offset={offset}").json["data"] for offset in (0, 2, 4)]
    assert [order["id"] for page in pages for order in page["orders"]] == ids[::-1]
    assert {page["total"] for page in pages} == {5}


def names_on(pages: list[dict]) -> str:
    return "".join(item["product"] for page in pages for order in page["orders"] for item in order["items"])


def walk(client: FlaskClient, query: str, between: Callable[[int], object] = lambda page: None) -> list[dict]:
    """All pages, each reached by the `next` of the one before."""
    pages: list[dict] = []
    after = ""
    while True:
        response = client.get(f"/orders?{query}{after}")
        assert response.status_code == 200, response.json
        pages.append(response.json["data"])
        if pages[-1]["next"] is None:
            return pages
        after = f"&after={pages[-1]['next']}"
        between(len(pages))


@pytest.fixture
def shelf(orders_database) -> FlaskClient:
    """Orders of few totals and moments, so that most are equal in what they are sorted by; each of its own product."""
    moments = [datetime(2026, 11, day, tzinfo=UTC) for day in (20, 21, 22, 23)]
    made = itertools.count()
    use_cases = Orders(orders_database.database, Everybody(), clock=lambda: moments[min(next(made) // 3, 3)])
    client = make_app("o", routes=[order_routes(use_cases)], checks={}).test_client()
    for product, price in zip("abcdefghi", ("5", "10.5", "5", "9", "5", "0", "10.5", "9", "9.01"), strict=True):
        create(client, BORIS if product in "bdh" else ANNA, line(1, price, product))
    return client


@pytest.mark.parametrize("limit", [1, 2, 4, 9, 10])
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", "ihgfedcba"),
        ("sort=-created_at", "ihgfedcba"),
        ("sort=created_at", "abcdefghi"),
        ("sort=total_amount", "facedhibg"),  # 0, 5, 5, 5, 9, 9, 9.01, 10.50, 10.50: as numbers, not as text
        ("sort=-total_amount", "gbihdecaf"),
        (f"sort=total_amount&user_id={BORIS}", "dhb"),
        ("sort=-total_amount&created_from=2026-11-21T00:00:00Z&status=created", "gihdef"),
        ("created_to=2026-11-21T00:00:00Z", "cba"),
        ("created_from=2026-11-21T03:00:00+03:00&created_to=2026-11-22T00:00:00Z", "fed"),
    ],
)
def test_pages_follow_each_other_in_every_order_also_among_equals(shelf, query, names, limit):
    pages = walk(shelf, f"{query}&limit={limit}")
    assert names_on(pages) == names
    assert {page["total"] for page in pages} == {len(names)}
    assert {page["limit"] for page in pages} == {limit}


@pytest.mark.parametrize("sort", ["-created_at", "created_at", "total_amount", "-total_amount"])
def test_what_is_removed_or_added_meanwhile_moves_no_page(shelf, sort):
    everything = shelf.get(f"/orders?sort={sort}").json["data"]

    def change(page: int) -> None:
        if page <= 3:  # the one behind which the next page begins
            assert shelf.delete(f"/orders/{everything['orders'][page - 1]['id']}").status_code == 200
        if sort == "-created_at":
            create(shelf, ANNA, line(1, "7", "new"))

    assert names_on(walk(shelf, f"sort={sort}&limit=1", change)) == names_on([everything])


def test_an_after_that_no_page_gave_is_refused_by_name(shelf):
    by_total = shelf.get("/orders?sort=total_amount&limit=1").json["data"]["next"]
    for query in (f"after={NOBODY}", "after=x", f"after={by_total}", f"sort=-total_amount&after={by_total}"):
        assert [
            detail["field"] for detail in error_of(shelf.get(f"/orders?{query}"), 400, "invalid_input")["details"]
        ] == ["after"]
    assert error_of(shelf.get("/orders?sort=items"), 400, "invalid_input")["details"][0]["field"] == "sort"


@pytest.mark.parametrize(
    ("query", "amount"),
    [
        ("", "63.01"),
        ("limit=1&offset=3", "63.01"),  # of all pages
        (f"user_id={BORIS}", "28.50"),
        ("product=f", "0.00"),
        (f"user_id={NOBODY}", "0.00"),
        ("created_from=2026-11-22T00:00:00Z", "28.51"),
    ],
)
def test_a_list_says_what_all_that_matches_adds_up_to(shelf, query, amount):
    assert shelf.get(f"/orders?{query}").json["data"]["total_amount"] == amount


def test_a_sum_beyond_what_one_order_can_have_is_exact(client):
    for _ in range(11):
        create(client, ANNA, line(1, "99999999.99"))
    assert client.get("/orders?limit=1").json["data"]["total_amount"] == "1099999999.89"


def test_totals_that_are_not_wanted_are_not_computed(shelf, orders_database):
    with selects_of(orders_database.database) as selects:
        page = shelf.get("/orders?total=false&limit=2").json["data"]
    assert (page["total"], page["total_amount"], len(page["orders"]), len(selects)) == (None, None, 2, 1)


def test_orders_are_found_by_part_of_a_product_whatever_its_case(client):
    def make(*products: str) -> str:
        return create(client, ANNA, *(line(1, "1", product) for product in products))["id"]

    choco, both = make("Чокопай"), make("Bolt 5%", "ЧОКОпай_2/3")
    straight, cafe = make("Straße\\"), make("cafe\u0301")
    for product, ids in [
        ("чокоПАЙ", [both, choco]),
        ("пай_2/", [both]),
        ("5%", [both]),
        ("%", [both]),
        ("_", [both]),
        ("/", [both]),
        ("\\", [straight]),
        ("STRASSE", [straight]),
        ("caf\u00e9", [cafe]),
        ("bolt 5% чоко", []),  # two products are not one
        ("", [cafe, straight, both, choco]),
        ("x", []),
    ]:
        page = client.get("/orders", query_string={"product": product}).json["data"]
        assert [order["id"] for order in page["orders"]] == ids, product
        assert page["total"] == len(ids)

    client.put(f"/orders/{choco}", json={"items": [{"product": "Nut", "quantity": 1, "price": 1}]})
    assert client.get("/orders?product=nut").json["data"]["total"] == 1
    assert [o["id"] for o in client.get("/orders", query_string={"product": "чоко"}).json["data"]["orders"]] == [both]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("sort=-created_at", "ix_orders_newest"),
        ("sort=created_at", "ix_orders_newest"),
        ("sort=total_amount", "ix_orders_total"),
        ("sort=-total_amount", "ix_orders_total"),
        (f"user_id={ANNA}", "ix_orders_user_newest"),
        ("status=created", "ix_orders_status_newest"),
    ],
)
def test_a_page_is_read_from_the_index_of_its_order(shelf, orders_database, query, index):
    database = orders_database.database
    with database.transaction() as session:
        session.execute(
            text("""
                INSERT INTO orders (id, user_id, items, products_key, status, total_amount, created_at, updated_at)
                SELECT gen_random_uuid(), gen_random_uuid(), items, 'x', 'completed', n, now() - n * interval '1 m',
                       now() FROM generate_series(1, 5000) n, (SELECT items FROM orders LIMIT 1) one""")
        )
    orders_database.administer("VACUUM ANALYZE orders")
    after = shelf.get(f"/orders?{query}&limit=3").json["data"]["next"]
    with selects_of(database) as selects:
        shelf.get(f"/orders?{query}&limit=1&total=false")
        shelf.get(f"/orders?{query}&limit=1&total=false&after={after}")
    assert len(selects) == 2
    for statement, parameters in selects:
        nodes = nodes_of(database, statement, parameters)
        assert nodes[nodes.index(("Index Scan", index)) - 1] == ("Limit", None)
    with selects_of(database) as selects:
        shelf.get(f"/orders?{query}&limit=1&offset=2")
    for statement, parameters in selects:
        assert ("Index Only Scan", index) in nodes_of(database, statement, parameters)


def test_sql_in_any_field_is_data(client):
    order = create(client, ANNA, line(1, "1", EVIL))
    assert client.get(f"/orders/{order['id']}").json["data"]["items"][0]["product"] == EVIL
    for query in ({"user_id": EVIL}, {"userId": EVIL}, {"status": EVIL}, {"limit": EVIL}, {EVIL: "1"}):
        error_of(client.get("/orders", query_string=query), 400, "invalid_input")
    for body in ({"status": EVIL}, {"items": [{"product": "x", "quantity": EVIL, "price": EVIL}]}, {EVIL: 1}):
        error_of(client.put(f"/orders/{order['id']}", json=body), 400, "invalid_input")
    error_of(client.post("/orders", json={"user_id": EVIL, "items": []}), 400, "invalid_input")
    error_of(client.get(f"/orders/{EVIL}"), 400, "invalid_input")
    assert client.get("/orders").json["data"]["total"] == 1


def test_the_users_service_is_asked_for_the_user_with_the_requests_id(composed, users):
    response = composed.post(
        "/orders", data=wanted(ANNA), content_type="application/json", headers={"X-Request-ID": "r-7"}
    )
    assert response.status_code == 201
    (seen,) = users.requests()
    assert (seen.target, seen.value("X-Request-ID")) == (f"/users/{ANNA}", "r-7")
    assert 0 < int(seen.value("X-Request-Timeout-Ms")) <= 3000


def test_an_order_that_cannot_be_anyway_does_not_bother_the_users_service(composed, users):
    error_of(post(composed, wanted(ANNA, line(1_000_000, "100"))), 400, "invalid_input")
    assert users.requests() == []


def test_reading_and_changing_orders_does_not_need_the_users_service(composed, users):
    order = create(composed)
    users.stop()
    assert composed.get(f"/orders/{order['id']}").status_code == 200
    assert composed.put(f"/orders/{order['id']}", json={"status": "cancelled"}).status_code == 200
    assert composed.get("/orders").json["data"]["total"] == 1
    assert composed.get("/readyz").status_code == 200
    assert composed.delete(f"/orders/{order['id']}").status_code == 200


def test_many_unknown_users_do_not_open_the_circuit(composed, users, orders_database):
    users.script(bad(404, "user_not_found"))
    for _ in range(25):
        error_of(post(composed, wanted(NOBODY)), 400, "user_not_found")
    assert count(orders_database) == 0
    users.script(good({"id": ANNA}))
    assert post(composed, wanted(ANNA)).status_code == 201


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (bad(503, "database_unavailable"), 503, "users_unavailable"),
        (bad(500, "internal_error"), 503, "users_unavailable"),
        (bad(429, "too_many_requests"), 503, "users_unavailable"),
        (bad(504, "deadline_exceeded"), 504, "deadline_exceeded"),
        (answer(200, b"<html>It works!</html>", media_type="text/html"), 502, "bad_upstream_answer"),
        (bad(404, "not_found"), 502, "bad_upstream_answer"),
    ],
)
def test_a_users_service_that_cannot_tell_means_that_nothing_is_stored(
    composed, users, orders_database, script, status, code
):
    users.script(script)
    error_of(post(composed, wanted(ANNA)), status, code)
    assert count(orders_database) == 0


def test_users_away_is_a_503_then_an_open_circuit_and_nothing_is_stored(composed, users, orders_database):
    users.stop()
    for _ in range(10):
        response = post(composed, wanted(ANNA))
        error = error_of(response, 503, "users_unavailable")
        assert "users service" in error["message"]
        assert "127.0.0.1" not in error["message"]
        assert int(response.headers["Retry-After"]) >= 1
    assert count(orders_database) == 0


# Idempotency-Key


def keyed(client: FlaskClient, key: str, body: str):
    return client.post("/orders", data=body.encode(), content_type="application/json", headers={"Idempotency-Key": key})


def test_an_order_that_is_asked_for_again_with_its_key_is_made_once(client, orders_database):
    first = keyed(client, "k", wanted(ANNA, line(2, "5.50")))
    moved = client.put(first.headers["Location"], json={"status": IN_PROGRESS}).json["data"]
    again = keyed(client, "k", f'{{"items": [{line(2, "5.50")}], "user_id": "{ANNA}"}}')

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["Location"] == first.headers["Location"]
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    assert again.json["data"] == moved
    assert count(orders_database) == 1
    with orders_database.database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM outbox WHERE type = 'order.created'")) == 1


def test_a_key_with_another_body_is_refused_and_another_key_makes_another_order(client, orders_database):
    keyed(client, "k", wanted())
    error_of(keyed(client, "k", wanted(BORIS)), 409, "idempotency_key_reused")
    assert keyed(client, "K", wanted()).status_code == 201
    assert post(client, wanted()).status_code == 201
    assert count(orders_database) == 3


@pytest.mark.parametrize("key", ["", "two words", "k" * 201, "clé"])
def test_a_key_that_cannot_be_used_is_refused_by_name(client, orders_database, key):
    error = error_of(keyed(client, key, wanted()), 400, "invalid_input")
    assert [detail["field"] for detail in error["details"]] == ["Idempotency-Key"]
    assert count(orders_database) == 0


def test_an_order_that_was_deleted_is_not_made_again_by_its_key(client, orders_database):
    first = keyed(client, "k", wanted())
    client.delete(first.headers["Location"])
    error_of(keyed(client, "k", wanted()), 404, "order_not_found")
    assert count(orders_database) == 0


def test_a_refused_order_leaves_its_key_free(client, orders_database):
    error_of(keyed(client, "k", wanted(NOBODY)), 400, "user_not_found")
    assert keyed(client, "k", wanted(ANNA)).status_code == 201
    assert count(orders_database) == 1


def test_a_repeated_order_needs_no_users_service(composed, users, orders_database):
    first = keyed(composed, "k", wanted())
    users.script(bad(503, "database_unavailable"))
    again = keyed(composed, "k", wanted())
    assert (again.status_code, again.json) == (201, first.json)
    assert count(orders_database) == 1


def test_of_ten_requests_at_once_with_one_key_one_makes_the_order(app, orders_database):
    together = threading.Barrier(10)
    answers = []

    def ask() -> None:
        with app.test_client() as client:
            together.wait(10)
            answers.append(keyed(client, "k", wanted()))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [answer.status_code for answer in answers] == [201] * 10
    assert len({answer.json["data"]["id"] for answer in answers}) == 1
    assert sorted(answer.headers.get("Idempotency-Replayed", "") for answer in answers) == [""] + ["true"] * 9
    assert count(orders_database) == 1


# ETag and If-Match


def test_ten_clients_who_each_add_an_item_lose_none(app):
    path = f"/orders/{create(app.test_client(), ANNA, line(product='0'))['id']}"
    together = threading.Barrier(10)
    refused = []

    def add(product: str) -> None:
        with app.test_client() as client:
            together.wait(10)
            while True:
                seen = client.get(path)
                items = [{**item, "price": float(item["price"])} for item in seen.json["data"]["items"]]
                items.append({"product": product, "quantity": 1, "price": 1})
                answer = client.put(path, json={"items": items}, headers={"If-Match": seen.headers["ETag"]})
                if answer.status_code == 200:
                    return
                error_of(answer, 412, "precondition_failed")
                refused.append(answer)

    threads = [threading.Thread(target=add, args=(str(number),)) for number in range(1, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    order = app.test_client().get(path).json["data"]
    assert sorted(item["product"] for item in order["items"]) == sorted(map(str, range(11)))
    assert order["total_amount"] == "11.00"
    assert refused, "nobody was ever refused, so nothing was shown"


def test_of_ten_clients_who_saw_the_same_order_one_changes_it_and_the_others_get_its_tag(app):
    seen = app.test_client().get(f"/orders/{create(app.test_client())['id']}")
    path, together, answers = f"/orders/{seen.json['data']['id']}", threading.Barrier(10), []

    def change(number: int) -> None:
        body = {"items": [{"product": str(number), "quantity": 1, "price": 1}]}
        with app.test_client() as client:
            together.wait(10)
            answers.append(client.put(path, json=body, headers={"If-Match": seen.headers["ETag"]}))

    threads = [threading.Thread(target=change, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9
    assert {answer.headers["ETag"] for answer in answers} == {app.test_client().get(path).headers["ETag"]}


def test_the_tag_is_on_every_single_order_and_on_no_list(client):
    made = post(client, wanted())
    path = made.headers["Location"]
    tag = made.headers["ETag"]
    assert client.get(path).headers["ETag"] == client.head(path).headers["ETag"] == tag
    assert client.put(path, json={}).headers["ETag"] == tag
    moved = client.put(path, json={"status": IN_PROGRESS}).headers["ETag"]
    assert moved == client.get(path).headers["ETag"] != tag
    assert "ETag" not in client.get("/orders").headers
    client.put(path, json={"status": CANCELLED})
    assert "ETag" not in client.delete(path).headers


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_request_with_another_tag_changes_nothing(client, method):
    order = create(client)
    path = f"/orders/{order['id']}"
    tag = client.get(path).headers["ETag"]
    body = None if method == "DELETE" else {"status": IN_PROGRESS}
    for field in ('"another"', f"W/{tag}"):
        answer = client.open(path, method=method, json=body, headers={"If-Match": field})
        error_of(answer, 412, "precondition_failed")
        assert answer.headers["ETag"] == tag
    error = error_of(client.open(path, method=method, json=body, headers={"If-Match": "x"}), 400, "invalid_input")
    assert [detail["field"] for detail in error["details"]] == ["If-Match"]
    assert client.get(path).json["data"] == order
    missing = client.open(f"/orders/{NOBODY}", method=method, json=body, headers={"If-Match": "*"})
    error_of(missing, 404, "order_not_found")
    assert client.open(path, method=method, json=body, headers={"If-Match": f'"x", {tag}'}).status_code == 200
