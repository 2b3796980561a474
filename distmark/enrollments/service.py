"""Entering, leaving, pausing and looking at enrollments. Walking them is the flows' work; this room keeps the rows."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from distmark.campaigns.service import add_members, get_campaign
from distmark.campaigns.table import Campaign, CampaignStatus, Member, MemberStatus
from distmark.compliance.service import record, require_sendable
from distmark.contacts import service as contacts
from distmark.contacts.table import Contact
from distmark.enrollments.model import EnrollmentStatus, EnrolResult, EnrolVerdict, MoveKind
from distmark.enrollments.table import Enrollment, Move, Task
from distmark.errors import NotFound, Refused
from distmark.journeys.definition import JourneyDefinition, Kind, all_steps
from distmark.journeys.entry import Admission, Reentry, admit
from distmark.journeys.model import Outcome
from distmark.journeys.program import Program
from distmark.journeys.service import newest_registered, program_of
from distmark.journeys.table import Journey, JourneyVersion
from distmark.journeys.times import zone_for
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require
from distmark.partners.table import Partner

INSERT_BATCH = 500
MOST_ENTRIES_PER_DAY = 10  # of one person into one journey from others


@dataclass(frozen=True, slots=True)
class Door:
    """What people enter through: a journey of a brand, by a campaign or without one."""

    brand_id: int
    journey_id: int
    campaign_id: int | None = None
    contacts_per_run: int = 1


@dataclass(frozen=True, slots=True)
class _Past:
    """What this person's earlier enrollments in the journey mean for entering now."""

    live_partner_id: int | None
    entered: bool
    ended_at: datetime | None


def enrol(
    session: Session,
    viewer: Viewer,
    campaign_id: int,
    contact_ids: Sequence[int],
    now: datetime,
    *,
    data: Mapping[str, Any] | None = None,
) -> list[EnrolResult]:
    """Enter each contact into the campaign's journey and return one result per contact, in the order asked.

    Only rows are written: the flow run of each is created afterwards, from these rows. Asking twice enrols once. `data` is kept with each
    enrollment as the journey's own data. Errors: NotFound for a campaign or contact outside the viewer's rows, Refused for a closed
    campaign or a journey without an approved, registered version.
    """
    require(viewer, Permission.enrol_contacts)
    campaign = get_campaign(session, viewer, campaign_id)
    version, program = _open_version(session, campaign)
    people = _contacts(session, viewer, contact_ids)
    verdicts = entry_verdicts(session, _door_of(campaign), program.definition, list(people.values()), now)
    entering = [contact for contact in people.values() if verdicts[_id(contact)].verdict is EnrolVerdict.enrolled]
    add_members(session, viewer, campaign_id, [_id(contact) for contact in people.values()], now)
    entered = _insert(session, _door_of(campaign), version, program, entering, now, data or {})
    _approve_members(session, campaign_id, entered, now)
    results = [_settled(verdicts[contact_id], entered) for contact_id in dict.fromkeys(contact_ids)]
    if entered:
        record(
            session, campaign.brand_id, viewer.user_id, "enrolled", "campaign", campaign_id, now, version.content_hash, count=len(entered)
        )
    return results


def enter_from(
    session: Session, source: Enrollment, contact: Contact, journey_key: str, step_id: str, data: Mapping[str, Any], now: datetime
) -> EnrolResult | None:
    """Enter the contact of `source`, whose step `step_id` says so, into the newest version of another journey of the same brand.

    Nobody asks for a person: the journey that says so was approved. The other journey's own rules decide, and its first entry in the
    timeline says where the contact came from. None when no version of that journey takes anybody.
    """
    journey = session.exec(select(Journey).where(Journey.brand_id == source.brand_id, Journey.key == journey_key)).first()
    version = newest_registered(session, journey.id or 0) if journey else None
    if journey is None or version is None:
        return None
    require_sendable(version)
    program, door = program_of(session, version.id or 0), Door(source.brand_id, journey.id or 0)
    verdicts = entry_verdicts(session, door, program.definition, [contact], now)
    result = verdicts[_id(contact)]
    if result.verdict is not EnrolVerdict.enrolled:
        return result
    if _entries_since(session, door, contact, now - timedelta(days=1)) >= MOST_ENTRIES_PER_DAY:
        return EnrolResult(_id(contact), EnrolVerdict.too_soon, until=now + timedelta(days=1))
    came_from = {"from_enrollment": source.id, "from_step": step_id}
    return _settled(result, _insert(session, door, version, program, [contact], now, data, came_from))


