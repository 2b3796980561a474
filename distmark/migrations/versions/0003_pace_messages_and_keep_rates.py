"""Pace messages and keep the rates that people set."""

import sqlalchemy as sa
from alembic import op

from distmark.db import UTCDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the changes."""
    op.create_table(
        "pace",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("next_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_pace")),
    )
    op.create_table(
        "send_rate",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("scope", sa.Enum("partner", "campaign", "sending_domain", "destination_domain", name="ratescope"), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("per_hour", sa.Integer(), nullable=False),
        sa.Column("burst", sa.Integer(), nullable=False),
        sa.Column("changed_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.id"], name=op.f("fk_send_rate_brand_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_send_rate")),
        sa.UniqueConstraint("brand_id", "scope", "key", name=op.f("uq_send_rate_brand_id_scope_key")),
    )
