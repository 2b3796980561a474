"""`distmark watch`: enrollments per step, lateness, held sends and their rules, and open alarms."""

from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from distmark.commands.acting import BrandKey, Json
from distmark.console import out, print_json, table
from distmark.db import get_database
from distmark.errors import NotFound
from distmark.operations.alarms import AlarmShown, alarms
from distmark.operations.backlog import StepWatch
from distmark.operations.backlog import watch as watch_steps
from distmark.operations.held_send_counts import Held, held_sends
from distmark.partners.model import Role, Viewer
from distmark.partners.table import Brand
from distmark.settings import get_settings
from distmark.sql import id_of


def watch(brand: BrandKey = "", json_: Json = False) -> None:
    """Show every step at which somebody is: how many wait, are due, and how late; the sends that are held, and by what; and the alarms."""
    now = get_settings().clock().now()
    with get_database().reading() as session:
        steps, held, standing = _of_brands(session, brand, now)
    if json_:
        for key, step in steps:
            print_json(_step(key, step))
        for key, each in held:
            print_json(_held(key, each))
        for key, shown in standing:
            print_json(_alarm(key, shown))
        return
    for key, shown in standing:
        alarm = shown.alarm
        out.print(
            f"[bold red]Alarm[/] {key}/{shown.journey} version {shown.version}: {alarm.kind} since {alarm.raised_at:%Y-%m-%d %H:%M} UTC"
        )
    if not steps:
        out.print("Nobody is inside a journey.")
        return
    headings = ("Journey", "Version", "Step", "Waiting", "Paused", "Parked", "Due", "Oldest due", "Late p50", "Late max")
    out.print(table(headings, [_cells(key, step) for key, step in steps], numbers=True))
    if held:
        rows = [
            (f"{key}/{each.journey}", each.version, each.step_id, each.rule, f"{each.count:,}", _moment(each.next_at)) for key, each in held
        ]
        out.print(table(("Journey", "Version", "Step", "Held by", "Sends", "First looks again"), rows))


def _of_brands(
    session: Session, key: str, now: datetime
) -> tuple[list[tuple[str, StepWatch]], list[tuple[str, Held]], list[tuple[str, AlarmShown]]]:
    brands = [row for row in session.exec(select(Brand).order_by(col(Brand.key))) if key in ("", row.key)]
    if key and not brands:
        raise NotFound(f"There is no brand {key}; check the key.")
    steps: list[tuple[str, StepWatch]] = []
    held: list[tuple[str, Held]] = []
    standing: list[tuple[str, AlarmShown]] = []
    for each in brands:
        viewer = Viewer(0, Role.ops, id_of(each), None, "operator")  # looking needs nobody's name
        steps += [(each.key, step) for step in watch_steps(session, viewer, now)]
        held += [(each.key, hold) for hold in held_sends(session, viewer)]
        standing += [(each.key, alarm) for alarm in alarms(session, viewer)]
    return steps, held, standing


def _step(brand: str, step: StepWatch) -> dict[str, Any]:
    return {
        "brand": brand,
        "journey": step.journey,
        "version": step.version,
        "step": step.step_id,
        "waiting": step.waiting,
        "paused": step.paused,
        "parked": step.parked,
        "due": step.due,
        "oldest_due_at": step.oldest_due_at.isoformat() if step.oldest_due_at else None,
        "late_p50_seconds": step.late_p50.total_seconds(),
        "late_max_seconds": step.late_max.total_seconds(),
    }


def _held(brand: str, held: Held) -> dict[str, Any]:
    return {
        "brand": brand,
        "journey": held.journey,
        "version": held.version,
        "step": held.step_id,
        "held_by": held.rule,
        "held": held.count,
        "next_at": held.next_at.isoformat() if held.next_at else None,
    }


def _alarm(brand: str, shown: AlarmShown) -> dict[str, Any]:
    alarm = shown.alarm
    place = {"brand": brand, "journey": shown.journey, "version": shown.version}
    return {"alarm": alarm.kind.value, **place, "raised_at": alarm.raised_at.isoformat(), "detail": alarm.detail}


def _cells(brand: str, step: StepWatch) -> tuple[object, ...]:
    counts = (f"{number:,}" for number in (step.waiting, step.paused, step.parked, step.due))
    return (
        f"{brand}/{step.journey}",
        step.version,
        step.step_id or "start",
        *counts,
        _moment(step.oldest_due_at),
        _span(step.late_p50),
        _span(step.late_max),
    )


def _moment(at: datetime | None) -> str:
    return f"{at:%m-%d %H:%M:%S}" if at else "–"


def _span(late: timedelta) -> str:
    return str(timedelta(seconds=round(late.total_seconds()))) if late else "–"


COMMANDS = (("watch", watch, "distmark watch --json"),)
