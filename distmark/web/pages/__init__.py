"""The pages: one module of views for each page. `PAGES` lists their routers, and those of the REST API."""

from distmark.web.api import control as api_control
from distmark.web.api import entries as api_entries
from distmark.web.api import events as api_events
from distmark.web.pages import (
    account,
    api_tokens,
    approvals,
    assets,
    campaign_members,
    campaign_words,
    campaigns,
    contacts,
    control,
    journeys,
    operations,
    partners,
    rates,
    recipient,
    rehearsals,
    results,
    segments,
    sign_in,
    today,
    version_moves,
)

PAGES = (
    assets.router,
    sign_in.router,
    account.router,
    partners.router,
    recipient.router,
    api_entries.router,
    api_events.router,
    api_control.router,
    today.router,
    campaign_members.router,
    campaign_words.router,
    campaigns.router,
    contacts.router,
    control.router,
    journeys.router,
    version_moves.router,
    rehearsals.router,
    api_tokens.router,
    approvals.router,
    segments.router,
    results.router,
    rates.router,
    operations.router,
)
