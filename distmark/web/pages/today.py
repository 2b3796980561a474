"""The start page: a sentence about the most urgent matter, and below it tasks, reactions and campaigns, or the brand's numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session

from distmark.campaigns import service as campaigns
from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.compliance import service as compliance
from distmark.contacts.service import LONGEST_SEARCH, contacts_by_id
from distmark.engagement.who_reacted import recent_reactions
from distmark.enrollments.live_counts import live_by_campaign
from distmark.entries.members import PendingMembers, pending_members_by_campaign
from distmark.journeys.service import journeys_by_id, newest_by_journey, program_of
from distmark.journeys.table import Journey, VersionStatus
from distmark.metrics import service as metrics
from distmark.operations.alarms import alarm_count
from distmark.operations.open_cases import OpenCases, open_cases
from distmark.operations.unmade import unmade_count
from distmark.partners.model import Permission
from distmark.sql import id_of
from distmark.tasks import service
from distmark.tasks.table import Task
from distmark.web.i18n import N_
from distmark.web.ids import Id
from distmark.web.pages.contact_timeline import what_happened
from distmark.web.permissions import needs, signed_in
from distmark.web.status_text import unmade_text
from distmark.web.visit import Visit

router = APIRouter()
OFFERS_SHOWN = 4


@dataclass(frozen=True, slots=True)
class CampaignOffer:
    """A campaign that the partner can use now, with its journey and the numbers of pending members and live enrollments."""

    campaign: Campaign
    journey: Journey
    pending: int
    live: int


@router.get("/")
def today(visit: Visit = signed_in, q: str = "") -> Response:
    """Show the start page of a partner's user, or of a user of the brand."""
    if visit.viewer.partner_id is None:
        return _of_brand(visit)
    with visit.reading() as session:
        tasks = service.tasks_of(session, visit.viewer)
        reactions = recent_reactions(session, visit.viewer)
        people = contacts_by_id(session, visit.viewer, [task.contact_id for task in tasks])
        offers = offers_of(session, visit, q)
        everything = offers_of(session, visit, "") if q else offers
        unmade = unmade_count(session, visit.viewer)
        newest = newest_by_journey(session, visit.viewer, (VersionStatus.registered,)) if reactions else {}
        programs = [program_of(session, id_of(version)) for version in newest.values()]
    waiting = sum(offer.pending for offer in everything)
    sentence = _sentence(visit, tasks, waiting, len(reactions))
    return visit.page(
        "today.html",
        sentence=visit.translator.joined(unmade_text(visit.translator, unmade), sentence) if unmade else sentence,
        tasks=tasks,
        people=people,
        reactions=reactions,
        reaction_name=lambda event: what_happened(event, programs, visit.translator),
        offers=offers if q else offers[:OFFERS_SHOWN],
        more=0 if q else max(0, len(offers) - OFFERS_SHOWN),
        waiting=[offer for offer in everything if offer.pending],
        q=q,
    )


@router.post("/tasks/{task_id}/done")
def finish_task(task_id: Id, visit: Visit = needs(Permission.see_contacts)) -> Response:
    """Finish the task; the enrollment goes on at once."""
    with visit.writing() as session:
        service.finish_task(session, visit.viewer, task_id, visit.now)
    if visit.request.headers.get("hx-request") == "true":
        with visit.reading() as session:
            tasks = service.tasks_of(session, visit.viewer)
            people = contacts_by_id(session, visit.viewer, [task.contact_id for task in tasks])
        return visit.page("today.html", tasks=tasks, people=people)
    return visit.go("/", N_("Done. The journey goes on."))


def offers_of(session: Session, visit: Visit, q: str) -> list[CampaignOffer]:
    """Return the open campaigns whose name, key or journey texts contain every word of `q`; those with most members come first."""
    journeys = journeys_by_id(session, visit.viewer)
    published = newest_by_journey(session, visit.viewer, (VersionStatus.registered,))
    pending = pending_members_by_campaign(session, visit.viewer, visit.now)
    live = live_by_campaign(session, visit.viewer)
    offers = [
        CampaignOffer(row, journeys[row.journey_id], pending.get(id_of(row), PendingMembers()).waiting, live.get(id_of(row), 0))
        for row in campaigns.list_campaigns(session, visit.viewer)
        if row.status is CampaignStatus.open and row.journey_id in published
    ]
    words = q[:LONGEST_SEARCH].lower().replace("\u3000", " ").split()
    found = [offer for offer in offers if all(word in _searchable(offer) for word in words)]
    return sorted(found, key=lambda offer: (-offer.pending, -offer.live, offer.campaign.name))


