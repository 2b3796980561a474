"""Simulations of a journey before anybody enters it: the engine's own decisions on a virtual clock, in memory, with random contacts.

No message is sent. The same journey, number of contacts and seed give the same simulation.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import insert
from sqlmodel import Session, col, select

from distmark.campaigns.table import Campaign
from distmark.channels.registry import CHANNELS
from distmark.clock import FixedClock, stopwatch
from distmark.contacts.imports import import_contacts
from distmark.contacts.model import address_hash
from distmark.contacts.table import Consent, Contact
from distmark.db import Database
from distmark.engine.advance import WakeGroup
from distmark.engine.facts import gather
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.entries.model import EnrolVerdict
from distmark.entries.service import enrol
from distmark.errors import InvalidInput
from distmark.journeys.definition import JourneyDefinition, parse
from distmark.journeys.service import program_of, source_of
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.messages.compose import people_of
from distmark.partners.model import Role, Viewer
from distmark.partners.table import Brand, Partner, User
from distmark.simulation.engine import AcceptedMessage, SimulatedAction, Simulator
from distmark.sql import batches, id_of
from distmark.tables import create_all

BASE_URL = "https://simulated.example"
TOKYO = ZoneInfo("Asia/Tokyo")
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
CITIES = ("横浜市", "名古屋市", "大阪市", "福岡市", "札幌市", "仙台市")
NAMES = ("佐藤", "鈴木", "高橋", "田中", "伊藤", "渡辺", "山本", "中村")

Progress = Callable[[datetime, datetime], None]


class Rates(BaseModel):
    """Rates of reading and clicking, each 0 to 1. `events` are the rates of events within two days after a click, by event name."""

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
    """Counts of one step: contacts that entered it, left it (onward or ended), wait at it at the end, and messages accepted.

    `first_at` and `last_at` are the times of its first and last message, `hours` counts its messages by hour of the day in Tokyo.
    """

    entered: int
    left: int
    waiting: int
    messages: int
    first_at: datetime | None = None
    last_at: datetime | None = None
    hours: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Simulation:
    """The result of a simulation. `hours` counts messages by hour of the day (0-23) in Tokyo; `endless` counts members with no due time."""

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


@dataclass(frozen=True, slots=True)
class SimulatedAudience:
    """The random behaviour of contacts: the actions that follow a message. Drawn from the seed and the message alone."""

    rates: Rates
    seed: int
    events: Sequence[str]

    def __call__(self, message: AcceptedMessage) -> Iterator[SimulatedAction]:
        """Yield the actions that follow the message."""
        step = message.step_id
        chance = random.Random(f"{self.seed}:{message.contact_id}:{step}:{message.visit}")
        if chance.random() >= self.rates.of(step, "open"):
            return
        at = message.at + timedelta(hours=chance.expovariate(1 / 9) + 0.05)
        if message.channel == "email":
            yield SimulatedAction(at, "opened", step_id=step)
        if message.marketing and chance.random() < self.rates.of(step, "unsubscribe"):
            yield SimulatedAction(at + timedelta(minutes=2), "unsubscribed", message.channel, step)
        elif message.links and chance.random() < self.rates.of(step, "click"):
            yield from self._click(at + timedelta(minutes=1 + chance.expovariate(1 / 5)), message, chance)

    def _click(self, at: datetime, message: AcceptedMessage, chance: random.Random) -> Iterator[SimulatedAction]:
        yield SimulatedAction(at, "clicked", chance.choice(message.links), message.step_id)
        for event in self.events:
            if chance.random() < self.rates.events.get(event, 0.15):
                yield SimulatedAction(at + timedelta(hours=chance.uniform(0.2, 48)), "event", event)


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
    """Return the simulation of the journey with so many random contacts over so many days.

    `audience` (file name, bytes) gives a file of contacts instead; `progress` is called with the present and the last simulated time.

    Errors: DefinitionError when the journey cannot be read, TemplateRefused when a template cannot be compiled, InvalidInput for the file.
    """
    began = stopwatch()
    definition = parse(source)
    db, clock = Database("sqlite://"), FixedClock(start)
    until = start + timedelta(days=days)
    try:
        create_all(db)
        simulated = _SimulatedBrand.build(db, source, definition, clock.now())
        people = simulated.invite(contacts, seed, clock.now(), audience)
        with db.writing() as session:
            verdicts = Counter(str(each.verdict) for each in enrol(session, simulated.viewer, simulated.campaign_id, people, clock.now()))
        behaviour = SimulatedAudience(rates or Rates(), seed, definition.events)
        with db.writing() as session:
            simulator = _simulator(db, session, clock, behaviour)
            asyncio.run(simulator.run(until, lambda now: progress(now, until) if progress else None))
        return _report(simulator, definition, len(people), verdicts, stopwatch() - began)
    finally:
        db.close()


def _simulator(db: Database, session: Session, clock: FixedClock, behaviour: SimulatedAudience) -> Simulator:
    """Return a simulator with every enrollment as a member. The rows are changed in memory only."""
    with db.reading() as reading:
        rows = list(reading.exec(select(Enrollment).order_by(col(Enrollment.id))))
    version = session.exec(select(JourneyVersion)).one()
    group = WakeGroup(version, program_of(session, id_of(version)), source_of(version), [], clock)
    simulator = Simulator(group, clock, session, BASE_URL, behaviour)
    for part in batches(rows):
        for row in part:
            row.run_key = f"simulation:{behaviour.seed}"  # random draws depend on it: the same for the same seed
        people = people_of(session, part)
        facts = gather(session, part, people, clock.now())
        for row in part:
            simulator.enter(row, people[id_of(row)], facts[id_of(row)])
    return simulator


@dataclass(frozen=True, slots=True)
class _SimulatedBrand:
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
            account: dict[str, Any] = {"email": "u@simulated.example", "name": "-", "password_hash": "", "created_at": now}
            user = _saved(session, User(role=Role.partner, brand_id=brand.id, partner_id=partner.id, **account))
            journey = _saved(session, Journey(brand_id=brand.id, key=definition.key, created_at=now))
            _saved(session, _version(journey, source, now))
            ids: dict[str, Any] = {"brand_id": brand.id, "partner_id": partner.id, "journey_id": journey.id, "contacts_per_run": PER_RUN}
            campaign = _saved(session, Campaign(key="simulation", name="Simulation", created_at=now, **ids))
            viewer = Viewer(user.id, Role.partner, brand.id, partner.id, "-")
            return cls(db, viewer, brand.id, partner.id, campaign.id, definition)

    def invite(self, number_of_contacts: int, seed: int, now: datetime, audience: tuple[str, bytes] | None) -> list[int]:
        """Insert the contacts, with consent to every channel, and return their ids."""
        with self.db.writing() as session:
            if audience is None:
                session.execute(insert(Contact), [self._contact(number, seed, now) for number in range(number_of_contacts)])
            else:
                import_contacts(session, self.viewer, self.partner_id, audience[1], audience[0], now, ground="opt_in")
            ids = [each for each in session.exec(select(col(Contact.id)).order_by(col(Contact.id))) if each is not None]
            consent = {"given": True, "ground": "opt_in", "at": now, "wording": "", "source": "simulation"}
            session.execute(insert(Consent), [{"contact_id": each, "channel": channel, **consent} for each in ids for channel in CHANNELS])
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
            "attributes": {name: _random_attribute(str(kind), chance, now) for name, kind in self.definition.contact_fields.items()},
            "created_at": now,
            "updated_at": now,
        }


def _version(journey: Journey, source: Source, now: datetime) -> JourneyVersion:
    content_hash = source.content_hash
    stored: dict[str, Any] = {
        "source": source.to_json(),
        "content_hash": content_hash,
        "approved_hash": content_hash,
        "deployment_id": "-",
        "created_at": now,
    }
    return JourneyVersion(journey_id=id_of(journey), number=1, status=VersionStatus.registered, **stored)


def _saved(session: Session, row: Any) -> Any:
    session.add(row)
    session.flush()
    return row


def _random_attribute(kind: str, chance: random.Random, now: datetime) -> object:
    """Return an attribute of a declared type: a date within the next quarter, false, a small number, a word."""
    if kind == "date":
        return (now + timedelta(days=chance.randrange(1, 90))).date().isoformat()
    return {"bool": False, "number": chance.randrange(1, 100)}.get(kind, "standard")


def _report(simulator: Simulator, definition: JourneyDefinition, contacts: int, verdicts: Counter[str], seconds: float) -> Simulation:
    sent, rows = simulator.counts.accepted, simulator.rows
    inside = [row for row in rows if row.status is not EnrollmentStatus.ended]
    moments = Counter(each.at.replace(minute=0, second=0, microsecond=0) for each in sent)
    busiest = moments.most_common(1)
    ended = Counter(f"{row.outcome}: {row.reason}" if row.reason else str(row.outcome) for row in rows if row.outcome)
    return Simulation(
        contacts=contacts,
        steps=_steps(simulator, definition, inside),
        ended=dict(ended.most_common()),
        not_entered={verdict: count for verdict, count in verdicts.items() if verdict != EnrolVerdict.enrolled},
        messages=len(sent),
        hours=_hours(each.at for each in sent),
        busiest_at=busiest[0][0] if busiest else None,
        busiest_messages=busiest[0][1] if busiest else 0,
        endless=sum(row.due_at is None for row in inside),
        still_inside=len(inside),
        last_end_at=max((row.ended_at for row in rows if row.ended_at), default=None),
        wakes=simulator.counts.wakes,
        seconds=round(seconds, 2),
    )


def _steps(simulator: Simulator, definition: JourneyDefinition, inside: Sequence[Enrollment]) -> dict[str, StepSimulated]:
    sent: dict[str, list[datetime]] = {}
    for each in simulator.counts.accepted:
        sent.setdefault(each.step_id, []).append(each.at)
    here = Counter(row.step_id for row in inside)
    left = {step_id: len(members) for step_id, members in simulator.counts.left.items()}
    return {
        step.id: StepSimulated(
            entered=left.get(step.id, 0) + here.get(step.id, 0),
            left=left.get(step.id, 0),
            waiting=here.get(step.id, 0),
            messages=len(sent.get(step.id, ())),
            first_at=min(sent.get(step.id, ()), default=None),
            last_at=max(sent.get(step.id, ()), default=None),
            hours=_hours(sent.get(step.id, ())),
        )
        for step in definition.all_steps()
    }


def _hours(moments: Iterable[datetime]) -> dict[int, int]:
    return dict(sorted(Counter(at.astimezone(TOKYO).hour for at in moments).items()))
