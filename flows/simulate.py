"""What a journey would do, before anyone gets it: the real engine on a virtual clock, in memory, with an audience that is made up.

No message leaves. The same journey, number of contacts and seed give the same simulation.
"""

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import insert
from sqlmodel import Session, col, func, select

from distmark.campaigns.table import Campaign
from distmark.clock import FixedClock, stopwatch
from distmark.contacts.many import batches
from distmark.contacts.model import address_hash
from distmark.contacts.service import import_contacts
from distmark.contacts.table import Consent, Contact
from distmark.db import Database
from distmark.delivery.channel import OutgoingMessage, Receipt
from distmark.delivery.service import Sender
from distmark.engagement.service import NewEvent, Reading, record_events, record_readings, unsubscribe
from distmark.enrollments.model import EnrollmentStatus, EnrolVerdict, MoveKind
from distmark.enrollments.service import enrol
from distmark.enrollments.table import Enrollment, Move
from distmark.errors import InvalidInput
from distmark.journeys.definition import JourneyDefinition, parse
from distmark.journeys.source import Source
from distmark.journeys.steps.send import CHANNELS
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.partners.model import Role, Viewer
from distmark.partners.table import Brand, Partner, User
from flows.drive import drive
from flows.wake import World

PER_RUN = 500
PARTNER: dict[str, Any] = {
    "name": "山本",
    "title": "-",
    "office": "-",
    "phone": "+81312345678",
    "email": "p@simulated.example",
    "code": "P1",
    "city": "横浜市",
}
TOGETHER = timedelta(minutes=15)  # wakes this close happen at one moment; so do the things people do
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
CITIES = ("横浜市", "名古屋市", "大阪市", "福岡市", "札幌市", "仙台市")
NAMES = ("佐藤", "鈴木", "高橋", "田中", "伊藤", "渡辺", "山本", "中村")

Progress = Callable[[datetime, datetime], None]


class Rates(BaseModel):
    """How people behave; every rate is 0 to 1. `events` are what may follow a click within two days, by event name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    open: float = Field(0.45, ge=0, le=1)
    click: float = Field(0.3, ge=0, le=1, description="Of those who opened.")
    unsubscribe: float = Field(0.004, ge=0, le=1, description="Of those who opened.")
    events: dict[str, float] = Field(default_factory=dict)
    steps: dict[str, dict[str, float]] = Field(default_factory=dict, description="Other rates for the message of a step.")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the rates of a YAML file, such as `{open: 0.5, click: 0.2, events: {visit_booked: 0.1}}`. Raises InvalidInput."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
            raise InvalidInput(
                f"The rates in {path} cannot be read: {error}; give open, click, unsubscribe, events from 0 to 1."
            ) from error

    def of(self, step_id: str, name: str) -> float:
        """Return the rate `name` for a step's message."""
        return float(self.steps.get(step_id, {}).get(name, getattr(self, name)))


@dataclass(frozen=True, slots=True)
class StepSimulated:
    """One step: contacts who came, who went on or ended there, who stand there when the simulation ends, and messages accepted."""

    entered: int
    left: int
    waiting: int
    messages: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """What would happen. `hours` counts messages by hour of the day (0-23) on the contacts' clocks; `endless` can never finish."""

    contacts: int
    steps: Mapping[str, StepSimulated]
    ended: Mapping[str, int]
    not_entered: Mapping[str, int]
    messages: int
    hours: Mapping[int, int]
    busiest_at: datetime | None
    busiest_messages: int
    endless: int
    still_inside: int
    last_end_at: datetime | None
    wakes: int
    seconds: float


