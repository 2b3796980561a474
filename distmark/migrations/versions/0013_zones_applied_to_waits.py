"""The zone by which the times of a partner's contacts were computed last."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the changes."""
    op.add_column("partner", sa.Column("zone_applied", sa.String(), nullable=True))
    op.execute(
        sa.text(
            "UPDATE partner SET zone_applied = "
            "coalesce(nullif(partner.zone, ''), (SELECT brand.zone FROM brand WHERE brand.id = partner.brand_id))"
        )
    )
