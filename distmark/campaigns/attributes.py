"""Attributes of campaigns, as expressions and templates see them."""

from typing import Any

from distmark.campaigns.table import Campaign
from distmark.partners.translations import of_language


def campaign_attributes(campaign: Campaign | None, lang: str = "") -> dict[str, Any]:
    """Return the attributes that expressions see as `campaign`, and templates in the language of the message; empty without a campaign."""
    return {"name": campaign.name, "key": campaign.key} | of_language(campaign, lang) if campaign else {}
