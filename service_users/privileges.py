"""What the users service may do with its tables and functions."""

from servicekit.database.privileges import READ_AND_WRITE, KeptFor

PRIVILEGES = {
    "users": READ_AND_WRITE,
    "site_members": "SELECT, INSERT, DELETE",
    "signing_keys": READ_AND_WRITE,
    "sessions": READ_AND_WRITE,
    "api_keys": READ_AND_WRITE,
    "factors": READ_AND_WRITE,
    "identities": READ_AND_WRITE,
    "sign_ins": READ_AND_WRITE,
    "one_time_tokens": READ_AND_WRITE,
    "throttles": READ_AND_WRITE,
    "revocations": READ_AND_WRITE,
    # What happened stays as it was.
    "audit": "SELECT, INSERT",
    "trigrams": "EXECUTE",
}

KEPT = {"audit": KeptFor("happened_at", days=365)}
