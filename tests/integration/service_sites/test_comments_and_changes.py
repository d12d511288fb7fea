"""What people say of work items, and the feed by which a client keeps a copy of what it may see."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from service_sites.persistence.sites import begin
from servicekit.identity.roles import Role
from servicekit.process.clock import utc_now
from tests.support.postgres import ServiceDatabase
from tests.support.sites import Caller, Site, SitesSystem
from tests.support.waiting import eventually

PEOPLE = {
    "Eva": "engineer",
    "Ed": "engineer",
    "Xenia": "executive",
    "Cora": "customer",
    "Carl": "contractor/Lift",
    "Bob": "contractor/Lift",
    "Otto": "contractor/Roof",
}


#: What some steps need to be said.
NEEDED = {
    "reopen": {"reason": "Again", "due_on": "2099-01-01"},
    "return": {"reason": "Not straight"},
    "accept_as_is": {"reason": "Nobody sees it"},
    "settle": {"outcome": "void", "resolution": "no_defect"},
    "void": {"resolution": "mistake"},
}


@pytest.fixture
def site(system: SitesSystem) -> Site:
    return system.site(people=PEOPLE)


def make(site: Site, who: str = "Eva", **fields: Any) -> dict[str, Any]:
    return site[who].data("POST", f"{site.path}/work-items", {"title": "Crack", **fields})


def step(site: Site, who: str, item: dict[str, Any], name: str, **fields: Any) -> dict[str, Any]:
    now = site["Mara"].data("GET", f"/work-items/{item['id']}")
    body = {"step": name, "op_id": str(uuid4()), **fields}
    return site[who].data("POST", f"/work-items/{item['id']}/steps", body, If_Match=f'"{now["version"]}"')


def said(who: Caller, item: dict[str, Any]) -> list[str]:
    return [one["text"] for one in who.data("GET", f"/work-items/{item['id']}/comments")["comments"]]


def comment(who: Caller, item: dict[str, Any], words: str, **fields: Any) -> Any:
    return who.data("POST", f"/work-items/{item['id']}/comments", {"text": words, **fields})


def test_a_comment_is_read_by_its_audience_alone_and_changes_no_state(site: Site, system: SitesSystem) -> None:
    item = make(site, organisation="Lift", visible_to_customer=False)
    item = step(site, "Carl", item, "start")
    site["Mara"].data(
        "PUT", f"/work-items/{item['id']}", {"visible_to_customer": True}, If_Match=f'"{item["version"]}"'
    )
    before = site["Mara"].data("GET", f"/work-items/{item['id']}")
    for who, audience in (("Eva", None), ("Xenia", "parties"), ("Carl", None), ("Mara", "customer"), ("Cora", None)):
        comment(site[who], item, f"by {who}", **({"audience": audience} if audience else {}))
    assert said(site["Mara"], item) == ["by Eva", "by Xenia", "by Carl", "by Mara", "by Cora"]
    assert said(system.auditor, item) == said(site["Mara"], item)
    assert said(site["Carl"], item) == ["by Xenia", "by Carl", "by Mara", "by Cora"]
    assert said(site["Cora"], item) == ["by Mara", "by Cora"]
    comment(site["Carl"], item, "for all", audience="customer")
    for who, knows in (("Mara", "Lift"), ("Carl", "Lift"), ("Bob", None), ("Cora", None)):
        last = site[who].data("GET", f"/work-items/{item['id']}/comments")["comments"][-1]
        changes = site[who].data("GET", f"{site.path}/changes")["changes"]
        assert last in [one["comment"] for one in changes]
        assert (last["text"], last["author"]["name"], last["author_organisation"]) == ("for all", "Carl", knows), who
    for who, audience in (("Carl", "internal"), ("Cora", "parties"), ("Cora", "internal")):
        path = f"/work-items/{item['id']}/comments"
        assert site[who].refusal("POST", path, {"text": "?", "audience": audience}) == (403, "forbidden")
    assert site["Otto"].refusal("GET", f"/work-items/{item['id']}/comments") == (404, "work_item_not_found")
    assert system.auditor.refusal("POST", f"/work-items/{item['id']}/comments", {"text": "?"})[0] == 403
    assert site["Mara"].data("GET", f"/work-items/{item['id']}") == before


def test_a_comment_sent_twice_is_there_once_and_its_author_alone_may_reword_it(
    site: Site, sites_database: ServiceDatabase
) -> None:
    item, op_id = make(site), str(uuid4())
    first = comment(site["Eva"], item, "Look", op_id=op_id)
    again = site["Eva"].ask("POST", f"/work-items/{item['id']}/comments", {"text": "Look", "op_id": op_id})
    assert (again.body, again.headers["Idempotency-Replayed"]) == (first, "true")
    path = f"/work-items/{item['id']}/comments"
    assert site["Eva"].refusal("POST", path, {"text": "Other", "op_id": op_id}) == (409, "op_id_reused")
    assert site["Mara"].refusal("PUT", f"{path}/{first['id']}", {"text": "Mine"}) == (403, "forbidden")
    assert site["Eva"].refusal("PUT", f"{path}/{uuid4()}", {"text": "None"}) == (404, "comment_not_found")
    assert site["Eva"].data("PUT", f"{path}/{first['id']}", {"text": "Look here"})["edited_at"] is not None
    assert said(site["Mara"], item) == ["Look here"]
    sites_database.administer("UPDATE comments SET created_at = created_at - interval '16 minutes'")
    assert site["Eva"].refusal("PUT", f"{path}/{first['id']}", {"text": "Too late"}) == (409, "comment_settled")


def test_people_watch_and_leaders_let_others_watch_and_link(site: Site, system: SitesSystem) -> None:
    item, other = make(site, organisation="Lift"), make(site)
    path = f"/work-items/{item['id']}"
    ids = {name: str(caller.user_id) for name, caller in site.people.items()}
    site["Carl"].data("PUT", f"{path}/watchers/{ids['Carl']}")
    site["Eva"].data("PUT", f"{path}/watchers/{ids['Xenia']}")
    twice = site["Eva"].data("PUT", f"{path}/watchers/{ids['Xenia']}")
    assert [one["name"] for one in twice["watchers"]] == ["Carl", "Xenia"]
    assert site["Carl"].refusal("PUT", f"{path}/watchers/{ids['Bob']}") == (403, "forbidden")
    assert site["Eva"].refusal("PUT", f"{path}/watchers/{system.stranger.user_id}") == (400, "invalid_input")
    assert site["Carl"].data("DELETE", f"{path}/watchers/{ids['Carl']}")["watchers"] == [
        {"id": ids["Xenia"], "name": "Xenia"}
    ]
    order = uuid4()
    site["Eva"].data("PUT", f"{path}/links/order/{order}")
    linked = site["Mara"].data("PUT", f"{path}/links/item/{other['id']}")["links"]
    assert [(one["kind"], one["target_id"]) for one in linked] == [("order", str(order)), ("item", other["id"])]
    # The other item is not Carl's.
    assert site["Carl"].data("GET", f"{path}/links")["links"] == linked[:1]
    assert site["Mara"].refusal("PUT", f"{path}/links/item/{item['id']}") == (400, "invalid_input")
    assert site["Mara"].refusal("PUT", f"{path}/links/plan/{order}") == (400, "invalid_input")
    assert site["Carl"].refusal("DELETE", f"{path}/links/order/{order}") == (403, "forbidden")
    assert len(site["Eva"].data("DELETE", f"{path}/links/order/{order}")["links"]) == 1
    assert site["Eva"].refusal("DELETE", f"{path}/links/order/{order}") == (404, "link_not_found")
    # With the item above, as many as there can be.
    site.database.administer(
        f"INSERT INTO links SELECT '{item['id']}', 'task', gen_random_uuid(), now() FROM generate_series(1, 98)"
    )
    tasks = [site["Eva"].ask("PUT", f"{path}/links/task/{UUID(int=number)}").status for number in (1, 2, 1)]
    assert tasks == [200, 400, 200]


class Copy:
    """What a client knows of a site that asks for nothing but its changes."""

    def __init__(self, site: Site, who: str) -> None:
        self._path, self._caller = f"{site.path}/changes", site[who]
        self.items: dict[str, Any] = {}
        self.comments: dict[str, Any] = {}
        self.cursor: str | None = None
        self.resets = 0

    def follow(self, limit: int) -> None:
        """Ask until there is nothing more."""
        while True:
            since = "" if self.cursor is None else f"&since={self.cursor}"
            answer = self._caller.data("GET", f"{self._path}?limit={limit}{since}")
            if answer["reset"]:
                self.items, self.comments, self.resets = {}, {}, self.resets + 1
            for change in answer["changes"]:
                if change["kind"] == "gone":
                    self.items.pop(change["id"], None)
                elif change["kind"] == "item":
                    self.items[change["id"]] = change["item"]
                else:
                    self.comments[change["id"]] = change["comment"]
            self.cursor = answer["cursor"]
            if not answer["more"]:
                return


def test_an_answer_ends_behind_a_mebibyte_of_items_or_of_comments(site: Site) -> None:
    path = f"{site.path}/changes?limit=500"
    # 40,000 bytes of JSON each, beside some hundred of other fields; and 59,990.
    made = [make(site, description="\U0001d11e" * 10_000)["id"] for _ in range(30)]
    uttered = [comment(site["Eva"], {"id": made[0]}, "a" + "\x01" * 9998 + "a")["id"] for _ in range(30)]
    first = site["Eva"].data("GET", path)
    assert ([one["id"] for one in first["changes"]], first["more"]) == (made[:26], True)
    second = site["Eva"].data("GET", f"{path}&since={first['cursor']}")
    assert ([one["id"] for one in second["changes"]], second["more"]) == ([*made[26:], *uttered[:18]], True)
    third = site["Eva"].data("GET", f"{path}&since={second['cursor']}")
    assert ([one["id"] for one in third["changes"]], third["more"]) == (uttered[18:], False)


def test_what_a_phone_sends_at_once_about_an_item_all_stays(site: Site) -> None:
    for _ in range(5):
        item = make(site, organisation="Lift")
        path = f"/work-items/{item['id']}"
        reported = {"step": "report_done", "op_id": str(uuid4()), "note": "Done"}
        sent = [("POST", f"{path}/comments", {"text": f"{n}", "op_id": str(uuid4())}, None) for n in range(3)]
        sent += [("PUT", f"{path}/watchers/{site['Carl'].user_id}", None, None)]
        sent.insert(1, ("POST", f"{path}/steps", reported, '"1"'))
        with ThreadPoolExecutor(len(sent)) as threads:
            answers = [threads.submit(site["Carl"].ask, *one[:3], If_Match=one[3]) for one in sent]
        assert [answer.result().status for answer in answers] == [201, 200, 201, 201, 200]
        assert (site["Eva"].data("GET", path)["state"], sorted(said(site["Eva"], item))) == ("ready", ["0", "1", "2"])


def test_a_change_that_takes_long_is_told_before_those_that_waited_for_it(site: Site) -> None:
    slow, other = make(site), make(site)
    path = f"{site.path}/changes"
    known = site["Eva"].data("GET", path)["cursor"]
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as threads:
        with site.database.database.transaction() as session:
            number = begin(session, site.id, utc_now()).change_seq
            values = {"id": slow["id"], "number": number}
            session.execute(text("UPDATE work_items SET title = 'Slow', change_seq = :number WHERE id = :id"), values)
            quick = threads.submit(step, site, "Mara", other, "assign", organisation="Lift")
            eventually(lambda: site.rows(waiting), what="a step that waits for its site")
            seen = site["Eva"].data("GET", f"{path}?since={known}")
            assert seen["changes"] == []
        quick.result(10)
    told = site["Eva"].data("GET", f"{path}?since={seen['cursor']}")["changes"]
    assert [one["id"] for one in told] == [slow["id"], other["id"]]


@pytest.mark.parametrize("seed", range(3))
def test_a_copy_kept_by_the_feed_equals_what_its_reader_may_see(site: Site, seed: int) -> None:
    chance = random.Random(seed)
    copies = {who: Copy(site, who) for who in ("Mara", "Eva", "Xenia", "Cora", "Carl", "Bob", "Otto")}
    made: list[dict[str, Any]] = []

    def present(item: dict[str, Any]) -> dict[str, Any]:
        return site["Mara"].data("GET", f"/work-items/{item['id']}")

    def change() -> None:
        if len(made) < 4 or chance.random() < 0.15:
            organisation = chance.choice(["", "Lift", "Roof"])
            made.append(make(site, organisation=organisation))
            return
        item = present(chance.choice(made))
        deed = chance.choice(["shown", "assign", "comment", "step", "step", "rights"])
        if deed == "shown":
            wanted = {"visible_to_customer": chance.random() < 0.5}
            site["Mara"].ask("PUT", f"/work-items/{item['id']}", wanted, If_Match=f'"{item["version"]}"')
        elif deed == "assign":
            fields = {"assignee_id": str(site[chance.choice(["Carl", "Bob", "Otto"])].user_id)}
            body = {"step": "assign", "op_id": str(uuid4()), **fields}
            site["Mara"].ask("POST", f"/work-items/{item['id']}/steps", body, If_Match=f'"{item["version"]}"')
        elif deed == "comment":
            comment(site["Mara"], item, "Look", audience=chance.choice(["internal", "parties", "customer"]))
        elif deed == "rights":
            organisation = chance.choice(["Lift", "Roof"])
            site["Mara"].data("PUT", f"{site.path}/members/{site['Bob'].user_id}", {"organisation": organisation})
        elif steps := [one for one in item["permitted_steps"] if one not in ("assign", "move_deadline")]:
            name = chance.choice(steps)
            body = {"step": name, "op_id": str(uuid4()), **NEEDED.get(name, {})}
            taken = site["Mara"].ask("POST", f"/work-items/{item['id']}/steps", body, If_Match=f'"{item["version"]}"')
            assert taken.status == 200, taken

    for _ in range(12):
        for _ in range(chance.randrange(1, 5)):
            change()
        for who, copy in copies.items():
            copy.follow(limit=chance.choice([1, 2, 100]))
            listed = site[who].data("GET", f"/work-items?site_id={site.id}&limit=100")["work_items"]
            assert copy.items == {item["id"]: item for item in listed}, who
            heard = {
                one["id"]: one
                for item in listed
                for one in site[who].data("GET", f"/work-items/{item['id']}/comments")["comments"]
            }
            # Of an item that came back later, what was said while it was hidden is asked of the item itself.
            assert copy.comments.items() >= {k: v for k, v in heard.items() if k in copy.comments}.items()
    assert copies["Mara"].resets == 0


@pytest.mark.parametrize(
    ("kind", "author", "saw"),
    [("defect", "Eva", {"Eva", "auditor"}), ("customer_remark", "Cora", {"Cora", "Mara", "auditor"})],
)
def test_only_those_who_saw_a_draft_are_told_that_it_is_gone(
    site: Site, system: SitesSystem, kind: str, author: str, saw: set[str]
) -> None:
    draft = make(site, author, kind=kind, **({} if kind == "customer_remark" else {"draft": True}))
    everybody = {**site.people, "auditor": system.auditor}
    path = f"{site.path}/changes"
    known = {name: caller.data("GET", path)["cursor"] for name, caller in everybody.items()}
    site[author].data("DELETE", f"/work-items/{draft['id']}", If_Match="*")
    news = {name: caller.data("GET", f"{path}?since={known[name]}")["changes"] for name, caller in everybody.items()}
    told = {name: [(one["kind"], one["id"]) for one in changes] for name, changes in news.items() if changes}
    assert told == {name: [("gone", draft["id"])] for name in saw}


def test_a_company_that_lost_an_item_is_told_that_it_is_gone_and_no_more(site: Site) -> None:
    item = make(site, organisation="Lift", visible_to_customer=False)
    path, carl = f"/work-items/{item['id']}", site["Carl"]
    started, talk = {"step": "start", "op_id": str(uuid4())}, {"text": "Mine", "op_id": str(uuid4())}

    def again() -> list[int]:
        sent = [carl.ask("POST", f"{path}/steps", started, If_Match='"1"'), carl.ask("POST", f"{path}/comments", talk)]
        return [answer.status for answer in sent]

    def counted(name: str) -> list[int]:
        rows = carl.data("GET", f"/reports/{name}")["rows"]
        return [value["count"] for row in rows for value in row.values() if isinstance(value, dict)]

    reports = ("contractors", "ageing", "burndown", "time-to-close", "on-time", "returns", "counts")
    assert again() == [200, 201] == again()
    item = step(site, "Carl", item, "report_done", note="Done")
    assert any(any(counted(name)) for name in reports)
    site["Mara"].data("PUT", path, {"visible_to_customer": True}, If_Match='"3"')
    member = f"{site.path}/members/{carl.user_id}"
    site["Mara"].data("PUT", member, {"role": "customer"})
    assert again() == [403, 403]
    site["Mara"].data("PUT", member, {"role": "contractor"})
    assert again() == [200, 201]
    since = carl.data("GET", f"{site.path}/changes")["cursor"]
    step(site, "Mara", item, "assign", organisation="Roof")
    assert again() == [404, 404]
    told = [carl.ask("GET", f"{path}{of}").status for of in ("", "/history", "/comments", "/watchers", "/links")]
    assert told == [404] * 5
    assert carl.data("GET", "/work-items")["total"] == 0
    assert not any(any(counted(name)) for name in reports)
    news = carl.data("GET", f"{site.path}/changes?since={since}")["changes"]
    assert [(one["kind"], one["id"], one["item"], one["comment"]) for one in news] == [("gone", item["id"], None, None)]
    site["Mara"].data("DELETE", member)
    assert again() == [404, 404]


def test_a_company_is_told_neither_of_which_item_theirs_is_a_duplicate_nor_how_much_happened_beside_it(
    site: Site, system: SitesSystem
) -> None:
    original = make(site, organisation="Roof")
    item = make(site, organisation="Lift")
    step(site, "Mara", original, "assign", organisation="Roof", due_on="2099-01-01")
    step(site, "Mara", item, "void", resolution="duplicate", duplicate_of=original["id"])
    path = f"/work-items/{item['id']}"

    def told(who: Caller) -> list[Any]:
        (listed,) = who.data("GET", f"/work-items?state=void&site_id={site.id}")["work_items"]
        fed = [one["item"] for one in who.data("GET", f"{site.path}/changes")["changes"] if one["id"] == item["id"]]
        entries = who.data("GET", f"{path}/history")["history"]
        assert [entry["version"] for entry in entries] == [1, 2]
        assert not {"seq", "change_seq"} & {*entries[0]}
        shown = [one["duplicate_of"] for one in (who.data("GET", path), listed, *fed)]
        return [*shown, entries[1]["changes"].get("duplicate_of", [None, None])[1]]

    assert told(site["Carl"]) == [None] * 4
    assert told(site["Eva"]) == told(system.auditor) == [original["id"]] * 4


def test_a_company_that_is_handed_what_another_has_done_is_not_told_who_did_it(site: Site, system: SitesSystem) -> None:
    item = make(site, organisation="Roof")
    step(site, "Otto", item, "report_done", note="Tight again")
    step(site, "Mara", item, "assign", organisation="Lift", due_on="2099-01-01")

    def told(who: Caller) -> list[Any]:
        (listed,) = who.data("GET", f"/work-items?state=ready&site_id={site.id}")["work_items"]
        fed = [one["item"] for one in who.data("GET", f"{site.path}/changes")["changes"] if one["id"] == item["id"]]
        shown = who.data("GET", f"/work-items/{item['id']}")
        return [(one["done_by_id"], one["done_by_organisation"]) for one in (shown, listed, *fed)]

    assert told(site["Carl"]) == [(None, "")] * 3
    assert told(site["Mara"]) == told(system.auditor) == [(str(site["Otto"].user_id), "Roof")] * 3


def test_what_somebody_does_not_see_changes_nothing_of_what_the_feed_tells_them(site: Site) -> None:
    item = make(site, organisation="Lift")
    paths = [f"{site.path}/changes?limit={limit}" for limit in (1, 100)]

    def known() -> list[Any]:
        answers = [site[who].ask("GET", path) for who in ("Cora", "Otto") for path in paths]
        return [(answer.body, answer.headers["ETag"]) for answer in answers]

    before = known()
    for words in ("One", "Two"):
        comment(site["Carl"], item, words)
    step(site, "Carl", item, "start")
    step(site, "Mara", item, "assign", organisation="")
    make(site)
    assert known() == before
    (nothing, tag), *_ = before
    since = f"{paths[0]}&since={nothing['cursor']}"
    assert site["Cora"].data("GET", since) == nothing
    seen = make(site, "Cora", kind="customer_remark")
    assert [one["id"] for one in site["Cora"].data("GET", since)["changes"]] == [seen["id"]]
    assert site["Cora"].ask("GET", paths[0], If_None_Match=tag).status == 200
    assert known()[2:] == before[2:]


@pytest.mark.parametrize(("secret", "role"), [("another", Role.USER), ("", Role.AUDITOR), ("", Role.ADMIN)])
def test_with_another_secret_or_role_in_the_system_a_cursor_begins_anew(
    site: Site, sites_database: ServiceDatabase, secret: str, role: Role
) -> None:
    item = make(site)
    cursor = site["Eva"].data("GET", f"{site.path}/changes")["cursor"]
    now = Caller(SitesSystem(sites_database, secret).app, site["Eva"].user_id, role)
    answer = now.data("GET", f"{site.path}/changes?since={cursor}")
    assert (answer["reset"], [one["id"] for one in answer["changes"]]) == (True, [item["id"]])


def test_an_unchanged_site_is_a_304_and_another_sites_cursor_is_refused(site: Site, system: SitesSystem) -> None:
    make(site)
    path = f"{site.path}/changes"
    first = site["Eva"].ask("GET", path)
    tag, cursor = first.headers["ETag"], first.body["cursor"]
    unchanged = site["Eva"].ask("GET", path, If_None_Match=tag)
    assert (unchanged.status, unchanged.raw, unchanged.headers["ETag"]) == (304, b"", tag)
    make(site)
    assert site["Eva"].ask("GET", path, If_None_Match=tag).status == 200
    behind = site["Eva"].data("GET", f"{path}?since={cursor}")
    assert len(behind["changes"]) == 1
    other = system.site("SOUTH", {"Eva": "engineer"})
    for since in (cursor, "nonsense", "", "é", cursor[:-1]):
        assert other["Eva"].refusal("GET", f"{other.path}/changes?since={since}") == (400, "invalid_input")
    assert system.stranger.refusal("GET", path) == (404, "site_not_found")
