"""What expressions and templates see of a campaign."""

from typing import Any

from distmark.campaigns.table import Campaign


def campaign_attributes(campaign: Campaign | None) -> dict[str, Any]:
    """Return what templates and expressions see as `campaign`; empty outside one."""
    return {"name": campaign.name, "key": campaign.key} if campaign else {}