def _entries_since(session: Session, door: Door, contact: Contact, since: datetime) -> int:
    """Count how often the person entered lately: two journeys that enter each other must not do so without end."""
    entries = select(func.count()).where(
        col(Enrollment.person_key) == contact.person_key, col(Enrollment.journey_id) == door.journey_id, col(Enrollment.entered_at) > since
    )
    return session.exec(entries).one()


def _door_of(campaign: Campaign) -> Door:
    return Door(campaign.brand_id, campaign.journey_id, campaign.id, campaign.contacts_per_run)


def preview_enrol(session: Session, viewer: Viewer, campaign_id: int, contact_ids: Sequence[int], now: datetime) -> list[EnrolResult]:
    """Say what `enrol` would answer now, changing nothing."""
    require(viewer, Permission.enrol_contacts)
    campaign = get_campaign(session, viewer, campaign_id)
    _version, program = _open_version(session, campaign)
    people = _contacts(session, viewer, contact_ids)
    verdicts = entry_verdicts(session, _door_of(campaign), program.definition, list(people.values()), now)
    return [verdicts[contact_id] for contact_id in dict.fromkeys(contact_ids)]


def _open_version(session: Session, campaign: Campaign) -> tuple[JourneyVersion, Program]:
    if campaign.status is not CampaignStatus.open:
        raise Refused(f'Campaign "{campaign.name}" is {campaign.status}: nobody can be enrolled until it is open.')
    version = newest_registered(session, campaign.journey_id)
    if version is None or version.id is None:
        raise Refused(f'The journey of campaign "{campaign.name}" has no approved and registered version yet; ask the brand\'s marketers.')
    require_sendable(version)
    return version, program_of(session, version.id)


def _contacts(session: Session, viewer: Viewer, contact_ids: Sequence[int]) -> dict[int, Contact]:
    wanted = list(dict.fromkeys(contact_ids))
    found: dict[int, Contact] = {}
    for start in range(0, len(wanted), INSERT_BATCH):
        part = wanted[start : start + INSERT_BATCH]
        rows = session.exec(visible(select(Contact), Contact, viewer).where(col(Contact.id).in_(part), col(Contact.erased_at).is_(None)))
        found.update({_id(contact): contact for contact in rows})
    missing = [contact_id for contact_id in wanted if contact_id not in found]
    if missing:
        raise NotFound(f"There is no contact {missing[0]} among yours; search again and pick from the list.")
    return {contact_id: found[contact_id] for contact_id in wanted}


def _id(row: Contact | Enrollment | Member | Partner) -> int:
    if row.id is None:
        raise ValueError(f"{type(row).__name__} has not been stored yet.")
    return row.id


def first_channel(definition: JourneyDefinition) -> str:
    """Return the channel of the journey's first send, which a contact must have an address for; "" when it sends nothing."""
    for step in all_steps(definition.steps):
        if step.kind == "send":
            return str(getattr(step, "send", "email"))
    return ""


