"""`distmark doctor`: what is wrong with this installation, and how to mend it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import httpx2
import typer
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, func, select

from distmark.channels.registry import probes
from distmark.clock import wall_now
from distmark.commands.acting import Json
from distmark.console import out, print_json
from distmark.db import Database, get_database
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.errors import SettingsError
from distmark.integrations.selftest import wrongly_signed
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.machine.prefect import AUTH_FILE, call_prefect
from distmark.machine.private import ensure_folder, is_private
from distmark.machine.state import MAILBOX_FILE
from distmark.operations.readiness import write_and_remove, write_row
from distmark.partners.table import User
from distmark.settings import Mode, Settings, get_settings

LATE_AFTER_WALL = timedelta(minutes=2)
SILENT_AFTER = timedelta(minutes=2)  # a worker says every 30 seconds that it lives
MOST_NAMED = 5
PREFECT_PROBE = "distmark-doctor"


class State(StrEnum):
    """The state of one thing."""

    good = "good"
    warning = "warning"
    bad = "bad"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at; `mend` says what to do unless it is good."""

    subject: str
    state: State
    found: str
    mend: str = ""


STYLE = {State.good: ("✓ ", "green"), State.warning: ("! ", "yellow"), State.bad: ("✗ ", "bold red")}


def doctor(json_: Json = False) -> None:
    """Look at everything this installation needs and say how to mend what is wrong. Exits with 1 when something is."""
    settings = get_settings()
    worst = State.good
    for diagnosis in examine(settings):
        worst = max(worst, diagnosis.state, key=list(State).index)
        print_json(asdict(diagnosis)) if json_ else _print(diagnosis)
    if worst is State.bad:
        raise typer.Exit(1)


def _print(diagnosis: Diagnosis) -> None:
    out.print(Text.assemble(STYLE[diagnosis.state], (f"{diagnosis.subject}: ", "bold"), diagnosis.found))
    if diagnosis.mend:
        out.print(Text(f"    {diagnosis.mend}", "italic"))


def examine(settings: Settings) -> Iterator[Diagnosis]:
    """Yield one diagnosis per thing; what depends on something that is broken is left out."""
    yield from (_public_address(settings), _sender(settings), _cookies(settings), _mail_password(settings))
    yield from (_clock(settings), _data_dir(settings), _readers(settings))
    database = _database(settings)
    yield database
    if database.state is State.good:
        yield from _rows(get_database(), settings)
    server = _server(settings)
    yield server
    if server.state is State.good:
        yield _prefect_writes(settings)
        yield from _pools(settings)
    yield from _channels(settings)
    yield from (_signatures(settings), *_receivers(settings))


def _public_address(settings: Settings) -> Diagnosis:
    if settings.mode is Mode.production and urlsplit(settings.base_url).hostname in ("127.0.0.1", "localhost", "::1", "0.0.0.0"):  # noqa: S104
        return Diagnosis(
            "Public address",
            State.warning,
            f"{settings.base_url} stands in every mail, and no recipient can reach it",
            "Set DISTMARK_PUBLIC_URL to the address that recipients reach, such as https://mail.example.com.",
        )
    return Diagnosis("Public address", State.good, f"{settings.base_url}, mode {settings.mode.value}")


def _sender(settings: Settings) -> Diagnosis:
    if settings.mode is Mode.production and settings.mail_from.endswith("distmark.example"):
        return Diagnosis(
            "Sender",
            State.warning,
            f"mail comes from {settings.mail_from}",
            "Set DISTMARK_MAIL_FROM and DISTMARK_MAIL_DOMAIN to a domain of yours.",
        )
    return Diagnosis("Sender", State.good, settings.mail_from)


def _cookies(settings: Settings) -> Diagnosis:
    encrypted = urlsplit(settings.base_url).scheme == "https"
    if encrypted and not settings.secure_cookies:
        found = "the pages are https, but a browser sends the sign-in over http, too"
        return Diagnosis("Cookies", State.warning, found, "Set DISTMARK_SECURE_COOKIES=true.")
    if settings.secure_cookies and not encrypted:
        found = f"they are for https only, but the pages are at {settings.base_url}: nobody stays signed in"
        return Diagnosis("Cookies", State.bad, found, "Set DISTMARK_PUBLIC_URL to the https address, or DISTMARK_SECURE_COOKIES=false.")
    return Diagnosis("Cookies", State.good, "for https only" if encrypted else "over http, as the pages are")


