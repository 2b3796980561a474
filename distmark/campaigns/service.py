"""Campaigns: a journey offered to partners, the members of each partner, and the texts of its editable blocks."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, update
from sqlmodel import Session, col, select

from distmark.campaigns.member_list import with_status
from distmark.campaigns.table import Campaign, CampaignStatus, Member, MemberStatus, PartnerBlocks
from distmark.campaigns.words import Words, are_agreed, fingerprint, own_words, with_words
from distmark.compliance.names import checked_names
from distmark.compliance.service import record
from distmark.compliance.table import AuditEntry
from distmark.contacts.service import mentions
from distmark.contacts.table import Contact
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.program import Program
from distmark.journeys.service import get_journey, newest_registered, program_of
from distmark.partners.model import Permission, Role, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import get_partner, require
from distmark.partners.table import Brand
from distmark.partners.translations import with_texts
from distmark.personalisation.blocks import resolve_blocks, sanitise_block
from distmark.personalisation.model import BlockKind, BlockValue
from distmark.sql import among, id_of, insert_into, row_count

KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
LONGEST_NAME = 120
MOST_ROWS = 500
MOST_PER_RUN = 500  # contacts that one flow run carries
MANY_MEMBERS = 1000  # with more members, runs of one contact each take long: one Prefect process wakes about 20 a second
CACHED_BLOCKS = "partner_blocks"
WORDED = ("worded", "words_agreed")  # what the audit trail says of words
BlockTexts = Mapping[str, str | None]  # block -> its new text; None removes the text, so that of the layer below shows
LanguageTexts = Mapping[str, BlockTexts]


@dataclass(frozen=True, slots=True)
class MemberPage:
    """A page of members with their contacts, in the order of adding; `next_after` is the next page's `after_id`, `total` counts all."""

    rows: list[tuple[Member, Contact]]
    next_after: int | None
    total: int


def create_campaign(
    session: Session,
    viewer: Viewer,
    journey_key: str,
    key: str,
    name: str,
    now: datetime,
    partner_id: int | None = None,
    names: Mapping[str, str] | None = None,
) -> Campaign:
    """Create an open campaign of a journey, for one partner or (None) for all partners of the brand, and return it.

    `names` are its name in other languages; without one, its own name is shown in that language, too.
    NotFound for a journey or partner outside the viewer's brand, InvalidInput for a key or name that cannot be used, Refused for a key
    that is taken.
    """
    require(viewer, Permission.publish_campaigns)
    journey = get_journey(session, viewer, journey_key)
    if partner_id is not None:
        get_partner(session, viewer, partner_id)
    name = name.strip()
    if not KEY.fullmatch(key):
        raise InvalidInput(f'The key "{key}" cannot be used; write small letters, digits and hyphens, such as autumn-2026.')
    if not 0 < len(name) <= LONGEST_NAME:
        raise InvalidInput(f"The name has {len(name)} characters; write 1 to {LONGEST_NAME}.")
    row: dict[str, Any] = {
        "brand_id": viewer.brand_id,
        "partner_id": partner_id,
        "journey_id": journey.id,
        "key": key,
        "name": name,
        "status": CampaignStatus.open,
        "blocks": {},
        "contacts_per_run": 1,
        "translations": {},
        "created_by_id": viewer.user_id,
        "created_at": now,
    }
    statement = insert_into(session, Campaign).values(row).on_conflict_do_nothing().returning(col(Campaign.id))
    campaign_id = session.execute(statement).scalar()
    if campaign_id is None:
        raise Refused(f'There is a campaign "{key}" already; choose another key.')
    record(session, viewer.brand_id, viewer.user_id, "created", "campaign", campaign_id, now, journey=journey_key)
    for lang, translation in (names or {}).items():
        translate_campaign(session, viewer, campaign_id, lang, translation, now)
    return session.get_one(Campaign, campaign_id)


def translate_campaign(session: Session, viewer: Viewer, campaign_id: int, lang: str, name: str, now: datetime) -> Campaign:
    """Set the campaign's name in a language other than the brand's, and return the campaign; "" removes it."""
    require(viewer, Permission.publish_campaigns)
    campaign = get_campaign(session, viewer, campaign_id)
    after = with_texts(campaign, lang, checked_names(lang, {"name": name}, ("name",)))
    if after != campaign.translations:
        campaign.translations = after
        session.add(campaign)
        record(session, campaign.brand_id, viewer.user_id, "named", "campaign", campaign_id, now, lang=lang, names=["name"])
    return campaign


