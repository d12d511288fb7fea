"""What changed on a site since its reader last asked."""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple
from uuid import UUID

from service_sites.domain.people import Actor, SiteRole
from service_sites.persistence import changes, comments, items, sites
from service_sites.schemas.changes import ChangesQuery, ChangesView, ChangeView
from service_sites.use_cases.comments import audiences_of, comment_view
from service_sites.use_cases.item_views import shown
from service_sites.use_cases.members import actor_of
from servicekit.database.engine import Database
from servicekit.identity.principal import Principal
from servicekit.identity.reach import Reach
from servicekit.identity.roles import Action
from servicekit.process.clock import Clock, utc_now
from servicekit.wire.errors import Invalid

#: How many of a site's changes one request looks through, whoever sees how many of them.
_LOOKED_THROUGH = 10_000


class _Cursor(NamedTuple):
    """How much of a site somebody knows."""

    site_id: UUID
    #: Everything up to this one of the site's changes.
    seq: int
    #: Since when they have the rights by which they know it.
    rights: int

    def __str__(self) -> str:
        text = self.site_id.bytes + self.seq.to_bytes(8) + self.rights.to_bytes(8)
        return base64.urlsafe_b64encode(text).decode("ascii").rstrip("=")

    @classmethod
    def read(cls, site_id: UUID, text: str) -> _Cursor:
        """Raises `Invalid` for anything but a cursor of this site."""
        try:
            read = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            cursor = cls(UUID(bytes=read[:16]), int.from_bytes(read[16:24]), int.from_bytes(read[24:32]))
        except (binascii.Error, ValueError):
            cursor = None
        if cursor is None or len(read) != 32 or cursor.site_id != site_id or max(cursor[1:]) >= 2**63:
            raise Invalid.field("since", "must be the `cursor` of an answer about this site")
        return cursor


class Changes:
    """The use case; thread-safe."""

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def since(
        self, site_id: UUID, query: ChangesQuery, caller: Principal, known: str | None
    ) -> tuple[ChangesView | None, str]:
        """Return the changes that the caller sees, in the order in which they were committed, and the answer's tag;
        None while that is the `known` one. Raises `SiteNotFound`, and `Invalid` for a strange cursor.

        A change's `change_seq` is taken under the site's row lock, so whoever reads one has seen all that are less.
        """
        reach = caller.reach(Action.READ_SITES)
        now = self._clock()
        site = sites.reader(self._database, site_id, caller.user_id, now, reach=reach)
        sent = None if query.since is None else _Cursor.read(site_id, query.since)
        reset = sent is not None and (sent.rights != site.changed_seq or sent.seq > site.change_seq)
        since = 0 if sent is None or reset else sent.seq
        # By the date, things become late.
        parts = (site.change_seq, site.changed_seq, since, query.limit, int(reset), f"{site.today:%Y%m%d}")
        tag = f'"{"-".join(map(str, parts))}"'
        if tag == known:
            return None, tag
        until = min(site.change_seq, since + _LOOKED_THROUGH)
        within = {"since": since, "until": until, "limit": query.limit + 1}
        who = actor_of(site, caller)
        rows = items.changed(self._database, site_id, caller.user_id, now, **within, reach=reach)
        seen = {row.id for row in rows}
        found: list[tuple[int, ChangeView]] = [
            (row.change_seq, _change("item", row.id, item=shown(row, who, caller))) for row in rows
        ]
        said = comments.changed(self._database, site_id, audiences_of(who), **within)
        about = {row.item_id for row in said} - seen
        visible = seen | items.visible(self._database, about, caller.user_id, reach=reach)
        found += [
            (row.change_seq, _change("comment", row.id, comment=comment_view(row, who)))
            for row in said
            if row.item_id in visible
        ]
        gone = changes.removals(self._database, site_id, _audiences(who, reach), **within)
        still = items.visible(self._database, {row.item_id for row in gone}, caller.user_id, reach=reach)
        found += [(row.change_seq, _change("gone", row.item_id)) for row in gone if row.item_id not in still]
        # A source that was cut says nothing of what comes behind its last row.
        for source in (rows, said, gone):
            if len(source) > query.limit:
                until = min(until, source[query.limit - 1].change_seq)
        found = sorted((pair for pair in found if pair[0] <= until), key=lambda pair: pair[0])
        if len(found) > query.limit:
            # What changed at once stays together.
            until = found[query.limit - 1][0]
            found = [pair for pair in found if pair[0] <= until]
        view = ChangesView.unchecked(
            changes=[change for _, change in found],
            cursor=str(_Cursor(site_id, until, site.changed_seq)),
            more=until < site.change_seq,
            reset=reset,
        )
        return view, tag


def _change(kind: str, id: UUID, **about: Any) -> ChangeView:
    return ChangeView.unchecked(kind=kind, id=id, **{"item": None, "comment": None, **about})


def _audiences(who: Actor, reach: Reach) -> list[str]:
    """Those in which somebody hears that an item is gone, as the table of removals names them."""
    named = [f"user:{who.user_id}"]
    if reach.owner is None:
        named.append("all")
    if who.role in (SiteRole.CUSTOMER, SiteRole.MANAGER):
        named.append(who.role.value)
    if who.role is SiteRole.CONTRACTOR and who.organisation:
        named.append(f"organisation:{who.organisation}")
    return named