def entry_verdicts(
    session: Session, door: Door, definition: JourneyDefinition, people: Sequence[Contact], now: datetime
) -> dict[int, EnrolResult]:
    """Decide for each contact whether they may enter now: re-entry, consent, suppression and address, in this order of telling."""
    channel = first_channel(definition)
    past = _past(session, door.journey_id, [contact.person_key for contact in people])
    refused = contacts.consent_state(session, [_id(contact) for contact in people], channel) if channel else {}
    addresses = [address for contact in people if (address := address_of(contact, channel))]
    stopped = contacts.suppressed(session, door.brand_id, channel, addresses, definition.kind is Kind.marketing) if channel else set()
    names = {
        row.id: row.name
        for row in session.exec(select(Partner).where(col(Partner.id).in_({p.live_partner_id for p in past.values() if p.live_partner_id})))
    }
    verdicts: dict[int, EnrolResult] = {}
    seen: set[str] = set()
    for contact in people:
        verdict = _verdict(contact, channel, past.get(contact.person_key), definition, stopped, refused.get(_id(contact)), now)
        if verdict.verdict is EnrolVerdict.enrolled and contact.person_key in seen and definition.entry.reentry is not Reentry.any_time:
            verdict = EnrolResult(_id(contact), EnrolVerdict.already_in)
        if verdict.verdict is EnrolVerdict.other_partner:
            before = past[contact.person_key]
            verdict = EnrolResult(_id(contact), EnrolVerdict.other_partner, partner_name=names.get(before.live_partner_id, ""))
        seen.add(contact.person_key)
        verdicts[_id(contact)] = verdict
    return verdicts


def _verdict(
    contact: Contact,
    channel: str,
    past: _Past | None,
    definition: JourneyDefinition,
    stopped: set[str],
    consent: bool | None,
    now: datetime,
) -> EnrolResult:
    contact_id = _id(contact)
    address = address_of(contact, channel)
    if channel and not address:
        return EnrolResult(contact_id, EnrolVerdict.no_address)
    if address and contacts.address_hash(contact.brand_id, address) in stopped:
        return EnrolResult(contact_id, EnrolVerdict.suppressed)
    if consent is False or (consent is None and definition.kind is Kind.marketing and channel):
        return EnrolResult(contact_id, EnrolVerdict.no_consent)
    if past is None:
        return EnrolResult(contact_id, EnrolVerdict.enrolled)
    return _reentry(contact, past, definition, now)


def _reentry(contact: Contact, past: _Past, definition: JourneyDefinition, now: datetime) -> EnrolResult:
    contact_id = _id(contact)
    answer = admit(
        definition.entry, inside=past.live_partner_id is not None, last_left_at=past.ended_at, now=now, zone=zone_for(contact.zone)
    )
    if answer.admission is Admission.inside:
        mine = past.live_partner_id == contact.partner_id
        return EnrolResult(contact_id, EnrolVerdict.already_in if mine else EnrolVerdict.other_partner)
    verdict = {
        Admission.admitted: EnrolVerdict.enrolled,
        Admission.been_before: EnrolVerdict.once_only,
        Admission.cooling_down: EnrolVerdict.too_soon,
    }[answer.admission]
    return EnrolResult(contact_id, verdict, until=answer.again_at)


def address_of(contact: Contact, channel: str) -> str | None:
    """Return where `channel` reaches this contact, or None."""
    return {"email": contact.email, "sms": contact.phone}.get(channel)


def _past(session: Session, journey_id: int, person_keys: Sequence[str]) -> dict[str, _Past]:
    past: dict[str, _Past] = {}
    for start in range(0, len(person_keys), INSERT_BATCH):
        part = list(person_keys[start : start + INSERT_BATCH])
        rows = session.exec(
            select(Enrollment.person_key, Enrollment.partner_id, Enrollment.ended_at)
            .where(Enrollment.journey_id == journey_id, col(Enrollment.person_key).in_(part))
            .order_by(col(Enrollment.id))
        )
        for person_key, partner_id, ended_at in rows:
            before = past.get(person_key)
            live = partner_id if ended_at is None else (before.live_partner_id if before else None)
            past[person_key] = _Past(live, True, ended_at or (before.ended_at if before else None))
    return past


