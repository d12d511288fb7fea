"""A fast path for heads: parses the plainest requests and answers, which nearly all are. Pure.

A plain message arrives whole, with one well-formed line per field, and without fields that determine its framing (but
one Content-Length) or the connection. For everything else the result is None, and a full parser
(gunicorn's, or httptools for answers) decides whether and how to refuse it. So this module refuses nothing and accepts
strictly less than they do; tests hold it to that.
"""

from __future__ import annotations

import re
from functools import lru_cache

from servicekit.http_server.request import NO_BODY, Fields, RequestBody, RequestFields

#: Below every limit of gunicorn.conf.py on request line, field line and number of fields.
MAX_REQUEST = 4096
#: Of a request; it is held until its answer, beside what is made of it.
MAX_BODY = 4096
MAX_REQUEST_FIELDS = 50
MAX_ANSWER_HEAD = 16 * 1024
MAX_ANSWER_FIELDS = 100

# Possessive within a line, so that a mismatch costs no more than a match; not across lines: Python 3.11.2 continues
# after a repetition that failed half-way. No `_` in names: gunicorn has its own rules for them. No space at the end of
# a value: only the full parser strips it.
_LINES = re.compile(rb"(?:[!#$%&'*+.^`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+(?<![\t ])\r\n)*\r\n")
_LINE = re.compile(rb"([^:\r]++):[ \t]*+([^\r]*+)\r\n")
_REQUEST_LINE = re.compile(rb"(?!CONNECT)([A-Z]{3,20}+) (/[\x21-\x7e]*+) HTTP/1\.1\r\n")
#: As clients write it, after its first letter.
_CREDENTIAL = b"uthorization: "
#: Where those fields of a head begin that no other has. Our gateway sends them last.
_OF_ONE_REQUEST = b"\r\nx-request-id: "
_VISIBLE = bytes(range(0x21, 0x7F))
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*+\r\n")

#: Fields that determine the framing or the connection.
_NOT_PLAIN = frozenset(
    {b"connection", b"content-length", b"expect", b"http2-settings", b"transfer-encoding", b"upgrade"}
)
#: At most one each; the full parser handles duplicates.
_SINGLE = frozenset({b"content-length", b"content-type", b"host"})
_MOST_DIGITS = 9
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,9})\r\n")


class PlainRequest:
    """A whole request, with the attributes that gunicorn's connection expects."""

    __slots__ = ("body", "fields", "method", "raw", "uri")

    version = (1, 1)

    def __init__(self, method: str, uri: str, fields: RequestFields, body: RequestBody, raw: bytes) -> None:
        self.method = method
        self.uri = uri
        self.fields = fields
        self.body = body
        #: The bytes it was parsed from.
        self.raw = raw

    def should_close(self) -> bool:
        return False

    def may_upgrade(self) -> bool:
        return False


def read_request(data: bytes) -> PlainRequest | None:
    """The single request in `data`, or None if it is not plain."""
    line = _REQUEST_LINE.match(data)
    if line is None:
        return None
    # An empty line before the last one is found when the fields are read first.
    end = len(data) if data.endswith(b"\r\n\r\n") else data.find(b"\r\n\r\n", line.end() - 2) + 4
    if not line.end() < end <= MAX_REQUEST:
        return None
    at = data.find(_CREDENTIAL, line.end(), end) - 1
    own = data.find(_OF_ONE_REQUEST, line.end() - 2, end if at < 0 else at) + 2
    fields = None
    if own >= 2:
        fields = _fields_with_own(data[line.end() : own], data[own:end])
    elif at >= 0:
        fields = _fields_with_credential(data, line.end(), at, end)
    if fields is None:
        fields = _request_fields(data[line.end() : end])
    if fields is None:
        return None
    length = fields.first.get(b"content-length")
    if len(data) - end != (0 if length is None else int(length)) or len(data) - end > MAX_BODY:
        return None
    body = NO_BODY if length is None else RequestBody(fields, whole=data[end:])
    return PlainRequest(line[1].decode("ascii"), line[2].decode("ascii"), fields, body, data)


