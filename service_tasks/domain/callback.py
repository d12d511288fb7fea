"""What a callback is: the end of a task, POSTed to the address that the task names. No I/O, no clock."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

#: The type of the tasks that deliver callbacks. The service alone makes them: what they send is signed.
CALLBACK_TYPE = "callback"
#: With the pauses of the type, about ten hours.
CALLBACK_MAX_ATTEMPTS = 20
MAX_CALLBACK_URL_CHARACTERS = 2000
#: characters of JSON above which a result is named in a callback instead of sent
LARGEST_RESULT_IN_CALLBACK = 16 * 1024
SIGNATURE_FIELD = "Siteworks-Signature"


def signature(secrets: Iterable[bytes], timestamp: int, body: bytes) -> str:
    """The header field for a body sent at this second (Unix time): one HMAC-SHA256 for each secret."""
    signed = b"%d." % timestamp + body
    values = [f"v1={hmac.new(secret, signed, hashlib.sha256).hexdigest()}" for secret in secrets]
    return ",".join([f"t={timestamp}", *values])