def _insert(
    session: Session,
    door: Door,
    version: JourneyVersion,
    program: Program,
    people: Sequence[Contact],
    now: datetime,
    data: Mapping[str, Any],
    came_from: Mapping[str, Any] | None = None,
) -> dict[int, int]:
    """Insert one enrollment per contact; a live one that another transaction put there first is left alone. Contact -> enrollment."""
    members = _members(session, door.campaign_id, [_id(contact) for contact in people])
    any_time = program.definition.entry.reentry is Reentry.any_time
    run_keys = _run_keys(len(people), door.contacts_per_run)
    rows: list[dict[str, Any]] = [
        {
            "brand_id": door.brand_id,
            "journey_id": door.journey_id,
            "version_id": version.id,
            "campaign_id": door.campaign_id,
            "member_id": members.get(_id(contact)),
            "partner_id": contact.partner_id,
            "contact_id": _id(contact),
            "person_key": contact.person_key,
            "live_key": None if any_time else f"{door.journey_id}:{contact.person_key}",
            "status": EnrollmentStatus.waiting,
            "visits": {},
            "due_at": now,
            "why": "time",
            "rules": [],
            "data": {**_frozen(program.definition, contact), **data},
            "answers": {},
            "entered_at": now,
            "reason": "",
            "run_key": run_key,
            "queue": "default",
            "wakes": 0,
            "tries": 0,
            "error": "",
        }
        for contact, run_key in zip(people, run_keys, strict=True)
    ]
    entered: dict[int, int] = {}
    for start in range(0, len(rows), INSERT_BATCH):
        entered.update(_insert_batch(session, rows[start : start + INSERT_BATCH]))
    _insert_moves(session, entered.values(), now, came_from or {})
    return entered


def _insert_batch(session: Session, rows: list[dict[str, Any]]) -> dict[int, int]:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    statement = dialect.insert(Enrollment).on_conflict_do_nothing(index_elements=["live_key"])
    returned = session.execute(statement.values(rows).returning(col(Enrollment.contact_id), col(Enrollment.id)))
    return {contact_id: enrollment_id for contact_id, enrollment_id in returned}


def _insert_moves(session: Session, enrollment_ids: Iterable[int], now: datetime, detail: Mapping[str, Any]) -> None:
    rows = [
        {
            "enrollment_id": enrollment_id,
            "at": now,
            "kind": MoveKind.entered,
            "step_id": "",
            "visit": 1,
            "detail": dict(detail),
            "rolled": False,
        }
        for enrollment_id in enrollment_ids
    ]
    if rows:
        session.execute(insert(Move), rows)


def _run_keys(count: int, per_run: int) -> list[str]:
    keys: list[str] = []
    while len(keys) < count:
        keys.extend([uuid.uuid4().hex] * min(max(per_run, 1), count - len(keys)))
    return keys


def _frozen(definition: JourneyDefinition, contact: Contact) -> dict[str, Any]:
    return {name: contact.attributes[name] for name in definition.journey_fields if name in contact.attributes}


