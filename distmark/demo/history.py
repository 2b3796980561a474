"""Three months of past for the demo, lived by the real engine on a clock that steps from one moment to the next. Nobody is written to.

Every row is made by the same services as today's: the import, the campaigns, the enrolment, the wakes, the opens and clicks, the roll-up.
"""

import asyncio
import heapq
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from zoneinfo import ZoneInfo

import yaml
from sqlmodel import Session, col, func, or_, select

from distmark.campaigns.service import create_campaign, set_campaign_status, set_contacts_per_run
from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.channels.memory import MemoryChannel
from distmark.clock import FixedClock
from distmark.compliance.service import approve, mark_registered, submit
from distmark.contacts.imports import import_contacts
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.delivery.service import Sender
from distmark.demo.audience import CONVERTS, KINDS, PHONE, UNSUBSCRIBES, WINDOWS
from distmark.demo.brands import BOOKINGS, BRANDS, SampleBrand, SamplePartner
from distmark.demo.people import invent
from distmark.demo.samples import as_viewer, contacts_file, viewer_of
from distmark.engagement.service import click, open_pixel, record_event, unsubscribe
from distmark.engine.wake import EngineContext, wake
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.entries.service import enrol
from distmark.journeys.service import save_draft
from distmark.journeys.source import Source, load_source
from distmark.journeys.table import JourneyVersion, VersionStatus
from distmark.messages.model import ACCEPTED
from distmark.messages.table import Message
from distmark.metrics.service import count_and_decide
from distmark.partners.model import Viewer
from distmark.partners.table import Brand, User
from distmark.settings import Settings
from distmark.sql import id_of
from distmark.tasks.service import finish_task
from distmark.tasks.table import Task

PAST = timedelta(days=91)
CAMPAIGN_DAYS = (3, 31, 60)  # when each campaign of the past began, in days since its beginning
PEOPLE_PER_CAMPAIGN = 6  # of each partner; those of the samples are left for whoever looks at the demo
PEOPLE_PER_EXPERIMENT = 10
CLOSED_AFTER = timedelta(days=24)  # all but the last campaign
EXPERIMENT_BEFORE = timedelta(days=16)
EVALUATED_AFTER = "30 days"  # the experiment is running when the demo begins
ACTS_TOGETHER = timedelta(hours=1)  # what people do within an hour is taken in at its end, each act with its own time
PER_RUN = 6  # contacts of one flow run: fewer wakes, and a demo that starts sooner
TASKS_DONE = 0.7
TOKYO = ZoneInfo("Asia/Tokyo")
NOT_DEPLOYED = "00000000-0000-0000-0000-000000000000"  # until the registration, which comes before any run is made

MESSAGE = re.compile(r"\bmessage: ([\w-]+)")
KEPT_IN_EXPERIMENT = ("brand", "languages", "kind", "send_policy", "contact_fields", "links", "blocks")

Act = Callable[[Session], object]


@dataclass(frozen=True, slots=True)
class History:
    """The past that was made. `to_register` are versions that still need their deployment."""

    to_register: tuple[int, ...]
    enrollments: int
    messages: int