def _mail_password(settings: Settings) -> Diagnosis:
    subject = "Mail password"
    if settings.smtp_password.get_secret_value() and not settings.smtp_username:
        return Diagnosis(subject, State.warning, "is never used, since there is no user name", "Set DISTMARK_SMTP_USERNAME, too.")
    if settings.smtp_username and settings.smtp_tls == "off" and settings.smtp_host not in ("127.0.0.1", "localhost", "::1"):
        found = f"goes to {settings.smtp_host} in the clear, since DISTMARK_SMTP_TLS is off"
        return Diagnosis(subject, State.warning, found, "Set DISTMARK_SMTP_TLS=starttls (port 587) or on (port 465).")
    return Diagnosis(subject, State.good, "sent over TLS or on this machine" if settings.smtp_username else "none is needed")


def _clock(settings: Settings) -> Diagnosis:
    if settings.clock_speed == 1.0:
        return Diagnosis("Clock", State.good, "real time")
    return Diagnosis("Clock", State.good, f"{settings.clock_speed:g} times faster; it is {settings.clock().now():%Y-%m-%d %H:%M} UTC there")


def _data_dir(settings: Settings) -> Diagnosis:
    try:
        ensure_folder(settings.data_dir)
        write_and_remove(settings.data_dir)
    except OSError as error:
        mend = f"Make room and give this user the right to write there, or choose another than {settings.data_dir} with DISTMARK_DATA_DIR."
        return Diagnosis("Data folder", State.bad, f"{settings.data_dir} cannot be written to ({error.strerror})", mend)
    return Diagnosis("Data folder", State.good, f"{settings.data_dir.absolute()} takes a file")


def _readers(settings: Settings) -> Diagnosis:
    """Look for files of contacts and of secrets that other users of this machine may read."""
    folder = settings.data_dir.absolute()
    if is_private(folder):
        return Diagnosis("Readers of the data", State.good, "this user only")
    files = [folder / name for name in ("secret.key", AUTH_FILE, MAILBOX_FILE, "distmark.sqlite3", "prefect/prefect.db")]
    open_ones = [str(path.relative_to(folder)) for path in files if not is_private(path)]
    found = f"other users of this machine may look into {folder}" + (f" and read {_some(open_ones)}" if open_ones else "")
    return Diagnosis("Readers of the data", State.warning, found, f"Run `chmod -R go= {folder}`.")


def _database(settings: Settings) -> Diagnosis:
    from distmark.migrations import require_newest

    database = get_database()
    kind = database.engine.dialect.name
    try:
        require_newest(database)
    except SettingsError as error:
        return Diagnosis("Database", State.bad, str(error), "Run `distmark init`; it upgrades the tables and changes nothing else.")
    except SQLAlchemyError as error:
        words = str(getattr(error, "orig", error)).strip().splitlines()[0]
        return Diagnosis("Database", State.bad, f"{kind} does not answer ({words})", "Start it, or correct DISTMARK_DATABASE_URL.")
    try:
        write_row(database, wall_now())
    except SQLAlchemyError as error:
        words = str(getattr(error, "orig", error)).strip().splitlines()[0]
        mend = "Make room on its disk, or give its user the right to write; nothing can be sent or recorded meanwhile."
        return Diagnosis("Database", State.bad, f"{kind} takes no row ({words})", mend)
    return Diagnosis("Database", State.good, f"{kind}, tables up to date, takes a row")


def _rows(db: Database, settings: Settings) -> Iterator[Diagnosis]:
    with db.reading() as session:
        yield _users(session)
        yield _deployments(session)
        yield _overdue(session, settings)
        yield _outbox(session, settings)
        yield _parked(session)


def _users(session: Session) -> Diagnosis:
    users = session.exec(select(func.count(col(User.id))).where(col(User.active))).one()
    if users:
        return Diagnosis("People", State.good, f"{users} may sign in")
    return Diagnosis("People", State.warning, "nobody can sign in", "Make the first brand and user with `distmark init`.")


def _deployments(session: Session) -> Diagnosis:
    query = (
        select(Journey.key, JourneyVersion.number)
        .join(Journey, col(Journey.id) == JourneyVersion.journey_id)
        .where(JourneyVersion.status == VersionStatus.registered, col(JourneyVersion.deployment_id).is_(None))
    )
    missing = [f"{key} version {number}" for key, number in session.exec(query)]
    if not missing:
        return Diagnosis("Deployments", State.good, "every registered version has one")
    return Diagnosis("Deployments", State.bad, f"none for {_some(missing)}", "Run `distmark journeys register KEY` for each.")


