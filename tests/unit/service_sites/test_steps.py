"""Who may take which step in which state: all cells, compared with a table written by hand."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path
from uuid import UUID

import pytest

from service_sites.domain.item import ItemKind, Resolution, WorkState
from service_sites.domain.people import Actor, Member, SiteRole
from service_sites.domain.steps import FIELDS, TABLE, Change, Step, StepRequest, decide, misfit, permitted_steps
from servicekit.wire.envelope import status_of

# What each person may do with an item in each state. A draft is one of a defect or task, a remark one of a customer
# that no manager has admitted yet; from `open` on all kinds are alike. A dot: sees the item, and may do nothing.
#
#   S submit   N admit     P assign to a person   M move the deadline   B begin (start)   D report done   Q dispute
#   E settle   A accept    R return               K accept as it is     O open again      V make void
HAND_WRITTEN = """
                                         draft   remark  open     in_progress ready   returned disputed closed  void
engineer                                 hidden  hidden  .        .           AR      .        .        O       .
engineer, its author                     SV      V       .        .           AR      .        .        O       .
engineer, its assignee                   hidden  hidden  BDQ      DQ          AR      BD       .        O       .
engineer, of the organisation            hidden  hidden  BDQ      DQ          AR      BD       .        O       .
engineer, reported it done               hidden  hidden  .        .           .       .        .        O       .
engineer, works for who reported it      hidden  hidden  .        .           .       .        .        O       .
manager                                  hidden  NV      PMKV     PMV         PMARV   PMV      PMEKV    O       .
manager, its author                      SV      NV      PMKV     PMV         PMARV   PMV      PMEKV    O       .
manager, its assignee                    hidden  NV      PMBDQKV  PMDQV       PMARV   PMBDV    PMEKV    O       .
manager, reported it done                hidden  NV      PMKV     PMV         PMV     PMV      PMEKV    O       .
executive                                hidden  hidden  .        .           .       .        .        .       .
executive, its author                    .       .       .        .           .       .        .        .       .
executive, its assignee                  hidden  hidden  .        .           .       .        .        .       .
executive, of the organisation           hidden  hidden  .        .           .       .        .        .       .
contractor                               hidden  hidden  hidden   hidden      hidden  hidden   hidden   hidden  hidden
contractor, its author                   .       .       hidden   hidden      hidden  hidden   hidden   hidden  hidden
contractor, its assignee                 hidden  hidden  BDQ      DQ          .       BD       .        .       .
contractor, of the organisation          hidden  hidden  BDQ      DQ          .       BD       .        .       .
contractor, reported it done             hidden  hidden  hidden   hidden      hidden  hidden   hidden   hidden  hidden
customer                                 hidden  hidden  hidden   hidden      hidden  hidden   hidden   hidden  hidden
customer, shown to customers             hidden  hidden  .        .           .       .        .        .       hidden
customer, of the organisation            hidden  hidden  hidden   hidden      hidden  hidden   hidden   hidden  hidden
customer, its assignee                   hidden  hidden  hidden   hidden      hidden  hidden   hidden   hidden  hidden
customer, author of the remark                   .       .        .           .       .        .        .       hidden
administrator                            SV      NV      PMBDQKV  PMDQV       PMARV   PMBDV    PMEKV    O       .
administrator and engineer               SV      NV      PMBDQKV  PMDQV       PMARV   PMBDV    PMEKV    O       .
administrator and customer               SV      NV      PMBDQKV  PMDQV       PMARV   PMBDV    PMEKV    O       .
auditor                                  .       .       .        .           .       .        .        .       .
"""
# To which state a step leads; where it may be one of two, the request says so.
LEADS_TO = {
    "S": "open", "N": "open", "P": "unchanged", "M": "unchanged", "B": "in_progress", "D": "ready", "Q": "disputed",
    "E": "open", "A": "closed", "R": "returned", "K": "closed", "O": "open", "V": "void",
}  # fmt: skip

LETTERS = dict(zip("SNPMBDQEARKOV", Step, strict=True))
ME, AUTHOR, ASSIGNEE, REPORTER, OTHER, OTHER_ITEM = (UUID(int=number) for number in range(1, 7))
OURS = "ООО «Ромашка»"
TODAY = date(2026, 3, 12)
NOON = datetime(2026, 3, 12, 12, tzinfo=UTC)
ANOTHER = Member(OTHER, "Зоя", SiteRole.CONTRACTOR, "ООО «Лютик»")


@dataclass(frozen=True)
class Item:
    id: UUID = OTHER_ITEM
    kind: ItemKind = ItemKind.DEFECT
    state: WorkState = WorkState.OPEN
    resolution: Resolution | None = None
    severity: str | None = None
    organisation: str = "ООО «Лопух»"
    assignee_id: UUID | None = ASSIGNEE
    assignee_name: str = "Егор"
    author_id: UUID | None = AUTHOR
    done_by_id: UUID | None = REPORTER
    done_by_organisation: str = "ООО «Мак»"
    due_on: date | None = date(2026, 3, 20)
    original_due_on: date | None = date(2026, 3, 20)
    submitted_at: datetime | None = NOON
    first_closed_at: datetime | None = None
    closed_at: datetime | None = None
    reopen_count: int = 0
    visible_to_customer: bool = False
    duplicate_of: UUID | None = None


PARTS = {
    "its author": {"author_id": ME},
    "author of the remark": {"author_id": ME, "kind": ItemKind.CUSTOMER_REMARK},
    "its assignee": {"assignee_id": ME},
    "of the organisation": {"organisation": OURS},
    "reported it done": {"done_by_id": ME},
    "works for who reported it": {"done_by_organisation": OURS},
    "shown to customers": {"visible_to_customer": True},
}


def who_is(described: str) -> Actor:
    role = described.partition(",")[0].removeprefix("administrator and ")
    return Actor(
        ME,
        "Анна",
        None if role in ("administrator", "auditor") else SiteRole(role),
        OURS,
        "",
        override=described.startswith("administrator"),
    )


def items_of(described: str, column: str) -> Iterator[Item]:
    """Each item that a cell of the table is about."""
    part = PARTS.get(described.partition(", ")[2], {})
    for kind in ItemKind:
        is_draft = column in ("draft", "remark")
        if part.get("kind", kind) is not kind or (
            is_draft and (kind is ItemKind.CUSTOMER_REMARK) != (column == "remark")
        ):
            continue
        yield Item(**{"kind": kind, "state": WorkState("draft" if is_draft else column), **part})


def request_of(step: Step, **fields) -> StepRequest:
    """A request with all that a step needs."""
    right = {
        "reason": "так надо", "note": "покрашено", "due_on": date(2026, 4, 1), "outcome": WorkState.OPEN,
        "resolution": Resolution.MISTAKE, "assignee_id": OTHER,
    }  # fmt: skip
    needs = FIELDS[step].needs | ({"assignee_id"} if step is Step.ASSIGN else set()) | {"reason"}
    return StepRequest(step, **{name: right[name] for name in needs} | fields)


def outcome(item: Item, step: Step, actor: Actor) -> int | str:
    """The state that a step leads to, or the status by which it is refused."""
    change = decide(item, request_of(step), actor, TODAY, assignee=ANOTHER)
    if not isinstance(change, Change):
        return status_of(change)
    return change.values["state"].value if "state" in change.values else "unchanged"


_HEAD, *_ROWS = HAND_WRITTEN.strip("\n").splitlines()
COLUMNS = {name: _HEAD.index(f" {name}") + 1 for name in _HEAD.split()}
_ENDS = [*COLUMNS.values(), None][1:]
CELLS = {
    row[:40].strip(): {name: row[start:end].strip() for (name, start), end in zip(COLUMNS.items(), _ENDS, strict=True)}
    for row in _ROWS
}
STATES = tuple(COLUMNS)


def test_the_table_is_about_everybody_and_every_state():
    assert {who_is(person).role for person in CELLS} == {None, *SiteRole}
    assert {item.state for person, column in product(CELLS, STATES) for item in items_of(person, column)} == {
        *WorkState
    }
    assert {letter for row in CELLS.values() for cell in row.values() if cell != "hidden" for letter in cell} == {
        *LETTERS,
        ".",
    }


@pytest.mark.parametrize("person", CELLS)
def test_everybody_may_take_the_steps_of_the_table_and_no_others(person):
    actor = who_is(person)
    row = CELLS[person]
    ever = {letter for cell in row.values() if cell != "hidden" for letter in cell}
    for column in STATES:
        for item in items_of(person, column):
            cell = row[column]
            expected = {}
            for letter, step in LETTERS.items():
                if cell == "hidden":
                    expected[step] = 404
                elif letter in cell:
                    expected[step] = LEADS_TO[letter]
                elif letter in CELLS["administrator"][column]:
                    expected[step] = 403  # somebody may, and not they
                else:
                    expected[step] = 409 if letter in ever else 403  # nobody may here; they could elsewhere, or never
            assert {step: outcome(item, step, actor) for step in Step} == expected, (column, item.kind)
            shown = permitted_steps(item, actor)
            assert {*shown} == {step for step, status in expected.items() if isinstance(status, str)}
            assert len(shown) == len({*shown})


@pytest.mark.parametrize("person", [person for person in CELLS if person.startswith("administrator")])
def test_an_administrator_needs_a_reason_for_what_their_role_does_not_allow(person):
    actor = who_is(person)
    role = person.removeprefix("administrator and ")
    for column in STATES:
        by_role = CELLS.get(role, {}).get(column, "") if role != "administrator" else ""
        for item in items_of(person, column):
            for step in permitted_steps(item, actor):
                letter = next(letter for letter, one in LETTERS.items() if one is step)
                own = letter in by_role.replace("hidden", "")
                change = decide(item, request_of(step), actor, TODAY, assignee=ANOTHER)
                assert change.override is not own
                if "reason" not in FIELDS[step].needs:
                    bare = decide(item, request_of(step, reason=None), actor, TODAY, assignee=ANOTHER)
                    assert own if isinstance(bare, Change) else bare.code == "reason_required"


MANAGER = who_is("manager")
DUE, LATER = date(2026, 3, 20), date(2026, 4, 1)


@pytest.mark.parametrize(
    ("item", "step", "fields", "values", "stamped"),
    [
        # Unless somebody says, the site's rule does; what a draft proposed is no deadline that was moved.
        ({"state": "draft", "due_on": None, "original_due_on": None}, "submit", {},
         {"state": "open", "due_on": LATER, "original_due_on": LATER}, ("submitted_at",)),
        ({"state": "draft", "due_on": DUE, "original_due_on": None}, "submit", {},
         {"state": "open", "original_due_on": DUE}, ("submitted_at",)),
        ({"state": "draft"}, "submit", {"due_on": TODAY},
         {"state": "open", "due_on": TODAY, "original_due_on": TODAY}, ("submitted_at",)),
        ({}, "assign", {},
         {"assignee_id": OTHER, "assignee_name": "Зоя", "organisation": "ООО «Лютик»"}, ()),
        ({}, "assign", {"organisation": "ИП Тополь", "due_on": LATER},
         {"assignee_id": OTHER, "assignee_name": "Зоя", "organisation": "ИП Тополь", "due_on": LATER}, ()),
        # A firm, and no person of it.
        ({}, "assign", {"assignee_id": None, "organisation": "ИП Тополь"},
         {"assignee_id": None, "assignee_name": "", "organisation": "ИП Тополь"}, ()),
        ({"due_on": None, "original_due_on": None}, "assign", {"due_on": LATER, "reason": None},
         {"assignee_id": OTHER, "assignee_name": "Зоя", "organisation": "ООО «Лютик»",
          "due_on": LATER, "original_due_on": LATER}, ()),
        ({}, "move_deadline", {"due_on": LATER}, {"due_on": LATER}, ()),
        ({"due_on": None, "original_due_on": None}, "move_deadline", {"due_on": LATER},
         {"due_on": LATER, "original_due_on": LATER}, ()),
        ({"state": "in_progress", "assignee_id": ME}, "report_done", {},
         {"state": "ready", "done_by_id": ME, "done_by_organisation": OURS}, ()),
        ({"state": "ready"}, "return", {}, {"state": "returned", "done_by_id": None, "done_by_organisation": ""}, ()),
        ({"state": "ready"}, "accept", {}, {"state": "closed", "resolution": "fixed"},
         ("first_closed_at", "closed_at")),
        ({"state": "ready", "first_closed_at": NOON}, "accept", {}, {"state": "closed", "resolution": "fixed"},
         ("closed_at",)),
        ({"state": "disputed"}, "accept_as_is", {}, {"state": "closed", "resolution": "accepted_as_is"},
         ("first_closed_at", "closed_at")),
        ({"state": "disputed"}, "settle", {}, {"state": "open"}, ()),
        ({"state": "disputed"}, "settle", {"outcome": WorkState.VOID, "resolution": Resolution.NO_DEFECT},
         {"state": "void", "resolution": "no_defect"}, ()),
        ({"state": "closed", "resolution": Resolution.FIXED, "closed_at": NOON, "first_closed_at": NOON,
          "reopen_count": 1}, "reopen", {"due_on": LATER},
         {"state": "open", "resolution": None, "closed_at": None, "reopen_count": 2, "due_on": LATER,
          "done_by_id": None, "done_by_organisation": ""}, ()),
        ({}, "void", {"resolution": Resolution.DUPLICATE, "duplicate_of": OTHER},
         {"state": "void", "resolution": "duplicate", "duplicate_of": OTHER}, ()),
    ],
)  # fmt: skip
def test_a_step_changes_what_it_says_and_nothing_else(item, step, fields, values, stamped):
    before = Item(**{"author_id": ME, **item, "state": WorkState(item.get("state", "open"))})
    change = decide(
        before,
        request_of(Step(step), **fields),
        MANAGER,
        TODAY,
        assignee=ANOTHER if fields.get("assignee_id", OTHER) else None,
        original=Item(id=OTHER),
        default_due_on=LATER,
    )
    assert change == Change(values, stamped)


@pytest.mark.parametrize(
    ("step", "fields", "wrong"),
    [
        ("assign", {"assignee_id": None}, {"assignee_id"}),
        ("assign", {"outcome": WorkState.OPEN, "note": "x"}, {"note", "outcome"}),
        ("move_deadline", {"due_on": None, "reason": None}, {"due_on", "reason"}),
        ("start", {"due_on": TODAY}, {"due_on"}),
        ("report_done", {"note": None}, {"note"}),
        ("settle", {"resolution": Resolution.MISTAKE}, {"resolution"}),
        ("settle", {"outcome": WorkState.VOID}, {"resolution"}),
        ("settle", {"outcome": None}, {"outcome"}),
        ("void", {"resolution": None}, {"resolution"}),
        ("void", {"resolution": Resolution.DUPLICATE}, {"duplicate_of"}),
        ("void", {"duplicate_of": OTHER}, {"duplicate_of"}),
        ("reopen", {"due_on": None}, {"due_on"}),
    ],
)
def test_missing_and_unfit_fields_are_named(step, fields, wrong):
    assert {one.field for one in misfit(request_of(Step(step), **fields)).details} == wrong


@pytest.mark.parametrize(
    ("item", "step", "fields", "field"),
    [
        ({}, "move_deadline", {"due_on": TODAY - timedelta(days=1)}, "due_on"),
        ({}, "move_deadline", {"due_on": DUE}, "due_on"),  # as it is
        ({"state": "closed"}, "reopen", {"due_on": TODAY - timedelta(days=1)}, "due_on"),
        ({"state": "draft", "due_on": TODAY - timedelta(days=1)}, "submit", {}, "due_on"),
        ({}, "assign", {"due_on": LATER, "reason": None}, "reason"),
        ({}, "assign", {"assignee_id": ME}, "assignee_id"),  # no member
        ({}, "assign", {"assignee_id": REPORTER}, "assignee_id"),  # a customer
        ({}, "void", {"resolution": Resolution.DUPLICATE, "duplicate_of": ME}, "duplicate_of"),  # no such item
        ({}, "void", {"resolution": Resolution.DUPLICATE, "duplicate_of": Item.id}, "duplicate_of"),
        ({}, "void", {"resolution": Resolution.DUPLICATE, "duplicate_of": REPORTER}, "duplicate_of"),  # void itself
        ({}, "void", {"resolution": Resolution.DUPLICATE, "duplicate_of": AUTHOR}, "duplicate_of"),  # another's draft
    ],
)
def test_what_the_site_does_not_allow_is_refused_by_field(item, step, fields, field):
    before = Item(**{"author_id": ME, **item, "state": WorkState(item.get("state", "open"))})
    members = {REPORTER: Member(REPORTER, "Клим", SiteRole.CUSTOMER), OTHER: ANOTHER}
    items = {
        REPORTER: Item(id=REPORTER, state=WorkState.VOID),
        AUTHOR: Item(id=AUTHOR, state=WorkState.DRAFT),
        Item.id: before,
    }
    request = request_of(Step(step), **fields)
    refusal = decide(
        before,
        request,
        MANAGER,
        TODAY,
        assignee=members.get(request.assignee_id),
        original=items.get(request.duplicate_of),
    )
    assert (status_of(refusal), [one.field for one in refusal.details]) == (400, [field])


def test_naming_the_deadline_again_moves_nothing_even_if_it_has_passed():
    late = Item(due_on=TODAY - timedelta(days=1), original_due_on=TODAY - timedelta(days=1))
    change = decide(late, request_of(Step.ASSIGN, due_on=late.due_on, reason=None), MANAGER, TODAY, assignee=ANOTHER)
    assert change.values.keys() == {"assignee_id", "assignee_name", "organisation"}


def test_the_machine_itself_is_nobody_in_particular():
    local = Actor(None, "local", None, override=True)
    item = Item(state=WorkState.READY, assignee_id=None, author_id=None, done_by_id=None, done_by_organisation="")
    assert decide(item, request_of(Step.ACCEPT), local, TODAY).override
    member = Actor(ME, "Анна", SiteRole.CONTRACTOR)
    assert permitted_steps(replace(item, organisation=""), member) == ()


PAGE = (Path(__file__).parents[3] / "docs" / "work_item_states.md").read_text(encoding="utf-8")


def test_the_diagram_in_the_docs_shows_exactly_the_steps_that_change_the_state():
    diagram = PAGE.partition("```mermaid")[2].partition("```")[0]
    arrows = re.findall(r"^\s*(\w+) --> (\w+): (.*)$", diagram, re.MULTILINE)
    shown = {(before, after, step) for before, after, steps in arrows for step in steps.split(", ")}
    assert shown == {(before, after, rule.step) for rule in TABLE for before in rule.before for after in rule.after}


def test_the_table_in_the_docs_says_who_may_take_which_step_with_what():
    rows = re.findall(r"^\| ([^`|]+) \| (`.*) \|$", PAGE, re.MULTILINE)
    shown = {who: re.findall(r"`(\w+)`(?: \((.*?)\))?", steps) for who, steps in rows}
    assert {who: [step for step, _ in steps] for who, steps in shown.items()} == {
        who: [rule.step for rule in TABLE if rule.who.words == who] for who in {rule.who.words for rule in TABLE}
    }
    for step, needs in itertools.chain(*shown.values()):
        if step != Step.ASSIGN:
            assert {*re.findall(r"`(\w+)`", needs)} == FIELDS[Step(step)].needs
