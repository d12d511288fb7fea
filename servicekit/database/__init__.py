"""PostgreSQL: connections, transactions, errors translated once, migrations."""
