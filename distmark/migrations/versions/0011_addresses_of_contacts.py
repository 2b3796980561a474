"""The addresses that contacts had, so that a person stays the same when an address is corrected."""

import sqlalchemy as sa
from alembic import op

from distmark.db import UTCDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the changes."""
    op.create_table(
        "contact_address",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("brand_id", sa.Integer(), nullable=False),
        sa.Column("contact_id", sa.Integer(), nullable=False),
        sa.Column("address_hash", sa.String(), nullable=False),
        sa.Column("identifies", sa.Boolean(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["brand_id"], ["brand.id"], name=op.f("fk_contact_address_brand_id")),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_contact_address_contact_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contact_address")),
        sa.UniqueConstraint("contact_id", "address_hash", name=op.f("uq_contact_address_contact_id_address_hash")),
    )
    op.create_index("ix_contact_address_hash", "contact_address", ["brand_id", "address_hash"], unique=False)
    keep_earlier_addresses(op.get_bind())


def keep_earlier_addresses(connection: sa.Connection) -> None:
    """Make enrollments that began under an earlier address of their contact the same person's again, and keep that address as theirs.

    An address that another contact has now is not kept.
    """
    for statement in (_KEEP_EARLIER, _KEEP_PRESENT, _FOLLOW):
        connection.execute(sa.text(statement))


_KEEP_EARLIER = """
    INSERT INTO contact_address (brand_id, contact_id, address_hash, identifies, at)
    SELECT DISTINCT e.brand_id, e.contact_id, e.person_key, true, c.updated_at
    FROM enrollment e JOIN contact c ON c.id = e.contact_id
    WHERE e.person_key <> c.person_key
    AND NOT EXISTS (SELECT 1 FROM contact o WHERE o.brand_id = e.brand_id AND o.person_key = e.person_key)
"""
_KEEP_PRESENT = """
    INSERT INTO contact_address (brand_id, contact_id, address_hash, identifies, at)
    SELECT DISTINCT e.brand_id, e.contact_id, c.person_key, true, c.updated_at
    FROM enrollment e JOIN contact c ON c.id = e.contact_id
    WHERE e.person_key <> c.person_key
"""
_FOLLOW = """
    UPDATE enrollment SET person_key = (SELECT c.person_key FROM contact c WHERE c.id = enrollment.contact_id)
    WHERE person_key <> (SELECT c.person_key FROM contact c WHERE c.id = enrollment.contact_id)
"""
