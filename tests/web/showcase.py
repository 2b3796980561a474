"""A brand with a few hundred enrollments under way, for browser tests and screenshots of the pages."""

import random
import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlmodel import Session, select

from distmark.campaigns.table import Campaign, MemberStatus
from distmark.contacts.consents import record_consent
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.engagement.model import EventKind
from distmark.engagement.table import Event
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.journeys.service import save_draft
from distmark.journeys.source import Source, load_source
from distmark.journeys.table import JourneyVersion, VersionStatus
from distmark.mailbox.store import MailboxStore
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.metrics.service import roll_up
from distmark.partners.model import Role
from distmark.partners.table import Brand, Partner
from distmark.sql import id_of
from distmark.tasks.table import Task
from tests import factories as make
from tests.factories import NOW

DEFS = Path(__file__).parents[2] / "journey_defs"
NAMES = [
    "佐藤 恵",
    "高橋 亮",
    "鈴木 一郎",
    "田中 葵",
    "伊藤 健",
    "渡辺 結衣",
    "山本 陽子",
    "中村 翔",
    "小林 美咲",
    "加藤 大輔",
    "吉田 直樹",
    "山田 花子",
    "佐々木 彩",
    "山口 誠",
    "松本 和也",
    "井上 由紀",
    "木村 拓",
    "林 真理",
    "斎藤 学",
    "清水 舞",
    "山崎 剛",
    "森 香織",
    "池田 修",
    "橋本 愛",
]
CITIES = ("横浜市", "川崎市", "町田市", "藤沢市")
OTHERS = 186
USERS = {Role.partner: "partner", Role.marketer: "marketer", Role.approver: "approver", Role.ops: "ops"}


@dataclass(frozen=True, slots=True)
class Showcase:
    """The ids and keys in the addresses of the pages; users sign in as partner@mirai.example and so on, with the tests' password."""

    campaign_id: int
    journey_key: str
    contact_id: int
    submitted_id: int
    token: str


def build(db: Database, data_dir: Path) -> Showcase:
    """Fill the database and the mailbox, roll the numbers up, and return the showcase."""
    dice = random.Random(7)
    with db.writing() as session:
        brand = make.make_brand(session, key="mirai-securities", tokens={"brand": "#0b6e69", "brand_soft": "#e3f2f0"})
        partners = [
            make.make_partner(session, brand, name=name) for name in ("山本 由美", "佐藤 健", "工藤 真理", "西村 彰", "岡本 慧", "藤井 泉")
        ]
        make.make_partner(session, brand, name="石川 翠")
        for role, name in USERS.items():
            partner = partners[0] if role is Role.partner else None
            make.make_user(session, role, brand, partner, email=f"{name}@mirai.example", name="山本 由美" if partner else "田中 美咲")
        version = _published(session, brand, load_source(DEFS / "retirement-onboarding"))
        campaign = make.make_campaign(session, version, name="個人退職年金のご案内")
        make.make_campaign(session, make.make_version(session, brand), name="秋のご案内")
        contacts = _book(session, partners[0])
        _members(session, campaign, version, contacts, dice)
        for number in range(OTHERS):
            contact = make.make_contact(session, partners[1 + number % 5], email=f"other{number}@example.jp")
            PastEnrollment(session, version, make.make_member(session, campaign, contact, status=MemberStatus.approved), dice).go()
        message = session.exec(select(Message).order_by(Message.id)).first()
        submitted = _submitted(session, brand, version)
        shown = Showcase(id_of(campaign), "retirement-onboarding", id_of(contacts[9]), id_of(submitted), message.token)
    roll_up(db, NOW)
    _mailbox(data_dir)
    return shown


def _published(session: Session, brand: Brand, source: Source) -> JourneyVersion:
    version = save_draft(session, id_of(brand), source, None, NOW - timedelta(days=40))
    version.status, version.approved_hash = VersionStatus.registered, version.content_hash
    version.submitted_at = version.decided_at = version.registered_at = NOW - timedelta(days=38)
    version.deployment_id = "11111111-2222-3333-4444-555555555555"
    session.add(version)
    session.flush()
    return version


