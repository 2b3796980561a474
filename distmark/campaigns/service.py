"""Campaigns: a journey offered to partners, the members of each partner, and the texts of its editable blocks."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, update
from sqlmodel import Session, col, select

from distmark.campaigns.member_list import with_status
from distmark.campaigns.table import Campaign, CampaignStatus, Member, MemberStatus, PartnerBlocks
from distmark.compliance.service import record
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
from distmark.personalisation.blocks import resolve_blocks, sanitise_block
from distmark.personalisation.model import BlockValue
from distmark.sql import among, id_of, insert_into, row_count

KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
LONGEST_NAME = 120
MOST_ROWS = 500
MOST_PER_RUN = 500  # contacts that one flow run carries
MANY_MEMBERS = 1000  # with more members, runs of one contact each take long: one Prefect process wakes about 20 a second
CACHED_BLOCKS = "partner_blocks"
BlockTexts = Mapping[str, str | None]  # block -> its new text; None removes the text, so that of the layer below shows


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
) -> Campaign:
    """Create an open campaign of a journey, for one partner or (None) for all partners of the brand, and return it.

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
        "created_by_id": viewer.user_id,
        "created_at": now,
    }
    statement = insert_into(session, Campaign).values(row).on_conflict_do_nothing().returning(col(Campaign.id))
    campaign_id = session.execute(statement).scalar()
    if campaign_id is None:
        raise Refused(f'There is a campaign "{key}" already; choose another key.')
    record(session, viewer.brand_id, viewer.user_id, "created", "campaign", campaign_id, now, journey=journey_key)
    return session.get_one(Campaign, campaign_id)


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


def approve_members(session: Session, campaign_id: int | None, contact_ids: Collection[int], now: datetime) -> None:
    """Set the members of these contacts to approved, since they are enrolled or queued; without a campaign nothing changes."""
    if campaign_id is None:
        return
    enrolled = update(Member).where(col(Member.campaign_id) == campaign_id, among(session, col(Member.contact_id), contact_ids))
    session.execute(enrolled.values(status=MemberStatus.approved, decided_at=now, error=""))


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
    NotAllowed for people who see no contacts.
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
    """Set the brand's texts of the campaign's blocks in one language, which partners may then override; return the campaign."""
    require(viewer, Permission.publish_campaigns)
    campaign = get_campaign(session, viewer, campaign_id)
    program = _program(session, campaign)
    if lang not in program.definition.languages:
        raise InvalidInput(f"The language {lang!r} is not one of the journey's: {', '.join(program.definition.languages)}.")
    clean = _cleaned(session, campaign, program.definition, set(program.definition.blocks), texts)
    campaign.blocks = {**campaign.blocks, lang: _merged(campaign.blocks.get(lang, {}), clean)}
    session.add(campaign)
    record(session, campaign.brand_id, viewer.user_id, "worded", "campaign", campaign_id, now, lang=lang, blocks=sorted(texts))
    return campaign


def save_partner_blocks(
    session: Session, viewer: Viewer, campaign_id: int, texts: BlockTexts, now: datetime, partner_id: int | None = None
) -> PartnerBlocks:
    """Set a partner's texts of the campaign's blocks for all its members, and return them; people of the brand name the partner.

    Refused for a block that no step lets partners edit. Texts are sanitised. None, and a text equal to the layer below, is not kept, so
    that a later change of the layer below shows.
    """
    require(viewer, Permission.enrol_contacts)
    campaign = get_campaign(session, viewer, campaign_id)
    owner = partner_id or viewer.partner_id
    if owner is None:
        raise InvalidInput("The partner is missing; say whose words these are.")
    get_partner(session, viewer, owner)
    program = _program(session, campaign)
    clean = _cleaned(session, campaign, program.definition, editable_blocks(program), texts)
    row = _partner_blocks(session, campaign_id, owner) or PartnerBlocks(campaign_id=campaign_id, partner_id=owner, updated_at=now)
    below = [_layers(program.definition, campaign, {}, {}, lang) for lang in program.definition.languages]
    row.blocks, row.updated_at = _merged(row.blocks, _without_repeats(clean, below)), now
    session.add(row)
    session.flush()
    session.info.pop(CACHED_BLOCKS, None)
    return row


