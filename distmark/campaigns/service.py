"""Campaigns: a journey offered to partners, the members they put in it, and what they say in its editable blocks."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, update
from sqlmodel import Session, col, select

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
MANY_MEMBERS = 1000  # from which on runs of one contact each take long: one Prefect process wakes about 20 a second
KEPT = "partner_blocks"
Said = Mapping[str, str | None]  # block -> what somebody wants it to say; None: nothing, so the layer below shows


@dataclass(frozen=True, slots=True)
class MemberPage:
    """Some members with their contacts, in the order they were added; `next_after` asks for those that follow, `total` counts all."""

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
    """Offer a journey under a name of its own, to one partner or (None) to all of the brand, and return the open campaign.

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
    """Open, pause or close the campaign; a closed one stays closed."""
    require(viewer, Permission.publish_campaigns)
    campaign = get_campaign(session, viewer, campaign_id)
    if campaign.status is CampaignStatus.closed and status is not CampaignStatus.closed:
        raise Refused(f'Campaign "{campaign.name}" is closed and cannot be {status}; create another.')
    campaign.status = status
    session.add(campaign)
    record(session, campaign.brand_id, viewer.user_id, status.value, "campaign", campaign_id, now)
    return campaign


def suggested_per_run(members: int) -> int:
    """Return how many contacts one flow run should carry for so many members: 1 up to a thousand, since then each shows by itself."""
    if members <= MANY_MEMBERS:
        return 1
    return 100 if members <= 10 * MANY_MEMBERS else MOST_PER_RUN


def can_set_per_run(session: Session, viewer: Viewer, campaign_id: int) -> bool:
    """Say whether the viewer may choose now how many contacts a run carries: before anybody is sent. NotFound outside their sight."""
    campaign = get_campaign(session, viewer, campaign_id)
    allowed = viewer.may(Permission.publish_campaigns) or viewer.may(Permission.enrol_contacts)
    return allowed and campaign.status is not CampaignStatus.closed and not _is_begun(session, campaign_id)


def set_contacts_per_run(session: Session, viewer: Viewer, campaign_id: int, many: int, now: datetime) -> Campaign:
    """Let one flow run carry `many` of the campaign's contacts, 1 to 500.

    Errors: NotFound outside the viewer's sight, NotAllowed, InvalidInput for another number, Refused once anybody was enrolled by it.
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
    sent = select(Member.id).where(Member.campaign_id == campaign_id, Member.status == MemberStatus.approved).limit(1)
    return session.exec(sent).first() is not None


def list_campaigns(session: Session, viewer: Viewer) -> list[Campaign]:
    """Return the campaigns that the viewer may know of, newest first.

    A partner's people see their own that are published, of the brand-wide ones those that are open or have members of theirs.
    """
    statement = visible(select(Campaign), Campaign, viewer)
    if viewer.role is Role.partner:
        theirs = exists().where(and_(col(Member.campaign_id) == col(Campaign.id), col(Member.partner_id) == viewer.partner_id))
        own = col(Campaign.partner_id) == viewer.partner_id
        statement = statement.where(_published(), or_(own, col(Campaign.status) == CampaignStatus.open, theirs))
    return list(session.exec(statement.order_by(col(Campaign.id).desc())))


def get_campaign(session: Session, viewer: Viewer, campaign_id: int) -> Campaign:
    """Return the campaign; NotFound outside the viewer's sight, which for a partner's people is a draft, too."""
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


# Members


def add_members(session: Session, viewer: Viewer, campaign_id: int, contact_ids: Sequence[int], now: datetime) -> int:
    """Put these contacts in the campaign, undecided, and return how many were not in it before.

    NotFound, and nobody added, when one is not among the viewer's contacts; Refused for a closed campaign or another partner's contact.
    """
    require(viewer, Permission.enrol_contacts)
    campaign = get_campaign(session, viewer, campaign_id)
    if campaign.status is CampaignStatus.closed:
        raise Refused(f'Campaign "{campaign.name}" is closed; nobody can be added.')
    owners = _owners(session, viewer, contact_ids)
    strangers = [contact_id for contact_id, owner in owners.items() if campaign.partner_id not in (None, owner)]
    if strangers:
        raise Refused(f'Campaign "{campaign.name}" is for one partner, and contact {strangers[0]} is not theirs.')
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
    # Given as many sets of values, and not as one long statement, it is compiled once: ten times faster for thousands.
    statement = insert_into(session, Member).on_conflict_do_nothing().returning(col(Member.id))
    return len(session.execute(statement, rows).all())


def _owners(session: Session, viewer: Viewer, contact_ids: Sequence[int]) -> dict[int, int]:
    """Return whose book each contact is in, in the order asked; NotFound when one is outside the viewer's sight."""
    wanted = dict.fromkeys(contact_ids)
    mine = visible(select(Contact.id, Contact.partner_id), Contact, viewer).where(col(Contact.erased_at).is_(None))
    found = dict(session.exec(mine.where(among(session, col(Contact.id), wanted))).all())
    missing = next((contact_id for contact_id in wanted if contact_id not in found), None)
    if missing is not None:
        raise NotFound(f"There is no contact {missing} among yours; search again and pick from the list.")
    return {contact_id: found[contact_id] for contact_id in wanted}


