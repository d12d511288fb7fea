"""What the users service may do with its tables."""

from servicekit.database.privileges import READ_AND_WRITE

PRIVILEGES = {"users": READ_AND_WRITE}