def save_member_blocks(session: Session, viewer: Viewer, member_id: int, texts: BlockTexts, now: datetime) -> Member:
    """Set the partner's texts of blocks for this member alone, and return the member. Rules as in `save_partner_blocks`."""
    require(viewer, Permission.enrol_contacts)
    member = get_member(session, viewer, member_id)
    campaign = session.get_one(Campaign, member.campaign_id)
    program = _program(session, campaign)
    clean = _cleaned(session, campaign, program.definition, editable_blocks(program), texts)
    partner_texts = _partner_texts(session, campaign, member.partner_id)
    below = [_layers(program.definition, campaign, partner_texts, {}, lang) for lang in program.definition.languages]
    member.blocks = _merged(member.blocks, _without_repeats(clean, below))
    session.add(member)
    session.flush()
    return member


def editable_blocks(program: Program) -> set[str]:
    """Return the blocks that at least one send step lets partners edit."""
    return {name for step in program.steps.values() for name in getattr(step, "editable", ())}


def blocks_for(
    session: Session, campaign: Campaign | None, partner_id: int, member: Member | None, definition: JourneyDefinition, lang: str
) -> dict[str, BlockValue]:
    """Return the value of every block for one member (None: for all), each with the layer of its text: journey, brand, partner, member."""
    partner_texts = _partner_texts(session, campaign, partner_id) if campaign else {}
    return _layers(definition, campaign, partner_texts, member.blocks if member else {}, lang)


def _layers(
    definition: JourneyDefinition, campaign: Campaign | None, partner_texts: BlockTexts, member_texts: BlockTexts, lang: str
) -> dict[str, BlockValue]:
    defaults = {name: block.default.text(lang) for name, block in definition.blocks.items()}
    kinds = {name: block.kind for name, block in definition.blocks.items()}
    brand = campaign.blocks.get(lang, {}) if campaign else {}
    return resolve_blocks(defaults, brand, partner_texts, {}, member_texts, kinds=kinds)


def _partner_texts(session: Session, campaign: Campaign, partner_id: int) -> Mapping[str, str]:
    """Return the partner's texts for all members, read once per unit of work: a batch of messages needs them for each message."""
    cached: dict[tuple[int, int], Mapping[str, str]] = session.info.setdefault(CACHED_BLOCKS, {})
    key = (id_of(campaign), partner_id)
    if key not in cached:
        row = _partner_blocks(session, *key)
        cached[key] = row.blocks if row else {}
    return cached[key]


def partners_with_blocks(session: Session, campaign_id: int) -> frozenset[int]:
    """Return the ids of the partners that wrote blocks of their own for all their members of the campaign."""
    rows = session.exec(select(PartnerBlocks).where(PartnerBlocks.campaign_id == campaign_id))
    return frozenset(row.partner_id for row in rows if row.blocks)


def _partner_blocks(session: Session, campaign_id: int, partner_id: int) -> PartnerBlocks | None:
    statement = select(PartnerBlocks).where(PartnerBlocks.campaign_id == campaign_id, PartnerBlocks.partner_id == partner_id)
    return session.exec(statement).first()


def _program(session: Session, campaign: Campaign) -> Program:
    version = newest_registered(session, campaign.journey_id)
    if version is None or version.id is None:
        raise Refused(f'The journey of campaign "{campaign.name}" has no registered version yet, so there is nothing to edit.')
    return program_of(session, version.id)


def _cleaned(
    session: Session, campaign: Campaign, definition: JourneyDefinition, allowed: Collection[str], texts: BlockTexts
) -> dict[str, str | None]:
    """Return the texts, sanitised; Refused for a block that may not be changed, InvalidInput for a text that does not fit its block."""
    locked = next((name for name in texts if name not in allowed), None)
    if locked is not None:
        open_ones = ", ".join(sorted(allowed)) or "none"
        raise Refused(f'The block "{locked}" cannot be changed here; open to changes: {open_ones}.')
    domains = session.get_one(Brand, campaign.brand_id).image_domains
    return {name: None if text is None else _sanitised(definition, name, text, domains) for name, text in texts.items()}


def _sanitised(definition: JourneyDefinition, name: str, text: str, domains: Collection[str]) -> str:
    block = definition.blocks[name]
    return sanitise_block(block.kind, text, block.longest, domains)


def _without_repeats(texts: BlockTexts, below: Sequence[Mapping[str, BlockValue]]) -> dict[str, str | None]:
    return {name: None if any(layer[name].value == text for layer in below) else text for name, text in texts.items()}


def _merged(before: Mapping[str, str], texts: BlockTexts) -> dict[str, str]:
    return {name: text for name, text in {**before, **texts}.items() if text is not None}