def set_campaign_status(session: Session, viewer: Viewer, campaign_id: int, status: CampaignStatus, now: datetime) -> Campaign:
    """Set the status of the campaign and return it; Refused for a closed campaign, which stays closed."""
    require(viewer, Permission.publish_campaigns)
    campaign = get_campaign(session, viewer, campaign_id)
    if campaign.status is CampaignStatus.closed and status is not CampaignStatus.closed:
        raise Refused(f'Campaign "{campaign.name}" is closed and cannot be {status}; create another.')
    campaign.status = status
    session.add(campaign)
    record(session, campaign.brand_id, viewer.user_id, status.value, "campaign", campaign_id, now)
    return campaign


def suggested_per_run(members: int) -> int:
    """Return how many contacts one flow run should carry: 1 for up to a thousand members, so that each contact has a run of its own."""
    if members <= MANY_MEMBERS:
        return 1
    return 100 if members <= 10 * MANY_MEMBERS else MOST_PER_RUN


def can_set_per_run(session: Session, viewer: Viewer, campaign_id: int) -> bool:
    """Return whether the viewer may now set the contacts per run: only before the first enrollment. NotFound outside their sight."""
    campaign = get_campaign(session, viewer, campaign_id)
    allowed = viewer.may(Permission.publish_campaigns) or viewer.may(Permission.enrol_contacts)
    return allowed and campaign.status is not CampaignStatus.closed and not _is_begun(session, campaign_id)


def set_contacts_per_run(session: Session, viewer: Viewer, campaign_id: int, many: int, now: datetime) -> Campaign:
    """Set the number of the campaign's contacts that one flow run carries, 1 to 500, and return the campaign.

    Errors: NotFound outside the viewer's sight, NotAllowed, InvalidInput for another number, Refused after the first enrollment.
    """
    campaign = get_campaign(session, viewer, campaign_id)
    if not viewer.may(Permission.publish_campaigns):
        require(viewer, Permission.enrol_contacts)
    if not 1 <= many <= MOST_PER_RUN:
        raise InvalidInput(f"A run carries 1 to {MOST_PER_RUN} contacts, not {many}; choose a number between.")
    if not can_set_per_run(session, viewer, campaign_id):
        raise Refused(f'Campaign "{campaign.name}" has begun, so its contacts stay in the runs they are in.')
    before, campaign.contacts_per_run = campaign.contacts_per_run, many
    session.add(campaign)
    record(session, campaign.brand_id, viewer.user_id, "cohort_set", "campaign", campaign_id, now, before=before, after=many)
    return campaign


def _is_begun(session: Session, campaign_id: int) -> bool:
    enrolled = select(Member.id).where(Member.campaign_id == campaign_id, Member.status == MemberStatus.approved).limit(1)
    return session.exec(enrolled).first() is not None


def list_campaigns(session: Session, viewer: Viewer) -> list[Campaign]:
    """Return the campaigns within the viewer's sight, newest first.

    A partner's people see published campaigns of their partner, and brand-wide ones that are open or have members of their partner.
    """
    statement = visible(select(Campaign), Campaign, viewer)
    if viewer.role is Role.partner:
        has_members = exists().where(and_(col(Member.campaign_id) == col(Campaign.id), col(Member.partner_id) == viewer.partner_id))
        own = col(Campaign.partner_id) == viewer.partner_id
        statement = statement.where(_published(), or_(own, col(Campaign.status) == CampaignStatus.open, has_members))
    return list(session.exec(statement.order_by(col(Campaign.id).desc())))


def get_campaign(session: Session, viewer: Viewer, campaign_id: int) -> Campaign:
    """Return the campaign; NotFound outside the viewer's sight. A partner's people do not see drafts."""
    statement = visible(select(Campaign), Campaign, viewer).where(Campaign.id == campaign_id)
    if viewer.role is Role.partner:
        statement = statement.where(_published())
    campaign = session.exec(statement).first()
    if campaign is None:
        raise NotFound(f"There is no campaign {campaign_id} among yours.")
    return campaign


