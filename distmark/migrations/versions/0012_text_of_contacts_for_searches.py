"""The text of a contact in which searches look."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from distmark.contacts.search import search_text

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

BATCH = 1000
NEXT = """
SELECT id, last_name, first_name, email, company, city, attributes FROM contact WHERE id > :after ORDER BY id LIMIT :batch
"""


def upgrade() -> None:
    """Make the changes."""
    with op.batch_alter_table("contact") as batch_op:
        batch_op.add_column(sa.Column("search_text", sa.String(), nullable=False, server_default=sa.text("''")))
    fill(op.get_bind())


def fill(connection: sa.Connection) -> None:
    """Write the text of every contact."""
    after = 0
    while rows := connection.execute(sa.text(NEXT), {"after": after, "batch": BATCH}).all():
        written = [
            {"id": row.id, "text": search_text(row.last_name, row.first_name, (row.email, row.company, row.city), _read(row.attributes))}
            for row in rows
        ]
        connection.execute(sa.text("UPDATE contact SET search_text = :text WHERE id = :id"), written)
        after = rows[-1].id


def _read(attributes: Any) -> dict[str, Any]:
    read = json.loads(attributes) if isinstance(attributes, str) else attributes  # SQLite holds a text
    return read if isinstance(read, dict) else {}
