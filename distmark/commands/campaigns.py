"""`distmark campaigns`: journeys offered to partners."""

from typing import Annotated

import typer
from sqlmodel import col, select

from distmark.campaigns.table import Campaign
from distmark.commands.acting import As, BrandKey, Json, brand_of_journey, partner_named, viewer_for
from distmark.console import out, print_json, show
from distmark.db import get_database
from distmark.journeys.table import Journey
from distmark.partners.model import Permission
from distmark.partners.table import Brand, Partner
from distmark.settings import get_settings

app = typer.Typer(help="Offer journeys to partners.", no_args_is_help=True)


@app.command(epilog='Example: distmark campaigns create gym-new-year new-year-2027 --name "New Year 2027"')
def create(
    journey: Annotated[str, typer.Argument(metavar="JOURNEY", help="The journey's key.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="The campaign's own key.")],
    name: Annotated[str, typer.Option("--name", help="What partners see; the key when left out.")] = "",
    partner: Annotated[str, typer.Option("--partner", metavar="KEY", help="Only for this partner; for all when left out.")] = "",
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Offer a journey to one partner or to all of the brand."""
    from distmark.campaigns.service import create_campaign

    with get_database().writing() as session:
        brand_id = brand_of_journey(session, journey, brand)
        viewer = viewer_for(session, Permission.publish_campaigns, email=as_, brand_id=brand_id)
        partner_id = partner_named(session, partner, session.get_one(Brand, brand_id).key).id if partner else None
        made = create_campaign(session, viewer, journey, key, name or key, get_settings().clock().now(), partner_id)
        if json_:
            print_json({"id": made.id, "key": made.key, "journey": journey, "status": made.status.value})
        else:
            out.print(f"Campaign {made.key} is open; partners enrol contacts on its page, or with `distmark enroll {made.key}`.")


@app.command("list", epilog="Example: distmark campaigns list --json")
def list_(brand: BrandKey = "", json_: Json = False) -> None:
    """List the campaigns of every brand."""
    query = (
        select(Campaign, Brand.key, Journey.key, Partner.key)
        .join(Brand, col(Brand.id) == Campaign.brand_id)
        .join(Journey, col(Journey.id) == Campaign.journey_id)
        .outerjoin(Partner, col(Partner.id) == Campaign.partner_id)
        .order_by(Brand.key, col(Campaign.id))
    )
    with get_database().reading() as session:
        rows = [
            {
                "brand": brand_key,
                "key": campaign.key,
                "name": campaign.name,
                "journey": journey_key,
                "partner": partner_key,
                "status": campaign.status.value,
            }
            for campaign, brand_key, journey_key, partner_key in session.exec(query)
            if brand in ("", brand_key)
        ]
    headings = {"brand": "Brand", "key": "Campaign", "name": "Name", "journey": "Journey", "partner": "Partner", "status": "Status"}
    show(rows, headings, as_json=json_, nothing="There are no campaigns yet; make one with `distmark campaigns create`.")