def campaigns_by_id(session: Session, viewer: Viewer) -> dict[int, Campaign]:
    """Return the campaigns that the viewer may see, whatever their status, by id."""
    return {id_of(row): row for row in session.exec(visible(select(Campaign), Campaign, viewer))}


def _published() -> ColumnElement[bool]:
    return col(Campaign.status) != CampaignStatus.draft


# --- members --------------------------------------------------------------------------------------------------------------------------


def add_members(session: Session, viewer: Viewer, campaign_id: int, contact_ids: Sequence[int], now: datetime) -> int:
    """Add these contacts to the campaign as pending members, and return how many were not in it before.

    NotFound, and none added, for a contact outside the viewer's sight; Refused for a closed campaign or another partner's contact.
    """
    require(viewer, Permission.enrol_contacts)
    campaign = get_campaign(session, viewer, campaign_id)
    if campaign.status is CampaignStatus.closed:
        raise Refused(f'Campaign "{campaign.name}" is closed; nobody can be added.')
    owners = _owners(session, viewer, contact_ids)
    foreign = [contact_id for contact_id, owner in owners.items() if campaign.partner_id not in (None, owner)]
    if foreign:
        raise Refused(f'Campaign "{campaign.name}" is for one partner, and contact {foreign[0]} is not theirs.')
    rows = [
        {
            "campaign_id": campaign_id,
            "partner_id": owner,
            "contact_id": contact_id,
            "status": MemberStatus.pending,
            "blocks": {},
            "added_at": now,
            "added_by_id": viewer.user_id,
            "error": "",
        }
        for contact_id, owner in owners.items()
    ]
    if not rows:
        return 0
    # With many sets of values, and not as one long statement, it is compiled once: ten times faster for thousands of rows.
    statement = insert_into(session, Member).on_conflict_do_nothing().returning(col(Member.id))
    return len(session.execute(statement, rows).all())


def _owners(session: Session, viewer: Viewer, contact_ids: Sequence[int]) -> dict[int, int]:
    """Return the partner id of each contact, by contact id, in the given order; NotFound when one is outside the viewer's sight."""
    wanted = dict.fromkeys(contact_ids)
    own = visible(select(Contact.id, Contact.partner_id), Contact, viewer).where(col(Contact.erased_at).is_(None))
    found = dict(session.exec(own.where(among(session, col(Contact.id), wanted))).all())
    missing = next((contact_id for contact_id in wanted if contact_id not in found), None)
    if missing is not None:
        raise NotFound(f"There is no contact {missing} among yours; search again and pick from the list.")
    return {contact_id: found[contact_id] for contact_id in wanted}


def member_ids_of(session: Session, campaign_id: int | None, contact_ids: Collection[int]) -> dict[int, int]:
    """Return the member id of each of these contacts that is in the campaign, by contact id; none without a campaign."""
    if campaign_id is None:
        return {}
    of_campaign = select(Member.contact_id, Member.id).where(Member.campaign_id == campaign_id)
    rows = session.exec(of_campaign.where(among(session, col(Member.contact_id), contact_ids)))
    return {contact_id: member_id for contact_id, member_id in rows if member_id is not None}


def rejected_among(session: Session, campaign_id: int | None, contact_ids: Collection[int]) -> set[int]:
    """Return the contacts among these that their partner left out of the campaign; none without a campaign."""
    if campaign_id is None:
        return set()
    rejected = select(Member.contact_id).where(Member.campaign_id == campaign_id, Member.status == MemberStatus.rejected)
    return set(session.exec(rejected.where(among(session, col(Member.contact_id), contact_ids))))


def refuse_members(session: Session, campaign_id: int | None, reasons: Mapping[int, str], now: datetime) -> None:
    """Set the members of these contacts to error, each with the reason why it could not be enrolled; one left out meanwhile stays so."""
    if campaign_id is None:
        return
    for reason in dict.fromkeys(reasons.values()):
        of_reason = [contact_id for contact_id, given in reasons.items() if given == reason]
        refused = update(Member).where(col(Member.campaign_id) == campaign_id, among(session, col(Member.contact_id), of_reason))
        refused = refused.where(col(Member.status) != MemberStatus.rejected)
        session.execute(refused.values(status=MemberStatus.error, decided_at=now, error=reason))