@dataclass(slots=True)
class _Audience:
    """People who read, click, leave and book, each in their own time. Everything is drawn from the seed and the message."""

    rates: Rates
    seed: int
    clock: FixedClock
    events: Sequence[str]
    arrived: list[str] = field(default_factory=list)  # Message-IDs
    doing: list[tuple[datetime, int, str, str, str]] = field(default_factory=list)  # when, order, what, token or contact, link or event
    order: Iterator[int] = field(default_factory=count)

    async def deliver(self, message: OutgoingMessage) -> Receipt:
        """Take the message; what its reader does with it is decided when the ledger knows it."""
        self.arrived.append(message.message_id)
        return Receipt("250", "simulated", "nowhere")

    async def close(self) -> None:
        """There is nothing to close."""

    def read_what_arrived(self, session: Session) -> None:
        """Decide what everybody does with what arrived lately."""
        arrived, self.arrived = self.arrived, []
        for start in range(0, len(arrived), PER_RUN):
            for message in session.exec(select(Message).where(col(Message.header_id).in_(arrived[start : start + PER_RUN]))):
                self._read(message, random.Random(f"{self.seed}:{message.contact_id}:{message.step_id}:{message.visit}"))

    def _read(self, message: Message, chance: random.Random) -> None:
        step = message.step_id
        if chance.random() >= self.rates.of(step, "open"):
            return
        at = (message.sent_at or self.clock.now()) + timedelta(hours=chance.expovariate(1 / 9) + 0.05)
        if message.channel == "email":
            self._will(at, "open", message.token, "")
        if message.marketing and chance.random() < self.rates.of(step, "unsubscribe"):
            self._will(at + timedelta(minutes=2), "unsubscribe", message.token, "")
        elif message.links and chance.random() < self.rates.of(step, "click"):
            self._click(at + timedelta(minutes=1 + chance.expovariate(1 / 5)), message, chance)

    def _click(self, at: datetime, message: Message, chance: random.Random) -> None:
        self._will(at, "click", message.token, chance.choice(sorted(message.links)))
        for event in self.events:
            if chance.random() < self.rates.events.get(event, 0.15):
                self._will(at + timedelta(hours=chance.uniform(0.2, 48)), "event", str(message.contact_id), event)

    def _will(self, at: datetime, what: str, whom: str, detail: str) -> None:
        heapq.heappush(self.doing, (at, next(self.order), what, whom, detail))

    def next_at(self) -> datetime | None:
        return self.doing[0][0] if self.doing else None

    def act(self, session: Session, brand_id: int, until: datetime) -> None:
        """Let everything happen that people do up to `until`, each at its own time."""
        readings: list[Reading] = []
        events: list[NewEvent] = []
        leaving: list[tuple[str, datetime]] = []
        while self.doing and self.doing[0][0] <= until:
            at, _order, what, whom, detail = heapq.heappop(self.doing)
            if what == "event":
                events.append(NewEvent(detail, contact_id=int(whom), at=at))
            elif what == "unsubscribe":
                leaving.append((whom, at))
            else:
                readings.append(Reading(whom, at, PHONE, detail if what == "click" else None))
        for part in batches(readings):
            record_readings(session, part)
        for token, at in leaving:
            unsubscribe(session, token, at)
        for some in batches(events):
            record_events(session, brand_id, some, until)


def simulate(
    source: Source,
    *,
    contacts: int = 1000,
    seed: int = 1,
    rates: Rates | None = None,
    start: datetime,
    days: int = 90,
    audience: tuple[str, bytes] | None = None,
    progress: Progress | None = None,
) -> Simulation:
    """Return what the journey would do with so many made-up contacts (or with those of a file: its name and bytes) over so many days.

    Errors: DefinitionError when the journey cannot be read, TemplateRefused when a template cannot be compiled, InvalidInput for the file.
    """
    began = stopwatch()
    definition = parse(source)
    db, clock = Database("sqlite://"), FixedClock(start)
    try:
        db.create_all()
        stage = _Stage.build(db, source, definition, clock.now())
        people = stage.invite(contacts, seed, clock.now(), audience)
        crowd = _Audience(rates or Rates(), seed, clock, definition.events)
        sender = Sender("https://simulated.example", "a@simulated.example", "simulated.example")
        world = World(db, clock, dict.fromkeys(CHANNELS, crowd), sender, "simulation", in_threads=False)
        with db.writing() as session:
            verdicts = Counter(str(each.verdict) for each in enrol(session, stage.viewer, stage.campaign_id, people, clock.now()))
        wakes = asyncio.run(_run(world, clock, crowd, stage.brand_id, clock.now() + timedelta(days=days), progress))
        with db.reading() as session:
            return _report(session, definition, len(people), verdicts, wakes, stopwatch() - began)
    finally:
        db.close()


