"""One *instance* of Siteworks on this machine: a data folder, its ports, its secrets, PostgreSQL and the processes."""
