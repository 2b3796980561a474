"""Attributes of campaigns, as expressions and templates see them."""

from typing import Any

from distmark.campaigns.table import Campaign


def campaign_attributes(campaign: Campaign | None) -> dict[str, Any]:
    """Return the attributes that templates and expressions see as `campaign`; empty without a campaign."""
    return {"name": campaign.name, "key": campaign.key} if campaign else {}
