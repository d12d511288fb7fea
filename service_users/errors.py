"""What can go wrong with users.

NotFound  ⊃ UserNotFound
Conflict  ⊃ EmailTaken
"""

from __future__ import annotations

from servicekit.errors import Conflict, FieldError, NotFound


class UserNotFound(NotFound):
    """There is no user with this id."""

    code = "user_not_found"


class EmailTaken(Conflict):
    """Another user already has this e-mail address."""

    code = "email_taken"

    def __init__(self) -> None:
        super().__init__(details=[FieldError("email", "is taken, whatever the case of its letters")])
