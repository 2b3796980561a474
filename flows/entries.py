"""The entries flow: enters contacts into journeys by segments, dates and the waiting list, and reads contacts that changed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from prefect import flow
from sqlmodel import Session

from distmark.clock import Clock, stopwatch
from distmark.db import Database, get_database
from distmark.entries import api_calls, by_date, by_segment, changed_contacts, plans, waiting_list
from distmark.segments import membership
from distmark.settings import get_settings

LONGEST_SECONDS = 20.0  # the rest is for the next run, so that the other system flows get their turn


@dataclass(slots=True)
class EntryCounts:
    """Counts of rows handled by each part of the flow. `unfinished` names the parts that ran out of time."""

    contacts: int = 0
    segments: int = 0
    passages: int = 0
    dates: int = 0
    scheduled: int = 0
    members: int = 0
    waiting: int = 0
    unfinished: list[str] = field(default_factory=list)


Part = Callable[[Session], int | None]  # handles some rows and returns how many; None: none was left


@flow(name="entries", retries=0)
def entries() -> dict[str, object]:
    """Enter the contacts that are due. The cost grows with what is due and what changed, not with all contacts or enrollments."""
    return asdict(admit_due(get_database(), get_settings().clock()))


def admit_due(db: Database, clock: Clock, seconds: float = LONGEST_SECONDS) -> EntryCounts:
    """Do all parts that are due now, in many transactions. Safe to repeat, and to run twice at once.

    Dates are entered before changed rules are read, so that a date that was due under the old rule is not lost.
    """
    now, until, counts = clock.now(), stopwatch() + seconds, EntryCounts()
    with db.writing() as session:
        membership.begin_day(session, now)
        changed_contacts.note_changed_zones(session)
        plans.plan_journeys(session, now)
        api_calls.delete_old_calls(session, now)
    parts: tuple[tuple[str, Part], ...] = (
        ("waiting", lambda session: waiting_list.admit_queued(session, now) or None),
        ("dates", lambda session: by_date.enter_by_dates(session, clock) or None),
        ("contacts", lambda session: changed_contacts.process_changed_contacts(session, now) or None),
        ("segments", lambda session: membership.rebuild_batch(session, now)),
        ("passages", lambda session: by_segment.dispatch_membership_changes(session, now) or None),
        ("scheduled", by_date.schedule_batch),
        ("dates", lambda session: by_date.enter_by_dates(session, clock) or None),
        ("members", lambda session: by_segment.enter_member_batch(session, now)),
    )
    for name, part in parts:
        count, finished = _repeat(db, part, until)
        setattr(counts, name, getattr(counts, name) + count)
        if not finished:
            counts.unfinished.append(name)
        elif name == "contacts":
            with db.writing() as session:
                changed_contacts.note_all_processed(session, now)
    return counts


def _repeat(db: Database, part: Part, until: float) -> tuple[int, bool]:
    """Call `part` until no row is left (True) or the time is over (False); return the rows handled."""
    total = 0
    while stopwatch() < until:
        with db.writing() as session:
            count = part(session)
        if count is None:
            return total, True
        total += count
    return total, False