def members(
    session: Session,
    viewer: Viewer,
    campaign_id: int,
    status: MemberStatus | None = None,
    text: str = "",
    after_id: int | None = None,
    limit: int = 50,
) -> MemberPage:
    """Return the campaign's members that the viewer may know of, with their contacts, in the order they were added.

    `text` narrows them as in `find_contacts`; `after_id` is the `next_after` of the page before.
    """
    get_campaign(session, viewer, campaign_id)
    conditions = [col(Member.campaign_id) == campaign_id, *mentions(text)]
    if status is not None:
        conditions.append(col(Member.status) == status)
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
    """Return how many of the viewer's members have each status; every status is a key."""
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
    """Set what was decided about these members of the campaign and return how many it changed; others' are left alone."""
    require(viewer, Permission.enrol_contacts)
    get_campaign(session, viewer, campaign_id)
    mine = visible(select(Contact.id), Contact, viewer)
    statement = (
        update(Member)
        .where(col(Member.campaign_id) == campaign_id, among(session, col(Member.id), member_ids), col(Member.status) != status)
        .where(col(Member.contact_id).in_(mine))
        .values(status=status, decided_at=None if status is MemberStatus.pending else now, error="")
    )
    return row_count(session.execute(statement))


# What is said in blocks


def save_campaign_blocks(session: Session, viewer: Viewer, campaign_id: int, lang: str, said: Said, now: datetime) -> Campaign:
    """Keep what the brand says in the campaign's blocks in one language, before any partner changes it."""
    require(viewer, Permission.publish_campaigns)
    campaign = get_campaign(session, viewer, campaign_id)
    program = _program(session, campaign)
    if lang not in program.definition.languages:
        raise InvalidInput(f"The language {lang!r} is not one of the journey's: {', '.join(program.definition.languages)}.")
    clean = _clean(session, campaign, program.definition, set(program.definition.blocks), said)
    campaign.blocks = {**campaign.blocks, lang: _merged(campaign.blocks.get(lang, {}), clean)}
    session.add(campaign)
    record(session, campaign.brand_id, viewer.user_id, "worded", "campaign", campaign_id, now, lang=lang, blocks=sorted(said))
    return campaign


