"""Segments, and entering without a person."""

import sqlalchemy as sa
from alembic import op

from distmark.db import JSON_TYPE, UTCDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the changes."""
    op.create_table(
        "entry_count",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("journey_id", sa.Integer(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("entered", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["journey_id"], ["journey.id"], name=op.f("fk_entry_count_journey_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entry_count")),
        sa.UniqueConstraint("journey_id", "period", name=op.f("uq_entry_count_journey_id_period")),
    )
    op.create_table(
        "enrol_call",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("asked_hash", sa.String(), nullable=False),
        sa.Column("answer", JSON_TYPE, nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"], name=op.f("fk_enrol_call_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrol_call")),
        sa.UniqueConstraint("user_id", "key", name=op.f("uq_enrol_call_user_id_key")),
    )
    op.create_index("ix_enrol_call_at", "enrol_call", ["at"], unique=False)

    op.create_table(
        "entry_date",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("journey_id", sa.Integer(), nullable=False),
        sa.Column("contact_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("occasion", sa.Date(), nullable=False),
        sa.Column("due_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_entry_date_contact_id")),
        sa.ForeignKeyConstraint(["journey_id"], ["journey.id"], name=op.f("fk_entry_date_journey_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entry_date")),
        sa.UniqueConstraint("journey_id", "contact_id", name=op.f("uq_entry_date_journey_id_contact_id")),
    )
    op.create_index(op.f("ix_entry_date_contact_id"), "entry_date", ["contact_id"], unique=False)
    op.create_index("ix_entry_date_due", "entry_date", ["due_at"], unique=False)

    op.create_table(
        "segment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("partner_id", sa.Integer(), nullable=True),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=True),
        sa.Column("fields", JSON_TYPE, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("reached", sa.Integer(), nullable=True),
        sa.Column("judged_on", sa.Date(), nullable=True),
        sa.Column("created_by_id", sa.Integer(), nullable=True),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.id"], name=op.f("fk_segment_brand_id")),
        sa.ForeignKeyConstraint(["created_by_id"], ["user_account.id"], name=op.f("fk_segment_created_by_id")),
        sa.ForeignKeyConstraint(["partner_id"], ["partner.id"], name=op.f("fk_segment_partner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segment")),
        sa.UniqueConstraint("brand_id", "partner_id", "key", name=op.f("uq_segment_brand_id_partner_id_key")),
    )
    op.create_index(
        "ix_segment_brand_wide",
        "segment",
        ["brand_id", "key"],
        unique=True,
        sqlite_where=sa.text("partner_id IS NULL"),
        postgresql_where=sa.text("partner_id IS NULL"),
    )
    op.create_index(op.f("ix_segment_partner_id"), "segment", ["partner_id"], unique=False)

    op.create_table(
        "entry_plan",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("journey_id", sa.Integer(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("since", UTCDateTime(), nullable=False),
        sa.Column("read_at", UTCDateTime(), nullable=False),
        sa.Column("reached", sa.Integer(), nullable=True),
        sa.Column("next_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.id"], name=op.f("fk_entry_plan_brand_id")),
        sa.ForeignKeyConstraint(["journey_id"], ["journey.id"], name=op.f("fk_entry_plan_journey_id")),
        sa.ForeignKeyConstraint(["version_id"], ["journey_version.id"], name=op.f("fk_entry_plan_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entry_plan")),
        sa.UniqueConstraint("journey_id", name=op.f("uq_entry_plan_journey_id")),
    )
    op.create_table(
        "segment_member",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("segment_id", sa.Integer(), nullable=False),
        sa.Column("contact_id", sa.Integer(), nullable=False),
        sa.Column("joined_at", UTCDateTime(), nullable=False),
        sa.Column("left_at", UTCDateTime(), nullable=True),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_segment_member_contact_id")),
        sa.ForeignKeyConstraint(["segment_id"], ["segment.id"], name=op.f("fk_segment_member_segment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segment_member")),
        sa.UniqueConstraint("segment_id", "contact_id", name=op.f("uq_segment_member_segment_id_contact_id")),
    )
    op.create_index(
        "ix_segment_member_in",
        "segment_member",
        ["contact_id"],
        unique=False,
        sqlite_where=sa.text("left_at IS NULL"),
        postgresql_where=sa.text("left_at IS NULL"),
    )
    op.create_index(
        "ix_segment_member_untold",
        "segment_member",
        ["id"],
        unique=False,
        sqlite_where=sa.text("told = 0"),
        postgresql_where=sa.text("NOT told"),
    )

    op.create_table(
        "entrance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("journey_id", sa.Integer(), nullable=False),
        sa.Column("contact_id", sa.Integer(), nullable=False),
        sa.Column("campaign_id", sa.Integer(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("waiting_key", sa.String(), nullable=True),
        sa.Column("data", JSON_TYPE, nullable=False),
        sa.Column("asked_at", UTCDateTime(), nullable=False),
        sa.Column("settled_at", UTCDateTime(), nullable=True),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("enrollment_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.id"], name=op.f("fk_entrance_brand_id")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_entrance_campaign_id")),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_entrance_contact_id")),
        sa.ForeignKeyConstraint(["enrollment_id"], ["enrollment.id"], name=op.f("fk_entrance_enrollment_id")),
        sa.ForeignKeyConstraint(["journey_id"], ["journey.id"], name=op.f("fk_entrance_journey_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entrance")),
        sa.UniqueConstraint("journey_id", "contact_id", "key", name=op.f("uq_entrance_journey_id_contact_id_key")),
        sa.UniqueConstraint("waiting_key", name=op.f("uq_entrance_waiting_key")),
    )
    op.create_index(op.f("ix_entrance_contact_id"), "entrance", ["contact_id"], unique=False)
    op.create_index(
        "ix_entrance_waiting",
        "entrance",
        ["journey_id", "asked_at", "id"],
        unique=False,
        sqlite_where=sa.text("settled_at IS NULL"),
        postgresql_where=sa.text("settled_at IS NULL"),
    )

    op.add_column("contact", sa.Column("unread", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.create_index(
        "ix_contact_unread", "contact", ["id"], unique=False, sqlite_where=sa.text("unread = 1"), postgresql_where=sa.text("unread")
    )
