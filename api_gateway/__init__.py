"""The gateway: one door for users, orders and tasks."""
