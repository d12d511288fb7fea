"""Who stops seeing an item when it changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from uuid import UUID

import pytest

from service_sites.domain.item import ItemKind, WorkState
from service_sites.domain.people import Actor, SiteRole
from service_sites.domain.visibility import lost_sight, sees
from tests.unit.service_sites.test_steps import ASSIGNEE, AUTHOR, OTHER, OURS, Item

SHOWN = Item(organisation=OURS, visible_to_customer=True)
REMARK = replace(SHOWN, kind=ItemKind.CUSTOMER_REMARK, visible_to_customer=False)
FIRM, CUSTOMERS = f"organisation:{OURS}", "customer"


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        (SHOWN, SHOWN, set()),
        (SHOWN, replace(SHOWN, state=WorkState.READY), set()),
        (SHOWN, replace(SHOWN, visible_to_customer=False), {CUSTOMERS}),
        (SHOWN, replace(SHOWN, state=WorkState.VOID), {CUSTOMERS}),
        (REMARK, replace(REMARK, state=WorkState.VOID), {f"user:{AUTHOR}"}),
        (SHOWN, replace(SHOWN, organisation=""), {FIRM}),
        (SHOWN, replace(SHOWN, assignee_id=OTHER), {f"user:{ASSIGNEE}"}),
        (SHOWN, replace(SHOWN, assignee_id=None, organisation="ИП Тополь"), {FIRM, f"user:{ASSIGNEE}"}),
        # Nobody but its author had seen the draft, and a removal would tell that there was one.
        (replace(SHOWN, state=WorkState.DRAFT), replace(SHOWN, state=WorkState.VOID), set()),
        (replace(SHOWN, state=WorkState.DRAFT), replace(SHOWN, state=WorkState.DRAFT, organisation=""), set()),
    ],
)
def test_whoever_may_lose_sight_of_a_change_is_named(before, after, lost):
    assert {*lost_sight(before, after)} == lost


def test_nobody_loses_sight_without_being_named():
    """A reader of whatever role, for any change of what visibility depends on."""
    items = [
        Item(kind=kind, state=state, organisation=organisation, assignee_id=assignee, visible_to_customer=visible)
        for kind in (ItemKind.DEFECT, ItemKind.CUSTOMER_REMARK)
        for state in (WorkState.OPEN, WorkState.CLOSED, WorkState.VOID)
        for organisation in (OURS, "")
        for assignee in (ASSIGNEE, None)
        for visible in (True, False)
    ]
    readers = [Actor(user, "", role, OURS) for user in (UUID(int=9), AUTHOR, ASSIGNEE) for role in SiteRole]
    for before, after, reader in product(items, items, readers):
        if sees(before, reader) and not sees(after, reader) and before.kind is after.kind:
            audiences = {f"user:{reader.user_id}", f"organisation:{reader.organisation}"}
            audiences |= {CUSTOMERS} if reader.role is SiteRole.CUSTOMER else set()
            assert audiences & {*lost_sight(before, after)}, (before, after, reader)
