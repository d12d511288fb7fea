"""Entity tags, and changes made only while a resource is as its client last saw it.

RFC 9110 sections 8.8.3 (ETag) and 13.1.1 (If-Match). A change calls `IfMatch.require` on a row that it has locked, or
that it changes only as it was read (servicekit.events.rows): of two clients that saw the same state, only the first
still finds it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import ClassVar

from servicekit.web.encoders import encoder_of
from servicekit.web.schemas import View
from servicekit.wire.errors import Invalid, PreconditionFailed

ETAG = "ETag"
IF_MATCH = "If-Match"
_DIGEST_BYTES = 18
# A tag as in the header field, weak or not; it may contain a comma (section 8.8.3).
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_BETWEEN = re.compile(r"[ \t]*,[ \t,]*")


class Resource(View):
    """A view that represents one resource: successful answers carry an ETag."""

    #: Fields that change by themselves, and do not affect the tag.
    untagged: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def tags_itself(cls) -> bool:
        """Whether its tag is another than that of all that is sent."""
        return bool(cls.untagged) or cls.etag is not Resource.etag

    @property
    def etag(self) -> str:
        """The strong tag of this representation, quoted."""
        return tag_of(encoder_of(type(self), self.untagged)(self).encode())


def tag_of(representation: bytes) -> str:
    """The strong tag of a representation without untagged fields, quoted."""
    digest = hashlib.sha256(representation).digest()[:_DIGEST_BYTES]
    return f'"{base64.urlsafe_b64encode(digest).decode("ascii")}"'


class IfMatch:
    """What a request's If-Match demands of the present state; nothing without the field."""

    def __init__(self, field: str | None = None) -> None:
        """Raises `Invalid` for a field that holds neither `*` nor entity tags."""
        self.is_given = field is not None
        self._tags = None if field is None or field.strip(" \t") == "*" else _tags(field)

    def require(self, present: Resource) -> None:
        """Raise `PreconditionFailed`, with the present tag, unless the client has seen this state.

        The comparison is strong: a weak tag never matches.
        """
        if not self.admits(present.etag):
            raise PreconditionFailed(headers={ETAG: present.etag})

    def admits(self, etag: str) -> bool:
        """Whether the client has seen the state with this strong tag."""
        return self._tags is None or etag in self._tags

    @property
    def tags(self) -> frozenset[str]:
        """The tags that were sent, in their quotes."""
        return self._tags or frozenset()


#: Demands nothing.
ANY_STATE = IfMatch()


def _tags(field: str) -> frozenset[str]:
    """Parse a list of entity tags, skipping empty elements (RFC 9110 section 5.6.1.2)."""
    text = field.strip(" \t,")
    found: set[str] = set()
    at = 0
    while tag := _TAG.match(text, at):
        found.add(tag[0])
        if tag.end() == len(text):
            return frozenset(found)
        between = _BETWEEN.match(text, tag.end())
        if between is None:
            break
        at = between.end()
    raise Invalid.field(IF_MATCH, 'must be * or entity tags in their quotes, such as "x1"')