def approve_members(
    session: Session, campaign_id: int | None, contact_ids: Collection[int], now: datetime, *, agreed_now: bool = True
) -> None:
    """Set the members of these contacts to approved, since they are enrolled or queued; without a campaign nothing changes.

    With `agreed_now` the partner agrees to the present words; a member that was queued keeps the words agreed to when it was.
    """
    if campaign_id is None:
        return
    enrolled = update(Member).where(col(Member.campaign_id) == campaign_id, among(session, col(Member.contact_id), contact_ids))
    words: dict[str, Any] = {"agreed_words": None} if agreed_now else {}
    session.execute(enrolled.values(status=MemberStatus.approved, decided_at=now, error="", **words))


def members(
    session: Session,
    viewer: Viewer,
    campaign_id: int,
    status: MemberStatus | None = None,
    text: str = "",
    after_id: int | None = None,
    limit: int = 50,
    blocked: Collection[int] = (),
) -> MemberPage:
    """Return the campaign's members within the viewer's sight, with their contacts, in the order of adding.

    `text` selects contacts as in `find_contacts`; `after_id` is the `next_after` of the page before; `blocked` as in `with_status`.
    NotAllowed without the permission to see contacts.
    """
    require(viewer, Permission.see_contacts)
    get_campaign(session, viewer, campaign_id)
    conditions = [col(Member.campaign_id) == campaign_id, *mentions(text)]
    if status is not None:
        conditions.append(with_status(session, status, blocked))
    with_contact = col(Contact.id) == col(Member.contact_id)
    counting = select(func.count(col(Member.id))).join(Contact, with_contact)
    total = session.exec(visible(counting, Contact, viewer).where(*conditions)).one()
    statement = visible(select(Member, Contact).join(Contact, with_contact), Contact, viewer).where(*conditions)
    if after_id is not None:
        statement = statement.where(col(Member.id) > after_id)
    size = max(1, min(limit, MOST_ROWS))
    rows = [(member, contact) for member, contact in session.exec(statement.order_by(col(Member.id)).limit(size + 1))]
    return MemberPage(rows[:size], rows[size - 1][0].id if len(rows) > size else None, total)


def is_member(campaign_id: int) -> ColumnElement[bool]:
    """Return the condition that a contact is a member of the campaign, for searches of contacts."""
    return exists().where(and_(col(Member.contact_id) == col(Contact.id), col(Member.campaign_id) == campaign_id))


def member_counts(session: Session, viewer: Viewer, campaign_id: int) -> dict[MemberStatus, int]:
    """Return the number of the viewer's members by status; every status is a key."""
    get_campaign(session, viewer, campaign_id)
    counting = select(Member.status, func.count(col(Member.id))).join(Contact, col(Contact.id) == col(Member.contact_id))
    statement = visible(counting, Contact, viewer).where(Member.campaign_id == campaign_id)
    counted = session.exec(statement.group_by(col(Member.status)))
    return dict.fromkeys(MemberStatus, 0) | {MemberStatus(status): count for status, count in counted}


def get_member(session: Session, viewer: Viewer, member_id: int) -> Member:
    """Return the member; NotFound outside the viewer's sight."""
    statement = visible(select(Member).join(Contact, col(Contact.id) == col(Member.contact_id)), Contact, viewer)
    member = session.exec(statement.where(Member.id == member_id)).first()
    if member is None:
        raise NotFound(f"There is no member {member_id} among yours.")
    return member


def decide_members(
    session: Session, viewer: Viewer, campaign_id: int, member_ids: Collection[int], status: MemberStatus, now: datetime
) -> int:
    """Set the status of these members and return how many changed; members outside the viewer's sight are left as they are."""
    require(viewer, Permission.enrol_contacts)
    get_campaign(session, viewer, campaign_id)
    own = visible(select(Contact.id), Contact, viewer)
    statement = (
        update(Member)
        .where(col(Member.campaign_id) == campaign_id, among(session, col(Member.id), member_ids), col(Member.status) != status)
        .where(col(Member.contact_id).in_(own))
        .values(status=status, decided_at=None if status is MemberStatus.pending else now, error="")
    )
    return row_count(session.execute(statement))


# --- blocks ---------------------------------------------------------------------------------------------------------------------------


