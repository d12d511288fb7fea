"""The gateway: one entry to all services."""
