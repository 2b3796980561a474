"""The demo's two ways: for a person until Ctrl-C, and once without one, from enrolling to results, with proof."""

import sys
from collections.abc import Callable, Sequence

import httpx2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlmodel import col, func, select

from distmark.clock import stopwatch, wall_now
from distmark.commands.results import print_results
from distmark.console import Board, addresses, err, fail, out, print_json, table
from distmark.db import Database
from distmark.demo.audience import Booking, DemoAudience
from distmark.demo.brands import BOOKINGS, BRANDS, PASSWORD
from distmark.demo.enrolling import PageProblem, PartnerAtWork
from distmark.demo.history import PAST, has_past, make_history, undeployed
from distmark.demo.proof import Evidence, Prefect, prove, shortfalls, wait_until
from distmark.demo.samples import SignInCard, cards_of, load_samples, open_campaigns
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.journeys.table import JourneyVersion
from distmark.machine.database import prepare_database
from distmark.machine.state import MAILBOX_FILE
from distmark.machine.supervisor import Machine, MachineStopped
from distmark.mailbox.store import MailboxStore
from distmark.metrics.service import journeys_with_results
from distmark.partners.table import User
from distmark.settings import Mode, Settings
from distmark.sql import id_of

SECONDS_PER_DAY = 86_400.0
ONCE_SECONDS_PER_DAY = 4.0
ONCE_WAIT_SECONDS = 240.0
ONCE_MORE = 3  # contacts ticked on the page, beside the members who wait already; two of them cannot begin, and the page says why


def run_demo(seconds_per_day: float, *, audience: bool = False) -> int:
    """Run until Ctrl-C and return the exit code. Goes on where an earlier demo in the same folder was."""
    board = Board()
    machine = Machine(demo_settings(), speed=SECONDS_PER_DAY / seconds_per_day, report=board.show_status)
    with machine.obeying_signals():
        try:
            with board:
                machine.start(lambda settings: _prepare_with_past(settings, machine.check_stop))
                db = Database(machine.settings.database)
                open_campaigns(db, machine.clock.now())
                _say_hello(machine)
                people = _audience(machine, db) if audience else None
                if people is not None:
                    for fault in _enrol_some(machine):
                        err.print(f"{fault}.")
                    people.start()
                machine.wait()
                if people is not None:
                    people.stop()
                db.close()
        except MachineStopped:
            return 128 + (machine.signal_received or 0)
        finally:
            machine.stop()
    return 0


def run_once(seconds_per_day: float | None) -> int:
    """Enrol, wait until every enrollment has ended, stop, print the results and the proof; 0 only if everything holds."""
    started = stopwatch()
    speed = SECONDS_PER_DAY / (seconds_per_day or ONCE_SECONDS_PER_DAY)
    settings = demo_settings()
    settings = settings.model_copy(update={"data_dir": settings.data_dir / "once", "results_every_seconds": 30, "poll_seconds": 0.3})
    board = Board()
    machine = Machine(settings, speed=speed, afresh=True, report=board.show_status)
    with machine.obeying_signals():
        try:
            with board:
                machine.start(_prepare)
            return _live_once(machine, started)
        except MachineStopped:
            return 128 + (machine.signal_received or 0)
        finally:
            machine.stop()


def demo_settings() -> Settings:
    """Return the demo's settings: the environment's, but nothing from a .env file, which is about some other installation."""
    settings = Settings(_env_file=None, mode=Mode.demo)
    return settings.model_copy(update={"clock_speed": 1.0, "clock_origin": None, "clock_wall_origin": None})


def _prepare(settings: Settings) -> Sequence[int]:
    """Make the tables and the samples; return the versions that need their deployment."""
    prepare_database(settings)
    db = Database(settings.database)
    try:
        return load_samples(db, settings.journey_defs_dir, settings.clock().now()).to_register
    finally:
        db.close()


def _prepare_with_past(settings: Settings, check: Callable[[], None] = lambda: None) -> Sequence[int]:
    """Do the same, and before the first day let three months pass; return the versions that need their deployment."""
    prepare_database(settings)
    db = Database(settings.database)
    now = settings.clock().now()
    try:
        fresh = not has_past(db)
        samples = load_samples(db, settings.journey_defs_dir, now - PAST if fresh else now, today=now)
        if fresh:
            make_history(db, settings, now - PAST, now, check)
        return sorted({*samples.to_register, *undeployed(db)})
    finally:
        db.close()