@dataclass
class PastLife:
    """The present moment of the past; `later` holds the coming acts of people, the earliest first."""

    db: Database
    clock: FixedClock
    context: EngineContext
    later: list[tuple[datetime, int, Act]] = field(default_factory=list)
    check: Callable[[], None] = lambda: None  # asked on the way; may raise, when the demo is told to stop
    brands: dict[int, str] = field(default_factory=dict)  # keys by id
    seen_message: int = 0
    seen_task: int = 0
    _numbers: Iterator[int] = field(default_factory=count)

    def at(self, at: datetime, act: Act) -> None:
        """Let `act` happen at that time; after the present time it never does, as the people of the demo take over."""
        heapq.heappush(self.later, (at, next(self._numbers), act))

    async def live(self, until: datetime) -> None:
        """Let everything happen that is due up to `until`, in the order of time."""
        while (moment := self._next_moment()) is not None and moment <= until:
            self.check()
            self.clock.move_to(max(self.clock.now(), moment))
            self._do_acts()
            runs = self._due_runs()
            for run_key in runs:
                await wake(self.context, run_key)
            if runs:
                self._plan_reactions()
        self.clock.move_to(until)

    def _next_moment(self) -> datetime | None:
        is_waiting = Enrollment.status == EnrollmentStatus.waiting
        with self.db.reading() as session:
            due, woken = session.exec(select(func.min(Enrollment.due_at), func.min(Enrollment.woken_at)).where(is_waiting)).one()
        acts = self.later[0][0] + ACTS_TOGETHER if self.later else None
        return min((at for at in (due, woken, acts) if at is not None), default=None)

    def _do_acts(self) -> None:
        if not self.later or self.later[0][0] > self.clock.now():
            return
        with self.db.writing() as session:
            while self.later and self.later[0][0] <= self.clock.now():
                heapq.heappop(self.later)[2](session)

    def _due_runs(self) -> list[str]:
        now = self.clock.now()
        due = select(Enrollment.run_key).where(
            Enrollment.status == EnrollmentStatus.waiting, or_(col(Enrollment.due_at) <= now, col(Enrollment.woken_at) <= now)
        )
        with self.db.reading() as session:
            return list(session.exec(due.distinct()))

    def _plan_reactions(self) -> None:
        """Let the recipients of new messages open, click, book and leave as their habits are, and the partners do most of their tasks."""
        with self.db.reading() as session:
            sent = session.exec(
                select(Message, Contact)
                .join(Contact, col(Contact.id) == Message.contact_id)
                .where(col(Message.id) > self.seen_message, col(Message.status).in_(list(ACCEPTED)))
                .order_by(col(Message.id))
            ).all()
            tasks = session.exec(select(Task).where(col(Task.id) > self.seen_task).order_by(col(Task.id))).all()
            self.brands = self.brands or {id_of(brand): brand.key for brand in session.exec(select(Brand))}
        for message, contact in sent:
            self.seen_message = id_of(message)
            self._plan_reaction(message, contact, self.brands[message.brand_id])
        for task in tasks:
            self.seen_task = id_of(task)
            self._plan_task(task)

    def _plan_reaction(self, message: Message, contact: Contact, brand_key: str) -> None:
        dice = random.Random(f"{contact.email} {message.subject} {message.step_id}")
        person = random.Random(contact.email)
        habits = person.choices([habits for _, habits in KINDS], [share for share, _ in KINDS])[0]
        agent, leaves = person.choice((PHONE, WINDOWS)), person.random() < UNSUBSCRIBES
        if dice.random() >= habits.opens:
            return
        at, token = (message.sent_at or self.clock.now()) + timedelta(minutes=dice.randint(20, 30 * 60)), message.token
        if message.channel == "email":
            self.at(at, lambda session: open_pixel(session, token, agent, at))
        if leaves:
            self.at(at + timedelta(minutes=5), lambda session: unsubscribe(session, token, at + timedelta(minutes=5)))
        elif message.links and dice.random() < habits.clicks:
            clicked, link = at + timedelta(minutes=dice.randint(1, 40)), dice.choice(sorted(message.links))
            self.at(clicked, lambda session: click(session, token, link, agent, clicked))
            if dice.random() < habits.books:
                self._plan_bookings(contact, brand_key, clicked, dice)

    def _plan_bookings(self, contact: Contact, brand_key: str, clicked: datetime, dice: random.Random) -> None:
        books, converts = BOOKINGS[brand_key]
        booked = clicked + timedelta(hours=dice.randint(1, 20))
        names = [(booked, dice.choice(books))] if books else []
        if converts and dice.random() < CONVERTS:
            names.append((booked + timedelta(hours=dice.randint(12, 72)), dice.choice(converts)))
        for at, name in names:
            self.at(at, _event(contact, name, at))

    def _plan_task(self, task: Task) -> None:
        dice = random.Random(f"task {task.id}")
        if dice.random() < TASKS_DONE:
            done = self.clock.now() + timedelta(minutes=dice.randint(60, 30 * 60))
            self.at(done, lambda session: _finish(session, id_of(task), done))


def _event(contact: Contact, name: str, at: datetime) -> Act:
    return lambda session: record_event(
        session, contact.brand_id, name, at, partner_id=contact.partner_id, contact_id=contact.id, key=f"past {contact.id} {name} {at:%s}"
    )


def _finish(session: Session, task_id: int, now: datetime) -> None:
    task = session.get_one(Task, task_id)
    user = session.exec(select(User).where(User.partner_id == task.partner_id).order_by(col(User.id)).limit(1)).first()
    if task.done_at is None and user is not None:
        finish_task(session, as_viewer(user), task_id, now)


