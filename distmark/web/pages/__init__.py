"""One module of function views per page."""

from distmark.web.pages import assets, campaigns, contacts, people, recipient, sign_in, today

PAGES = (
    assets.router,
    sign_in.router,
    recipient.router,
    today.router,
    people.router,
    campaigns.router,
    contacts.router,
)
