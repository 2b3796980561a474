"""`distmark pause`, `resume`, `stop` and `drain`: a journey, a version of it, a campaign, a partner, a contact, or single enrollments."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import typer
from sqlmodel import Session, col, select

from distmark.commands.acting import As, BrandKey, Json, brand_of_journey, campaign_named, partner_named, viewer_for
from distmark.console import out, print_json, table
from distmark.contacts.table import Contact
from distmark.db import get_database
from distmark.enrollments.suspensions import Scope
from distmark.enrollments.table import Enrollment
from distmark.errors import InvalidInput, NotFound
from distmark.journeys.table import Journey, JourneyVersion
from distmark.partners.model import Permission, Viewer
from distmark.partners.table import Brand
from distmark.settings import get_settings

JourneyKey = Annotated[str, typer.Option("--journey", metavar="KEY", help="Everybody in this journey.")]
VersionNumber = Annotated[int | None, typer.Option("--version", metavar="N", help="Only in this version of the journey.")]
CampaignKey = Annotated[str, typer.Option("--campaign", metavar="KEY", help="Everybody in this campaign.")]
PartnerKey = Annotated[str, typer.Option("--partner", metavar="KEY", help="Everybody of this partner.")]
ContactId = Annotated[int | None, typer.Option("--contact", metavar="ID", help="This contact, in whatever journey.")]
EnrollmentIds = Annotated[list[int] | None, typer.Option("--enrollment", metavar="ID", help="This enrollment; may be given many times.")]
Reason = Annotated[str, typer.Option("--reason", help="Kept in the audit trail and shown to the people concerned.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen and change nothing.")]

SPAN = re.compile(r"(\d+)\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)")
UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Named:
    """What the options name."""

    journey: str = ""
    version: int | None = None
    campaign: str = ""
    partner: str = ""
    contact: int | None = None
    enrollments: tuple[int, ...] = ()
    email: str = ""
    brand: str = ""


def pause(
    journey: JourneyKey = "",
    version: VersionNumber = None,
    campaign: CampaignKey = "",
    partner: PartnerKey = "",
    contact: ContactId = None,
    enrollment: EnrollmentIds = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Freeze everybody where they are. Who is enrolled meanwhile starts paused; nothing is sent until `distmark resume`."""
    from distmark.enrollments.control import pause as act

    named = Named(journey, version, campaign, partner, contact, tuple(enrollment or ()), as_, brand)
    count = _do(named, dry_run, lambda session, viewer, scope: act(session, viewer, scope, get_settings().clock().now(), reason))
    _print_outcome("paused", count, dry_run, json_, f"{count:,} paused; whoever is enrolled there now starts paused.")


