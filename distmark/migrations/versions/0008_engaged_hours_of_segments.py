"""The hours at which the people of a segment engage."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the changes."""
    op.create_table(
        "segment_hour",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("segment_id", sa.Integer(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["segment_id"], ["segment.id"], name=op.f("fk_segment_hour_segment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segment_hour")),
        sa.UniqueConstraint("segment_id", "month", "hour", name=op.f("uq_segment_hour_segment_id_month_hour")),
    )
