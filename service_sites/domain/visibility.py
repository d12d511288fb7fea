"""(pure) Who sees which work item."""

from __future__ import annotations

from collections.abc import Iterator

from service_sites.domain.item import ItemKind, ItemState, WorkState
from service_sites.domain.people import Actor, SiteRole


def is_own_remark(item: ItemState, actor: Actor) -> bool:
    """Whether somebody made this remark as a customer, and so is shown what they said."""
    return actor.is_person(item.author_id) and item.kind == ItemKind.CUSTOMER_REMARK


def sees(item: ItemState, actor: Actor) -> bool:
    """Whether an item of their site exists for somebody. persistence/items.py says the same in SQL.

    Whoever lost it is told by the feed that it is gone, and no more: neither what becomes of it nor, in reports and
    answers to repeated requests, what was theirs. Who has the work now may be their competitor.
    """
    if actor.override or actor.role is None:
        return True
    is_author = actor.is_person(item.author_id)
    is_remark = item.kind == ItemKind.CUSTOMER_REMARK
    if item.state == WorkState.DRAFT:
        return is_author or (is_remark and actor.role is SiteRole.MANAGER)
    if actor.role is SiteRole.CONTRACTOR:
        return actor.is_person(item.assignee_id) or actor.works_for(item.organisation)
    if actor.role is SiteRole.CUSTOMER:
        return item.state != WorkState.VOID and (item.visible_to_customer or is_own_remark(item, actor))
    return True


def knew_draft(draft: ItemState) -> Iterator[str]:
    """Name the audiences that saw a draft which is deleted; nobody else is told that there was one."""
    yield "all"
    if draft.author_id is not None:
        yield f"user:{draft.author_id}"
    if draft.kind == ItemKind.CUSTOMER_REMARK:
        yield "manager"


def lost_sight(before: ItemState, after: ItemState) -> Iterator[str]:
    """Name the audiences in which somebody may no longer see a changed item, as the table of removals does.

    One of them may still see it for another reason, so whoever reads a removal looks again.
    """
    is_voided = after.state == WorkState.VOID and before.state != WorkState.VOID
    if is_voided and after.kind == ItemKind.CUSTOMER_REMARK and after.author_id is not None:
        yield f"user:{after.author_id}"
    if before.state == WorkState.DRAFT:
        return
    if before.visible_to_customer and (is_voided or not after.visible_to_customer):
        yield "customer"
    if before.organisation not in ("", after.organisation):
        yield f"organisation:{before.organisation}"
    if before.assignee_id not in (None, after.assignee_id):
        yield f"user:{before.assignee_id}"
