"""The key from which everything secret of accounts derives. It is kept outside the database."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os

_BYTES = 32
_NONCE = 12


class AuthKey:
    """A key of 32 random bytes. Each purpose has one of its own, derived from it (RFC 5869)."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != _BYTES:
            raise ValueError(f"must be {_BYTES} bytes")
        self._secret = secret

    @classmethod
    def read(cls, text: str) -> AuthKey:
        """Read it as base64url, padded or not; raises ValueError, which does not quote it."""
        text = text.strip().rstrip("=")
        try:
            secret = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("must be base64url") from None
        return cls(secret)

    def derived(self, purpose: str) -> bytes:
        """The 32 bytes of one purpose: HKDF-Expand of one block."""
        return hmac.digest(self._secret, purpose.encode() + b"\x01", hashlib.sha256)


class Signer:
    """Signs short messages (HMAC-SHA256) that we shall read again ourselves, as base64url after a prefix."""

    def __init__(self, key: AuthKey, purpose: str, prefix: str) -> None:
        self._key = key.derived(purpose)
        self._prefix = prefix

    def sign(self, message: bytes) -> str:
        signed = message + hmac.digest(self._key, message, hashlib.sha256)
        return self._prefix + base64.urlsafe_b64encode(signed).decode("ascii").rstrip("=")

    def read(self, text: str, length: int) -> bytes | None:
        """The message of `length` bytes that we have signed as this text, to the letter; None for any other text."""
        try:
            encoded = text.removeprefix(self._prefix)
            message = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))[:length]
        except (binascii.Error, ValueError):
            return None
        own = self.sign(message)
        return message if len(message) == length and hmac.compare_digest(own.encode(), text.encode()) else None


class Box:
    """Encrypts what is stored (AES-256-GCM), bound to the name of its row."""

    def __init__(self, key: AuthKey, purpose: str) -> None:
        # Not needed where nobody logs in.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._invalid = InvalidTag
        self._cipher = AESGCM(key.derived(purpose))

    def seal(self, plain: bytes, name: str) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, plain, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes | None:
        """What was sealed under this name; None if it was sealed with another key, or changed."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], name.encode())
        except (self._invalid, ValueError):
            return None