def has_past(db: Database) -> bool:
    """Return whether anybody was ever enrolled here."""
    with db.reading() as session:
        return session.exec(select(Enrollment.id).limit(1)).first() is not None


def make_history(db: Database, settings: Settings, began: datetime, until: datetime, check: Callable[[], None] = lambda: None) -> History:
    """Live the time from `began` to `until` with people, campaigns and an experiment of each brand, whose samples are loaded.

    Enrollments that have not ended then go on in the demo as those of today do. `check` is called on the way and may raise; what has
    happened until then stays.
    """
    clock, mail, sms = FixedClock(began), MemoryChannel(), MemoryChannel()
    sender = Sender(settings.base_url, settings.mail_from, settings.mail_domain)
    context = EngineContext(db, clock, {"email": mail, "sms": sms}, sender, "history", in_threads=False)
    past = PastLife(db, clock, context, check=check)
    for sample in BRANDS:
        BrandsPast(past, sample, load_source(settings.journey_defs_dir / sample.journey), began, until).plan()
    asyncio.run(past.live(until))
    count_and_decide(db, until)
    with db.reading() as session:
        enrolled = session.exec(select(func.count(col(Enrollment.id)))).one()
    return History(undeployed(db), enrolled, len(mail.accepted) + len(sms.accepted))


def undeployed(db: Database) -> tuple[int, ...]:
    """Return the versions that contacts entered in the past and that have no deployment in Prefect yet."""
    with db.reading() as session:
        found = session.exec(select(JourneyVersion.id).where(JourneyVersion.deployment_id == NOT_DEPLOYED)).all()
    return tuple(version_id for version_id in found if version_id)


@dataclass(frozen=True, slots=True)
class BrandsPast:
    """The past of one brand: the acts of its people, with their times."""

    past: PastLife
    sample: SampleBrand
    source: Source
    began: datetime
    until: datetime

    def plan(self) -> None:
        """Put everything that the brand's own people do into the time to come."""
        self.past.at(self.began, lambda session: self._register(session, self.source, self.began))
        for partner in self.sample.partners:
            self.past.at(self.began, partial(self._bring_people, partner=partner))
        for place, days in enumerate(CAMPAIGN_DAYS):
            self._plan_campaign(place, _weekday_morning(self.began + timedelta(days=days)))
        self._plan_experiment(_weekday_morning(self.until - EXPERIMENT_BEFORE))

    def _plan_campaign(self, place: int, at: datetime) -> None:
        month = at.astimezone(TOKYO)
        name = f"{month.month}月のご案内" if self._is_japanese else f"{month:%B} leads"
        key = f"{self.sample.journey}-{month:%Y-%m}"
        self.past.at(at, lambda session: self._open_campaign(session, self.sample.journey, key, name, at))
        if place < len(CAMPAIGN_DAYS) - 1:
            ends = at + CLOSED_AFTER
            self.past.at(ends, lambda session: self._close_campaign(session, key, ends))
        self._plan_entries(key, place * PEOPLE_PER_CAMPAIGN, PEOPLE_PER_CAMPAIGN, at + timedelta(minutes=20))

    def _plan_experiment(self, at: datetime) -> None:
        source = experiment_of(self.source)
        key, before = f"{self.sample.journey}-first-mail", at - timedelta(days=1)
        name = "最初のメールの比較" if self._is_japanese else "Two first mails"
        self.past.at(before, lambda session: self._register(session, source, before))
        self.past.at(at, lambda session: self._open_campaign(session, experiment_key(self.sample.journey), key, name, at))
        self._plan_entries(key, len(CAMPAIGN_DAYS) * PEOPLE_PER_CAMPAIGN, PEOPLE_PER_EXPERIMENT, at + timedelta(minutes=20))

    def _plan_entries(self, campaign: str, first: int, size: int, at: datetime) -> None:
        for number, partner in enumerate(self.sample.partners):
            hour = at + timedelta(hours=number)
            self.past.at(hour, partial(self._send, partner=partner, campaign=campaign, places=range(first, first + size), now=hour))

    @property
    def _is_japanese(self) -> bool:
        return not self.sample.campaign_name.isascii()

    def _register(self, session: Session, source: Source, now: datetime) -> None:
        """Draft, submit, approve by somebody else, and register; the deployment in Prefect follows when the demo starts."""
        marketer, approver = (viewer_of(session, self.sample, first) for _, first in (self.sample.marketer, self.sample.approver))
        version = save_draft(session, marketer.brand_id, source, marketer.user_id, now)
        if version.status is VersionStatus.draft:
            submit(session, marketer, id_of(version), now)
        if version.status is VersionStatus.submitted:
            approve(session, approver, id_of(version), "サンプルの文面を確認しました。", now)
        if version.status is VersionStatus.approved:
            mark_registered(session, id_of(version), NOT_DEPLOYED, now)

    def _bring_people(self, session: Session, partner: SamplePartner) -> None:
        people = invent(f"{partner.key}.past", partner.towns, len(CAMPAIGN_DAYS) * PEOPLE_PER_CAMPAIGN + PEOPLE_PER_EXPERIMENT)
        viewer = viewer_of(session, self.sample, partner.roman)
        file = contacts_file(self.sample, people, self.began)
        import_contacts(session, viewer, viewer.partner_id or 0, file, f"{partner.key}-past.csv", self.began)

    def _open_campaign(self, session: Session, journey: str, key: str, name: str, now: datetime) -> None:
        marketer = viewer_of(session, self.sample, self.sample.marketer[1])
        campaign = create_campaign(session, marketer, journey, key, name, now)
        set_contacts_per_run(session, marketer, id_of(campaign), PER_RUN, now)

    def _close_campaign(self, session: Session, key: str, now: datetime) -> None:
        marketer = viewer_of(session, self.sample, self.sample.marketer[1])
        set_campaign_status(session, marketer, _campaign_id(session, marketer, key), CampaignStatus.closed, now)

    def _send(self, session: Session, partner: SamplePartner, campaign: str, places: range, now: datetime) -> None:
        viewer = viewer_of(session, self.sample, partner.roman)
        of_past = (Contact.partner_id == viewer.partner_id, col(Contact.email).endswith(f"@{partner.key}.past.example"))
        people = session.exec(select(Contact.id).where(*of_past).order_by(col(Contact.id))).all()
        campaign_id = _campaign_id(session, viewer, campaign)
        enrol(session, viewer, campaign_id, [person for person in people[places.start : places.stop] if person], now)


