"""Throttles across processes: reserved times of messages, and the send rates that people set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, update
from sqlmodel import Session, col, select

from distmark.campaigns.table import Campaign
from distmark.compliance.service import record
from distmark.delivery.send_rate_spacing import EACH, RULE, Rate, RateScope, Scoped, ThrottleBatch, reservation_key, throttle_rule
from distmark.delivery.table import Pace, SendRate
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.errors import InvalidInput, NotFound
from distmark.journeys.model import Why
from distmark.partners.model import Permission, Viewer
from distmark.partners.service import require
from distmark.partners.table import Partner
from distmark.sql import among, batches, id_of, insert_into, row_count

MOST_PER_HOUR = 10_000_000
SEND_RATE = "send_rate"


def rates_of(session: Session, brand_id: int) -> dict[Scoped, Rate]:
    """Return the brand's rates."""
    rows = session.exec(select(SendRate).where(SendRate.brand_id == brand_id))
    return {(row.scope, row.key): Rate(row.per_hour, row.burst) for row in rows}


def open_throttle_batch(session: Session, brand_id: int, rules: Iterable[str], tickets: Sequence[str], now: datetime) -> ThrottleBatch:
    """Return the paces of `rules`, locked until the unit of work ends: turns are given one process after the other.

    With them come the turns that the messages with these tickets were given before.
    """
    levels: dict[str, datetime] = {}
    wanted = sorted(set(rules))  # in one order for all, or two processes would wait for each other
    for part in batches(wanted):
        rows = [{"key": _key(brand_id, rule), "next_at": now} for rule in part]
        insert = insert_into(session, Pace).values(rows)
        # An update that changes nothing locks the rows that are there, and returns them.
        statement = insert.on_conflict_do_update(index_elements=["key"], set_={"next_at": Pace.next_at})
        found = session.execute(statement.returning(col(Pace.key), col(Pace.next_at)))
        levels.update({key.partition(":")[2]: next_at for key, next_at in found})
    turns: dict[str, datetime] = {}
    for part in batches(tickets if wanted else []):
        turns.update(session.exec(select(Pace.key, Pace.next_at).where(col(Pace.key).in_(part))).all())
    return ThrottleBatch(now, levels, turns)


def save_throttle_batch(session: Session, brand_id: int, line: ThrottleBatch) -> None:
    """Write how far the paces have come, and which turns were given and used."""
    for part in batches(sorted(line.used)):
        session.execute(delete(Pace).where(col(Pace.key).in_(part)))
    moments = {_key(brand_id, rule): line.levels[rule] for rule in line.moved} | line.given
    for part in batches(sorted(moments)):
        insert = insert_into(session, Pace).values([{"key": key, "next_at": moments[key]} for key in part])
        session.execute(insert.on_conflict_do_update(index_elements=["key"], set_={"next_at": insert.excluded.next_at}))


def forget_past_slots(session: Session, now: datetime) -> int:
    """Delete the paces and turns of yesterday and before, which hold nobody any more, and return how many."""
    result = session.execute(delete(Pace).where(col(Pace.next_at) < now - timedelta(days=1)))
    return row_count(result)


def _key(brand_id: int, rule: str) -> str:
    return f"{brand_id}:{rule}"


def list_rates(session: Session, viewer: Viewer) -> list[SendRate]:
    """Return the rates of the viewer's brand, by scope and key."""
    require(viewer, Permission.run_operations)
    rows = session.exec(select(SendRate).where(SendRate.brand_id == viewer.brand_id))
    order = list(RateScope)  # the databases sort the scopes in two ways
    return sorted(rows, key=lambda row: (order.index(row.scope), row.key))


@dataclass(frozen=True, slots=True)
class RateShown:
    """A rate, how many messages wait for their turn under it now, and when the last of these is due (UTC; None when none waits)."""

    rate: SendRate
    waiting: int = 0
    last_at: datetime | None = None


def shown_rates(session: Session, viewer: Viewer) -> list[RateShown]:
    """Return the rates of the viewer's brand with what waits under each: one that each of a scope has counts those without their own."""
    rows = list_rates(session, viewer)
    own = {throttle_rule(row.scope, row.key) for row in rows if row.key != EACH}
    turns = _next_slots(session, viewer.brand_id) if rows else {}
    shown = []
    for row in rows:
        rule = throttle_rule(row.scope, "" if row.key == EACH else row.key)
        if row.key == EACH:
            under = [turn for each, turn in turns.items() if each.startswith(rule) and each not in own]
        else:
            under = [turns[rule]] if rule in turns else []
        shown.append(RateShown(row, sum(count for count, _last in under), max((last for _count, last in under), default=None)))
    return shown


def _next_slots(session: Session, brand_id: int) -> dict[str, tuple[int, datetime]]:
    """Return how many wait for their turn, and until when, by rule; a throttle that holds is the first of the rules."""
    rule = col(Enrollment.rules)[0].as_string()
    statement = select(rule, func.count(), func.max(Enrollment.due_at)).where(
        Enrollment.brand_id == brand_id,
        Enrollment.status == EnrollmentStatus.waiting,
        Enrollment.why == Why.held,
        rule.startswith(f"{RULE}:", autoescape=True),
    )
    return {str(each): (count, last) for each, count, last in session.exec(statement.group_by(rule)) if last is not None}


