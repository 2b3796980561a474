"""Lasting pauses, moves between versions and alarms."""

import sqlalchemy as sa
from alembic import op

from distmark.db import JSON_TYPE, UTCDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the changes."""
    op.create_table(
        "alarm",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("journey_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Enum("late", "dry", name="alarmkind"), nullable=False),
        sa.Column("detail", JSON_TYPE, nullable=False),
        sa.Column("raised_at", UTCDateTime(), nullable=False),
        sa.Column("cleared_at", UTCDateTime(), nullable=True),
        sa.Column("told_raised_at", UTCDateTime(), nullable=True),
        sa.Column("told_cleared_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.id"], name=op.f("fk_alarm_brand_id")),
        sa.ForeignKeyConstraint(["journey_id"], ["journey.id"], name=op.f("fk_alarm_journey_id")),
        sa.ForeignKeyConstraint(["version_id"], ["journey_version.id"], name=op.f("fk_alarm_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm")),
    )
    with op.batch_alter_table("alarm", schema=None) as batch_op:
        batch_op.create_index("ix_alarm_brand", ["brand_id", "id"], unique=False)
        batch_op.create_index(
            "ix_alarm_open",
            ["version_id", "kind"],
            unique=True,
            sqlite_where=sa.text("cleared_at IS NULL"),
            postgresql_where=sa.text("cleared_at IS NULL"),
        )

    op.create_table(
        "restraint",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Enum("paused", "draining", name="restraintkind"), nullable=False),
        sa.Column("journey_id", sa.Integer(), nullable=True),
        sa.Column("version_id", sa.Integer(), nullable=True),
        sa.Column("campaign_id", sa.Integer(), nullable=True),
        sa.Column("partner_id", sa.Integer(), nullable=True),
        sa.Column("contact_id", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("by_id", sa.Integer(), nullable=True),
        sa.Column("by_partner", sa.Boolean(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("lifted_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.id"], name=op.f("fk_restraint_brand_id")),
        sa.ForeignKeyConstraint(["by_id"], ["user_account.id"], name=op.f("fk_restraint_by_id")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_restraint_campaign_id")),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_restraint_contact_id")),
        sa.ForeignKeyConstraint(["journey_id"], ["journey.id"], name=op.f("fk_restraint_journey_id")),
        sa.ForeignKeyConstraint(["partner_id"], ["partner.id"], name=op.f("fk_restraint_partner_id")),
        sa.ForeignKeyConstraint(["version_id"], ["journey_version.id"], name=op.f("fk_restraint_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_restraint")),
    )
    with op.batch_alter_table("restraint", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_restraint_contact_id"), ["contact_id"], unique=False)
        batch_op.create_index(
            "ix_restraint_open",
            ["brand_id"],
            unique=False,
            sqlite_where=sa.text("lifted_at IS NULL"),
            postgresql_where=sa.text("lifted_at IS NULL"),
        )

    op.create_table(
        "version_move",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("journey_id", sa.Integer(), nullable=False),
        sa.Column("from_version_id", sa.Integer(), nullable=False),
        sa.Column("to_version_id", sa.Integer(), nullable=False),
        sa.Column("steps", JSON_TYPE, nullable=False),
        sa.Column("moved", sa.Integer(), nullable=False),
        sa.Column("by_id", sa.Integer(), nullable=True),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("undone_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.id"], name=op.f("fk_version_move_brand_id")),
        sa.ForeignKeyConstraint(["by_id"], ["user_account.id"], name=op.f("fk_version_move_by_id")),
        sa.ForeignKeyConstraint(["from_version_id"], ["journey_version.id"], name=op.f("fk_version_move_from_version_id")),
        sa.ForeignKeyConstraint(["journey_id"], ["journey.id"], name=op.f("fk_version_move_journey_id")),
        sa.ForeignKeyConstraint(["to_version_id"], ["journey_version.id"], name=op.f("fk_version_move_to_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_version_move")),
    )
    with op.batch_alter_table("version_move", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_version_move_journey_id"), ["journey_id"], unique=False)

    op.create_table(
        "earlier_position",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_move_id", sa.Integer(), nullable=False),
        sa.Column("enrollment_id", sa.Integer(), nullable=False),
        sa.Column("wakes", sa.Integer(), nullable=False),
        sa.Column("position", JSON_TYPE, nullable=False),
        sa.ForeignKeyConstraint(["enrollment_id"], ["enrollment.id"], name=op.f("fk_earlier_position_enrollment_id")),
        sa.ForeignKeyConstraint(["version_move_id"], ["version_move.id"], name=op.f("fk_earlier_position_version_move_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_earlier_position")),
        sa.UniqueConstraint("version_move_id", "enrollment_id", name=op.f("uq_earlier_position_version_move_id_enrollment_id")),
    )
    with op.batch_alter_table("earlier_position", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_earlier_position_enrollment_id"), ["enrollment_id"], unique=False)

    with op.batch_alter_table("enrollment", schema=None) as batch_op:
        batch_op.add_column(sa.Column("alone_since", UTCDateTime(), nullable=True))
        batch_op.add_column(sa.Column("names", JSON_TYPE, nullable=True))
        batch_op.create_index("ix_enrollment_entered", ["journey_id", "entered_at"], unique=False)
