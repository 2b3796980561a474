"""Tests, their winners, and the hours at which contacts engage."""

import sqlalchemy as sa
from alembic import op

from distmark.db import JSON_TYPE, UTCDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the changes."""
    op.create_table(
        "split_entry",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("step_id", sa.String(), nullable=False),
        sa.Column("enrollment_id", sa.Integer(), nullable=False),
        sa.Column("contact_id", sa.Integer(), nullable=False),
        sa.Column("arm", sa.String(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_split_entry")),
        sa.UniqueConstraint("version_id", "step_id", "enrollment_id", name=op.f("uq_split_entry_version_id_step_id_enrollment_id")),
    )
    with op.batch_alter_table("split_entry", schema=None) as batch_op:
        batch_op.create_index("ix_split_entry_contact", ["version_id", "step_id", "contact_id", "at"], unique=False)

    op.create_table(
        "engaged_hour",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("partner_id", sa.Integer(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.id"], name=op.f("fk_engaged_hour_brand_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_engaged_hour")),
        sa.UniqueConstraint("brand_id", "partner_id", "month", "hour", name=op.f("uq_engaged_hour_brand_id_partner_id_month_hour")),
    )
    op.create_table(
        "split_run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("step_id", sa.String(), nullable=False),
        sa.Column("began_at", UTCDateTime(), nullable=True),
        sa.Column("due_at", UTCDateTime(), nullable=True),
        sa.Column("look_at", UTCDateTime(), nullable=True),
        sa.Column("arm", sa.String(), nullable=True),
        sa.Column("decided_at", UTCDateTime(), nullable=True),
        sa.Column("decided_by_id", sa.Integer(), nullable=True),
        sa.Column("numbers", JSON_TYPE, nullable=False),
        sa.ForeignKeyConstraint(["decided_by_id"], ["user_account.id"], name=op.f("fk_split_run_decided_by_id")),
        sa.ForeignKeyConstraint(["version_id"], ["journey_version.id"], name=op.f("fk_split_run_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_split_run")),
        sa.UniqueConstraint("version_id", "step_id", name=op.f("uq_split_run_version_id_step_id")),
    )
