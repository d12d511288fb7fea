"""Orders sorted by total, and found by product."""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_PART = 500
_ORDERS = sa.text("""
    SELECT id::text AS id, jsonb_path_query_array(items, '$[*].product') AS products FROM orders
     WHERE id > CAST(:after AS uuid) ORDER BY id LIMIT :part
""")
_KEEP = sa.text("""
    UPDATE orders SET products_key = known.key
      FROM unnest(CAST(:ids AS uuid[]), CAST(:keys AS text[])) AS known (id, key) WHERE orders.id = known.id
""")


def upgrade() -> None:
    op.add_column("orders", sa.Column("products_key", sa.Text(collation="C")))
    _fill(op.get_bind())
    op.alter_column("orders", "products_key", nullable=False)
    op.create_index("ix_orders_total", "orders", ["total_amount", "id"])


def _fill(connection: sa.Connection) -> None:
    # The key is made in Python, whose case folding does not depend on the server's locale.
    after = "00000000-0000-0000-0000-000000000000"
    while orders := connection.execute(_ORDERS, {"after": after, "part": _PART}).all():
        keys = ["\n".join(_comparable(product) for product in order.products) for order in orders]
        connection.execute(_KEEP, {"ids": [order.id for order in orders], "keys": keys})
        after = orders[-1].id


def _comparable(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def downgrade() -> None:
    op.drop_index("ix_orders_total", "orders")
    op.drop_column("orders", "products_key")
