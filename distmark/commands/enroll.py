"""`distmark enroll`: contacts into a campaign's journey."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer
from sqlmodel import Session, col, select

from distmark.campaigns.table import Campaign
from distmark.commands.acting import As, BrandKey, Json, campaign_named, partner_named, viewer_for
from distmark.console import out, print_json, table
from distmark.contacts.people import contacts_by_email
from distmark.contacts.table import Contact
from distmark.db import get_database
from distmark.errors import InvalidInput, NotFound
from distmark.partners.model import Permission, Viewer
from distmark.settings import get_settings
from distmark.sql import id_of

VERDICTS = {
    "enrolled": "entered the journey",
    "already_in": "already in it",
    "too_soon": "was in it too lately",
    "once_only": "was in it before, and once is all",
    "suppressed": "does not want to be written to",
    "no_consent": "never agreed to be written to",
    "no_address": "has no address for its first message",
    "other_partner": "is in it with another partner",
    "not_matching": "is not among those whom it is for",
    "draining": "is not taken now: nobody new enters until it is resumed",
    "left_out": "was left out of this campaign by its partner",
    "queued": "enters later, when it takes more",
}


def enroll(
    campaign: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="The campaign's key.")],
    emails: Annotated[list[str] | None, typer.Argument(metavar="[EMAIL...]", help="The contacts' mail addresses.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every contact in the partner's book.")] = False,
    partner: Annotated[
        str, typer.Option("--partner", metavar="KEY", help="Whose contacts; not needed when acting as a partner's user.")
    ] = "",
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Enter contacts into a campaign's journey. Safe to repeat: nobody enters twice. Their runs start as soon as Prefect is there."""
    from distmark.entries.service import enrol

    with get_database().writing() as session:
        offered = campaign_named(session, campaign, brand)
        viewer = _viewer(session, offered, partner, as_)
        people = _people(session, viewer, emails or [], all_)
        results = enrol(session, viewer, id_of(offered), [id_of(contact) for contact in people], get_settings().clock().now())
    if json_:
        for result in results:
            print_json(
                {"contact": result.contact_id, "verdict": result.verdict.value, "enrollment": result.enrollment_id, "until": result.until}
            )
        return
    counted = Counter(result.verdict.value for result in results)
    out.print(table(("Contacts", "What became of them"), [(count, VERDICTS[verdict]) for verdict, count in counted.most_common()]))


def _viewer(session: Session, campaign: Campaign, partner_key: str, email: str) -> Viewer:
    partner_id = campaign.partner_id
    if partner_key:
        from distmark.partners.table import Brand

        partner_id = partner_named(session, partner_key, session.get_one(Brand, campaign.brand_id).key).id
    return viewer_for(session, Permission.enrol_contacts, email=email, brand_id=campaign.brand_id, partner_id=partner_id)


def _people(session: Session, viewer: Viewer, emails: Sequence[str], everybody: bool) -> Sequence[Contact]:
    if everybody == bool(emails):
        raise InvalidInput("Say who is to be enrolled: mail addresses, or --all.")
    query = select(Contact).where(Contact.brand_id == viewer.brand_id, col(Contact.erased_at).is_(None)).order_by(col(Contact.id))
    if viewer.partner_id is not None:
        query = query.where(Contact.partner_id == viewer.partner_id)
    if everybody:
        return session.exec(query).all()
    found = contacts_by_email(session, query.order_by(None), viewer.brand_id, emails, viewer.partner_id)
    missing = [email for email in emails if email not in found]
    if missing:
        raise NotFound(f"There is no contact {missing[0]} in this book; import it with `distmark contacts import`.")
    return list({contact.id: contact for contacts in found.values() for contact in contacts}.values())


COMMANDS = (("enroll", enroll, "distmark enroll new-year-2027 hanako@example.com --partner nagoya"),)
