"""The building sites: their people, places and calendars, and the work that is to be done there."""