def _members(session: Session, campaign_id: int | None, contact_ids: list[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    if campaign_id is None:
        return found
    for start in range(0, len(contact_ids), INSERT_BATCH):
        part = contact_ids[start : start + INSERT_BATCH]
        rows = session.exec(select(Member.contact_id, Member.id).where(Member.campaign_id == campaign_id, col(Member.contact_id).in_(part)))
        found.update({contact_id: member_id for contact_id, member_id in rows if member_id is not None})
    return found


def _approve_members(session: Session, campaign_id: int, entered: Mapping[int, int], now: datetime) -> None:
    ids = list(entered)
    for start in range(0, len(ids), INSERT_BATCH):
        session.execute(
            update(Member)
            .where(col(Member.campaign_id) == campaign_id, col(Member.contact_id).in_(ids[start : start + INSERT_BATCH]))
            .values(status=MemberStatus.approved, decided_at=now, error="")
        )


def _settled(result: EnrolResult, entered: Mapping[int, int]) -> EnrolResult:
    if result.verdict is not EnrolVerdict.enrolled:
        return result
    if result.contact_id in entered:
        return EnrolResult(result.contact_id, EnrolVerdict.enrolled, enrollment_id=entered[result.contact_id])
    return EnrolResult(result.contact_id, EnrolVerdict.already_in)


def enrollment_of(session: Session, viewer: Viewer, enrollment_id: int) -> Enrollment:
    """Return the enrollment, if it is among the viewer's."""
    row = session.exec(visible(select(Enrollment), Enrollment, viewer).where(Enrollment.id == enrollment_id)).first()
    if row is None:
        raise NotFound(f"There is no enrollment {enrollment_id} among yours.")
    return row


def enrollments_of_contact(session: Session, viewer: Viewer, contact_id: int) -> list[Enrollment]:
    """Return the contact's enrollments, newest first."""
    return list(
        session.exec(
            visible(select(Enrollment), Enrollment, viewer).where(Enrollment.contact_id == contact_id).order_by(col(Enrollment.id).desc())
        )
    )


def timeline(session: Session, viewer: Viewer, enrollment_id: int) -> list[Move]:
    """Return everything that happened to the enrollment, oldest first."""
    enrollment_of(session, viewer, enrollment_id)
    return list(session.exec(select(Move).where(Move.enrollment_id == enrollment_id).order_by(col(Move.at), col(Move.id))))


def where_now(session: Session, viewer: Viewer, campaign_id: int, contact_ids: Sequence[int]) -> dict[int, Enrollment]:
    """Return each contact's newest enrollment in the campaign; contacts never enrolled are absent."""
    rows = session.exec(
        visible(select(Enrollment), Enrollment, viewer)
        .where(Enrollment.campaign_id == campaign_id, col(Enrollment.contact_id).in_(list(contact_ids)))
        .order_by(col(Enrollment.id))
    )
    return {row.contact_id: row for row in rows}


def step_counts(session: Session, viewer: Viewer, *, version_id: int | None = None, campaign_id: int | None = None) -> dict[str, int]:
    """Return how many live enrollments stand at each step now; those not begun are under ""."""
    statement = visible(select(Enrollment.step_id, func.count()), Enrollment, viewer).where(Enrollment.status != EnrollmentStatus.ended)
    if version_id is not None:
        statement = statement.where(Enrollment.version_id == version_id)
    if campaign_id is not None:
        statement = statement.where(Enrollment.campaign_id == campaign_id)
    return {step_id or "": count for step_id, count in session.exec(statement.group_by(col(Enrollment.step_id)))}


def tasks_of(session: Session, viewer: Viewer, *, open_only: bool = True, contact_id: int | None = None) -> list[Task]:
    """Return the tasks the viewer can see, the most urgent first."""
    statement = visible(select(Task), Task, viewer)
    if open_only:
        statement = statement.where(col(Task.done_at).is_(None))
    if contact_id is not None:
        statement = statement.where(Task.contact_id == contact_id)
    return list(session.exec(statement.order_by(col(Task.due_at), col(Task.id)).limit(200)))


def finish_task(session: Session, viewer: Viewer, task_id: int, now: datetime) -> Task:
    """Mark the task done; doing it twice keeps the first time."""
    task = session.exec(visible(select(Task), Task, viewer).where(Task.id == task_id)).first()
    if task is None:
        raise NotFound(f"There is no task {task_id} among yours.")
    if task.done_at is None:
        task.done_at, task.done_by_id = now, viewer.user_id
        session.add(task)
        wake(session, [task.enrollment_id], now)
    return task


def wake(session: Session, enrollment_ids: Sequence[int], now: datetime) -> int:
    """Ask that these sleeping enrollments look at the world now, and return how many are asleep. The worker that owns them does the rest."""
    result = session.execute(
        update(Enrollment)
        .where(col(Enrollment.id).in_(list(enrollment_ids)), col(Enrollment.status) == EnrollmentStatus.waiting)
        .values(woken_at=now)
    )
    return int(getattr(result, "rowcount", 0))


def wake_person(session: Session, brand_id: int, person_key: str, now: datetime) -> int:
    """Ask that everything this person is in looks at the world now."""
    result = session.execute(
        update(Enrollment)
        .where(
            col(Enrollment.person_key) == person_key,
            col(Enrollment.brand_id) == brand_id,
            col(Enrollment.status) == EnrollmentStatus.waiting,
        )
        .values(woken_at=now)
    )
    return int(getattr(result, "rowcount", 0))


def end(session: Session, enrollment: Enrollment, outcome: Outcome, reason: str, now: datetime, **detail: Any) -> None:
    """End the enrollment: it leaves its step, frees the person for re-entry, and is never walked again. Ending twice keeps the first end."""
    if enrollment.status is EnrollmentStatus.ended:
        return
    enrollment.status = EnrollmentStatus.ended
    enrollment.outcome, enrollment.reason, enrollment.ended_at = outcome.value, reason, now
    enrollment.live_key = enrollment.due_at = enrollment.awaits = enrollment.woken_at = None
    enrollment.why = ""
    session.add(enrollment)
    told = {"outcome": outcome.value, "reason": reason, **detail}
    session.add(Move(enrollment_id=_id(enrollment), at=now, kind=MoveKind.ended, step_id=enrollment.step_id or "", detail=told))


def stop(session: Session, viewer: Viewer, enrollment_ids: Sequence[int], reason: str, now: datetime) -> int:
    """End these enrollments for a person's reason and return how many were live. Their runs end at their next wake, at once."""
    require(viewer, Permission.enrol_contacts)
    stopped = 0
    for row in session.exec(
        visible(select(Enrollment), Enrollment, viewer).where(col(Enrollment.id).in_(list(enrollment_ids))).with_for_update()
    ):
        if row.status is EnrollmentStatus.ended:
            continue
        end(session, row, Outcome.stopped, reason, now, by=viewer.user_id)
        row.woken_at = now  # so that the worker closes the run, too
        record(session, row.brand_id, viewer.user_id, "stopped", "enrollment", _id(row), now, reason=reason)
        stopped += 1
    return stopped


def cancelled_runs(session: Session, flow_run_ids: Sequence[str], now: datetime) -> int:
    """End what runs cancelled in the Prefect dashboard carried, and return how many were live."""
    reason = "cancelled in the Prefect dashboard"
    rows = session.exec(
        select(Enrollment)
        .where(col(Enrollment.flow_run_id).in_(list(flow_run_ids)), col(Enrollment.status) != EnrollmentStatus.ended)
        .with_for_update()
    ).all()
    for row in rows:
        end(session, row, Outcome.stopped, reason, now)
        record(session, row.brand_id, None, "stopped", "enrollment", _id(row), now, reason=reason)
    return len(rows)


def pause(session: Session, viewer: Viewer, enrollment_ids: Sequence[int], now: datetime) -> int:
    """Freeze these enrollments where they are and return how many were moving."""
    require(viewer, Permission.enrol_contacts)
    paused = 0
    for row in _mine(session, viewer, enrollment_ids, EnrollmentStatus.waiting):
        row.status, row.paused_at = EnrollmentStatus.paused, now
        session.add(row)
        session.add(Move(enrollment_id=_id(row), at=now, kind=MoveKind.paused, step_id=row.step_id or "", detail={"by": viewer.user_id}))
        record(session, row.brand_id, viewer.user_id, "paused", "enrollment", _id(row), now)
        paused += 1
    return paused


def resume(session: Session, viewer: Viewer, enrollment_ids: Sequence[int], now: datetime, *, extend: bool = False) -> int:
    """Let these enrollments move again and return how many were frozen.

    With `extend` their waits are as much longer as the pause was; otherwise the clock went on, and what fell due meanwhile is due now.
    """
    require(viewer, Permission.enrol_contacts)
    resumed = 0
    for row in _mine(session, viewer, enrollment_ids, EnrollmentStatus.paused):
        frozen = now - row.paused_at if row.paused_at else timedelta(0)
        if extend and row.arrived_at is not None:
            row.arrived_at += frozen
        row.status, row.paused_at, row.woken_at = EnrollmentStatus.waiting, None, now
        session.add(row)
        detail = {"by": viewer.user_id, "extended": extend}
        session.add(Move(enrollment_id=_id(row), at=now, kind=MoveKind.resumed, step_id=row.step_id or "", detail=detail))
        record(session, row.brand_id, viewer.user_id, "resumed", "enrollment", _id(row), now, extended=extend)
        resumed += 1
    return resumed


def _mine(session: Session, viewer: Viewer, ids: Sequence[int], status: EnrollmentStatus) -> list[Enrollment]:
    statement = visible(select(Enrollment), Enrollment, viewer).where(col(Enrollment.id).in_(list(ids)), Enrollment.status == status)
    return list(session.exec(statement.with_for_update()))
