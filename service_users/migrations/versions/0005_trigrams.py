"""Users found by part of a name or address."""

from alembic import op

revision = "0005"
down_revision = "0004"

# Without a lock on the table, which may be long; one that an interrupted attempt left is invalid.
_INDEXES = {
    "ix_users_trigrams": "USING gin (trigrams(name_key, email_key))",
}


def upgrade() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION trigrams(name_key text, email_key text) RETURNS tsvector
        LANGUAGE sql IMMUTABLE STRICT COST 10000 AS $$
            SELECT CASE WHEN length(name_key || E'\\n' || email_key) > 4000 THEN 'long'::tsvector ELSE (
                SELECT array_to_tsvector(array_agg(part)) FROM (
                    SELECT c || lead(c, 1, '') OVER following || lead(c, 2, '') OVER following AS part
                      FROM unnest(string_to_array(name_key || E'\\n' || email_key, NULL))
                           WITH ORDINALITY AS characters (c, at)
                    WINDOW following AS (ORDER BY at)) parts) END
        $$
    """)
    with op.get_context().autocommit_block():
        for name, columns in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON users {columns}")
    # A new expression has no statistics yet.
    op.execute("ANALYZE users")


def downgrade() -> None:
    for name in _INDEXES:
        op.drop_index(name, "users")
    op.execute("DROP FUNCTION trigrams(text, text)")