async def _run(world: World, clock: FixedClock, crowd: _Audience, brand_id: int, until: datetime, progress: Progress | None) -> int:
    wakes = 0
    while True:
        with world.db.reading() as session:
            due = session.exec(select(func.min(Enrollment.due_at)).where(Enrollment.status == EnrollmentStatus.waiting)).one()
        following = [at for at in (due, crowd.next_at()) if at is not None]
        if not following or min(following) > until:
            clock.move_to(until)
            return wakes
        moment = max(min(min(following) + TOGETHER, until), clock.now())
        if crowd.next_at() is not None:
            with world.db.writing() as session:
                crowd.act(session, brand_id, moment)
        wakes += await drive(world, clock, moment, together=TOGETHER)
        with world.db.reading() as session:
            crowd.read_what_arrived(session)
        if progress:
            progress(clock.now(), until)


@dataclass(frozen=True, slots=True)
class _Stage:
    """A brand with one partner and one campaign, made for the simulation alone."""

    db: Database
    viewer: Viewer
    brand_id: int
    partner_id: int
    campaign_id: int
    definition: JourneyDefinition

    @classmethod
    def build(cls, db: Database, source: Source, definition: JourneyDefinition, now: datetime) -> Self:
        with db.writing() as session:
            brand = _saved(session, Brand(key=definition.brand, name="Simulation", legal_name="Simulation", address="-", contact="-"))
            partner = _saved(session, Partner(brand_id=brand.id, key="partner", **PARTNER))
            nobody: dict[str, Any] = {"email": "u@simulated.example", "name": "-", "password_hash": "", "created_at": now}
            user = _saved(session, User(role=Role.partner, brand_id=brand.id, partner_id=partner.id, **nobody))
            journey = _saved(session, Journey(brand_id=brand.id, key=definition.key, created_at=now))
            _saved(session, _version(journey, source, now))
            of: dict[str, Any] = {"brand_id": brand.id, "partner_id": partner.id, "journey_id": journey.id, "contacts_per_run": PER_RUN}
            campaign = _saved(session, Campaign(key="simulation", name="Simulation", created_at=now, **of))
            viewer = Viewer(user.id, Role.partner, brand.id, partner.id, "-")
            return cls(db, viewer, brand.id, partner.id, campaign.id, definition)

    def invite(self, many: int, seed: int, now: datetime, audience: tuple[str, bytes] | None) -> list[int]:
        """Put the people into the book, all of them agreeing to everything, and return their ids."""
        with self.db.writing() as session:
            if audience is None:
                session.execute(insert(Contact), [self._contact(number, seed, now) for number in range(many)])
            else:
                import_contacts(session, self.viewer, self.partner_id, audience[1], audience[0], now, ground="opt_in")
            ids = [each for each in session.exec(select(col(Contact.id)).order_by(col(Contact.id))) if each is not None]
            yes = {"given": True, "ground": "opt_in", "at": now, "wording": "", "source": "simulation"}
            session.execute(insert(Consent), [{"contact_id": each, "channel": channel, **yes} for each in ids for channel in CHANNELS])
            return ids

    def _contact(self, number: int, seed: int, now: datetime) -> dict[str, Any]:
        chance = random.Random(f"{seed}:{number}")
        email = f"contact{number}@simulated.example"
        return {
            "brand_id": self.brand_id,
            "partner_id": self.partner_id,
            "kind": "contact",
            "first_name": "恵",
            "last_name": chance.choice(NAMES),
            "email": email,
            "email_key": email,
            "person_key": address_hash(self.brand_id, email),
            "phone": f"+8190{chance.randrange(10**8):08d}" if chance.random() < 0.8 else None,
            "language": "ja" if chance.random() < 0.9 or "en" not in self.definition.languages else "en",
            "zone": "Asia/Tokyo",
            "company": "",
            "city": chance.choice(CITIES),
            "birthday": date(1960, 1, 1) + timedelta(days=chance.randrange(365 * 45)),
            "attributes": {name: _made_up(str(kind), chance, now) for name, kind in self.definition.contact_fields.items()},
            "created_at": now,
            "updated_at": now,
        }


