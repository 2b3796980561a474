"""`distmark journeys simulate`: what a journey would do, before anyone gets it. Needs no server; a path needs no database either."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from distmark.clock import aware
from distmark.commands.acting import BrandKey, Json
from distmark.commands.journeys import Key, VersionNumber, source_named
from distmark.console import err, out, print_json, table
from distmark.errors import InvalidInput
from distmark.settings import get_settings

TOKYO = ZoneInfo("Asia/Tokyo")


def simulate(
    key: Key,
    contacts: Annotated[int, typer.Option("--contacts", metavar="N", min=1, max=100_000, help="How many made-up contacts enter.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="The same seed gives the same simulation.")] = 1,
    rates: Annotated[Path | None, typer.Option("--rates", metavar="FILE", help="YAML: open, click, unsubscribe, events, steps.")] = None,
    audience: Annotated[
        Path | None, typer.Option("--audience", metavar="FILE", help="Real contacts, CSV or XLSX; nothing is sent.")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How many days to look at.")] = 90,
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="When they enter, ISO 8601 with a zone; now when left out.")] = "",
    version: VersionNumber = None,
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Run the real engine on a virtual clock with made-up people. No message leaves."""
    from distmark.simulation.simulate import Rates
    from distmark.simulation.simulate import simulate as run

    source = source_named(key, version, brand)
    start = _moment(at) if at else get_settings().clock().now()
    chosen = Rates.load(rates) if rates else Rates()
    file = (audience.name, audience.read_bytes()) if audience else None
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[day]}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=json_) as shown:
        bar = shown.add_task("Simulating", total=100, day="")

        def show_progress(now: datetime, until: datetime) -> None:
            shown.update(bar, completed=100 * (1 - (until - now) / (until - start)), day=f"{now:%Y-%m-%d}")

        found = run(source, contacts=contacts, seed=seed, rates=chosen, start=start, days=days, audience=file, progress=show_progress)
    if json_:
        print_json(_plain(asdict(found)))
        return
    rows = [
        [step_id, f"{each.entered:,}", f"{each.left:,}", f"{each.waiting:,}", f"{each.messages:,}", *_going_out(each)]
        for step_id, each in found.steps.items()
    ]
    out.print(table(["Step", "Entered", "Left", "Waiting", "Messages", "First (Tokyo)", "Last", "Most at"], rows))
    out.print(table(["Ended", "Contacts"], [[reason, f"{count:,}"] for reason, count in found.ended.items()]))
    out.print(table(["Hour (Tokyo)", "Messages"], [[f"{hour:02d}:00", f"{count:,}"] for hour, count in found.hours.items()]))
    if found.busiest_at:
        out.print(f"Busiest hour: {found.busiest_at:%Y-%m-%d %H:00} UTC, {found.busiest_messages:,} messages.")
    out.print(
        f"{found.contacts:,} contacts, {found.messages:,} messages, {found.still_inside:,} still inside, "
        f"{found.endless:,} can never finish."
    )
    out.print(f"{found.wakes:,} wakes in {found.seconds:.1f} s.")


def _going_out(step: Any) -> tuple[str, str, str]:
    """Return when a step's messages go out: the first, the last, and the hour of the day with the most."""
    if step.first_at is None:
        return "", "", ""
    first, last = (f"{at.astimezone(TOKYO):%m-%d %H:%M}" for at in (step.first_at, step.last_at))
    return first, last, f"{max(step.hours, key=step.hours.__getitem__):02d}:00"


def _moment(text: str) -> datetime:
    try:
        return aware(datetime.fromisoformat(text))
    except ValueError as error:
        raise InvalidInput(f'The time "{text}" cannot be read: {error}') from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value.isoformat() if isinstance(value, datetime) else value
