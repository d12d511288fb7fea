"""(pure) One-time passwords by time (RFC 6238), as authenticator apps make them: SHA-1, six digits, 30 seconds."""

from __future__ import annotations

import base64
import hmac
from urllib.parse import quote

#: RFC 4226, requirement 6: 160 bits are recommended.
SECRET_BYTES = 20
_DIGITS = 6
_STEP_SECONDS = 30
#: How many steps a clock may be ahead or behind (RFC 6238, section 6).
_APART = 1


def one_time_code(secret: bytes, step: int) -> str:
    """The code of a step, which counts periods of 30 seconds since 1970 (RFC 4226, section 5.3)."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    at = digest[-1] & 0xF
    number = int.from_bytes(digest[at : at + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**_DIGITS).zfill(_DIGITS)


def step_of(secret: bytes, code: str, now: float) -> int | None:
    """The step around `now`, in seconds since 1970, of which this is the code; None if it is of none. The earliest, if
    it is of two."""
    present = int(now) // _STEP_SECONDS
    # All are compared, so that the time it takes tells nothing.
    found = [
        step
        for step in range(present - _APART, present + _APART + 1)
        if hmac.compare_digest(one_time_code(secret, step).encode(), code.encode())
    ]
    return found[0] if found else None


def secret_text(secret: bytes) -> str:
    """The secret as people type it into an app: base32."""
    return base64.b32encode(secret).decode("ascii").rstrip("=")


def otpauth_uri(secret: bytes, *, issuer: str, account: str) -> str:
    """What the QR code for an app holds (the Key URI format of Google Authenticator)."""
    label = f"{quote(issuer, safe='')}:{quote(account, safe='@')}"
    return f"otpauth://totp/{label}?secret={secret_text(secret)}&issuer={quote(issuer, safe='')}"
