"""The mail of accounts: the task says which message, and nothing of it. No I/O, no clock."""

from __future__ import annotations

#: Its tasks are made of events of the users service alone.
ACCOUNT_MAIL_TYPE = "account_mail"