def _overdue(session: Session, settings: Settings) -> Diagnosis:
    late = timedelta(seconds=LATE_AFTER_WALL.total_seconds() * settings.clock_speed)
    query = select(func.count(col(Enrollment.id)), func.min(col(Enrollment.due_at))).where(
        Enrollment.status == EnrollmentStatus.waiting, col(Enrollment.due_at) < settings.clock().now() - late
    )
    count, oldest = session.exec(query).one()
    if not count:
        return Diagnosis("Due enrollments", State.good, "none is late")
    found = f"{count:,} are late, the oldest since {oldest:%Y-%m-%d %H:%M} UTC"
    return Diagnosis(
        "Due enrollments",
        State.bad,
        found,
        "See whether a worker runs and the work pool is not paused; all of them go on by themselves then.",
    )


def _outbox(session: Session, settings: Settings) -> Diagnosis:
    late = timedelta(seconds=LATE_AFTER_WALL.total_seconds() * settings.clock_speed)
    query = select(func.count(col(Enrollment.id))).where(
        col(Enrollment.flow_run_id).is_(None),
        Enrollment.status == EnrollmentStatus.waiting,
        col(Enrollment.entered_at) < settings.clock().now() - late,
    )
    count = session.exec(query).one()
    if not count:
        return Diagnosis("Runs", State.good, "every enrollment has its flow run")
    return Diagnosis(
        "Runs", State.bad, f"{count:,} enrollments have no flow run yet", "Start the worker and the Prefect server; the runs are made then."
    )


def _parked(session: Session) -> Diagnosis:
    query = (
        select(Enrollment.error, func.count(col(Enrollment.id)))
        .where(Enrollment.status == EnrollmentStatus.parked)
        .group_by(Enrollment.error)
    )
    parked = list(session.exec(query))
    if not parked:
        return Diagnosis("Failing steps", State.good, "no enrollment is parked")
    found = f"{sum(count for _, count in parked):,} enrollments are parked: {_some([error for error, _ in parked])}"
    return Diagnosis("Failing steps", State.bad, found, "Mend what the error says; then resume them on their pages.")


def _server(settings: Settings) -> Diagnosis:
    mend = "Start it with `distmark up`, or set DISTMARK_PREFECT_API_URL to where it runs; enrolling works meanwhile and runs start later."
    try:
        version = call_prefect(settings, "GET", "/admin/version")
        if version.status_code in (401, 403):
            return _refused_sign_in(settings, version.status_code)
        version.raise_for_status()
    except httpx2.HTTPError as error:
        return Diagnosis("Prefect server", State.bad, f"{settings.prefect_api_url} does not answer ({type(error).__name__})", mend)
    return Diagnosis("Prefect server", State.good, f"{version.json()} at {settings.dashboard_url}")


def _refused_sign_in(settings: Settings, status: int) -> Diagnosis:
    found = f"{settings.prefect_api_url} refuses our sign-in ({status})"
    mend = (
        "Set DISTMARK_PREFECT_AUTH to the user:password of that server, or run this with the data folder of its `distmark up`; "
        "no run moves meanwhile."
    )
    return Diagnosis("Prefect server", State.bad, found, mend)


def _prefect_writes(settings: Settings) -> Diagnosis:
    """Make and remove a variable in Prefect: a server that only answers may still be unable to record a run's state."""
    subject = "Prefect's database"
    mend = "See the Prefect server's log: its disk may be full or its database away; runs stand still meanwhile."
    try:
        made = call_prefect(settings, "POST", "/variables/", {"name": PREFECT_PROBE, "value": "probe"})
        removed = call_prefect(settings, "DELETE", f"/variables/name/{PREFECT_PROBE}")
    except httpx2.HTTPError as error:
        return Diagnosis(subject, State.bad, f"took no change ({type(error).__name__})", mend)
    # 409: an earlier look was interrupted between the two.
    if made.status_code not in (200, 201, 409) or not removed.is_success:
        return Diagnosis(subject, State.bad, f"took no change ({made.status_code}, {removed.status_code})", mend)
    return Diagnosis(subject, State.good, "took a variable and removed it")


