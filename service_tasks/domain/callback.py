"""Callbacks: the end of a task, POSTed to the address that the task names. No I/O, no clock."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

#: The type of the tasks that deliver callbacks. Only the service makes them, because their requests are signed.
CALLBACK_TYPE = "callback"
#: With the pauses of the type, about ten hours.
CALLBACK_MAX_ATTEMPTS = 20
MAX_CALLBACK_URL_CHARACTERS = 2000
#: characters of JSON above which a callback has a result's address instead of the result
LARGEST_RESULT_IN_CALLBACK = 16 * 1024
SIGNATURE_FIELD = "Siteworks-Signature"


def signature(secrets: Iterable[bytes], timestamp: int, body: bytes) -> str:
    """The value of the header field for a body sent at this Unix time: one HMAC-SHA256 per secret."""
    signed = b"%d." % timestamp + body
    values = [f"v1={hmac.new(secret, signed, hashlib.sha256).hexdigest()}" for secret in secrets]
    return ",".join([f"t={timestamp}", *values])