def save_campaign_blocks(session: Session, viewer: Viewer, campaign_id: int, lang: str, texts: BlockTexts, now: datetime) -> Campaign:
    """Set the brand's texts of the campaign's blocks in one language, which partners may then override; return the campaign.

    Members that were sent before keep waiting at their next message until their partner agrees to the new words.
    """
    require(viewer, Permission.publish_campaigns)
    campaign = get_campaign(session, viewer, campaign_id)
    program = _program(session, campaign)
    clean = _cleaned(session, campaign, program.definition, lang, set(program.definition.blocks), texts)
    after = _merged(campaign.blocks, clean)
    if after != campaign.blocks:
        _keep_agreed_words(session, campaign, program.definition)
        campaign.blocks = after
        session.add(campaign)
        _record_words(session, viewer, campaign, "campaign", campaign_id, clean, now)
    return campaign


def save_partner_blocks(
    session: Session, viewer: Viewer, campaign_id: int, lang: str, texts: BlockTexts, now: datetime, partner_id: int | None = None
) -> PartnerBlocks:
    """Set a partner's texts of the campaign's blocks in one language for all its members, and return all of the partner's texts.

    Refused for a block that no step lets partners edit. Texts are sanitised. None, and a text equal to the layer below, is not kept, so
    that a later change of the layer below shows. A picture is set in every language. People of the brand name the partner. Members that
    were sent before keep waiting at their next message until their partner agrees to the new words.
    """
    require(viewer, Permission.enrol_contacts)
    campaign = get_campaign(session, viewer, campaign_id)
    owner = partner_id or viewer.partner_id
    if owner is None:
        raise InvalidInput("The partner is missing; say whose words these are.")
    get_partner(session, viewer, owner)
    program = _program(session, campaign)
    clean = _cleaned(session, campaign, program.definition, lang, editable_blocks(program), texts)
    row = _partner_blocks(session, campaign_id, owner) or PartnerBlocks(campaign_id=campaign_id, partner_id=owner, updated_at=now)
    after = _merged(row.blocks, _without_repeats(program.definition, campaign, {}, clean))
    if after != row.blocks:
        _keep_agreed_words(session, campaign, program.definition, col(Member.partner_id) == owner)
        row.blocks = after
        _record_words(session, viewer, campaign, "campaign", campaign_id, clean, now, partner=owner)
    row.updated_at = now
    session.add(row)
    session.flush()
    session.info.pop(CACHED_BLOCKS, None)
    return row


def save_member_blocks(session: Session, viewer: Viewer, member_id: int, lang: str, texts: BlockTexts, now: datetime) -> Member:
    """Set the partner's texts of blocks in one language for this member alone, and return the member. Rules: `save_partner_blocks`."""
    require(viewer, Permission.enrol_contacts)
    member = get_member(session, viewer, member_id)
    campaign = session.get_one(Campaign, member.campaign_id)
    program = _program(session, campaign)
    clean = _cleaned(session, campaign, program.definition, lang, editable_blocks(program), texts)
    partner_texts = _partner_texts(session, campaign, member.partner_id)
    after = _merged(member.blocks, _without_repeats(program.definition, campaign, partner_texts, clean))
    if after != member.blocks:
        _keep_agreed_words(session, campaign, program.definition, col(Member.id) == member_id)
        session.refresh(member)
        member.blocks = after
        session.add(member)
        _record_words(session, viewer, campaign, "member", member_id, clean, now, partner=member.partner_id)
    session.flush()
    return member


def words_trail(session: Session, viewer: Viewer, campaign_id: int, limit: int = 50) -> list[AuditEntry]:
    """Return the changes of the campaign's words and of its members' words, and the agreements to them, newest first."""
    get_campaign(session, viewer, campaign_id)
    of_members = select(Member.id).where(Member.campaign_id == campaign_id)
    entries = visible(select(AuditEntry), AuditEntry, viewer).where(
        col(AuditEntry.action).in_(WORDED),
        or_(
            and_(col(AuditEntry.subject_kind) == "campaign", col(AuditEntry.subject_id) == campaign_id),
            and_(col(AuditEntry.subject_kind) == "member", col(AuditEntry.subject_id).in_(of_members)),
        ),
    )
    found = session.exec(entries.order_by(col(AuditEntry.id).desc()).limit(MOST_ROWS))
    return [entry for entry in found if _may_see_words(viewer, entry)][:limit]


