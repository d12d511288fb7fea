"""Errors of the users service.

NotFound  ⊃ UserNotFound
Conflict  ⊃ EmailTaken
Unavailable ⊃ TooManyPasswords
"""

from __future__ import annotations

from servicekit.wire.errors import Conflict, FieldError, NotFound, Unavailable


class UserNotFound(NotFound):
    """There is no user with this id."""

    code = "user_not_found"


class EmailTaken(Conflict):
    """Another user already has this e-mail address."""

    code = "email_taken"

    def __init__(self) -> None:
        super().__init__(details=[FieldError("email", "is taken, whatever the case of its letters")])


class TooManyPasswords(Unavailable):
    """Too many passwords wait to be hashed; try again.

    Half of the service's threads hash passwords or wait for it: more cores, more processes of the users service.
    """

    code = "too_many_passwords"

    def __init__(self) -> None:
        super().__init__(retry_after=1)
