"""The people of the building sites."""
