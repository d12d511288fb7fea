"""What the sites service may do with its tables and functions. What happened it can only add to.

It deletes work items because an author may delete a draft; of others it asks for no such thing.
"""

from servicekit.database.privileges import READ_AND_WRITE

PRIVILEGES = {
    "sites": "SELECT, INSERT, UPDATE",
    "memberships": READ_AND_WRITE,
    "locations": READ_AND_WRITE,
    "calendar_days": READ_AND_WRITE,
    "work_items": READ_AND_WRITE,
    "history": "SELECT, INSERT",
    "removals": "SELECT, INSERT",
    "operations": READ_AND_WRITE,
    "comments": "SELECT, INSERT, UPDATE",
    "watchers": "SELECT, INSERT, DELETE",
    "links": "SELECT, INSERT, DELETE",
    "trigrams": "EXECUTE",
}
