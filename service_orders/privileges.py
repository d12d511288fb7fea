"""What the orders service may do with its tables."""

from servicekit.database.privileges import READ_AND_WRITE

PRIVILEGES = {"orders": READ_AND_WRITE}
