"""The gateway beside the usual ways to put one process in front of services."""
