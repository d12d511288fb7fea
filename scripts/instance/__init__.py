"""One *instance* of Siteworks on this machine: a data folder, ports, secrets, PostgreSQL and processes."""