def resume(
    journey: JourneyKey = "",
    version: VersionNumber = None,
    campaign: CampaignKey = "",
    partner: PartnerKey = "",
    contact: ContactId = None,
    enrollment: EnrollmentIds = None,
    extend: Annotated[bool, typer.Option("--extend", help="Make waits as much longer as the pause was; else the clock went on.")] = False,
    spread: Annotated[str, typer.Option("--spread", metavar="2h", help="Space evenly over this time those who would go at once.")] = "",
    dry_run: DryRun = False,
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Let those go on who were paused, and let others enter again. --dry-run says how many would do something at once."""
    from distmark.enrollments import control

    act, over = (control.plan_resume if dry_run else control.resume), span(spread) if spread else None
    named = Named(journey, version, campaign, partner, contact, tuple(enrollment or ()), as_, brand)
    plan = _do(
        named, False, lambda session, viewer, scope: act(session, viewer, scope, get_settings().clock().now(), extend=extend, spread=over)
    )
    if json_:
        until = plan.spread_until.isoformat() if plan.spread_until else None
        counts = {"paused": plan.paused, "resumed": plan.resumed, "kept": plan.kept, "at_once": plan.at_once, "steps": dict(plan.steps)}
        print_json({**counts, "extended": plan.extended, "spread_until": until, "dry_run": dry_run})
        return
    at_once = f"{plan.at_once:,} at once" if plan.spread_until is None else f"{plan.at_once:,} spread until {plan.spread_until:%H:%M} UTC"
    kept = f" {plan.kept:,} stay paused, under another pause or by themselves." if plan.kept else ""
    out.print(f"{plan.resumed:,} {'would go' if dry_run else 'go'} on, {at_once}.{kept}")
    if plan.steps:
        out.print(table(("Step", "At once"), [(step or "start", count) for step, count in plan.steps.items()], numbers=True))


def stop(
    journey: JourneyKey = "",
    version: VersionNumber = None,
    campaign: CampaignKey = "",
    partner: PartnerKey = "",
    contact: ContactId = None,
    enrollment: EnrollmentIds = None,
    reason: Reason = "stopped by an operator",
    dry_run: DryRun = False,
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """End the journey for everybody who is inside, for good. To keep others from entering, `distmark drain` first."""
    from distmark.enrollments.control import stop as act

    named = Named(journey, version, campaign, partner, contact, tuple(enrollment or ()), as_, brand)
    count = _do(named, dry_run, lambda session, viewer, scope: act(session, viewer, scope, reason, get_settings().clock().now()))
    _print_outcome("stopped", count, dry_run, json_, f"{count:,} stopped.")


def drain(
    journey: JourneyKey = "",
    version: VersionNumber = None,
    campaign: CampaignKey = "",
    partner: PartnerKey = "",
    contact: ContactId = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Let nobody new in until `distmark resume`; those inside finish."""
    from distmark.enrollments.control import drain as act

    named = Named(journey, version, campaign, partner, contact, (), as_, brand)
    count = _do(named, dry_run, lambda session, viewer, scope: act(session, viewer, scope, get_settings().clock().now(), reason))
    _print_outcome("inside", count, dry_run, json_, f"Nobody new enters; {count:,} inside finish.")


def _do(named: Named, dry_run: bool, act: Callable[[Session, Viewer, Scope], Any]) -> Any:
    with get_database().writing() as session:
        viewer, scope = _meant(session, named)
        done = act(session, viewer, scope)
        if dry_run:  # what it counts is exact: it was done, and is taken back
            session.rollback()
        return done


def _print_outcome(word: str, count: int, dry_run: bool, as_json: bool, text: str) -> None:
    if as_json:
        print_json({word: count, "dry_run": dry_run})
    else:
        out.print(f"Dry run, nothing changed. {text}" if dry_run else text)


def _meant(session: Session, named: Named) -> tuple[Viewer, Scope]:
    if named.version is not None and not named.journey:
        raise InvalidInput("A version is of a journey; give --journey KEY with --version.")
    brand_id = _brand_of(session, named)
    viewer = viewer_for(session, Permission.publish_campaigns, email=named.email, brand_id=brand_id)
    brand = session.get_one(Brand, brand_id).key if brand_id else named.brand
    journey_id = _journey(session, brand_id, named.journey) if named.journey else None
    return viewer, Scope(
        journey_id=journey_id if named.version is None else None,
        version_id=_version(session, journey_id, named) if named.version is not None else None,
        campaign_id=campaign_named(session, named.campaign, brand).id if named.campaign else None,
        partner_id=partner_named(session, named.partner, brand).id if named.partner else None,
        contact_id=named.contact,
        enrollment_ids=named.enrollments,
    )


def _brand_of(session: Session, named: Named) -> int | None:
    """Return the brand of what is named first; None when nothing is, which the scope refuses."""
    if named.journey:
        return brand_of_journey(session, named.journey, named.brand)
    if named.campaign:
        return campaign_named(session, named.campaign, named.brand).brand_id
    if named.partner:
        return partner_named(session, named.partner, named.brand).brand_id
    if named.contact is not None:
        return _brand_at(session, "contact", named.contact, select(Contact.brand_id).where(Contact.id == named.contact))
    if named.enrollments:
        first = named.enrollments[0]
        return _brand_at(session, "enrollment", first, select(Enrollment.brand_id).where(Enrollment.id == first))
    return None


def _brand_at(session: Session, what: str, row_id: int, statement: Any) -> int:
    found = session.exec(statement).first()
    if found is None:
        raise NotFound(f"There is no {what} {row_id}; check the number.")
    return int(found)


def _journey(session: Session, brand_id: int | None, key: str) -> int | None:
    return session.exec(select(Journey.id).where(Journey.brand_id == brand_id, Journey.key == key)).first()


def _version(session: Session, journey_id: int | None, named: Named) -> int | None:
    of_journey = select(JourneyVersion.number, JourneyVersion.id).where(JourneyVersion.journey_id == journey_id)
    versions = dict(session.exec(of_journey.order_by(col(JourneyVersion.number))).all())
    if named.version not in versions:
        known = ", ".join(str(number) for number in versions)
        raise NotFound(f"Journey {named.journey} has no version {named.version}; it has {known}.")
    return versions[named.version]


def span(text: str) -> timedelta:
    """Return the length of time written as 2h, 90 minutes or 1d."""
    found = SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidInput(f'The time "{text}" cannot be read; write it as 30m, 2h or 1d.')
    return int(found[1]) * UNITS[found[2][0]]


COMMANDS = (
    ("pause", pause, "distmark pause --campaign new-year-2027 --reason 'wrong rate in the text'"),
    ("resume", resume, "distmark resume --campaign new-year-2027 --extend --dry-run"),
    ("stop", stop, "distmark stop --journey retirement-onboarding --version 3 --reason 'offer ended'"),
    ("drain", drain, "distmark drain --journey retirement-onboarding"),
)
