"""The entries flow: lets contacts into journeys by segments, dates and freed room, and looks at contacts that changed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from prefect import flow
from sqlmodel import Session

from distmark.clock import Clock, stopwatch
from distmark.db import Database, get_database
from distmark.entries import api_calls, by_date, by_segment, changed_contacts, plans, waiting_list
from distmark.segments import membership
from distmark.settings import get_settings

LONGEST_SECONDS = 20.0  # what is left over then is for the next run: the other system flows want their turn


@dataclass(slots=True)
class Looked:
    """How many of each were looked at. `unfinished` names what there was no time for."""

    contacts: int = 0
    segments: int = 0
    passages: int = 0
    dates: int = 0
    scheduled: int = 0
    members: int = 0
    waiting: int = 0
    unfinished: list[str] = field(default_factory=list)


Part = Callable[[Session], int | None]  # does some and says how much; None: nothing was left


@flow(name="entries", retries=0)
def entries() -> dict[str, object]:
    """Let in whoever is due. Cost follows what is due and what changed, not how many contacts or enrollments there are."""
    return asdict(look(get_database(), get_settings().clock()))


def look(db: Database, clock: Clock, seconds: float = LONGEST_SECONDS) -> Looked:
    """Do everything that is to be done now, part by part, each in a transaction of its own; safe to repeat and to run twice at once.

    Dates are entered before changed rules are read, so that what was due under the old rule is not lost.
    """
    now, until, looked = clock.now(), stopwatch() + seconds, Looked()
    with db.writing() as session:
        membership.begin_day(session, now)
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
        setattr(looked, name, getattr(looked, name) + count)
        if not finished:
            looked.unfinished.append(name)
        elif name == "contacts":
            with db.writing() as session:
                changed_contacts.note_all_processed(session, now)
    return looked


def _repeat(db: Database, part: Part, until: float) -> tuple[int, bool]:
    """Do `part` again and again until nothing is left (True) or the time is over (False)."""
    total = 0
    while stopwatch() < until:
        with db.writing() as session:
            count = part(session)
        if count is None:
            return total, True
        total += count
    return total, False
