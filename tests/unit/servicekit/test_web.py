"""The web kit: whatever comes in, what goes out is the envelope with a request id."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from servicekit.identity.principal import Principal
from servicekit.identity.roles import Action
from servicekit.observing import request_id
from servicekit.observing.metrics import Metrics
from servicekit.web.app import make_app
from servicekit.web.routes import Answer, Routes, bearer_guard
from servicekit.web.schemas import Body, PageQuery, PageView, QueryText, View
from servicekit.wire import deadline
from servicekit.wire.errors import (
    AppError,
    Conflict,
    DatabaseUnavailable,
    FieldError,
    Forbidden,
    TooLarge,
    TooManyRequests,
    Unauthorized,
)

AS_JSON = {"Content-Type": "application/json"}
AN_ID = "018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f"


class Note(Body):
    text: str


class NoteView(View):
    text: str


class NoteQuery(PageQuery):
    q: QueryText | None = None


class NotePage(PageView):
    notes: list[NoteView]


def note_routes() -> Routes:
    api = Routes("notes")

    @api.get("/notes", action=Action.PUBLIC)
    def list_notes(query: NoteQuery) -> NotePage:
        """List notes."""
        return NotePage(notes=[NoteView(text=query.q or "")], total=1, limit=query.limit, offset=query.offset)

    @api.post("/notes", action=Action.PUBLIC, status=201, headers={"X-Colour": "of the ink"})
    def write_note(body: Note, headers: dict[str, str | None]) -> Answer[NoteView]:
        """Write a note."""
        return Answer(NoteView(text=f"{body.text} in {headers['X-Colour']}"), headers={"Location": "/notes/1"})

    @api.post("/long-notes", action=Action.PUBLIC, body_limit=200)
    def write_long_note(body: Note) -> NoteView:
        """Write a longer note."""
        return NoteView(text=body.text)

    @api.get("/notes/{id}", action=Action.PUBLIC)
    def get_note(id: UUID) -> NoteView:
        """Show what the request knows about itself."""
        return NoteView(text=f"{id} {request_id.current_request_id()} {deadline.remaining(9.0):.0f}")

    @api.delete("/notes/{id}", action=Action.PUBLIC)
    def delete_note(id: UUID) -> NoteView:
        """Fail in a way that nobody foresaw."""
        raise ZeroDivisionError("SELECT secret FROM notes")

    @api.put("/notes/{id}", action=Action.PUBLIC)
    def change_note(id: UUID, body: Note) -> NoteView:
        """Fail in the way the body asks for."""
        raise {
            "conflict": Conflict("no", details=[FieldError("text", "is taken")]),
            "away": DatabaseUnavailable(retry_after=7),
        }[body.text]

    @api.post("/drawers/{name}", guard=_only_the_owner)
    def write_into_drawer(name: str, body: Note) -> NoteView:
        """Write a note into a drawer that has a name, not an id."""
        return NoteView(text=f"{name}: {body.text}")

    @api.get("/author", action=Action.PUBLIC)
    def show_author(caller: Principal) -> NoteView:
        """Show who calls."""
        return NoteView(text=f"{caller.role} {caller.user_id}")

    return api


def _only_the_owner(authorization: str | None, client: str | None) -> None:
    if authorization != "Bearer owner":
        raise Forbidden


@pytest.fixture
def metrics():
    return Metrics("notes")


@pytest.fixture
def client(metrics):
    return make_app("notes", routes=[note_routes()], checks={}, metrics=metrics, body_limit=100).test_client()


def test_a_handler_that_asks_for_the_caller_gets_an_administrator_where_no_login_is_asked_for(client):
    assert client.get("/author").json["data"] == {"text": "admin None"}


def error_of(answer, status: int, code: str) -> dict:
    assert answer.status_code == status
    assert answer.content_type == "application/json"
    assert answer.headers["X-Request-ID"]
    body = json.loads(answer.data)
    assert body["success"] is False
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize("codings", ["gzip", "GZIP", "br", "identity, gzip", "x-unheard"])
def test_a_compressed_body_is_refused_by_the_name_of_its_field(client, codings):
    answer = client.post("/notes", data=b"\x1f\x8b\x08", headers={**AS_JSON, "Content-Encoding": codings})
    error = error_of(answer, 415, "unsupported_media_type")
    assert [detail["field"] for detail in error["details"]] == ["Content-Encoding"]
    assert answer.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("codings", ["", "identity", "Identity"])
def test_a_coding_that_changes_nothing_is_taken(client, codings):
    assert (
        client.post("/notes", data=b'{"text": "x"}', headers={**AS_JSON, "Content-Encoding": codings}).status_code
        == 201
    )


def test_a_good_answer_is_wrapped_and_carries_its_own_fields(client):
    answer = client.post("/notes", json={"text": "Ярослав"}, headers={"X-Colour": "red"})
    assert (answer.status_code, answer.content_type) == (201, "application/json")
    assert answer.headers["Location"] == "/notes/1"
    assert json.loads(answer.data) == {"success": True, "data": {"text": "Ярослав in red"}}


def test_a_field_that_was_not_sent_is_none(client):
    assert client.post("/notes", json={"text": "x"}).json["data"]["text"] == "x in None"


def test_a_list_gives_its_page(client):
    assert client.get("/notes?q=a%20b&limit=3&offset=4").json["data"] == {
        "total": 1, "limit": 3, "offset": 4, "notes": [{"text": "a b"}],
    }  # fmt: skip


def test_a_query_in_raw_utf8_is_understood(client):
    answer = client.get("/notes", environ_overrides={"QUERY_STRING": "q=Яр".encode().decode("latin-1")})
    assert answer.json["data"]["notes"] == [{"text": "Яр"}]


def test_a_query_in_broken_utf8_is_refused(client):
    error_of(client.get("/notes", environ_overrides={"QUERY_STRING": "q=\xff"}), 400, "invalid_input")
    error_of(client.get("/notes?q=%ff"), 400, "invalid_input")


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/notes/", f"/notes/{AN_ID}/", "/notes//", "/Notes", "/notes/%00/x", "/%ff"]
)
def test_an_unknown_address_is_a_404_in_the_envelope(client, path):
    for method in ("GET", "POST", "OPTIONS"):
        error_of(client.open(path, method=method), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/notes", "GET, HEAD, POST"),
        ("DELETE", "/notes", "GET, HEAD, POST"),
        ("OPTIONS", "/notes", "GET, HEAD, POST"),
        ("TRACE", f"/notes/{AN_ID}", "DELETE, GET, HEAD, PATCH, PUT"),
        ("BREW", f"/notes/{AN_ID}", "DELETE, GET, HEAD, PATCH, PUT"),
        ("POST", "/livez", "GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
    ],
)
def test_a_method_the_address_does_not_take_is_a_405_that_names_those_it_does(client, method, path, allowed):
    answer = client.open(path, method=method)
    error_of(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize("id", ["1", "x" * 1000, AN_ID[:-1], "%00", "..", AN_ID + "%0a"])
def test_an_id_that_is_none_is_a_400_naming_it(client, id):
    error = error_of(client.get(f"/notes/{id}"), 400, "invalid_input")
    assert [detail["field"] for detail in error["details"]] == ["id"]


def test_head_answers_like_get_without_a_body(client):
    head, get = client.head("/notes"), client.get("/notes")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert client.head("/nothing").status_code == 404


def test_a_body_of_a_get_is_ignored(client):
    assert client.get("/notes", data=b"{broken", content_type="application/json").status_code == 200


@pytest.mark.parametrize(
    ("raw", "content_type", "status", "code"),
    [
        (b'{"text": "x"}', "application/json; charset=utf-8", 201, None),
        (b'{"text": "x"}', "application/json;charset=latin-1", 201, None),  # JSON has no charset (RFC 8259 section 11)
        (b'{"text": "x"}', "text/plain", 415, "unsupported_media_type"),
        (b'{"text": "x"}', "multipart/form-data; boundary=x", 415, "unsupported_media_type"),
        (b'{"text": "x"}', None, 415, "unsupported_media_type"),
        (b"", "application/json", 400, "invalid_input"),
        (b"{", "application/json", 400, "invalid_json"),
        (b"[" * 100, "application/json", 400, "invalid_json"),
        (b'{"text": "\xff"}', "application/json", 400, "invalid_json"),
        (b'{"text": 1e400}', "application/json", 400, "invalid_json"),
        (b'{"text": 1}', "application/json", 400, "invalid_input"),
    ],
)
def test_bodies_and_their_media_types(client, raw, content_type, status, code):
    answer = client.post("/notes", data=raw, content_type=content_type)
    assert answer.status_code == status
    if code:
        error_of(answer, status, code)


def test_a_guard_refuses_before_anything_else_is_read(client):
    assert client.post("/drawers/left", data=b"no JSON at all").status_code == 403
    assert client.post("/drawers/left", json={"text": "x"}, headers={"Authorization": "Bearer x"}).status_code == 403


class TestABearerGuard:
    @pytest.fixture
    def clock(self):
        return [1000.0]

    @pytest.fixture
    def guard(self, clock):
        return bearer_guard("a token of some length", name="admin", closed="closed", now=lambda: clock[0])

    @staticmethod
    def refusal(guard, token: str | None, client: str | None) -> type[AppError] | None:
        try:
            guard(token and f"Bearer {token}", client)
        except AppError as error:
            return type(error)
        return None

    def test_of_a_client_that_guesses_takes_no_token_for_a_minute(self, guard, clock):
        for n in range(10):
            assert self.refusal(guard, f"guess {n}", "10.0.0.1") is Unauthorized

        assert self.refusal(guard, "guess", "10.0.0.1") is TooManyRequests
        assert self.refusal(guard, "a token of some length", "10.0.0.1") is TooManyRequests
        assert self.refusal(guard, "a token of some length", "10.0.0.2") is None
        clock[0] += 59
        with pytest.raises(TooManyRequests) as caught:
            guard("Bearer a token of some length", "10.0.0.1")
        assert caught.value.headers == {"Retry-After": "1"}
        clock[0] += 1
        assert self.refusal(guard, "a token of some length", "10.0.0.1") is None

    def test_counts_no_request_without_a_token(self, guard):
        assert {self.refusal(guard, None, "10.0.0.1") for _ in range(20)} == {Unauthorized}

    def test_remembers_a_bounded_number_of_clients(self, guard):
        for n in range(1001):
            for _ in range(10):
                self.refusal(guard, "guess", f"client {n}")

        assert self.refusal(guard, "guess", "client 0") is Unauthorized
        assert self.refusal(guard, "guess", "client 1000") is TooManyRequests


def test_a_part_of_the_path_may_be_a_text_instead_of_an_id(client):
    answer = client.post("/drawers/left%20one", json={"text": "nails"}, headers={"Authorization": "Bearer owner"})

    assert answer.json["data"] == {"text": "left one: nails"}


def test_a_body_over_the_limit_is_a_413_and_one_at_the_limit_is_not(client):
    exactly = b'{"text": "' + b"x" * (100 - 12) + b'"}'
    assert len(exactly) == 100
    assert client.post("/notes", data=exactly, content_type="application/json").status_code == 201
    error = error_of(client.post("/notes", data=exactly + b" ", content_type="application/json"), 413, "body_too_large")
    assert "100 bytes" in error["message"]


def test_a_route_may_have_a_limit_of_its_own(client):
    body = b'{"text": "' + b"x" * 150 + b'"}'
    assert client.post("/long-notes", data=body, content_type="application/json").status_code == 200
    error_of(client.post("/long-notes", data=body + b" " * 50, content_type="application/json"), 413, TooLarge.code)


def test_a_body_that_does_not_tell_its_length_has_the_same_limit(client):
    environ = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
    answer = client.post("/notes", data=b" " * 200, content_type="application/json", environ_overrides=environ)
    error_of(answer, 413, "body_too_large")


@pytest.mark.parametrize("sent", ["0", "000"])
def test_work_whose_time_is_gone_is_refused(client, sent):
    error_of(client.get("/notes", headers={"X-Request-Timeout-Ms": sent}), 504, "deadline_exceeded")


@pytest.mark.parametrize(("sent", "seconds"), [("60000", "9"), ("5000", "5"), ("soon", "9"), ("-5", "9"), (None, "9")])
def test_the_handler_knows_how_much_time_is_left(client, sent, seconds):
    headers = {"X-Request-ID": "r"} | ({"X-Request-Timeout-Ms": sent} if sent else {})
    assert client.get(f"/notes/{AN_ID}", headers=headers).json["data"]["text"] == f"{AN_ID} r {seconds}"


def test_a_deadline_does_not_leak_into_the_next_request(client):
    client.get(f"/notes/{AN_ID}", headers={"X-Request-Timeout-Ms": "1"})
    assert client.get(f"/notes/{AN_ID}").json["data"]["text"].endswith(" 9")
    assert request_id.current_request_id() == ""


@pytest.mark.parametrize("path", ["/notes", "/nothing", "/livez"])
def test_a_sane_request_id_is_echoed_and_any_other_replaced(client, path):
    assert client.get(path, headers={"X-Request-ID": "seen-before"}).headers.getlist("X-Request-ID") == ["seen-before"]
    for bad in ("a b", "x" * 129):
        made = client.get(path, headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert UUID(hex=made).version == 7


def test_a_crash_is_a_500_without_its_insides_and_a_logged_traceback(client, capsys):
    answer = client.delete(f"/notes/{AN_ID}", headers={"X-Request-ID": "crashing"})
    error = error_of(answer, 500, "internal_error")
    assert error == {"code": "internal_error", "message": "Something went wrong on our side."}
    assert b"secret" not in answer.data
    assert answer.headers["X-Request-ID"] == "crashing"
    logged = capsys.readouterr().out
    assert "request_crashed" in logged
    assert "ZeroDivisionError" in logged


def test_the_errors_of_the_tree_arrive_with_status_details_and_fields(client):
    error = error_of(client.put(f"/notes/{AN_ID}", json={"text": "conflict"}), 409, "conflict")
    assert (error["message"], error["details"]) == ("no", [{"field": "text", "message": "is taken"}])
    answer = client.put(f"/notes/{AN_ID}", json={"text": "away"})
    error_of(answer, 503, "database_unavailable")
    assert answer.headers["Retry-After"] == "7"


def test_a_strange_host_does_not_break_the_answer(client):
    for host in ("a b", "x" * 70 + ".example", "[::1", "\xff", ""):
        answer = client.get("/notes", environ_overrides={"HTTP_HOST": host})
        error_of(answer, 421, "misdirected_request")


def test_metrics_count_by_route_template_and_never_by_raw_path(client, metrics):
    client.get(f"/notes/{AN_ID}")
    client.get("/notes/wrong")
    client.get("/secret-path")
    client.open("/notes", method="BREW")
    page = client.get("/metrics")
    assert page.status_code == 200
    assert page.content_type.startswith("text/plain")
    text = page.data.decode()
    count = 'siteworks_http_requests_total{method="%s",route="%s",service="notes",status="%s"} 1.0'
    assert count % ("GET", "/notes/{id}", "200") in text
    assert count % ("GET", "/notes/{id}", "400") in text
    assert count % ("GET", "unmatched", "404") in text
    assert AN_ID not in text
    assert "secret-path" not in text
    assert "BREW" not in text


def test_liveness_asks_nobody_and_readiness_asks_every_check():
    asked: list[str] = []

    def broken() -> None:
        asked.append("database")
        raise DatabaseUnavailable

    app = make_app("notes", routes=[], checks={"disk": lambda: asked.append("disk"), "database": broken})
    client = app.test_client()
    assert client.get("/livez").json == {
        "success": True,
        "data": {"status": "alive", "service": "notes", "processes": 1},
    }
    assert asked == []

    answer = client.get("/readyz")
    error = error_of(answer, 503, "not_ready")
    assert error["details"] == [
        {"field": "database", "message": "The database is not available at the moment; try again."}
    ]
    assert answer.headers["Retry-After"] == "1"
    assert asked == ["disk", "database"]


def test_readiness_names_the_checks_that_are_well():
    app = make_app("notes", routes=[], checks={"database": lambda: None})
    assert app.test_client().get("/readyz").json == {
        "success": True,
        "data": {"status": "ready", "checks": {"database": "ok"}},
    }
