"""Indices for operations: who is held, who is parked, and which messages are uncertain."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

HELD = "status = 'waiting' AND why = 'held'"
PARKED = "status = 'parked'"
UNCERTAIN = "status = 'uncertain'"


def upgrade() -> None:
    """Make the changes."""
    _index("ix_enrollment_held", "enrollment", ["brand_id"], HELD)
    _index("ix_enrollment_parked", "enrollment", ["brand_id", "id"], PARKED)
    _index("ix_message_uncertain", "message", ["brand_id", "id"], UNCERTAIN)


def _index(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
