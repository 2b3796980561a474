"""Words of partners by language, and the words that a partner sent with."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from distmark.db import JSON_TYPE

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the changes."""
    op.add_column("member", sa.Column("agreed_words", JSON_TYPE, nullable=True))
    set_languages()


def set_languages() -> None:
    """Give words their language: a member's were written under a preview in the member's language, a partner's by the partner."""
    _by_language("member", "contact")
    _by_language("partner_blocks", "partner")


def _by_language(name: str, writer: str) -> None:
    """Put the texts of each row under one language: that of its contact or partner when the journey speaks it, else the journey's first."""
    connection = op.get_bind()
    words = sa.table(name, sa.column("id"), sa.column("campaign_id"), sa.column(f"{writer}_id"), sa.column("blocks", JSON_TYPE))
    of = sa.table(writer, sa.column("id"), sa.column("language"))
    campaign = sa.table("campaign", sa.column("id"), sa.column("journey_id"))
    journey = sa.table("journey", sa.column("id"), sa.column("name", JSON_TYPE))
    rows = connection.execute(
        sa.select(words.c.id, words.c.blocks, of.c.language, journey.c.name)
        .join(of, of.c.id == words.c[f"{writer}_id"])
        .join(campaign, campaign.c.id == words.c.campaign_id)
        .join(journey, journey.c.id == campaign.c.journey_id)
        .where(sa.cast(words.c.blocks, sa.Text) != "{}")
    ).all()
    for row_id, blocks, language, names in rows:
        if blocks:
            connection.execute(words.update().where(words.c.id == row_id).values(blocks={_language(language, list(names or {})): blocks}))


def _language(wanted: str, spoken: Sequence[str]) -> str:
    return wanted if wanted in spoken or not spoken else ("ja" if "ja" in spoken else spoken[0])
