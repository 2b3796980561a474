"""Versions of one journey, and members inside them."""

from datetime import timedelta

from distmark.campaigns.table import Campaign
from distmark.contacts.table import Contact
from distmark.enrollments.table import Enrollment
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from tests import factories
from tests.driver import HEAD, Stage, _templates

HOUR = timedelta(hours=1)
OLD = (
    "  - {id: first, send: email, message: one}\n  - {id: rest, wait: {for: 3 days}}\n  - {id: second, send: email, message: two}\n"
    "  - {id: end-rest, wait: {for: 3 days}}\n"
)


def next_version(stage: Stage, campaign: Campaign, steps: str, head: str = "", status: VersionStatus = VersionStatus.registered) -> int:
    """Write the next version of the campaign's journey and return its number."""
    with stage.db.writing() as session:
        journey = session.get_one(Journey, campaign.journey_id)
        definition = HEAD.format(key=journey.key) + f"send_policy: {{caps: none}}\n{head}\nsteps:\n{steps}"
        source = Source(definition, _templates(), path=journey.key)
        return factories.make_version(session, journey=journey, source=source, status=status).number


def key_of(stage: Stage, campaign: Campaign) -> str:
    with stage.db.reading() as session:
        return session.get_one(Journey, campaign.journey_id).key


async def inside(stage: Stage, steps: str = OLD, people: int = 1, head: str = "", **campaign: object) -> tuple[Campaign, list[Contact]]:
    made, contacts = stage.journey(steps, head, **campaign), [stage.contact() for _ in range(people)]
    stage.enrol(made, *contacts)
    await stage.run_for(HOUR)
    return made, contacts


def version_of(stage: Stage, row: Enrollment) -> int:
    with stage.db.reading() as session:
        return session.get_one(JourneyVersion, row.version_id).number
