"""One module of function views per page."""

from distmark.web.pages import (
    access,
    api_control,
    api_entries,
    approvals,
    assets,
    campaigns,
    contacts,
    control,
    journeys,
    people,
    rates,
    recipient,
    rehearsals,
    results,
    sign_in,
    today,
)

PAGES = (
    assets.router,
    sign_in.router,
    recipient.router,
    api_entries.router,
    api_control.router,
    today.router,
    people.router,
    campaigns.router,
    contacts.router,
    control.router,
    journeys.router,
    rehearsals.router,
    access.router,
    approvals.router,
    results.router,
    rates.router,
)
