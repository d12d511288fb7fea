"""When a signing key is published, signs, and is no longer needed. Pure; times are in seconds since 1970.

made ──AHEAD──▶ signs ──until the next one signs──▶ verifies only ──KEPT──▶ gone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from servicekit.identity.keys import SigningKey
from servicekit.identity.tokens import LIFETIME, SKEW

#: How long a key is published before it signs: longer than any verifier goes without asking for keys.
AHEAD = 600
#: How long it is published after another one signs: until its last token has expired, whichever clock is ahead.
KEPT = LIFETIME + 2 * SKEW


@dataclass(frozen=True, slots=True)
class DatedKey:
    """A signing key, and when it was made, from which time on it is published."""

    made_at: float
    key: SigningKey


def signing_key(keys: Sequence[DatedKey], now: float) -> DatedKey:
    """The key that signs: the newest that everybody knows, or the first one ever made. `keys` must not be empty."""
    known = [one for one in keys if one.made_at + AHEAD <= now]
    return max(known, key=_age) if known else min(keys, key=_age)


def keys_needed(keys: Sequence[DatedKey], now: float) -> list[DatedKey]:
    """The keys to publish, the oldest first; others may be deleted."""
    ordered = sorted(keys, key=_age)
    successors = [*ordered[1:], None]
    return [
        one
        for one, next_one in zip(ordered, successors, strict=True)
        if next_one is None or now <= next_one.made_at + AHEAD + KEPT
    ]


def _age(one: DatedKey) -> float:
    return one.made_at
