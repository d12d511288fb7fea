"""What changed on a site since its reader last asked."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Any, NamedTuple
from uuid import UUID

from service_sites.domain.people import Actor, SiteRole
from service_sites.persistence import changes, sites
from service_sites.persistence.changes import Stretch
from service_sites.persistence.item_rows import with_steps
from service_sites.schemas.changes import ChangesQuery, ChangesView, ChangeView
from service_sites.schemas.comments import CommentView
from service_sites.use_cases.comments import audiences_of, comment_view
from service_sites.use_cases.item_views import may_change, steps_for
from service_sites.use_cases.members import actor_of
from servicekit.database.engine import Database
from servicekit.identity.principal import Principal
from servicekit.identity.reach import Reach
from servicekit.identity.roles import Action
from servicekit.process.clock import Clock, utc_now
from servicekit.web.encoders import encoder_of
from servicekit.wire import memory
from servicekit.wire.envelope import Written
from servicekit.wire.errors import Invalid

#: How many of a site's changes one request looks through, whoever sees how many of them.
_LOOKED_THROUGH = 10_000
#: A cursor moves on by so many changes of which its reader sees nothing, so that they are not always looked through.
_UNSEEN = 1_000


class _Cursor(NamedTuple):
    """How much of a site somebody knows."""

    #: Everything up to this one of the site's changes.
    seq: int
    #: A number for the rights by which they know it.
    rights: int


class _Cursors:
    """Cursors as texts that tell nobody how much happens on a site: equal for equal ones, and sealed with a secret."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"cursors of changes", "sha256")

    def written(self, site_id: UUID, cursor: _Cursor) -> str:
        plain = cursor.seq.to_bytes(8) + cursor.rights.to_bytes(8)
        seal = self._digest(b"seal", site_id.bytes + plain)
        return base64.urlsafe_b64encode(site_id.bytes + seal + self._masked(seal, plain)).decode("ascii")

    def read(self, site_id: UUID, text: str) -> _Cursor | None:
        """None for one that was sealed with another secret. Raises `Invalid` for all that is no cursor of this site."""
        try:
            read = base64.b64decode(text, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            read = b""
        if len(read) != 48 or read[:16] != site_id.bytes:
            raise Invalid.field("since", "must be the `cursor` of an answer about this site")
        seal, plain = read[16:32], self._masked(read[16:32], read[32:])
        if seal != self._digest(b"seal", site_id.bytes + plain):
            return None
        return _Cursor(int.from_bytes(plain[:8]), int.from_bytes(plain[8:]))

    def _masked(self, seal: bytes, text: bytes) -> bytes:
        return bytes(one ^ other for one, other in zip(text, self._digest(b"mask", seal), strict=True))

    def _digest(self, purpose: bytes, text: bytes) -> bytes:
        return hmac.digest(self._key, purpose + text, "sha256")[:16]


class Changes:
    """The use case; thread-safe. `secret` is known to all processes of the service, and to nobody else."""

    def __init__(self, database: Database, secret: str = "", *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock
        self._cursors = _Cursors(secret)

    def since(
        self, site_id: UUID, query: ChangesQuery, caller: Principal, known: str | None
    ) -> tuple[ChangesView | None, str]:
        """Return the changes that the caller sees, in the order in which they were committed, and the answer's tag;
        None while that is the `known` one. Raises `SiteNotFound`, and `Invalid` for a strange cursor.

        A change's `change_seq` is taken under the site's row lock, so whoever reads one has seen all that are less.
        Cursor and tag stay as they are while the caller sees nothing new, or they would tell how much others do: they
        move on by a thousand changes at the least.
        """
        reach = caller.reach(Action.READ_SITES)
        site = sites.reader(self._database, site_id, caller.user_id, self._clock(), reach=reach)
        sent = None if query.since is None else self._cursors.read(site_id, query.since)
        rights = _rights(site, caller)
        knows = sent is not None and sent.rights == rights and sent.seq <= site.change_seq
        since = sent.seq if sent is not None and knows else 0
        reset = query.since is not None and not knows
        found, until = self._found(site, query, caller, since)
        more = until < site.change_seq
        if not more:
            until = max(found[-1][0] if found else since, until - until % _UNSEEN)
        cursor = self._cursors.written(site_id, _Cursor(until, rights))
        # By the date, things become late.
        parts = (cursor, query.since, query.limit, reset, site.today)
        tag = f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'
        if tag == known:
            return None, tag
        shown = [change for _, change in found]
        return ChangesView.unchecked(changes=shown, cursor=cursor, more=more, reset=reset), tag

    def _found(
        self, site: Any, query: ChangesQuery, caller: Principal, since: int
    ) -> tuple[list[tuple[int, ChangeView]], int]:
        """The changes behind one that the caller sees, each with its number, and up to which they are all."""
        reach = caller.reach(Action.READ_SITES)
        until = min(site.change_seq, since + _LOOKED_THROUGH)
        if until == since:
            return [], until
        stretch = Stretch(site.id, caller.user_id, since, until, query.limit)
        who = actor_of(site, caller)
        permitted, encode = steps_for(caller), encoder_of(CommentView)
        items = changes.items(self._database, stretch, self._clock(), may_change(caller), reach=reach)
        said = changes.comments(self._database, stretch, audiences_of(who), reach=reach)
        gone = changes.removals(self._database, stretch, _audiences(who, reach), reach=reach)
        found: list[tuple[int, ChangeView]] = [
            *((row.change_seq, _change("item", row.id, with_steps(row.item, permitted))) for row in items.rows),
            *(
                (row.change_seq, _change("comment", row.id, Written(encode(comment_view(row, who)))))
                for row in said.rows
            ),
            *((row.change_seq, _change("gone", row.item_id)) for row in gone.rows),
        ]
        until = min(items.until, said.until, gone.until)
        found = sorted((pair for pair in found if pair[0] <= until), key=lambda pair: pair[0])
        if len(found) > query.limit:
            # What changed at once stays together.
            until = found[query.limit - 1][0]
            found = [pair for pair in found if pair[0] <= until]
        return found, until


def _rights(site: Any, caller: Principal) -> int:
    """Another number for other rights: on the site, in the whole system, or to change anything."""
    rights = (site.changed_seq, caller.role, may_change(caller))
    return int.from_bytes(hashlib.sha256(repr(rights).encode()).digest()[:8])


def _change(kind: str, id: UUID, what: Written | None = None) -> ChangeView:
    if what is not None:
        memory.take_written(what.encoded_json)
    item, comment = (what if kind == one else None for one in ("item", "comment"))
    return ChangeView.unchecked(kind=kind, id=id, item=item, comment=comment)


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
