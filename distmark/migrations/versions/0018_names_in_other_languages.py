"""Names of partners and campaigns in other languages than their own."""

import sqlalchemy as sa
from alembic import op

from distmark.db import JSON_TYPE

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the changes."""
    for table in ("partner", "campaign"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("translations", JSON_TYPE, nullable=False, server_default=sa.text("'{}'")))
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.alter_column("translations", server_default=None)
