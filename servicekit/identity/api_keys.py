"""API keys as text: a prefix by which scanners of leaked secrets know them, 256 random bits, and a checksum.

The checksum tells a mistyped or invented key from one of ours without a look into the database.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib

PREFIX = "swk_"
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
#: 43 digits of base 62 hold 256 bits, 6 hold a CRC-32.
_RANDOM, _CHECKSUM = 43, 6
LENGTH = len(PREFIX) + _RANDOM + _CHECKSUM


def new_api_key() -> str:
    """A key that nobody else has."""
    text = PREFIX + _base62(secrets.randbits(256), _RANDOM)
    return text + _checksum(text)


def is_api_key(text: str) -> bool:
    """Whether a text can be one of our keys: its form and its checksum are right. Whose it is, the database knows."""
    if len(text) != LENGTH or not text.startswith(PREFIX) or not set(text[len(PREFIX) :]).issubset(_DIGITS):
        return False
    return text[-_CHECKSUM:] == _checksum(text[:-_CHECKSUM])


def api_key_hash(key: str) -> bytes:
    """As it stands in the key's row: 256 random bits need no slow hash."""
    return hashlib.sha256(key.encode("ascii")).digest()


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode("ascii")), _CHECKSUM)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