def _campaign_id(session: Session, viewer: Viewer, key: str) -> int:
    return id_of(session.exec(select(Campaign).where(Campaign.brand_id == viewer.brand_id, Campaign.key == key)).one())


def experiment_key(journey: str) -> str:
    """Return the key of the journey that compares the first two mails of this one."""
    return f"{journey}-first-mail"


def experiment_of(source: Source) -> Source:
    """Return a journey that sends each contact one of the first two mails of `source`, and compares the clicks."""
    whole = yaml.safe_load(source.definition)
    mails = [name for name in dict.fromkeys(MESSAGE.findall(source.definition)) if f"{name}.ja.mjml" in source.templates][:2]
    kept = {name: whole[name] for name in KEPT_IN_EXPERIMENT if name in whole}
    arms = [
        {"name": name, "share": "50%", "steps": [{"id": f"mail-{name}", "send": "email", "message": mail, "if_held": "hold"}]}
        for name, mail in zip(("first", "second"), mails, strict=True)
    ]
    test = {"metric": "click", "hold_out": "20%", "evaluate_after": EVALUATED_AFTER}
    steps = [
        {"id": "which-mail", "name": {"ja": "どちらのメール", "en": "Which mail"}, "branch": {"test": test}, "arms": arms},
        {"id": "afterwards", "name": {"ja": "反応を待つ間", "en": "Time to react"}, "wait": {"for": "35 days"}},
    ]
    name = {"ja": f"{whole['name']['ja']}：最初のメールの比較", "en": f"{whole['name']['en']}: two first mails"}
    key = experiment_key(whole["key"])
    definition = yaml.safe_dump({**kept, "key": key, "name": name, "steps": steps}, allow_unicode=True, sort_keys=False, width=1000)
    templates = {file: text for file, text in source.templates.items() if file.split(".")[0] in mails}
    return Source(definition, templates, key)


def _weekday_morning(at: datetime) -> datetime:
    """Return 10:00 in Tokyo on that day, or on the Monday after a weekend."""
    local = at.astimezone(TOKYO).replace(hour=10, minute=0, second=0, microsecond=0)
    return (local + timedelta(days=max(0, 7 - local.weekday()) if local.weekday() > 4 else 0)).astimezone(UTC)
