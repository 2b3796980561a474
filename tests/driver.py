"""A small brand with one partner and a journey to run through, on a clock that the test moves."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlmodel import col, select

from distmark.campaigns.service import add_members
from distmark.campaigns.table import Campaign
from distmark.channels.base import Channel
from distmark.channels.memory import MemoryChannel
from distmark.clock import FixedClock
from distmark.contacts.consents import record_consent
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.delivery.service import Sender
from distmark.engine.wake import EngineContext, WakeResult, wake
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.entries.model import EnrolResult
from distmark.entries.service import enrol
from distmark.journeys.source import Source
from distmark.messages.table import Message
from distmark.partners.model import Role, Viewer
from distmark.partners.table import Brand, Partner
from distmark.tasks.table import Task
from tests import factories
from tests.drive import drive

# What a person's telephone calls itself, whom nothing takes for a machine that looks through mail.
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
HEAD = """
key: {key}
name: {{ja: 試し, en: Trial}}
brand: mirai-securities
languages: [ja, en]
"""


@dataclass
class Stage:
    """What a test acts on: everything is real but the channels, which keep what they are given."""

    db: Database
    clock: FixedClock
    mail: MemoryChannel = field(default_factory=MemoryChannel)
    sms: MemoryChannel = field(default_factory=MemoryChannel)
    worker: str = "default@test"
    more_channels: Mapping[str, Channel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.db.writing() as session:
            self.brand: Brand = factories.make_brand(session)
            self.partner: Partner = factories.make_partner(session, self.brand)
            self.viewer: Viewer = factories.make_viewer(session, partner=self.partner)
            self.marketer: Viewer = factories.make_viewer(session, Role.marketer, self.brand)

    @property
    def context(self) -> EngineContext:
        sender = Sender("https://mail.example", "hello@mirai.example", "mirai.example")
        return EngineContext(
            self.db, self.clock, {**self.more_channels, "email": self.mail, "sms": self.sms}, sender, self.worker, in_threads=False
        )

    def journey(self, steps: str, head: str = "", templates: dict[str, str] | None = None, **campaign: object) -> Campaign:
        """Register a journey of these steps (YAML, one list) and open a campaign for it. `head` adds top-level fields."""
        key = f"trial-{next(factories._numbers)}"
        quiet = "" if "send_policy" in head else "send_policy: {caps: none}\n"
        source = Source(HEAD.format(key=key) + quiet + head + "\nsteps:\n" + steps, _templates() | (templates or {}), path=key)
        with self.db.writing() as session:
            brand = session.get_one(Brand, self.brand.id)
            version = factories.make_version(session, brand, source=source)
            return factories.make_campaign(session, version, **campaign)

    def contact(self, consent: bool | None = True, **fields: object) -> Contact:
        with self.db.writing() as session:
            contact = factories.make_contact(session, session.get_one(Partner, self.partner.id), **fields)
            if consent is not None:
                for channel in ("email", "sms"):
                    record_consent(session, contact.id, channel, given=consent, now=self.clock.now(), source="test")
            return contact

    def enrol(self, campaign: Campaign, *contacts: Contact) -> list[EnrolResult]:
        with self.db.writing() as session:
            return enrol(session, self.viewer, campaign.id, [contact.id for contact in contacts], self.clock.now())

    def add_member(self, campaign: Campaign, contact: Contact) -> None:
        """Put the contact in the campaign, undecided."""
        with self.db.writing() as session:
            add_members(session, self.viewer, campaign.id, [contact.id], self.clock.now())

    async def run_for(self, span: timedelta) -> int:
        """Let everything happen that happens within `span`."""
        return await drive(self.context, self.clock, self.clock.now() + span)

    async def run_until(self, at: datetime) -> int:
        return await drive(self.context, self.clock, at)

    async def wake(self, enrollment: Enrollment) -> WakeResult:
        return await wake(self.context, enrollment.run_key)

    def enrollment(self, contact: Contact) -> Enrollment:
        """The contact's newest enrollment, as stored now."""
        with self.db.reading() as session:
            of_contact = select(Enrollment).where(Enrollment.contact_id == contact.id).order_by(col(Enrollment.id).desc())
            return session.exec(of_contact).first()

    def messages(self, contact: Contact | None = None) -> list[Message]:
        with self.db.reading() as session:
            statement = select(Message).order_by(col(Message.id))
            return list(session.exec(statement if contact is None else statement.where(Message.contact_id == contact.id)))

    def moves(self, contact: Contact) -> list[TimelineEntry]:
        with self.db.reading() as session:
            ids = select(Enrollment.id).where(Enrollment.contact_id == contact.id)
            return list(
                session.exec(select(TimelineEntry).where(col(TimelineEntry.enrollment_id).in_(ids)).order_by(col(TimelineEntry.id)))
            )

    def tasks(self) -> list[Task]:
        with self.db.reading() as session:
            return list(session.exec(select(Task)))


def wake_together(stage: Stage, runs_of_each: Sequence[Sequence[str]]) -> None:
    """Let several workers begin at the same moment, each to wake its runs one after the other; what fails in one of them fails here."""
    begin = threading.Barrier(len(runs_of_each))

    def work(number: int) -> None:
        context = replace(stage.context, worker=f"worker-{number}")
        begin.wait(60)
        for run_key in runs_of_each[number]:
            asyncio.run(wake(context, run_key))

    with ThreadPoolExecutor(len(runs_of_each)) as threads:
        for working in [threads.submit(work, number) for number in range(len(runs_of_each))]:
            working.result()


def _templates() -> dict[str, str]:
    """Templates of the messages `one`, `two` and `three`, and of the SMS `nudge`."""
    body = (
        "<mjml><mj-body><mj-section><mj-column><mj-text>{{ greeting }}</mj-text>"
        "<mj-button href='https://mirai.example/plans'>見る</mj-button>"
        "<mj-text>{{ legal_footer }}</mj-text></mj-column></mj-section></mj-body></mjml>"
    )
    text = "{{ greeting }}\n\n{{ legal_footer }}\n"
    templates = {}
    for lang in ("ja", "en"):
        for name in ("one", "two", "three"):
            templates |= {f"{name}.{lang}.subject.txt": f"{name}", f"{name}.{lang}.text.txt": text, f"{name}.{lang}.mjml": body}
        templates[f"nudge.{lang}.sms.txt"] = "{{ greeting }} {{ legal_footer }}"
    return templates
