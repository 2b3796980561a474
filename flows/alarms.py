"""Telling people and machines about alarms: a webhook of the operator's, and an event in Prefect that automations can act on."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx2
from prefect.client.orchestration import PrefectClient
from prefect.events import emit_event
from sqlmodel import Session, col, or_, select

from distmark.clock import Clock
from distmark.db import Database
from distmark.enrollments.model import AlarmKind
from distmark.journeys.table import Journey, JourneyVersion
from distmark.operations.alarms import update_alarms
from distmark.operations.table import Alarm
from distmark.sql import id_of

STALE = timedelta(days=1)  # nobody is told of an alarm that is older, say of when no address was set
TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class News:
    """One alarm that was raised or is over, ready to be told."""

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
        """What the webhook is sent. `text` is what chat services show."""
        told = {
            "alarm": self.alarm_id,
            "kind": self.kind.value,
            "journey": self.journey,
            "version": self.version,
            "at": self.at.isoformat(),
        }
        return {"event": self.event, **told, "detail": self.detail, "text": self.text("en"), "text_ja": self.text("ja")}


_TEXTS: dict[tuple[AlarmKind, bool], dict[str, str]] = {
    (AlarmKind.late, False): {
        "en": "{journey} version {version}: {count} contacts should have moved on, the first {late_seconds} s ago.",
        "ja": "{journey} バージョン {version}: {count} 名の処理が遅れています（最長 {late_seconds} 秒）。",
    },
    (AlarmKind.late, True): {
        "en": "{journey} version {version}: nobody is late any more.",
        "ja": "{journey} バージョン {version}: 遅れは解消しました。",
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


async def sound_alone(db: Database, clock: Clock, webhook: str, client: PrefectClient) -> int:
    """Sound the alarms while Prefect does not answer, and return how many were raised and cleared; nothing while it does.

    Otherwise upkeep sounds them: a flow, which Prefect starts. An event that nobody can take is not emitted.
    """
    if await client.api_healthcheck() is None:
        return 0
    return sum(await asyncio.to_thread(sound, db, clock, webhook, events=False))


def sound(db: Database, clock: Clock, webhook: str, *, events: bool = True) -> tuple[int, int]:
    """Look for what stands still, tell the news, and return how many alarms were raised and cleared.

    What the webhook does not take is told again at the next call, for a day. Without `events` Prefect is not told.
    """
    with db.writing() as session:
        looked = update_alarms(session, clock)
    with db.reading() as session:
        fresh = _news(session, [*looked.raised, *looked.cleared])
        untold = _untold(session, clock.now()) if webhook else []
    for news in fresh if events else ():
        emit(news)
    for news in untold:
        if post(webhook, news):
            _tick(db, news, clock.now())
    return len(looked.raised), len(looked.cleared)


def emit(news: News) -> None:
    """Put the news among Prefect's events. Names no person."""
    resource = {"prefect.resource.id": f"distmark.journey.{news.journey}.v{news.version}", "prefect.resource.name": news.journey}
    emit_event(event=news.event, resource=resource, payload=news.body)


def post(url: str, news: News) -> bool:
    """Say whether the webhook took the news."""
    try:
        answer = httpx2.post(url, json=news.body, timeout=TIMEOUT_SECONDS)
    except httpx2.HTTPError:
        return False  # told again with the next look, and the alarm stands on its page meanwhile
    return answer.is_success


def _news(session: Session, alarm_ids: list[int]) -> list[News]:
    return [_as_news(*row, over=row[0].cleared_at is not None) for row in session.exec(_named().where(col(Alarm.id).in_(alarm_ids)))]


def _untold(session: Session, now: datetime) -> list[News]:
    lately = col(Alarm.raised_at) > now - STALE
    raised = session.exec(_named().where(lately, col(Alarm.told_raised_at).is_(None), col(Alarm.cleared_at).is_(None)))
    news = [_as_news(*row, over=False) for row in raised]
    # One that was over before anybody heard of it is not worth a word.
    cleared = _named().where(
        or_(lately, col(Alarm.cleared_at) > now - STALE),
        col(Alarm.cleared_at).is_not(None),
        col(Alarm.told_raised_at).is_not(None),
        col(Alarm.told_cleared_at).is_(None),
    )
    return [*news, *(_as_news(*row, over=True) for row in session.exec(cleared))]


def _named() -> Any:
    statement = select(Alarm, Journey.key, JourneyVersion.number).join(Journey, col(Journey.id) == Alarm.journey_id)
    return statement.join(JourneyVersion, col(JourneyVersion.id) == Alarm.version_id).order_by(col(Alarm.id))


def _as_news(alarm: Alarm, journey: str, version: int, *, over: bool) -> News:
    at = alarm.cleared_at if over and alarm.cleared_at else alarm.raised_at
    return News(id_of(alarm), alarm.kind, over, journey, version, at, dict(alarm.detail))


def _tick(db: Database, news: News, now: datetime) -> None:
    with db.writing() as session:
        alarm = session.get_one(Alarm, news.alarm_id)
        if news.over:
            alarm.told_cleared_at = now
        else:
            alarm.told_raised_at = now
        session.add(alarm)