def _live_once(machine: Machine, started: float) -> int:
    db = Database(machine.settings.database)
    mailbox = MailboxStore(machine.data_dir / MAILBOX_FILE)
    audience = _audience(machine, db, since=mailbox.newest_id())
    try:
        open_campaigns(db, machine.clock.now())
        before = _newest_enrollment(db)
        since, accepted_before, mailbox_before = wall_now().isoformat(), mailbox.accepted_count(), mailbox.newest_id()
        audience.start()
        unsent = _enrol_some(machine)
        ids = _enrollments_after(db, before)
        all_ended = _watch(machine, db, ids)
        audience.settle()
        audience.stop()
        prefect = Prefect(machine.settings)
        prefect.run_results()
        evidence = Evidence(db, mailbox, prefect, _deployments(db), ids, accepted_before, mailbox_before, since)
        proof = prove(evidence, 0)
        wrong = [*unsent, *shortfalls(evidence, proof, audience.tally)]
        prefect.close()
        machine.stop()
        _print_results(db)
        if not all_ended:
            wrong.insert(0, f"not everybody had ended after {ONCE_WAIT_SECONDS:.0f} seconds; the logs are in {machine.data_dir / 'logs'}")
        for fault in wrong:
            fail(f"The demo did not hold: {fault}.")
        print_json({**proof.as_json(), "seconds": round(stopwatch() - started, 1)})
        return 1 if wrong else 0
    finally:
        audience.stop()
        mailbox.close()
        db.close()


def _audience(machine: Machine, db: Database, since: int = 0) -> DemoAudience:
    store = MailboxStore(machine.data_dir / MAILBOX_FILE)
    return DemoAudience(store, machine.speed, machine.settings.base_url, _bookings(machine, db), since)


def _bookings(machine: Machine, db: Database) -> dict[str, Booking]:
    """Return what people may book, by the domain of their address; each partner's system has a token of its own."""
    from distmark.web.api.viewer import api_token
    from distmark.web.visit import Site, secret_of

    site = Site(machine.settings, db, machine.clock, secret_of(machine.settings), pages={})
    bookings: dict[str, Booking] = {}
    with db.reading() as session:
        for brand in BRANDS:
            for partner in brand.partners:
                user = session.exec(select(User).where(User.email == f"{partner.roman}@{brand.domain}")).one()
                books, converts = BOOKINGS[brand.key]
                bookings[f"{partner.key}.mail.example"] = Booking(api_token(site, id_of(user)), books, converts)
    return bookings


def _enrol_some(machine: Machine) -> list[str]:
    """Let a partner of each brand send some contacts on their way, and return in words which could not; the others go on."""
    failures = []
    for brand in BRANDS:
        machine.check_stop()
        name = f"{brand.partners[0].name} ({brand.name})"
        try:
            with PartnerAtWork(machine.settings.base_url, f"{brand.partners[0].roman}@{brand.domain}") as partner:
                sent = partner.enrol(ONCE_MORE, brand.campaign_name)
        except (PageProblem, httpx2.HTTPError) as error:
            failures.append(f"{name} sent nobody: {error}")
            continue
        if sent.contact_ids:
            err.print(f"{name} sent {len(sent.contact_ids)} contacts on their way.")
        else:
            failures.append(f"{name} has nobody who can begin now")
    return failures


def _newest_enrollment(db: Database) -> int:
    with db.reading() as session:
        return session.exec(select(func.max(Enrollment.id))).one() or 0


def _enrollments_after(db: Database, newest: int) -> tuple[int, ...]:
    with db.reading() as session:
        return tuple(row for row in session.exec(select(Enrollment.id).where(col(Enrollment.id) > newest)) if row)


def _deployments(db: Database) -> tuple[str, ...]:
    with db.reading() as session:
        return tuple(row for row in session.exec(select(JourneyVersion.deployment_id)) if row)


def _watch(machine: Machine, db: Database, ids: tuple[int, ...]) -> bool:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        bar = progress.add_task("Journeys ended", total=len(ids))

        def everybody_has_ended() -> bool:
            with db.reading() as session:
                ended = select(func.count(col(Enrollment.id))).where(
                    col(Enrollment.id).in_(ids), Enrollment.status == EnrollmentStatus.ended
                )
                done = session.exec(ended).one()
            progress.update(bar, completed=done)
            return done == len(ids)

        return wait_until(everybody_has_ended, ONCE_WAIT_SECONDS, machine.check_stop)


def _print_results(db: Database) -> None:
    with db.reading() as session:
        found = journeys_with_results(session, wall_now())
    for _, results in found:
        print_results(results)
        out.print()


def _say_hello(machine: Machine) -> None:
    out.print(addresses(machine.settings))
    out.print()
    out.print(table(("Brand", "Role", "Name", "Sign in as"), [_card(card) for brand in BRANDS for card in cards_of(brand)]))
    out.print(
        f"\nThe password is [bold]{PASSWORD}[/bold] for all. A day of a journey lasts {SECONDS_PER_DAY / machine.speed:g} seconds here."
    )
    out.print(f"Data and logs are in {machine.data_dir}. Ctrl-C stops everything; the next `make demo` goes on where this one was.")
    sys.stdout.flush()


def _card(card: SignInCard) -> tuple[str, str, str, str]:
    return card.brand, card.role.value, card.name, card.email