def _may_see_words(viewer: Viewer, entry: AuditEntry) -> bool:
    """Return whether the entry is of the viewer's partner, or of the brand's words, which every partner's members get."""
    partner_id = entry.detail.get("partner")
    return viewer.partner_id is None or partner_id == viewer.partner_id or (partner_id is None and entry.action == "worded")


def _record_words(
    session: Session, viewer: Viewer, campaign: Campaign, kind: str, subject_id: int, clean: LanguageTexts, now: datetime, **detail: Any
) -> None:
    blocks = sorted({name for texts in clean.values() for name in texts})
    recorded_detail = {"lang": next(iter(clean), ""), "blocks": blocks, "words": fingerprint(clean), "campaign": campaign.id, **detail}
    record(session, campaign.brand_id, viewer.user_id, "worded", kind, subject_id, now, **recorded_detail)


def _keep_agreed_words(session: Session, campaign: Campaign, definition: JourneyDefinition, *where: ColumnElement[bool]) -> None:
    """Keep the present words of the members that were sent before, since words are about to change; kept ones stay as they are."""
    session.flush()
    sent = select(Member.id, Member.partner_id, Member.blocks).where(
        Member.campaign_id == id_of(campaign), Member.status == MemberStatus.approved, col(Member.agreed_words).is_(None), *where
    )
    ids: dict[str, list[int]] = {}
    for member_id, partner_id, blocks in session.exec(sent):
        layers = [campaign.blocks, _partner_texts(session, campaign, partner_id), blocks]
        words = {lang: texts for lang in definition.languages if (texts := own_words(layers, lang))}
        ids.setdefault(json.dumps(words), []).append(member_id or 0)
    for words_text, member_ids in ids.items():
        session.execute(update(Member).where(among(session, col(Member.id), member_ids)).values(agreed_words=json.loads(words_text)))


def are_words_agreed(
    session: Session, campaign: Campaign | None, partner_id: int, member: Member | None, lang: str, blocks: Collection[str]
) -> bool:
    """Return whether the partner agreed to the member's present words of these blocks; True without a campaign or member."""
    if campaign is None or member is None or member.agreed_words is None:
        return True
    return are_agreed(member.agreed_words, words_now(session, campaign, partner_id, member, lang), lang, blocks)


def words_now(session: Session, campaign: Campaign, partner_id: int, member: Member, lang: str) -> dict[str, str]:
    """Return the text of each block that brand or partner wrote for the member in this language."""
    return own_words([campaign.blocks, _partner_texts(session, campaign, partner_id), member.blocks], lang)


def agree_to_words(session: Session, viewer: Viewer, campaign_id: int, member_ids: Collection[int], words: str, now: datetime) -> int:
    """Agree to the present words of these members, whose fingerprint is `words`, for the messages to come; return how many changed."""
    require(viewer, Permission.enrol_contacts)
    campaign = get_campaign(session, viewer, campaign_id)
    own = visible(select(Contact.id), Contact, viewer)
    changed = update(Member).where(
        col(Member.campaign_id) == campaign_id,
        among(session, col(Member.id), member_ids),
        col(Member.agreed_words).is_not(None),
        col(Member.contact_id).in_(own),
    )
    count = row_count(session.execute(changed.values(agreed_words=None)))
    if count:
        record(
            session,
            campaign.brand_id,
            viewer.user_id,
            "words_agreed",
            "campaign",
            campaign_id,
            now,
            words=words,
            count=count,
            partner=viewer.partner_id,
        )
    return count


def editable_blocks(program: Program) -> set[str]:
    """Return the blocks that at least one send step lets partners edit."""
    return {name for step in program.steps.values() for name in getattr(step, "editable", ())}


def blocks_for(
    session: Session, campaign: Campaign | None, partner_id: int, member: Member | None, definition: JourneyDefinition, lang: str
) -> dict[str, BlockValue]:
    """Return the value of every block for one member (None: for all), each with the layer of its text: journey, brand, partner, member."""
    partner_words = _partner_texts(session, campaign, partner_id) if campaign else {}
    return _layers(definition, campaign, partner_words, member.blocks if member else {}, lang)