def _submitted(session: Session, brand: Brand, version: JourneyVersion) -> JourneyVersion:
    """Submit a next version with another subject and a longer wait, which then waits for approval."""
    source = load_source(DEFS / "retirement-onboarding")
    templates = dict(source.templates) | {"welcome.ja.subject.txt": "{{ contact.last_name }}様へ、先日のお話の資料です\n"}
    changed = Source(source.definition.replace("{for: 3 days, until", "{for: 4 days, until"), templates, source.path)
    row = save_draft(session, id_of(brand), changed, None, NOW - timedelta(days=1))
    row.status, row.submitted_at = VersionStatus.submitted, NOW - timedelta(hours=20)
    session.add(row)
    session.flush()
    return row


def _book(session: Session, partner: Partner) -> list[Contact]:
    contacts = []
    for number, name in enumerate(NAMES):
        last, first = name.split()
        company = "みどり商事" if number % 5 == 0 else ""
        contact = make.make_contact(
            session, partner, last_name=last, first_name=first, city=CITIES[number % 4], company=company, email=f"c{number}@example.jp"
        )
        if number != 3:
            record_consent(
                session, id_of(contact), "email", given=True, now=NOW - timedelta(days=30), ground="existing_customer", source="call"
            )
        contacts.append(contact)
    return contacts


def _members(session: Session, campaign: Campaign, version: JourneyVersion, contacts: list[Contact], dice: random.Random) -> None:
    for number, contact in enumerate(contacts[:20]):
        member = make.make_member(session, campaign, contact)
        if number == 0:
            member.blocks = {"ja": {"personal_note": "先日はお子様の進学のお話をありがとうございました。"}}
        if number == 1:
            member.status, member.error = MemberStatus.error, "suppressed"
        session.add(member)
        if number >= 7:
            member.status = MemberStatus.approved
            PastEnrollment(session, version, member, dice, days=2 + number).go(task=number in (9, 12))


