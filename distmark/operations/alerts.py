"""Notices of alarms: what an operator's webhook is sent when an alarm is raised or cleared, and which notices it has not taken yet."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx2
from sqlmodel import Session, col, or_, select

from distmark.clock import Clock
from distmark.db import Database
from distmark.journeys.table import Journey, JourneyVersion
from distmark.operations.alarms import update_alarms
from distmark.operations.model import AlarmKind
from distmark.operations.table import Alarm
from distmark.sql import id_of

NOTICE_LIFETIME = timedelta(days=1)  # older notices are not posted, say those from when no webhook was set
TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class AlarmNotice:
    """A notice that one alarm was raised or, when `over`, cleared. `at` is the time of that. Names no person."""

    alarm_id: int
    kind: AlarmKind
    over: bool
    journey: str
    version: int
    at: datetime
    detail: dict[str, Any]

    @property
    def event(self) -> str:
        """The event's name."""
        return "distmark.alarm.cleared" if self.over else "distmark.alarm.raised"

    def text(self, lang: str) -> str:
        """Return one sentence in `lang`: en or ja."""
        return _TEXTS[self.kind, self.over][lang].format(journey=self.journey, version=self.version, **self.detail)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body of the webhook. Chat services show its `text`."""
        alarm = {
            "alarm": self.alarm_id,
            "kind": self.kind.value,
            "journey": self.journey,
            "version": self.version,
            "at": self.at.isoformat(),
        }
        return {"event": self.event, **alarm, "detail": self.detail, "text": self.text("en"), "text_ja": self.text("ja")}


_TEXTS: dict[tuple[AlarmKind, bool], dict[str, str]] = {
    (AlarmKind.late, False): {
        "en": "{journey} version {version}: {count} contacts should have moved on, the first {late_seconds} s ago.",
        "ja": "{journey} バージョン {version}: {count} 名の処理が遅れています（最長 {late_seconds} 秒）。",
    },
    (AlarmKind.late, True): {
        "en": "{journey} version {version}: nobody is late any more.",
        "ja": "{journey} バージョン {version}: 遅れは解消しました。",
    },
    (AlarmKind.unmade, False): {
        "en": "{journey} version {version}: {count} messages cannot be made and were not sent.",
        "ja": "{journey} バージョン {version}: {count} 名分のメッセージを作成できず、送信していません。",
    },
    (AlarmKind.unmade, True): {
        "en": "{journey} version {version}: all messages can be made again.",
        "ja": "{journey} バージョン {version}: メッセージはすべて作成できるようになりました。",
    },
    (AlarmKind.dry, False): {
        "en": "{journey} version {version}: nobody has entered for a day; usually {usual_per_day} do.",
        "ja": "{journey} バージョン {version}: この1日、新規の登録がありません（通常は1日 {usual_per_day} 名）。",
    },
    (AlarmKind.dry, True): {
        "en": "{journey} version {version}: contacts enter again, or are not meant to.",
        "ja": "{journey} バージョン {version}: 新規の登録が再開したか、受付が止められました。",
    },
}


def announce_alarms(db: Database, clock: Clock, webhook: str, emit: Callable[[AlarmNotice], None] | None = None) -> tuple[int, int]:
    """Update the alarms, announce the changes, and return how many alarms were raised and cleared.

    `emit` gets each notice once. A notice that the webhook does not take is posted again at the next call, for a day; no webhook: "".
    """
    with db.writing() as session:
        changes = update_alarms(session, clock)
    with db.reading() as session:
        fresh = _notices_of(session, [*changes.raised, *changes.cleared])
        unsent = _unsent_notices(session, clock.now()) if webhook else []
    if emit is not None:
        for notice in fresh:
            emit(notice)
    for notice in unsent:
        if post(webhook, notice):
            _mark_sent(db, notice, clock.now())
    return len(changes.raised), len(changes.cleared)


def post(url: str, notice: AlarmNotice) -> bool:
    """Post the notice to the webhook, and say whether the webhook took it."""
    try:
        answer = httpx2.post(url, json=notice.body, timeout=TIMEOUT_SECONDS)
    except httpx2.HTTPError:
        return False  # posted again at the next call; until then the alarm is shown on its page
    return answer.is_success


def _notices_of(session: Session, alarm_ids: list[int]) -> list[AlarmNotice]:
    rows = session.exec(_alarms_with_journeys().where(col(Alarm.id).in_(alarm_ids)))
    return [_notice(*row, over=row[0].cleared_at is not None) for row in rows]


def _unsent_notices(session: Session, now: datetime) -> list[AlarmNotice]:
    lately = col(Alarm.raised_at) > now - NOTICE_LIFETIME
    raised = session.exec(_alarms_with_journeys().where(lately, col(Alarm.told_raised_at).is_(None), col(Alarm.cleared_at).is_(None)))
    notices = [_notice(*row, over=False) for row in raised]
    # An alarm that was cleared before its raising was posted is not posted at all.
    cleared = _alarms_with_journeys().where(
        or_(lately, col(Alarm.cleared_at) > now - NOTICE_LIFETIME),
        col(Alarm.cleared_at).is_not(None),
        col(Alarm.told_raised_at).is_not(None),
        col(Alarm.told_cleared_at).is_(None),
    )
    return [*notices, *(_notice(*row, over=True) for row in session.exec(cleared))]


def _alarms_with_journeys() -> Any:
    statement = select(Alarm, Journey.key, JourneyVersion.number).join(Journey, col(Journey.id) == Alarm.journey_id)
    return statement.join(JourneyVersion, col(JourneyVersion.id) == Alarm.version_id).order_by(col(Alarm.id))


def _notice(alarm: Alarm, journey: str, version: int, *, over: bool) -> AlarmNotice:
    at = alarm.cleared_at if over and alarm.cleared_at else alarm.raised_at
    return AlarmNotice(id_of(alarm), alarm.kind, over, journey, version, at, dict(alarm.detail))


def _mark_sent(db: Database, notice: AlarmNotice, now: datetime) -> None:
    with db.writing() as session:
        alarm = session.get_one(Alarm, notice.alarm_id)
        if notice.over:
            alarm.told_cleared_at = now
        else:
            alarm.told_raised_at = now
        session.add(alarm)