def _searchable(offer: CampaignOffer) -> str:
    names = [texts.get("name", "") for texts in offer.campaign.translations.values()]
    texts = [offer.campaign.name, *names, offer.campaign.key, *offer.journey.name.values(), *offer.journey.description.values()]
    return " ".join(texts).lower()


def _sentence(visit: Visit, tasks: Sequence[Task], waiting: int, reactions: int) -> str:
    """Return the sentence about the most urgent matter: late tasks, else tasks due today, else pending members, else reactions."""
    ngettext = visit.translator.ngettext
    late = [task for task in tasks if task.due_at and task.due_at < visit.now]
    due = [task for task in tasks if task not in late and _is_today(visit, task.due_at)]
    if late:
        text = ngettext("%(n)s task is late.", "%(n)s tasks are late.", len(late))
        return visit.translator.joined(text, visit.gettext("Most urgent: %(title)s", title=late[0].title))
    if due:
        return ngettext("%(n)s task is due today.", "%(n)s tasks are due today.", len(due))
    if waiting:
        return ngettext("%(n)s person waits for you to send.", "%(n)s people wait for you to send.", waiting)
    if reactions:
        return visit.gettext("Nothing is due. See below what your contacts did with your messages.")
    return visit.gettext("Nothing is due. Who did you talk to today?")


def _is_today(visit: Visit, at: datetime | None) -> bool:
    return at is not None and at.astimezone(visit.zone).date() <= visit.now.astimezone(visit.zone).date()


def _of_brand(visit: Visit) -> Response:
    viewer = visit.viewer
    with visit.reading() as session:
        numbers = metrics.home_numbers(session, viewer, (visit.now - timedelta(days=30)).date())
        approvals = compliance.waiting_approvals(session, viewer)
        journeys = journeys_by_id(session, viewer)
        drafts = newest_by_journey(session, viewer, (VersionStatus.draft, VersionStatus.sent_back, VersionStatus.approved))
        published = newest_by_journey(session, viewer, (VersionStatus.registered,))
        cases = open_cases(session, viewer)
        alarms = alarm_count(session, viewer) if viewer.may(Permission.publish_campaigns) else 0
        unmade = unmade_count(session, viewer)
    work = [version for version in drafts.values() if version.number > getattr(published.get(version.journey_id), "number", 0)]
    return visit.page(
        "today_brand.html",
        sentence=_brand_sentence(visit, len(approvals), cases, len(work), alarms, unmade),
        numbers=numbers,
        approvals=approvals if viewer.may(Permission.approve_journeys) else [],
        journeys=journeys,
        work=work if viewer.may(Permission.write_journeys) else [],
        published=published,
        cases=cases,
        alarms=alarms,
    )


def _brand_sentence(visit: Visit, approvals: int, cases: OpenCases, work: int, alarms: int, unmade: int) -> str:
    ngettext = visit.translator.ngettext
    if unmade:
        return unmade_text(visit.translator, unmade)
    if cases.parked and visit.viewer.may(Permission.publish_campaigns):
        return ngettext("%(n)s person is stuck in a journey.", "%(n)s people are stuck in journeys.", cases.parked)
    if approvals and visit.viewer.may(Permission.approve_journeys):
        return ngettext("%(n)s journey version waits for your approval.", "%(n)s journey versions wait for your approval.", approvals)
    if work and visit.viewer.may(Permission.write_journeys):
        return ngettext("%(n)s journey version is in your hands.", "%(n)s journey versions are in your hands.", work)
    return visit.gettext("Nothing else waits for you.") if alarms else visit.gettext("Everything is running.")