def _layers(
    definition: JourneyDefinition, campaign: Campaign | None, partner_words: Words, member_words: Words, lang: str
) -> dict[str, BlockValue]:
    defaults = {name: block.default.text(lang) for name, block in definition.blocks.items()}
    kinds = {name: block.kind for name, block in definition.blocks.items()}
    brand = campaign.blocks.get(lang, {}) if campaign else {}
    return resolve_blocks(defaults, brand, partner_words.get(lang, {}), {}, member_words.get(lang, {}), kinds=kinds)


def _partner_texts(session: Session, campaign: Campaign, partner_id: int) -> Words:
    """Return the partner's texts for all members, read once per unit of work: a batch of messages needs them for each message."""
    cached: dict[tuple[int, int], Words] = session.info.setdefault(CACHED_BLOCKS, {})
    key = (id_of(campaign), partner_id)
    if key not in cached:
        row = _partner_blocks(session, *key)
        cached[key] = row.blocks if row else {}
    return cached[key]


def partners_with_blocks(session: Session, campaign_id: int) -> dict[str, frozenset[int]]:
    """Return by language the ids of the partners that wrote blocks of their own for all their members of the campaign."""
    found: dict[str, set[int]] = {}
    for row in session.exec(select(PartnerBlocks).where(PartnerBlocks.campaign_id == campaign_id)):
        for lang in row.blocks:
            found.setdefault(lang, set()).add(row.partner_id)
    return {lang: frozenset(partner_ids) for lang, partner_ids in found.items()}


def _partner_blocks(session: Session, campaign_id: int, partner_id: int) -> PartnerBlocks | None:
    statement = select(PartnerBlocks).where(PartnerBlocks.campaign_id == campaign_id, PartnerBlocks.partner_id == partner_id)
    return session.exec(statement).first()


def _program(session: Session, campaign: Campaign) -> Program:
    version = newest_registered(session, campaign.journey_id)
    if version is None or version.id is None:
        raise Refused(f'The journey of campaign "{campaign.name}" has no registered version yet, so there is nothing to edit.')
    return program_of(session, version.id)


def _cleaned(
    session: Session, campaign: Campaign, definition: JourneyDefinition, lang: str, allowed: Collection[str], texts: BlockTexts
) -> LanguageTexts:
    """Return the texts by language, sanitised: those of `lang`, and pictures in every language.

    Refused for a block that may not be changed, InvalidInput for a text that does not fit its block or a language that is not spoken.
    """
    if lang not in definition.languages:
        raise InvalidInput(f"The language {lang!r} is not one of the journey's: {', '.join(definition.languages)}.")
    locked = next((name for name in texts if name not in allowed), None)
    if locked is not None:
        open_ones = ", ".join(sorted(allowed)) or "none"
        raise Refused(f'The block "{locked}" cannot be changed here; open to changes: {open_ones}.')
    domains = session.get_one(Brand, campaign.brand_id).image_domains
    clean = {name: None if text is None else _sanitised(definition, name, text, domains) for name, text in texts.items()}
    pictures = {name: text for name, text in clean.items() if BlockKind(definition.blocks[name].kind) is BlockKind.IMAGE}
    others = {other: pictures for other in definition.languages if other != lang and pictures}
    return {lang: clean, **others}


def _sanitised(definition: JourneyDefinition, name: str, text: str, domains: Collection[str]) -> str:
    block = definition.blocks[name]
    return sanitise_block(block.kind, text, block.longest, domains)


def _without_repeats(definition: JourneyDefinition, campaign: Campaign, partner_words: Words, texts: LanguageTexts) -> LanguageTexts:
    """Return the texts, with None for each text equal to that of the layer below in its language: no copy is kept."""
    below = {lang: _layers(definition, campaign, partner_words, {}, lang) for lang in texts}
    return {
        lang: {name: None if below[lang][name].value == text else text for name, text in of_language.items()}
        for lang, of_language in texts.items()
    }


def _merged(words: Words, texts: LanguageTexts) -> dict[str, dict[str, str]]:
    merged = {lang: dict(of_language) for lang, of_language in words.items()}
    for lang, of_language in texts.items():
        merged = with_words(merged, lang, of_language)
    return merged
