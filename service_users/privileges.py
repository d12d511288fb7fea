"""What the users service may do with its tables and functions."""

from servicekit.database.privileges import READ_AND_WRITE

PRIVILEGES = {"users": READ_AND_WRITE, "trigrams": "EXECUTE"}
