"""The orders of the building sites."""
