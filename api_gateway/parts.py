"""Merges several services' answers into one page, requested concurrently under one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from api_gateway import headers
from api_gateway.errors import BadUpstreamAnswer
from api_gateway.forward import Call, Lane, Notes, Reply, forward
from api_gateway.route_table import Match, Part
from servicekit.http_server.request import Fields
from servicekit.wire.envelope import Envelope, NotAnEnvelope, dump, failure, scan_envelope, status_of, success
from servicekit.wire.errors import AppError

#: Seconds of the deadline reserved for answering without an optional part that is late.
_MERGE_SECONDS = 0.03
#: Fields of the client's request that are about the page or its form: by their first letters, and by name.
_ABOUT_THE_PAGE = (b"accept", b"content-", b"if-")
_ALSO_ABOUT_THE_PAGE = frozenset({b"a-im", b"idempotency-key", b"last-event-id", b"prefer", b"range"})
#: Without this, any coding would be acceptable (RFC 9110 section 12.5.3), but the parts are read here.
_OURS: Fields = [(b"accept", b"application/json"), (b"accept-encoding", b"identity")]

#: Requests one part from its upstream; raises an AppError when there is no usable answer.
Ask = Callable[[Part], Awaitable[Envelope]]


def fields_for_parts(fields: Fields) -> Fields:
    """The fields to send for each part: the client's, except for those about the page, and our own."""
    passed = [
        field for field in fields if not field[0].startswith(_ABOUT_THE_PAGE) and field[0] not in _ALSO_ABOUT_THE_PAGE
    ]
    return passed + _OURS


async def forward_parts(lanes: Mapping[str, Lane], match: Match, call: Call, notes: Notes) -> Reply:
    """Request every part of a route and return the merged page; raises as `forward` does."""
    parts = match.route.parts
    variables = match.variables
    noted = {part.upstream: Notes() for part in parts}
    retry_after: bytes | None = None

    async def ask(part: Part) -> Envelope:
        nonlocal retry_after
        ends_at = call.ends_at - (_MERGE_SECONDS if part.optional else 0)
        target = part.target_of(variables)
        asked = Call("GET", target, call.fields, None, call.limits, ends_at, call.shortened, call.account)
        reply = await forward(lanes[part.upstream], asked, noted[part.upstream])
        try:
            envelope = scan_envelope(reply.status, reply.body)
        except NotAnEnvelope as error:
            # A redirect or a stream where only an envelope makes sense.
            if reply.stream is not None:
                reply.stream.close()
            raise BadUpstreamAnswer(part.upstream, received=reply.status) from error
        if not part.optional and envelope.error is not None:
            retry_after = headers.get(reply.fields, b"retry-after")
        return envelope

    try:
        page = await merge_parts(parts, ask)
    finally:
        notes.upstream = ",".join(noted)
        notes.circuit = ",".join(str(one.circuit) for one in noted.values())
        notes.attempts = sum(one.attempts for one in noted.values())
        notes.cause = next((one.cause for one in noted.values() if one.cause), None)
    fields: Fields = [(b"content-type", b"application/json"), *headers.GUARDS]
    if page.error is None:
        return Reply(page.status, fields, dump(success(page.data)))
    if retry_after is not None:
        fields.append((b"retry-after", retry_after))
    return Reply(page.status, fields, dump({"success": False, "error": page.error}))


async def merge_parts(parts: Sequence[Part], ask: Ask) -> Envelope:
    """Return the merged page, or a required part's refusal unchanged; raises the AppError of a required part."""
    # Required parts first: a refusal need not wait for the optional ones.
    asked = [(part, asyncio.ensure_future(_ask(part, ask))) for part in sorted(parts, key=lambda part: part.optional)]
    data: dict[str, Any] = {}
    missing: dict[str, Any] = {}
    try:
        for part, task in asked:
            answer = await task
            if answer.error is None:
                try:
                    data |= {
                        name: answer.data if field is None else answer.data[field]
                        for name, field in part.fields.items()
                    }
                    continue
                except (TypeError, LookupError) as error:
                    useless = BadUpstreamAnswer(part.upstream)
                    if not part.optional:
                        raise useless from error
                    answer = _refusal(useless)
            elif not part.optional:
                return answer
            data |= dict.fromkeys(part.fields)
            missing[part.upstream] = {"code": answer.code, "message": answer.message}
    finally:
        for _, task in asked:
            task.cancel()
    data["partial"] = bool(missing)
    return Envelope(200, data | ({"missing": missing} if missing else {}))


async def _ask(part: Part, ask: Ask) -> Envelope:
    try:
        return await ask(part)
    except AppError as error:
        # A bug of ours is not a missing part.
        if not part.optional or status_of(error) == 500:
            raise
        return _refusal(error)


def _refusal(error: AppError) -> Envelope:
    return Envelope(status_of(error), error=failure(error)["error"])
