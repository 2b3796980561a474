"""100,000 enrollments that fall due in the same minute: how late each mail is accepted, and whether one is lost or doubled.

The real worker process, a real Prefect server, a local SMTP server. First one contact per run, fewer of them, since each costs Prefect
three transitions; then cohorts of 500. Sizes: BENCH_DUE_SINGLES (400), BENCH_DUE (100,000).
"""

import asyncio
import time
from collections import Counter
from datetime import timedelta

from sqlmodel import func, select

from distmark.campaigns.table import Campaign
from distmark.clock import wall_now
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from tests.bench.crowd import enrolled, launched, mail_campaign, version_of
from tests.bench.report import quantiles, report
from tests.bench.stand import Plant, people, plant, register, say, size, worker

SIZES = {"one_per_run": (size("DUE_SINGLES", 400), 1), "cohorts": (size("DUE", 100_000), 500)}
LAUNCHES_PER_SECOND = 25  # what we count on; Prefect creates some 80 runs per second
LONGEST_SECONDS = 300.0
AIM = 600.0


def main() -> None:
    """Measure one way after another, on the same servers."""
    with plant() as here:
        began = time.monotonic()
        register(here, version_of(here.stage, mail_campaign(here.stage, 1)))
        with worker(here):
            starts = timedelta(seconds=2 * (time.monotonic() - began))  # what we give it before the mails fall due
        rate = 0.0
        for name, (count, per_run) in SIZES.items():
            rate = _measure(here, name, count, per_run, starts, rate)


def _measure(here: Plant, name: str, count: int, per_run: int, starts: timedelta, baseline: float) -> float:
    """Measure and report; return mails per second."""
    say(f"{name}: {count:,} contacts, {per_run} per run")
    campaign = mail_campaign(here.stage, per_run)
    register(here, version_of(here.stage, campaign))
    ids = people(here.stage, count)
    far = wall_now() + timedelta(days=1)
    enrolled(here.stage, campaign, ids, far)
    due_at = wall_now() + starts + timedelta(seconds=count / per_run / LAUNCHES_PER_SECOND)
    _make_due(here, campaign, due_at)
    runs = asyncio.run(launched(here, due_at))
    say(f"{runs} runs sleep; due in {(due_at - wall_now()).total_seconds():.0f} s")
    before = len(here.sink.arrived())
    with worker(here):
        if wall_now() > due_at:
            say("the worker came too late: part of the lateness is its start")
        recorded = _wait(here, campaign, count, due_at.timestamp())
    return _report(here, name, count, before, due_at.timestamp(), recorded, baseline)


def _make_due(here: Plant, campaign: Campaign, due_at: object) -> None:
    from sqlalchemy import update
    from sqlmodel import col

    from distmark.enrollments.table import Enrollment

    with here.db.writing() as session:
        session.execute(update(Enrollment).where(col(Enrollment.campaign_id) == campaign.id).values(due_at=due_at))


def _wait(here: Plant, campaign: Campaign, count: int, due: float) -> float:
    """Return when the last message was recorded as sent, or when waiting was given up."""
    told = 0.0
    while time.time() < due + LONGEST_SECONDS:
        sent = _sent(here, campaign)
        now = time.time()
        if sent >= count:
            return now
        if now - told > 10:
            say(f"{sent:,} of {count:,} recorded")
            told = now
        time.sleep(0.2 if count < 20_000 else 0.5)
    say(f"given up: {_sent(here, campaign):,} of {count:,} recorded")
    return time.time()


def _sent(here: Plant, campaign: Campaign) -> int:
    with here.db.reading() as session:
        sent = select(func.count()).where(Message.version_id == version_of(here.stage, campaign), Message.status == MessageStatus.sent)
        return int(session.exec(sent).one())


def _report(here: Plant, name: str, count: int, before: int, due: float, recorded: float, baseline: float) -> float:
    arrived = here.sink.arrived()[before:]
    times = Counter(message_id for _at, _recipient, message_id in arrived)
    late = [at - due for at, _recipient, _message_id in arrived]
    aim = AIM if name == "cohorts" else None
    rate = len(times) / (recorded - due)
    report(f"due_{name}_mails", rate, "mails/s", baseline, at_least=aim, contacts=count)
    for label, value in zip(("p50", "p95", "p99"), quantiles(late, 0.5, 0.95, 0.99), strict=True):
        report(f"due_{name}_lateness_{label}", value, "s")
    report(f"due_{name}_too_early", sum(each < 0 for each in late), "mails", at_most=0)
    report(f"due_{name}_lost", count - len(times), "mails", at_most=0)
    report(f"due_{name}_doubled", len(arrived) - len(times), "mails", at_most=0)
    return rate