def _version(journey: Journey, source: Source, now: datetime) -> JourneyVersion:
    told = source.content_hash
    stored: dict[str, Any] = {
        "source": source.to_json(),
        "content_hash": told,
        "approved_hash": told,
        "deployment_id": "-",
        "created_at": now,
    }
    return JourneyVersion(journey_id=journey.id or 0, number=1, status=VersionStatus.registered, **stored)


def _saved(session: Session, row: Any) -> Any:
    session.add(row)
    session.flush()
    return row


def _made_up(kind: str, chance: random.Random, now: datetime) -> object:
    """Return an attribute of a declared type: a date within the next quarter, false, a small number, a word."""
    if kind == "date":
        return (now + timedelta(days=chance.randrange(1, 90))).date().isoformat()
    return {"bool": False, "number": chance.randrange(1, 100)}.get(kind, "standard")


def _report(
    session: Session, definition: JourneyDefinition, contacts: int, verdicts: Counter[str], wakes: int, seconds: float
) -> Simulation:
    sent = list(session.execute(select(Message.step_id, Message.sent_at).where(Message.status == MessageStatus.sent)).all())
    by_step = Counter(step_id for step_id, _at in sent)
    moments = Counter(at.replace(minute=0, second=0, microsecond=0) for _step, at in sent if at is not None)
    busiest = moments.most_common(1)
    inside = select(Enrollment).where(Enrollment.status != EnrollmentStatus.ended)
    return Simulation(
        contacts=contacts,
        steps=_steps(session, definition, by_step),
        ended={f"{outcome}: {reason}" if reason else str(outcome): count for outcome, reason, count in _ended(session)},
        not_entered={verdict: count for verdict, count in verdicts.items() if verdict != EnrolVerdict.enrolled},
        messages=len(sent),
        hours=dict(sorted(Counter((at + timedelta(hours=9)).hour for _step, at in sent if at is not None).items())),
        busiest_at=busiest[0][0] if busiest else None,
        busiest_messages=busiest[0][1] if busiest else 0,
        endless=session.exec(select(func.count()).select_from(inside.where(col(Enrollment.due_at).is_(None)).subquery())).one(),
        still_inside=session.exec(select(func.count()).select_from(inside.subquery())).one(),
        last_end_at=session.exec(select(func.max(Enrollment.ended_at))).one(),
        wakes=wakes,
        seconds=round(seconds, 2),
    )


def _ended(session: Session) -> Sequence[Any]:
    statement = select(Enrollment.outcome, Enrollment.reason, func.count()).where(Enrollment.status == EnrollmentStatus.ended)
    return session.execute(statement.group_by(col(Enrollment.outcome), col(Enrollment.reason)).order_by(func.count().desc())).all()


_LEFT = (MoveKind.passed, MoveKind.branched, MoveKind.sent, MoveKind.failed, MoveKind.skipped, MoveKind.suppressed, MoveKind.uncertain,
         MoveKind.task, MoveKind.ended)  # fmt: skip


def _steps(session: Session, definition: JourneyDefinition, messages: Mapping[str, int]) -> dict[str, StepSimulated]:
    gone = select(Move.step_id, func.count(func.distinct(Move.enrollment_id))).where(col(Move.kind).in_(_LEFT))
    there = select(Enrollment.step_id, func.count()).where(Enrollment.status != EnrollmentStatus.ended)
    left = {step_id: many for step_id, many in session.exec(gone.group_by(col(Move.step_id)))}  # noqa: C416
    here = {step_id: many for step_id, many in session.exec(there.group_by(col(Enrollment.step_id)))}  # noqa: C416
    return {
        step.id: StepSimulated(
            entered=left.get(step.id, 0) + here.get(step.id, 0),
            left=left.get(step.id, 0),
            waiting=here.get(step.id, 0),
            messages=messages.get(step.id, 0),
        )
        for step in definition.all_steps()
    }
