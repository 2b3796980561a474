"""The members of a campaign before they begin: judged (able to begin, or not for a reason), left out by their partner, taken back."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import ColumnElement, exists, or_
from sqlmodel import Session, col, func, select

from distmark.campaigns.member_list import pending_by_campaign
from distmark.campaigns.service import agree_to_words, campaigns_by_id, decide_members, get_campaign, words_now
from distmark.campaigns.table import Campaign, Member, MemberStatus
from distmark.campaigns.words import fingerprint
from distmark.contacts.table import Contact
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.service import wake_members
from distmark.enrollments.table import Enrollment
from distmark.entries.admission import check_eligibility
from distmark.entries.model import EnrolResult, EnrolVerdict, Entrant
from distmark.entries.service import campaign_entry_point
from distmark.entries.table import Entrance
from distmark.errors import Refused, SelectionChanged
from distmark.journeys.service import newest_registered, program_of
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require
from distmark.sql import among, batches, id_of

JUDGED_AT_ONCE = 1000
JUDGED_IN_LISTS = 200  # of each campaign


@dataclass(frozen=True, slots=True)
class PendingMembers:
    """The pending members of a campaign: the contacts that may begin now, and the result of each that cannot, by contact id.

    Only the earliest added are judged; `unjudged` counts the others. `refused` is the reason why nobody can
    begin at all, such as a closed campaign.
    """

    ready: Sequence[Contact] = ()
    blocked: Mapping[int, EnrolResult] = field(default_factory=dict)
    unjudged: int = 0
    refused: Refused | None = None

    @property
    def waiting(self) -> int:
        """The number of contacts that wait for nothing but their partner."""
        return len(self.ready) + self.unjudged


@dataclass(frozen=True, slots=True)
class Decided:
    """The counts of a decision: `changed` members have it now, `begun` ones are in the journey already and stay as they are."""

    changed: int
    begun: int


def pending_members(session: Session, viewer: Viewer, campaign_id: int, now: datetime) -> PendingMembers:
    """Return the viewer's pending members of the campaign, judged by the rules that `enrol` will apply; NotFound outside their sight."""
    return _judged(session, viewer, get_campaign(session, viewer, campaign_id), now, JUDGED_AT_ONCE)


def pending_members_by_campaign(session: Session, viewer: Viewer, now: datetime) -> dict[int, PendingMembers]:
    """Return the viewer's pending members by campaign id, judged when the viewer may enrol; a campaign without any is left out."""
    counted = pending_by_campaign(session, viewer)
    if not viewer.may(Permission.enrol_contacts):
        return {campaign_id: PendingMembers(unjudged=count) for campaign_id, count in counted.items()}
    known = campaigns_by_id(session, viewer)
    return {row: _judged(session, viewer, known[row], now, JUDGED_IN_LISTS) for row in counted if row in known}


def _judged(session: Session, viewer: Viewer, campaign: Campaign, now: datetime, limit: int) -> PendingMembers:
    pending = visible(select(Contact), Contact, viewer).join(Member, col(Member.contact_id) == col(Contact.id))
    conditions = (
        col(Member.campaign_id) == id_of(campaign),
        col(Member.status) == MemberStatus.pending,
        col(Contact.erased_at).is_(None),
    )
    contacts = list(session.exec(pending.where(*conditions).order_by(col(Member.id)).limit(limit)))
    if not contacts:
        return PendingMembers()
    try:
        entry_point = campaign_entry_point(session, campaign)
    except Refused as error:
        return PendingMembers(refused=error)
    results = check_eligibility(session, entry_point, [Entrant(contact) for contact in contacts], now)
    ready = [contact for contact in contacts if results[id_of(contact)].verdict is EnrolVerdict.enrolled]
    blocked = {contact_id: result for contact_id, result in results.items() if result.verdict is not EnrolVerdict.enrolled}
    return PendingMembers(ready, blocked, _count(session, viewer, conditions) - limit if len(contacts) == limit else 0)


def _count(session: Session, viewer: Viewer, conditions: Sequence[ColumnElement[bool]]) -> int:
    counting = select(func.count(col(Member.id))).join(Contact, col(Contact.id) == col(Member.contact_id))
    return session.exec(visible(counting, Contact, viewer).where(*conditions)).one()


def queued_among(session: Session, campaign_id: int, contact_ids: Collection[int]) -> set[int]:
    """Return the contacts among these that are queued for the campaign's journey, because its cap is reached."""
    queued = select(Entrance.contact_id).where(Entrance.campaign_id == campaign_id, col(Entrance.settled_at).is_(None))
    return set(session.exec(queued.where(among(session, col(Entrance.contact_id), contact_ids))))


