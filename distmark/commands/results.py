"""`distmark results`: the funnel of a journey, per step."""

from typing import Annotated, Any

import typer

from distmark.commands.acting import As, BrandKey, Json, brand_of_journey, campaign_named, viewer_for
from distmark.console import out, print_json, table
from distmark.db import get_database
from distmark.metrics.model import Results
from distmark.metrics.report import funnel, sending_steps, summary
from distmark.partners.model import Permission
from distmark.settings import get_settings


def results(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The journey's key.")],
    version: Annotated[int | None, typer.Option("--version", metavar="N", help="One version only; all when left out.")] = None,
    campaign: Annotated[str, typer.Option("--campaign", metavar="KEY", help="One campaign only.")] = "",
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="How many days the daily numbers go back.")] = 30,
    refresh: Annotated[bool, typer.Option("--refresh", help="Roll up what is new first, instead of waiting for the results flow.")] = False,
    lang: Annotated[str, typer.Option("--lang", help="Language of the table: en or ja.")] = "en",
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Print what became of a journey: who entered and ended, and what each step sent and got back."""
    from distmark.metrics.service import results as read_results
    from distmark.metrics.service import roll_up

    db = get_database()
    if refresh:
        roll_up(db, get_settings().clock().now())
    with db.reading() as session:
        brand_id = brand_of_journey(session, key, brand)
        viewer = viewer_for(session, Permission.see_results, email=as_, brand_id=brand_id)
        campaign_id = campaign_named(session, campaign, brand).id if campaign else None
        found = read_results(session, viewer, key, version=version, campaign_id=campaign_id, days=days, lang=lang)
    print_json(as_json(key, found)) if json_ else print_results(found, lang)


def print_results(found: Results, lang: str = "en") -> None:
    """Print the summary and the funnel of one journey."""
    shown = funnel(found, lang)
    out.print(table(shown.headings, shown.rows, title=f"{found.title}", numbers=True))
    out.print(summary(found, lang), style="dim")


def as_json(key: str, found: Results) -> dict[str, Any]:
    """Return the results for scripts: counts as they are, rates 0 to 1."""
    return {
        "key": key,
        "title": found.title,
        "versions": found.versions,
        "rolled_up_at": found.rolled_up_at,
        "totals": found.totals,
        "outcomes": found.outcomes,
        "links": found.links,
        "value": found.value,
        "steps": [{"id": step.step_id, "kind": step.kind, **step.counts, **_rates(step.counts)} for step in found.steps],
        "sending_steps": [step.step_id for step in sending_steps(found)],
        "days": [{"day": day.day, **day.counts} for day in found.days if day.counts],
    }


def _rates(counts: Any) -> dict[str, float]:
    sent = counts.get("sent", 0)
    return {f"{metric}_rate": round(counts.get(metric, 0) / sent, 6) for metric in ("opened", "clicked", "unsubscribed", "bounced") if sent}


COMMANDS = (("results", results, "distmark results retirement-onboarding --refresh"),)
