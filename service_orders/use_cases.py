"""The use cases of orders: one method, one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from service_orders import events, repository
from service_orders.domain import (
    OrderStatus,
    require_deletable,
    require_items_changeable,
    step,
    total_of,
)
from service_orders.errors import UnknownUser
from service_orders.schemas import Item, ItemView, OrderCreate, OrderPage, OrderQuery, OrderUpdate, OrderView
from service_orders.users_client import UserDirectory
from servicekit.database.engine import Database
from servicekit.events import outbox, tombstones
from servicekit.events.cloudevents import Event, SubjectId, read_data
from servicekit.identity.reach import Reach
from servicekit.process.clock import Clock, utc_now
from servicekit.process.ids import new_id
from servicekit.web import idempotency
from servicekit.web.idempotency import Made, RequestKey
from servicekit.web.preconditions import ANY_STATE, IfMatch
from servicekit.wire import memory
from servicekit.wire.caseless import comparable
from servicekit.wire.envelope import dump
from servicekit.wire.errors import Forbidden

#: How many of a deleted user's orders are changed at a time.
_PART = 500


class Orders:
    """The use cases; thread-safe."""

    def __init__(self, database: Database, users: UserDirectory, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._users = users
        self._clock = clock

    def create(
        self, wanted: OrderCreate, key: RequestKey | None = None, *, reach: Reach, token: str = ""
    ) -> Made[OrderView]:
        """Store a new order, or return the one that the same request made before. `token` is the caller's.

        Raises `IdempotencyKeyReused`; `OrderNotFound` if that order was deleted; `UnknownUser`, `TotalTooLarge` and
        `UsersUnavailable`, with nothing stored; and `Forbidden` for the order of somebody out of reach.
        """
        if reach.owner not in (None, wanted.user_id):
            raise Forbidden.field("user_id", "must be your own")
        if key is not None:
            key = key.within(reach)
            # Looked up first: a repetition needs neither the users service nor its user.
            earlier = idempotency.find_made(self._database, key)
            if earlier is not None:
                return Made(self.get(earlier, reach=reach), replayed=True)
        total = _total(wanted.items)
        # First, so that nothing waits in the database while another service answers.
        if not self._users.exists(wanted.user_id, token):
            raise UnknownUser
        now = self._clock()
        items = _stored(wanted.items)
        shown = {
            "user_id": wanted.user_id,
            "status": OrderStatus.CREATED.value,
            "total_amount": total,
            "cancel_reason": None,
            "created_at": now,
            "updated_at": now,
        }
        order = OrderView.unchecked(id=new_id(), items=_items(items), **shown)
        values = {
            **shown,
            "id": order.id,
            "items": _json(items),
            "products_key": _products_key(wanted.items),
        }
        made = repository.add(self._database, values, events.created(order), key, reach=reach)
        if made is None:
            # Deleted since the check.
            raise UnknownUser
        return Made(order) if made == order.id else Made(self.get(made, reach=reach), replayed=True)

    def get(self, order_id: UUID, *, reach: Reach) -> OrderView:
        """Return one order. Raises `OrderNotFound`."""
        return _view(repository.ROWS.find(self._database, order_id, reach=reach))

    def search(self, query: OrderQuery, *, reach: Reach) -> OrderPage:
        """Return one page of orders.

        Raises `Invalid` for an `after` that was not the `next` of a page, or an `offset` that goes too far, and
        `Overloaded` while other requests hold too much memory.
        """
        found = repository.search(
            self._database,
            query,
            reach=reach,
            user_id=query.owner,
            status=query.status,
            part=None if query.product is None else comparable(query.product),
        )
        memory.take_written(found.rows.encoded_json)
        return OrderPage.unchecked(
            total=found.total,
            total_is_exact=found.total_is_exact,
            limit=min(query.limit, found.shown) if found.next else query.limit,
            offset=query.offset,
            next=found.next,
            total_amount=found.sum,
            orders=found.rows,
        )

    def update(self, order_id: UUID, change: OrderUpdate, if_match: IfMatch = ANY_STATE, *, reach: Reach) -> OrderView:
        """Change items, status or both. With both, the present status decides whether the items may change.

        Raises `OrderNotFound`, `PreconditionFailed`, `OrderStateConflict` and `TotalTooLarge`.
        """
        values = change.named()
        while True:
            order = repository.ROWS.find(self._database, order_id, reach=reach)
            view = _view(order)
            if_match.require(view)
            change.require_unchanged(view)
            present = OrderStatus(order.status)
            changed: dict[str, Any] = {}
            if "items" in values and (items := _stored(change.items)) != order.items:
                require_items_changeable(present)
                changed["items"] = items
                changed["total_amount"] = _total(change.items)
                changed["products_key"] = _products_key(change.items)
            if "status" in values and (status := step(present, OrderStatus(change.status))) is not present:
                changed["status"] = status.value
            if not changed:
                return view
            changed["updated_at"] = max(self._clock(), order.created_at)
            after = _view(order, **changed)
            event = events.status_changed(after, present) if "status" in changed else None
            if "items" in changed:
                changed["items"] = _json(changed["items"])
            if repository.ROWS.update(self._database, order, changed, event, reach=reach):
                return after

    def delete(self, order_id: UUID, if_match: IfMatch = ANY_STATE, *, reach: Reach) -> OrderView:
        """Remove and return an order. Raises `OrderNotFound`, `PreconditionFailed` and `OrderStateConflict`."""
        while True:
            order = repository.ROWS.find(self._database, order_id, reach=reach)
            view = _view(order)
            if_match.require(view)
            require_deletable(OrderStatus(order.status))
            if repository.ROWS.delete(self._database, order, events.deleted(view, self._clock()), reach=reach):
                return view

    def user_deleted(self, session: Session, event: Event) -> None:
        """Cancel the user's open orders, and refuse new ones from now on. Raises `Invalid` for bad data."""
        user_id = read_data(SubjectId, event).id
        tombstones.bury(session, user_id, event.time)
        # One transaction, but in parts: a user may have any number of orders.
        while orders := repository.cancel_open(session, user_id, self._clock(), _PART):
            outbox.add_all(session, [events.status_changed(order, order.old_status) for order in orders])


def _total(items: Sequence[Item]) -> Decimal:
    return total_of((item.quantity, item.price) for item in items)


def _stored(items: Sequence[Item]) -> list[dict[str, Any]]:
    # Always two decimals, so that prices look the same however a client wrote them.
    return [
        {"product": item.product, "quantity": item.quantity, "price": item.price.quantize(Decimal("0.01"))}
        for item in items
    ]


def _items(stored: Sequence[Mapping[str, Any]]) -> list[ItemView]:
    return [ItemView.unchecked(**item) for item in stored]


def _products_key(items: Sequence[Item]) -> str:
    return "\n".join(comparable(item.product) for item in items)


def _json(items: Sequence[Mapping[str, Any]]) -> str:
    return dump(items).decode("utf-8")


def _view(order: Any, **changed: Any) -> OrderView:
    """The view of a row, with these columns changed."""
    values = {name: changed.get(name, getattr(order, name)) for name in OrderView.model_fields}
    return OrderView.unchecked(**values | {"items": _items(values["items"])})