def set_rate(session: Session, viewer: Viewer, scope: RateScope, key: str, per_hour: int, now: datetime, *, burst: int = 1) -> SendRate:
    """Let at most `per_hour` messages an hour go out for one partner, campaign or domain, or for each of the scope with the key "*".

    Messages that wait for their turn under an earlier rate line up again at the new one. Errors: InvalidInput, NotFound for a partner or
    campaign that the brand does not have.
    """
    require(viewer, Permission.run_operations)
    _check_numbers(per_hour, burst)
    key = _checked_key(session, viewer, scope, key)
    row = _find(session, viewer, scope, key) or SendRate(brand_id=viewer.brand_id, scope=scope, key=key, per_hour=0, changed_at=now)
    before = row.per_hour or None
    row.per_hour, row.burst, row.changed_at = per_hour, burst, now
    session.add(row)
    session.flush()
    detail: dict[str, Any] = {"scope": scope, "key": key, "per_hour": per_hour, "burst": burst, "before": before}
    record(session, viewer.brand_id, viewer.user_id, "set_rate", SEND_RATE, id_of(row), now, **detail)
    _reserve_again(session, viewer.brand_id, scope, key, now)
    return row


def remove_rate(session: Session, viewer: Viewer, scope: RateScope, key: str, now: datetime) -> None:
    """Take the rate away; what waited for its turn goes at once. Errors: NotFound."""
    require(viewer, Permission.run_operations)
    row = _find(session, viewer, scope, key)
    if row is None:
        raise NotFound(f'There is no rate for {scope} "{key}"; look at the list of rates.')
    detail: dict[str, Any] = {"scope": scope, "key": row.key, "per_hour": row.per_hour}
    record(session, viewer.brand_id, viewer.user_id, "removed_rate", SEND_RATE, id_of(row), now, **detail)
    session.delete(row)
    session.flush()
    _reserve_again(session, viewer.brand_id, scope, row.key, now)


def _find(session: Session, viewer: Viewer, scope: RateScope, key: str) -> SendRate | None:
    rows = select(SendRate).where(SendRate.brand_id == viewer.brand_id, SendRate.scope == scope, SendRate.key == key.strip().lower())
    return session.exec(rows.with_for_update()).first()


def _check_numbers(per_hour: int, burst: int) -> None:
    if not 1 <= per_hour <= MOST_PER_HOUR:
        raise InvalidInput(f"The rate {per_hour} per hour is not between 1 and {MOST_PER_HOUR:,}; to send nothing, pause the campaign.")
    if not 1 <= burst <= per_hour:
        raise InvalidInput(f"The burst {burst} is not between 1 and the rate of {per_hour} per hour; give one in between.")


def _checked_key(session: Session, viewer: Viewer, scope: RateScope, key: str) -> str:
    key = key.strip().lower()
    if key == EACH:
        return key
    if scope in (RateScope.sending_domain, RateScope.destination_domain):
        if "." not in key or "@" in key or ":" in key:
            raise InvalidInput(f'The domain "{key}" is not one; write it like example.co.jp.')
        return key
    table: Any = Partner if scope is RateScope.partner else Campaign
    if session.exec(select(table.id).where(table.brand_id == viewer.brand_id, table.key == key)).first() is None:
        raise NotFound(f'Your brand has no {scope} "{key}"; look at its key in the list.')
    return key


def _reserve_again(session: Session, brand_id: int, scope: RateScope, key: str, now: datetime) -> None:
    """Delete the reservations made under the old rate, and wake the enrollments that wait for one."""
    rule = throttle_rule(scope, "" if key == EACH else key)
    of_rule = col(Pace.key).startswith(_key(brand_id, rule), autoescape=True) if key == EACH else col(Pace.key) == _key(brand_id, rule)
    tickets = _reservations_held_by(session, brand_id, rule, exact=key != EACH)
    # As a wake does it: first its enrollments, in order, then the paces. Else the two could wait for each other.
    held = select(Enrollment.id).where(among(session, col(Enrollment.id), tickets.values()))
    session.exec(held.order_by(col(Enrollment.id)).with_for_update(key_share=True)).all()
    session.execute(delete(Pace).where(of_rule))
    for part in batches(sorted(tickets)):
        session.execute(delete(Pace).where(col(Pace.key).in_(part)))
        ids = [tickets[key] for key in part]
        session.execute(update(Enrollment).where(col(Enrollment.id).in_(ids)).values(woken_at=now))


def _reservations_held_by(session: Session, brand_id: int, rule: str, *, exact: bool) -> dict[str, int]:
    rows = session.exec(
        select(Enrollment.id, Enrollment.step_id, Enrollment.visits, Enrollment.rules).where(
            Enrollment.brand_id == brand_id, col(Enrollment.ended_at).is_(None), Enrollment.why == Why.held
        )
    )
    return {
        reservation_key(row_id, step_id, int(visits.get(step_id, 1))): row_id
        for row_id, step_id, visits, rules in rows
        if row_id and step_id and any(each == rule if exact else str(each).startswith(rule) for each in rules)
    }
