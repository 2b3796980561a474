"""Alarms of messages that cannot be made."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

BEFORE, AFTER = ("late", "dry"), ("late", "dry", "unmade")


def upgrade() -> None:
    """Make the changes."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TYPE alarmkind ADD VALUE IF NOT EXISTS 'unmade'")
        return
    with op.batch_alter_table("alarm") as batch_op:
        batch_op.alter_column(
            "kind", existing_type=sa.Enum(*BEFORE, name="alarmkind"), type_=sa.Enum(*AFTER, name="alarmkind"), existing_nullable=False
        )
