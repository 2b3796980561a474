"""Keys of events within their partner and name, and the hash of their events' content."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# A key that the other system gave, not one made of the contact, the name and the time. Which partner reported is taken from the contact.
SCOPED = """
UPDATE engagement_event
SET natural_key = 'event:' || brand_id || ':partner-' || partner_id || ':' || name || ':'
    || substr(natural_key, length('event:' || brand_id || ':') + 1)
WHERE substr(natural_key, 1, 6) = 'event:'
  AND substr(natural_key, 1, length('event:' || brand_id || ':' || contact_id || ':' || name || ':'))
      <> 'event:' || brand_id || ':' || contact_id || ':' || name || ':'
"""


def upgrade() -> None:
    """Make the changes."""
    with op.batch_alter_table("engagement_event") as batch_op:
        batch_op.add_column(sa.Column("content_hash", sa.String(), nullable=False, server_default=sa.text("''")))
    op.execute(sa.text(SCOPED.replace(":", r"\:")))  # a colon here is never a parameter