def lacks_body(data: bytes) -> bool:
    """Whether `data` is a plain request that only its body is missing from. Many clients send the two apart."""
    length = _LENGTH.search(data) if data.endswith(b"\r\n\r\n") else None
    missing = 0 if length is None else int(length[1])
    return 0 < missing <= MAX_BODY and read_request(data + bytes(missing)) is not None


def read_answer(data: bytes) -> tuple[int, Fields, bytes] | None:
    """Status, fields and body of the single answer in `data`, or None if it is not plain."""
    line = _STATUS_LINE.match(data)
    if line is None:
        return None
    end = data.find(b"\r\n\r\n", line.end() - 2) + 4
    if not line.end() < end <= MAX_ANSWER_HEAD:
        return None
    fields: Fields = []
    length = -1
    for name, value in _pairs(data[line.end() : end]):
        name = name.lower()
        if name in _NOT_PLAIN and not _is_keep_alive(name, value):
            if length >= 0 or not _is_length(name, value):
                return None
            length = int(value)
        fields.append((name, value))
    if length != len(data) - end or len(fields) > MAX_ANSWER_FIELDS:
        return None
    return int(line[1]), fields, data[end:]


def _fields_with_credential(data: bytes, begin: int, at: int, end: int) -> RequestFields | None:
    """The same as `_request_fields`, for a head with an Authorization that may begin at `at`; None if it does not, or
    is not as clients write it. No credential is kept, and clients that differ in nothing else share the rest."""
    if data[at - 2 : at + 1] not in (b"\r\nA", b"\r\na"):
        return None
    # Of one byte, which is found ten times as fast as two.
    behind = data.index(b"\r", at)
    value = data[at + 1 + len(_CREDENTIAL) : behind]
    # A word, a space, and a word without any; twice as fast as a regular expression.
    space = value.find(b" ")
    if value.translate(None, _VISIBLE) != b" " or not value[:space].isalpha() or space + 1 == len(value):
        return None
    if data[behind + 1 : behind + 2] != b"\n":
        return None
    before = data[begin:at]
    others = _request_fields(before + data[behind + 2 : end])
    if others is None or b"authorization" in others.first or len(others.pairs) == MAX_REQUEST_FIELDS:
        return None
    return others.with_authorization(value, before)


def _fields_with_own(shared: bytes, own: bytes) -> RequestFields | None:
    """The same as `_request_fields`, for a head that begins with lines that other requests share; None where the two
    parts have a name in common, or the second has a Host."""
    others = _request_fields(shared + b"\r\n")
    pairs = [(name.lower(), value) for name, value in _pairs(own)]
    names = {name for name, _ in pairs}
    if others is None or not 0 < len(pairs) == len(names) <= MAX_REQUEST_FIELDS - len(others.pairs):
        return None
    if b"host" in names or not names.isdisjoint(others.first) or not all(_is_plain(*pair) for pair in pairs):
        return None
    return others.with_own(pairs)


@lru_cache(maxsize=1024)
def _request_fields(lines: bytes) -> RequestFields | None:
    """The fields of a plain request. Cached, because clients repeat the same head."""
    if (b"\r\n%b" % lines).find(b"\r\n\r\n") != len(lines) - 2:
        return None
    fields = [(name.lower(), value) for name, value in _pairs(lines)]
    names = [name for name, _ in fields]
    if not 0 < len(fields) <= MAX_REQUEST_FIELDS or any(names.count(name) > 1 for name in _SINGLE):
        return None
    return RequestFields(fields) if all(_is_plain(*field) for field in fields) else None


def _pairs(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values of the field lines, including the empty line that ends `lines`; empty if they are not plain, or
    if there are none (which is not plain either). The regular expression alone is not trusted to find that end: nothing
    may be answered before the whole head is here."""
    return _LINE.findall(lines) if lines.endswith(b"\r\n\r\n") and _LINES.fullmatch(lines) is not None else []


def _is_plain(name: bytes, value: bytes) -> bool:
    return name not in _NOT_PLAIN or _is_keep_alive(name, value) or _is_length(name, value)


def _is_keep_alive(name: bytes, value: bytes) -> bool:
    return name == b"connection" and value.lower() == b"keep-alive"


def _is_length(name: bytes, value: bytes) -> bool:
    return name == b"content-length" and value.isdigit() and len(value) <= _MOST_DIGITS