def leave_out(session: Session, viewer: Viewer, campaign_id: int, member_ids: Collection[int], now: datetime) -> Decided:
    """Leave these members out of the campaign: none of them can enter by it until taken back. A member in the journey stays in it.

    Members outside the viewer's sight are left as they are.
    """
    require(viewer, Permission.enrol_contacts)
    begun = _inside(session, viewer, campaign_id, member_ids)
    free = [member_id for member_id in member_ids if member_id not in begun]
    return Decided(decide_members(session, viewer, campaign_id, free, MemberStatus.rejected, now), len(begun))


def take_back(session: Session, viewer: Viewer, campaign_id: int, member_ids: Collection[int], now: datetime) -> Decided:
    """Let these members wait for their partner again; only a member that was left out, or could not begin, changes."""
    require(viewer, Permission.enrol_contacts)
    statuses = (MemberStatus.rejected, MemberStatus.error)
    decided = select(Member.id).where(among(session, col(Member.id), member_ids), col(Member.status).in_(statuses))
    ids = [member_id for member_id in session.exec(decided) if member_id is not None]
    return Decided(decide_members(session, viewer, campaign_id, ids, MemberStatus.pending, now), 0)


@dataclass(frozen=True, slots=True)
class ChangedWords:
    """Members on their way whose words were changed after the partner sent: `before` and `after` by block, in their language."""

    lang: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    members: Sequence[tuple[Member, Contact]]


def changed_words(session: Session, viewer: Viewer, campaign_id: int) -> list[ChangedWords]:
    """Return the viewer's members on their way whose next messages wait until the partner agrees to changed words, alike ones together."""
    campaign = get_campaign(session, viewer, campaign_id)
    version = newest_registered(session, campaign.journey_id)
    if version is None:
        return []
    definition = program_of(session, id_of(version)).definition
    groups: dict[str, ChangedWords] = {}
    for member, contact in _kept_words(session, viewer, campaign_id):
        lang = contact.language if contact.language in definition.languages else definition.languages[0]
        before, present = (member.agreed_words or {}).get(lang, {}), words_now(session, campaign, member.partner_id, member, lang)
        after = {name: text for name, text in present.items() if text != before.get(name) and name in definition.blocks}
        if after:
            former = {name: before[name] for name in after if name in before}
            group = groups.setdefault(fingerprint([lang, former, after]), ChangedWords(lang, former, after, []))
            groups[fingerprint([lang, former, after])] = replace(group, members=[*group.members, (member, contact)])
    return list(groups.values())


def _kept_words(session: Session, viewer: Viewer, campaign_id: int) -> list[tuple[Member, Contact]]:
    live = exists().where(col(Enrollment.member_id) == col(Member.id), col(Enrollment.status) != EnrollmentStatus.ended)
    queued = exists().where(
        col(Entrance.campaign_id) == campaign_id,
        col(Entrance.contact_id) == col(Member.contact_id),
        col(Entrance.settled_at).is_(None),
    )
    kept = visible(select(Member, Contact), Contact, viewer).join(Contact, col(Contact.id) == col(Member.contact_id))
    kept = kept.where(Member.campaign_id == campaign_id, col(Member.agreed_words).is_not(None), or_(live, queued))
    return [(member, contact) for member, contact in session.exec(kept.order_by(col(Member.id)))]


def shown_words(groups: Sequence[ChangedWords]) -> str:
    """Return a short text that is equal for equal people and words, by which an agreement names its subject."""
    return fingerprint([[each.lang, each.after, [id_of(member) for member, _ in each.members]] for each in groups])


def agree(session: Session, viewer: Viewer, campaign_id: int, shown: str, now: datetime) -> int:
    """Agree to the changed words that were shown (`shown_words`), wake the enrollments that wait for it, and return how many members.

    SelectionChanged when the words or the people are other ones now.
    """
    require(viewer, Permission.enrol_contacts)
    groups = changed_words(session, viewer, campaign_id)
    ids = [id_of(member) for each in groups for member, _ in each.members]
    if shown != shown_words(groups):
        raise SelectionChanged(f"The words were changed again, or concern {len(ids)} people now; read them again, then agree.")
    count = agree_to_words(session, viewer, campaign_id, ids, shown, now)
    for member_ids in batches(ids):
        wake_members(session, member_ids, now)
    return count


def _inside(session: Session, viewer: Viewer, campaign_id: int, member_ids: Collection[int]) -> set[int]:
    """Return the members among these whose enrollment by the campaign has not ended."""
    live = visible(select(Enrollment.member_id), Enrollment, viewer).where(
        Enrollment.campaign_id == campaign_id,
        among(session, col(Enrollment.member_id), member_ids),
        col(Enrollment.status) != EnrollmentStatus.ended,
    )
    return {member_id for member_id in session.exec(live) if member_id is not None}