def _signatures(settings: Settings) -> Diagnosis:
    """Send a signed call with each key to a receiver of our own, which checks it as the receivers of a brand do."""
    subject = "Webhook signatures"
    keys = settings.webhook_secrets
    if settings.audience_secret and settings.audience_secret not in keys:
        found = f"there is no key named {settings.audience_secret}, with which audience changes are to be signed"
        return Diagnosis(subject, State.bad, found, "Add it to DISTMARK_WEBHOOK_SECRETS, or correct DISTMARK_AUDIENCE_SECRET.")
    if empty := [name for name, secret in keys.items() if not secret.get_secret_value()]:
        found = f"the key of {_some(empty)} is empty, so anybody can sign"
        return Diagnosis(subject, State.bad, found, "Put the key into DISTMARK_WEBHOOK_SECRETS.")
    wrong = wrongly_signed(settings)
    if wrong:
        mend = "See that this user may open a port on 127.0.0.1; a receiver refuses such calls."
        return Diagnosis(subject, State.bad, f"a call to ourselves did not arrive as signed: {_some(wrong)}", mend)
    named = f"with {_some(sorted(keys))}" if keys else "with a key made for this; none is configured"
    return Diagnosis(subject, State.good, f"a signed call to ourselves arrived and was verified, {named}")


def _receivers(settings: Settings) -> Iterator[Diagnosis]:
    """Ask each configured receiver whether it is there. No alarm and no change of an audience is sent."""
    for name, url in (("DISTMARK_ALARM_WEBHOOK", settings.alarm_webhook), ("DISTMARK_AUDIENCE_URL", settings.audience_url)):
        if url:
            yield _receiver(name, url)


def _receiver(name: str, url: str) -> Diagnosis:
    subject, host = f"Receiver of {name}", urlsplit(url).netloc.rpartition("@")[2]
    mend = f"Start the receiver or correct {name}; calls are tried again meanwhile."
    try:
        status = httpx2.head(url, timeout=5, trust_env=False).status_code
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
        return Diagnosis(subject, State.bad, f"{host or 'the address'} cannot be reached ({type(error).__name__})", mend)
    if status >= 500:
        return Diagnosis(subject, State.warning, f"{host} answers {status}", mend)
    return Diagnosis(subject, State.good, f"{host} answers")


def _pools(settings: Settings) -> Iterator[Diagnosis]:
    for name, what in ((settings.work_pool, "journeys"), (settings.system_pool, "results and upkeep")):
        yield _pool(settings, name, what)


def _pool(settings: Settings, name: str, what: str) -> Diagnosis:
    subject = f"Work pool {name}"
    found = _ask(settings, "GET", f"/work_pools/{name}")
    if found is None:
        return Diagnosis(subject, State.bad, "does not exist", "Run `distmark init`; it registers the pools and the system flows.")
    if found.get("is_paused"):
        return Diagnosis(
            subject,
            State.warning,
            f"is paused, so {what} stand still",
            "Resume the pool in the Prefect dashboard when everybody may go on.",
        )
    beats = [worker["last_heartbeat_time"] for worker in _ask(settings, "POST", f"/work_pools/{name}/workers/filter", {}) or []]
    alive = [beat for beat in beats if beat and _age(beat) < SILENT_AFTER]
    if not alive:
        silent = f"last heard of {max(beats)}" if beats else "never heard of"
        return Diagnosis(
            subject,
            State.bad,
            f"has no worker ({silent})",
            f"Start one: `distmark up`, or `prefect worker start --pool {name} --type journey`.",
        )
    return Diagnosis(subject, State.good, f"{len(alive)} {'worker' if len(alive) == 1 else 'workers'} at work")


def _ask(settings: Settings, method: str, path: str, body: Any = None) -> Any:
    with suppress(httpx2.HTTPError):
        answer = call_prefect(settings, method, path, body)
        return answer.json() if answer.status_code == 200 else None
    return None


def _age(beat: str) -> timedelta:
    from datetime import datetime

    return wall_now() - datetime.fromisoformat(beat)


def _channels(settings: Settings) -> Iterator[Diagnosis]:
    for probe in probes(settings):
        yield Diagnosis(probe.subject, State.bad if probe.mend else State.good, probe.found, probe.mend)


def _some(items: list[str]) -> str:
    return ", ".join(items[:MOST_NAMED]) + (f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else "")


COMMANDS = (("doctor", doctor, "distmark doctor --json"),)