class PastEnrollment:
    """One member's enrollment so far, with the rows that the worker would have written."""

    def __init__(self, session: Session, version: JourneyVersion, member: Any, dice: random.Random, days: float | None = None) -> None:
        self.session, self.version, self.dice = session, version, dice
        self.at = NOW - timedelta(days=days if days is not None else dice.uniform(0.5, 29), minutes=dice.randint(0, 400))
        self.row: Enrollment = make.make_enrollment(session, member, version, entered_at=self.at, step_id=None)
        self.note(TimelineKind.entered, "")

    def note(self, kind: TimelineKind, step: str, **detail: Any) -> None:
        self.session.add(TimelineEntry(enrollment_id=self.row.id, at=self.at, kind=kind, step_id=step, detail=detail))

    def send(self, step: str, channel: str = "email", subject: str = "お電話ありがとうございました") -> Message:
        message = Message(
            token=secrets.token_urlsafe(16), header_id=f"<{secrets.token_hex(8)}@d.example>", enrollment_id=self.row.id, step_id=step,
            brand_id=self.row.brand_id, partner_id=self.row.partner_id, contact_id=self.row.contact_id, campaign_id=self.row.campaign_id,
            version_id=self.row.version_id, channel=channel, name=step, language="ja", subject=subject,
            links={"plans": "https://mirai.example/plans"}, status=MessageStatus.sent,
            created_at=self.at, sending_at=self.at, sent_at=self.at,
        )  # fmt: skip
        self.session.add(message)
        self.session.flush()
        self.note(TimelineKind.sent, step)
        return message

    def react(self, message: Message, kind: EventKind, hours: float, **fields: Any) -> None:
        at = min(self.at + timedelta(hours=hours), NOW - timedelta(minutes=5))
        self.session.add(
            Event(
                natural_key=secrets.token_hex(8),
                kind=kind,
                at=at,
                received_at=at,
                brand_id=self.row.brand_id,
                partner_id=self.row.partner_id,
                contact_id=self.row.contact_id,
                enrollment_id=self.row.id,
                message_id=message.id,
                first=True,
                **fields,
            )
        )
        if kind is EventKind.opened:
            message.opened_at = at
        if kind is EventKind.clicked:
            message.clicked_at = at

    def wait(self, step: str, days: float) -> bool:
        """Wait at the step; return whether the wait is over by now."""
        until = self.at + timedelta(days=days)
        self.note(TimelineKind.waiting, step, until=until.isoformat(), rules=[])
        self.row.step_id, self.row.arrived_at, self.row.due_at = step, self.at, until
        if until > NOW:
            return False
        self.at = until
        self.note(TimelineKind.passed, step)
        return True

    def end(self, outcome: str, reason: str) -> None:
        self.row.status, self.row.outcome, self.row.reason = EnrollmentStatus.ended, outcome, reason
        self.row.ended_at, self.row.live_key, self.row.due_at = self.at, None, None
        self.note(TimelineKind.ended, self.row.step_id or "", outcome=outcome, reason=reason)

    def go(self, *, task: bool = False) -> None:
        welcome = self.send("welcome")
        opened, clicked = self.dice.random() < 0.66, self.dice.random() < 0.38
        if opened or clicked:
            self.react(welcome, EventKind.opened, 2)
        if clicked:
            self.react(welcome, EventKind.clicked, 3, link="plans")
        if self.wait("time-to-read", 3):
            self._after_reading(opened, clicked)
        if task:
            self._task("call", timedelta(hours=5 if clicked else -20))
        self.session.add(self.row)

    def _task(self, step: str, due: timedelta) -> None:
        contact = self.session.get_one(Contact, self.row.contact_id)
        title = f"{contact.last_name} {contact.first_name} さんに、資料の感想をうかがう電話"
        self.session.add(
            Task(
                enrollment_id=self.row.id,
                step_id=step,
                brand_id=self.row.brand_id,
                partner_id=self.row.partner_id,
                contact_id=self.row.contact_id,
                title=title,
                created_at=self.at,
                due_at=NOW + due,
            )
        )

    def _after_reading(self, opened: bool, clicked: bool) -> None:
        self.note(TimelineKind.branched, "engaged")
        if clicked:
            self.note(TimelineKind.task, "call")
            self.send("example", subject="計算例をお送りします")
        elif not opened:
            self.send("nudge", "sms", "")
        if self.dice.random() < 0.3:
            self.note(TimelineKind.waiting, "booking")
            self.note(TimelineKind.passed, "booking")
            self.note(TimelineKind.task, "prepare")
            if not self.wait("after-meeting", 5):
                return
            if self.dice.random() < 0.75:
                self._account()
            else:
                self.end("exit", "面談を予約")
        elif self.wait("booking", 7):
            self.send("remind", subject="その後いかがでしょうか")
            if self.wait("last-days", 4):
                self.end("completed", "")

    def _account(self) -> None:
        message = self.session.exec(select(Message).where(Message.enrollment_id == self.row.id)).first()
        self.react(message, EventKind.converted, 1, name="account_opened")
        self.end("goal", "口座開設")


def _mailbox(data_dir: Path) -> None:
    store = MailboxStore(data_dir / "mailbox.sqlite3")
    html = "<html lang='ja'><head></head><body><h1 style='color:#0b6e69'>お電話ありがとうございました</h1><p><a href='https://mirai.example/'>見る</a></p></body></html>"
    mail = (
        "From: Yamamoto <yamamoto@mirai.example>\r\nTo: sato@example.jp\r\nSubject: =?utf-8?b?44GK6Zu76Kmx44Gu5Lu2?=\r\n"
        f"Message-ID: <show@case>\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}"
    )
    store.add(mail.encode(), "yamamoto@mirai.example", ["sato@example.jp"], NOW)
    store.add_sms("【みらい証券】資料をお送りしました https://mirai.example/c/1", "mirai", "+819012345678", NOW)
    store.close()
