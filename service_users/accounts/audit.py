"""The audit: what everybody did, and what the gateway refused. Others write to it by `changes.record`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from service_users.accounts.audit_schemas import AppendedView, AuditEntry, AuditPage, AuditQuery, GatewayReport
from service_users.tables import AuditRow, User
from servicekit.database.engine import Database
from servicekit.database.privileges import PRUNED
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import jittered
from servicekit.process.clock import Clock, utc_now
from servicekit.process.lifecycle import Duty, stop_this_process
from servicekit.wire.errors import AppError

#: In seconds.
_PRUNE_EVERY = 3600.0

log = get_logger(__name__)


class AuditPruning(Duty):
    """Has the database remove what is older than AUDIT_KEEP_DAYS, which only the owner of the audit may change."""

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        super().__init__("audit", pause=lambda: jittered(_PRUNE_EVERY), on_death=stop_this_process, clock=clock)
        self._database = database
        self._is_first = True

    def run_once(self, now: datetime) -> None:
        if self._is_first:
            # A process that has just started has other things to do.
            self._is_first = False
            return
        try:
            while not self.stopping and self._database.once("SELECT prune_audit()", {})[0][0] == PRUNED:
                pass
        except AppError as exc:
            log.warning("audit_not_pruned", cause=repr(exc.__cause__ or exc)[:300])


class Audit:
    """The use cases; thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, told: GatewayReport) -> AppendedView:
        """Write what the gateway tells; what was told before is not written again."""
        rows: list[dict[str, Any]] = [
            {
                "id": one.id,
                "happened_at": one.minute,
                "actor": None,
                "action": "request.refused",
                "address": one.address,
                "details": {"reason": one.reason, "count": one.count},
            }
            for one in told.refusals
        ]
        rows += [
            {
                "id": one.id,
                "happened_at": one.at,
                "actor": one.actor,
                "action": "circuit.forced",
                "address": one.address,
                "details": {"circuit": one.circuit, "state": one.state},
            }
            for one in told.circuits
        ]
        with self._database.transaction() as transaction:
            written = transaction.execute(insert(AuditRow).values(rows).on_conflict_do_nothing().returning(AuditRow.id))
            return AppendedView(entries=len(written.all()))

    def page(self, query: AuditQuery) -> AuditPage:
        """One page of the audit, the newest first."""
        conditions: dict[str, Callable[[Any], ColumnElement[bool]]] = {
            "after": AuditRow.id.__lt__,
            "actor": AuditRow.actor.__eq__,
            "subject": AuditRow.subject.__eq__,
            "action": AuditRow.action.__eq__,
            "happened_from": AuditRow.happened_at.__ge__,
            "happened_to": AuditRow.happened_at.__lt__,
        }
        asked = {name: value for name in conditions if (value := getattr(query, name)) is not None}
        given = [conditions[name](value) for name, value in asked.items()]
        # The audit holds no name: it is that of now.
        who, whom = aliased(User), aliased(User)
        names: dict[str, Any] = {"actor_name": who.name, "subject_name": whom.name}
        columns = [
            names[name].label(name) if name in names else getattr(AuditRow, name) for name in AuditEntry.model_fields
        ]
        named = select(*columns).outerjoin(who, who.id == AuditRow.actor).outerjoin(whom, whom.id == AuditRow.subject)
        wanted = named.where(*given).order_by(AuditRow.id.desc()).limit(query.limit + 1)
        with self._database.transaction() as transaction:
            rows = transaction.execute(wanted).all()
        page = rows[: query.limit]
        return AuditPage.unchecked(
            limit=query.limit, next=page[-1].id if len(rows) > query.limit else None, entries=page
        )
