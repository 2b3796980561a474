"""Mails per second of wakes alone, without Prefect: claimed, rendered, accepted by a local SMTP server, recorded. Cohorts of 500.

The baseline is the SMTP channel handing over mails that were made before, with nothing else to do. Sizes: BENCH_MAILS (10,000);
BENCH_DATABASE measures one database only.
"""

import asyncio
import time
from collections.abc import Sequence

from distmark.channels.base import Channel, OutgoingMessage
from distmark.channels.email.smtp import SmtpChannel
from distmark.channels.memory import MemoryChannel
from distmark.clock import FixedClock, SystemClock, wall_now
from distmark.delivery.service import Sender
from distmark.engine.wake import EngineContext, wake
from tests.bench.crowd import enrolled, mail_campaign, run_keys
from tests.bench.report import report
from tests.bench.stand import CONCURRENCY, Sink, database, kinds, people, say, sink, size, temporary_folder
from tests.driver import Stage

MAILS = max(4, size("MAILS", 10_000))
PER_RUN = min(500, MAILS // 4)
AIM = 600.0


def main() -> None:
    """Measure on one database after another."""
    for kind in kinds():
        with temporary_folder() as folder, database(kind, folder) as db, sink(folder) as mail:
            asyncio.run(_measure(kind, Stage(db, FixedClock(wall_now())), mail))


async def _measure(kind: str, stage: Stage, mail: Sink) -> None:
    say(f"{kind}: {MAILS:,} mails")
    ids = people(stage, MAILS + PER_RUN)
    rendered = await _rendered(stage, ids[MAILS:])
    smtp = SmtpChannel("127.0.0.1", mail.port, tls="off", connections=CONCURRENCY)
    alone = await _handed_over(smtp, rendered)
    before = len(mail.arrived())
    campaign = mail_campaign(stage, PER_RUN)
    enrolled(stage, campaign, ids[:MAILS])
    keys = run_keys(stage, campaign)
    cpu = time.process_time()
    one = await _seconds(_context(stage, smtp), keys[: len(keys) // 2], 1)
    arrived = len(mail.arrived()) - before
    report(f"mails_{kind}_cpu", (time.process_time() - cpu) / arrived * 1000, "ms CPU/mail")  # of this process alone
    report(f"mails_{kind}_one_wake_at_a_time", arrived / one, "mails/s", alone, at_least=AIM)
    several = await _seconds(_context(stage, smtp), keys[len(keys) // 2 :], CONCURRENCY)
    rest = len(mail.arrived()) - before - arrived
    report(f"mails_{kind}_{CONCURRENCY}_wakes_at_once", rest / several, "mails/s", alone, at_least=AIM, bytes=round(mail.mean_bytes()))
    report(f"mails_{kind}_missing", MAILS - arrived - rest, "mails", at_most=0)
    await smtp.close()


async def _rendered(stage: Stage, ids: Sequence[int]) -> list[OutgoingMessage]:
    """Return mails as a channel gets them; this also compiles what every measurement then finds compiled."""
    kept = MemoryChannel()
    campaign = mail_campaign(stage, PER_RUN)
    enrolled(stage, campaign, ids)
    await _seconds(_context(stage, kept), run_keys(stage, campaign), 1)
    return list(kept.accepted)


def _context(stage: Stage, mail: Channel) -> EngineContext:
    return EngineContext(
        stage.db, SystemClock(), {"email": mail}, Sender("https://mail.example", "hello@mirai.example", "mirai.example"), "bench"
    )


async def _seconds(context: EngineContext, keys: Sequence[str], at_once: int) -> float:
    """Return how long the wakes of these runs took."""
    slots = asyncio.Semaphore(at_once)

    async def one(key: str) -> None:
        async with slots:
            await wake(context, key)

    began = time.perf_counter()
    await asyncio.gather(*(one(key) for key in keys))
    return time.perf_counter() - began


async def _handed_over(channel: Channel, messages: Sequence[OutgoingMessage]) -> float:
    """Return how many mails per second the channel hands over when it has nothing else to do."""
    began = time.perf_counter()
    await asyncio.gather(*(channel.deliver(each) for each in messages))
    return len(messages) / (time.perf_counter() - began)