def save_partner_blocks(
    session: Session, viewer: Viewer, campaign_id: int, said: Said, now: datetime, partner_id: int | None = None
) -> PartnerBlocks:
    """Keep what a partner says to everybody in the campaign, and return it; people of the brand say which partner.

    Only blocks that a step lets partners edit are taken (else Refused); text is cleaned. What is shown anyway, and
    None, is not kept, so that a later change of the layer below shows.
    """
    require(viewer, Permission.enrol_contacts)
    campaign = get_campaign(session, viewer, campaign_id)
    owner = partner_id or viewer.partner_id
    if owner is None:
        raise InvalidInput("The partner is missing; say whose words these are.")
    get_partner(session, viewer, owner)
    program = _program(session, campaign)
    clean = _clean(session, campaign, program.definition, editable_blocks(program), said)
    row = _partner_blocks(session, campaign_id, owner) or PartnerBlocks(campaign_id=campaign_id, partner_id=owner, updated_at=now)
    below = [_layers(program.definition, campaign, {}, {}, lang) for lang in program.definition.languages]
    row.blocks, row.updated_at = _merged(row.blocks, _without_repeats(clean, below)), now
    session.add(row)
    session.flush()
    session.info.pop(KEPT, None)
    return row


def save_member_blocks(session: Session, viewer: Viewer, member_id: int, said: Said, now: datetime) -> Member:
    """Keep what the partner says to this member alone, and return the member. Rules as in `save_partner_blocks`."""
    require(viewer, Permission.enrol_contacts)
    member = get_member(session, viewer, member_id)
    campaign = session.get_one(Campaign, member.campaign_id)
    program = _program(session, campaign)
    clean = _clean(session, campaign, program.definition, editable_blocks(program), said)
    to_all = _said_to_all(session, campaign, member.partner_id)
    below = [_layers(program.definition, campaign, to_all, {}, lang) for lang in program.definition.languages]
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
    """Return every block's value for one member (None: for everybody), with the layer that says it: journey, brand, campaign, member."""
    to_all = _said_to_all(session, campaign, partner_id) if campaign else {}
    return _layers(definition, campaign, to_all, member.blocks if member else {}, lang)


def _layers(definition: JourneyDefinition, campaign: Campaign | None, to_all: Said, to_one: Said, lang: str) -> dict[str, BlockValue]:
    defaults = {name: block.default.text(lang) for name, block in definition.blocks.items()}
    kinds = {name: block.kind for name, block in definition.blocks.items()}
    brand = campaign.blocks.get(lang, {}) if campaign else {}
    return resolve_blocks(defaults, brand, to_all, {}, to_one, kinds=kinds)


def _said_to_all(session: Session, campaign: Campaign, partner_id: int) -> Mapping[str, str]:
    """Return what the partner says to everybody, asked once per unit of work: a batch of messages reads it for each of them."""
    kept: dict[tuple[int, int], Mapping[str, str]] = session.info.setdefault(KEPT, {})
    key = (id_of(campaign), partner_id)
    if key not in kept:
        row = _partner_blocks(session, *key)
        kept[key] = row.blocks if row else {}
    return kept[key]


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


def _clean(
    session: Session, campaign: Campaign, definition: JourneyDefinition, allowed: Collection[str], said: Said
) -> dict[str, str | None]:
    """Return `said` fit to be stored; Refused for a block that may not be changed, InvalidInput for what does not fit into it."""
    locked = next((name for name in said if name not in allowed), None)
    if locked is not None:
        open_ones = ", ".join(sorted(allowed)) or "none"
        raise Refused(f'The block "{locked}" cannot be changed here; open to changes: {open_ones}.')
    domains = session.get_one(Brand, campaign.brand_id).image_domains
    return {name: None if text is None else _sanitised(definition, name, text, domains) for name, text in said.items()}


def _sanitised(definition: JourneyDefinition, name: str, text: str, domains: Collection[str]) -> str:
    block = definition.blocks[name]
    return sanitise_block(block.kind, text, block.longest, domains)


def _without_repeats(said: Said, below: Sequence[Mapping[str, BlockValue]]) -> dict[str, str | None]:
    return {name: None if any(layer[name].value == text for layer in below) else text for name, text in said.items()}


def _merged(before: Mapping[str, str], said: Said) -> dict[str, str]:
    return {name: text for name, text in {**before, **said}.items() if text is not None}
