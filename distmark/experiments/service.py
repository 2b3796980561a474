"""Experiments and their winners: contacts per arm, their engagement, and the decision by rule or by hand, which wakes them."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from distmark.compliance.service import record
from distmark.db import Database
from distmark.engagement.model import EventKind, Verdict
from distmark.engagement.table import Event
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.service import ASLEEP
from distmark.enrollments.table import Enrollment
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.experiments.statistics import LOOK_AGAIN, ArmNumbers, Judgement, is_over, judge_arms
from distmark.experiments.table import Assignment, Experiment
from distmark.journeys.findings import DefinitionError
from distmark.journeys.program import Program
from distmark.journeys.service import get_journey, newest_registered, program_of, versions_of
from distmark.journeys.steps.branch import BranchStep, SplitTest, SplitTestOf, shares_of
from distmark.journeys.table import Journey, JourneyVersion
from distmark.journeys.times import add, zone_for
from distmark.messages.table import Message
from distmark.partners.model import Permission, Viewer
from distmark.partners.service import require
from distmark.partners.table import Brand
from distmark.sql import id_of, insert_into, row_count, rows_of

log = logging.getLogger("distmark.metrics")

REVENUE = "revenue"
REMIND_FOR = timedelta(hours=1)  # who came to rest at a test while it was being decided is woken by the next rounds


@dataclass(frozen=True, slots=True)
class ArmEntry:
    """One contact's entry into an arm, as the timeline tells it."""

    version_id: int
    step_id: str
    enrollment_id: int
    contact_id: int
    arm: str
    at: datetime


@dataclass(frozen=True, slots=True)
class DecidedExperiments:
    """The counts of one round: experiments decided by their rule, and enrollments woken that waited for a winner."""

    tests: int = 0
    woken: int = 0


@dataclass(frozen=True, slots=True)
class ExperimentShown:
    """A test as it stands: its arms in the order written, with their numbers as of now, or as of the decision where there was one.

    `waiting` is how many wait for the winner now. `began_at` and `due_at` are None while nobody has entered an arm.
    """

    version_id: int
    step: BranchStep
    test: SplitTest
    arms: tuple[ArmNumbers, ...]
    judgement: Judgement
    waiting: int
    began_at: datetime | None = None
    due_at: datetime | None = None
    winner: str | None = None
    decided_at: datetime | None = None
    decided_by_id: int | None = None

    @property
    def by_money(self) -> bool:
        """Return whether arms are compared by money per contact, and not by the share of contacts."""
        return self.test.metric == REVENUE


def experiments_in(program: Program) -> dict[str, BranchStep]:
    """Return the program's test steps by id, in the order written."""
    return {
        step_id: step for step_id, step in program.steps.items() if isinstance(step, BranchStep) and isinstance(step.branch, SplitTestOf)
    }


def winners_of(session: Session, programs: Mapping[int, Program]) -> dict[int, dict[str, str]]:
    """Return the winner of each decided test, by version and step. Asks the database only where a program has a test."""
    version_ids = [version_id for version_id, program in programs.items() if experiments_in(program)]
    if not version_ids:
        return {}
    decided = select(col(Experiment.version_id), col(Experiment.step_id), col(Experiment.arm)).where(
        col(Experiment.version_id).in_(version_ids), col(Experiment.arm).is_not(None)
    )
    winners: dict[int, dict[str, str]] = {}
    for version_id, step_id, arm in session.execute(decided).all():
        winners.setdefault(version_id, {})[step_id] = arm
    return winners


# --- who entered ------------------------------------------------------------------------------------------------------------------------


def note_entries(session: Session, entries: Iterable[ArmEntry]) -> None:
    """Write down those of `entries` that are into an arm of a test, each enrollment's first only, and when the test began."""
    tests: dict[int, dict[str, BranchStep]] = {}
    found: dict[tuple[int, str], list[ArmEntry]] = {}
    for entry in entries:
        if entry.version_id not in tests:
            tests[entry.version_id] = _readable_experiments(session, entry.version_id)
        step = tests[entry.version_id].get(entry.step_id)
        if step is not None and any(arm.name == entry.arm for arm in step.arms):
            found.setdefault((entry.version_id, entry.step_id), []).append(entry)
    for (version_id, step_id), into in found.items():
        _insert_entries(session, version_id, step_id, into)
        _begin(session, version_id, tests[version_id][step_id], min(entry.at for entry in into))


def _insert_entries(session: Session, version_id: int, step_id: str, into: Sequence[ArmEntry]) -> None:
    shared, own = {"version_id": version_id, "step_id": step_id}, ("enrollment_id", "contact_id", "arm", "at")
    table = Assignment.__table__  # type: ignore[attr-defined]
    rows = rows_of(session, table, shared, [asdict(entry) for entry in into], own)
    new = insert_into(session, table).from_select([*shared, *own], rows)
    session.execute(new.on_conflict_do_nothing(index_elements=["version_id", "step_id", "enrollment_id"]))


def _readable_experiments(session: Session, version_id: int) -> dict[str, BranchStep]:
    try:
        return experiments_in(program_of(session, version_id))
    except DefinitionError as error:
        # One version that this program cannot read any more must not keep everybody else's results from being counted.
        log.error("version %d cannot be read, so its tests are not counted: %s", version_id, type(error).__name__)
        return {}


def _begin(session: Session, version_id: int, step: BranchStep, began_at: datetime) -> None:
    test = _test(step)
    due_at = add(began_at, test.evaluate_after, zone_for(_brand_of(session, version_id).zone))
    look_at = due_at if test.winner == "auto" else None
    times = {"began_at": began_at, "due_at": due_at, "look_at": look_at}
    _insert_experiment(session, {"version_id": version_id, "step_id": step.id, **times})


def _insert_experiment(session: Session, row: Mapping[str, Any]) -> None:
    new = insert_into(session, Experiment).values({"numbers": {}, **row})
    session.execute(new.on_conflict_do_nothing(index_elements=["version_id", "step_id"]))


def _test(step: BranchStep) -> SplitTest:
    if not isinstance(step.branch, SplitTestOf):
        raise TypeError(f"Step {step.id} is no test.")
    return step.branch.test


def _brand_of(session: Session, version_id: int) -> Brand:
    version = session.get_one(JourneyVersion, version_id)
    return session.get_one(Brand, session.get_one(Journey, version.journey_id).brand_id)


# --- what came of it --------------------------------------------------------------------------------------------------------------------


def arm_numbers(session: Session, version_id: int, step: BranchStep) -> tuple[ArmNumbers, ...]:
    """Return the numbers of each arm that contacts may enter, in the order written, counted over the experiment's own contacts.

    Counted are acts of people (not machines) after their entry: opens and clicks of messages made since then, and conversions of the
    contact, each for the arm that the contact entered last before it.
    """
    mine = (col(Assignment.version_id) == version_id, col(Assignment.step_id) == step.id)
    entered = session.execute(select(col(Assignment.arm), func.count()).where(*mine).group_by(col(Assignment.arm))).all()
    contacts: dict[str, int] = {arm: count for arm, count in entered}  # noqa: C416  (rows are no tuples to mypy)
    test = _test(step)
    each = (_converted if test.metric in ("conversion", REVENUE) else _engaged)(test, mine).subquery()
    summed = select(each.c.arm, func.count(), func.sum(each.c.money), func.sum(each.c.money * each.c.money)).group_by(each.c.arm)
    did = {arm: (int(hits), float(money), float(squares)) for arm, hits, money, squares in session.execute(summed).all()}
    open_arms = [arm.name for arm, share in zip(step.arms, shares_of(step.arms), strict=True) if share > 0]
    return tuple(ArmNumbers(name, contacts.get(name, 0), *did.get(name, (0, 0.0, 0.0))) for name in open_arms)


def _engaged(test: SplitTest, mine: Sequence[ColumnElement[bool]]) -> Any:
    """Select each entry whose contact opened or clicked a message made since."""
    kind = EventKind.clicked if test.metric == "click" else EventKind.opened
    did = [
        col(Event.enrollment_id) == col(Assignment.enrollment_id),
        col(Event.kind) == kind,
        col(Event.verdict) != Verdict.machine,
        col(Event.at) >= col(Assignment.at),
        *([col(Event.link) == test.link] if test.link else []),
    ]
    return (
        select(col(Assignment.arm).label("arm"), col(Assignment.enrollment_id), (func.count() * 0.0).label("money"))
        .join(Event, and_(*did))
        .join(Message, and_(col(Message.id) == col(Event.message_id), col(Message.created_at) >= col(Assignment.at)))
        .where(*mine)
        .group_by(col(Assignment.arm), col(Assignment.enrollment_id))
    )


def _converted(test: SplitTest, mine: Sequence[ColumnElement[bool]]) -> Any:
    """Select each entry whose contact converted since (for revenue: with money), and how much it was worth."""
    kinds = [EventKind.converted, EventKind.custom] if test.event else [EventKind.converted]
    later = aliased(Assignment)
    again = exists().where(
        col(later.version_id) == col(Assignment.version_id),
        col(later.step_id) == col(Assignment.step_id),
        col(later.contact_id) == col(Assignment.contact_id),
        or_(col(later.at) > col(Assignment.at), and_(col(later.at) == col(Assignment.at), col(later.id) > col(Assignment.id))),
        col(later.at) <= col(Event.at),
    )
    did = [
        col(Event.contact_id) == col(Assignment.contact_id),
        col(Event.kind).in_(kinds),
        col(Event.verdict) != Verdict.machine,
        col(Event.at) >= col(Assignment.at),
        *([col(Event.name) == test.event] if test.event else []),
        *([col(Event.value).is_not(None)] if test.metric == REVENUE else []),
    ]
    return (
        select(
            col(Assignment.arm).label("arm"), col(Assignment.enrollment_id), func.sum(func.coalesce(col(Event.value), 0.0)).label("money")
        )
        .join(Event, and_(*did))
        .where(*mine, ~again)
        .group_by(col(Assignment.arm), col(Assignment.enrollment_id))
    )


def experiments_of(session: Session, viewer: Viewer, version_id: int) -> list[ExperimentShown]:
    """Return every test of the version as it stands, in the order written; none for a version of another brand. Raises NotAllowed."""
    require(viewer, Permission.see_results)
    if _brand_of(session, version_id).id != viewer.brand_id or viewer.partner_id is not None:
        return []
    runs = {run.step_id: run for run in session.scalars(select(Experiment).where(col(Experiment.version_id) == version_id))}
    return [
        _as_it_stands(session, version_id, step, runs.get(step.id)) for step in experiments_in(program_of(session, version_id)).values()
    ]


def experiment_of(session: Session, viewer: Viewer, journey_key: str, number: int | None, step_id: str) -> ExperimentShown:
    """Return one test of a version (None: the one that contacts enter) as it stands. Raises NotFound and NotAllowed."""
    version_id, step = experiment_named(session, viewer, journey_key, number, step_id)
    return next(split for split in experiments_of(session, viewer, version_id) if split.step.id == step.id)


def _as_it_stands(session: Session, version_id: int, step: BranchStep, run: Experiment | None) -> ExperimentShown:
    test = _test(step)
    arms = _arms_then(run) if run and run.arm else arm_numbers(session, version_id, step)
    split = ExperimentShown(
        version_id, step, test, arms, judge_arms(arms, by_money=test.metric == REVENUE), _waiting(session, version_id, step.id)
    )
    if run is None:
        return split
    times = (run.began_at, run.due_at, run.arm, run.decided_at, run.decided_by_id)
    return ExperimentShown(version_id, step, test, arms, split.judgement, split.waiting, *times)


def _arms_then(run: Experiment) -> tuple[ArmNumbers, ...]:
    return tuple(ArmNumbers(**each) for each in run.numbers["arms"])


def _waiting(session: Session, version_id: int, step_id: str) -> int:
    return session.scalars(select(func.count()).select_from(Enrollment).where(*_waiters(version_id, step_id))).one()


def _waiters(version_id: int, step_id: str) -> tuple[ColumnElement[bool], ...]:
    return (
        col(Enrollment.version_id) == version_id,
        col(Enrollment.status).in_(ASLEEP),
        col(Enrollment.step_id) == step_id,
        col(Enrollment.awaits) == f"winner:{step_id}",
    )


# --- deciding ---------------------------------------------------------------------------------------------------------------------------


def decide_due_experiments(db: Database, now: datetime) -> DecidedExperiments:
    """Decide every experiment whose time has come by its rule, and wake the enrollments that wait for a winner that is known.

    Looks at what the roll-up wrote down: `roll_up` comes first. Costs one small query while no test is due. Safe to repeat.
    """
    with db.reading() as session:
        due = list(session.scalars(select(col(Experiment.id)).where(col(Experiment.arm).is_(None), col(Experiment.look_at) <= now)))
        recent = col(Experiment.decided_at) > now - REMIND_FOR
        decided = [tuple(row) for row in session.execute(select(col(Experiment.version_id), col(Experiment.step_id)).where(recent)).all()]
    tests = woken = 0
    for run_id in due:
        with db.writing() as session:
            found = _decide_by_rule(session, run_id or 0, now)
        tests, woken = tests + (found is not None), woken + (found or 0)
    for version_id, step_id in decided:
        with db.writing() as session:
            woken += _wake_waiters(session, version_id, step_id, now)
    return DecidedExperiments(tests, woken)


def _decide_by_rule(session: Session, run_id: int, now: datetime) -> int | None:
    """Decide the test and return how many that wakes; None when there is nothing to compare yet or a person was first."""
    run = session.scalars(select(Experiment).where(col(Experiment.id) == run_id).with_for_update()).one()
    if run.arm is not None or run.due_at is None:
        return None
    step = _readable_experiments(session, run.version_id).get(run.step_id)
    if step is None:
        run.look_at = now + LOOK_AGAIN
        return None
    arms = arm_numbers(session, run.version_id, step)
    judgement = judge_arms(arms, by_money=_test(step).metric == REVENUE)
    if not is_over(judgement, run.due_at, now):
        run.look_at = now + LOOK_AGAIN
        return None
    return _decide(session, run, judgement.arm, arms, judgement, None, now)


def decide_experiment(
    session: Session, viewer: Viewer, journey_key: str, number: int | None, step_id: str, arm: str, now: datetime
) -> ExperimentShown:
    """Make `arm` the winner of a test of a version (None: that which contacts enter): whoever comes or waits takes it. The trail says who.

    Errors: NotAllowed, NotFound for journey, version and step, InvalidInput for an arm that the test does not have, Refused when the test
    is decided.
    """
    require(viewer, Permission.register_journeys)
    version_id, step = experiment_named(session, viewer, journey_key, number, step_id)
    names = [each.name for each in step.arms]
    if arm not in names:
        raise InvalidInput(f'The test "{step_id}" has no arm "{arm}"; choose one of {", ".join(names)}.')
    _insert_experiment(session, {"version_id": version_id, "step_id": step_id})
    mine = select(Experiment).where(col(Experiment.version_id) == version_id, col(Experiment.step_id) == step_id)
    run = session.scalars(mine.with_for_update()).one()
    if run.arm is not None:
        raise Refused(f'The test "{step_id}" is decided: "{run.arm}" won; write a new version to test again.')
    arms = arm_numbers(session, version_id, step)
    _decide(session, run, arm, arms, judge_arms(arms, by_money=_test(step).metric == REVENUE), viewer.user_id, now)
    session.flush()
    return _as_it_stands(session, version_id, step, run)


def experiment_named(session: Session, viewer: Viewer, journey_key: str, number: int | None, step_id: str) -> tuple[int, BranchStep]:
    """Return the version (None: the one that contacts enter) and its test step of this id. Raises NotFound."""
    journey = get_journey(session, viewer, journey_key)
    if number is None:
        version = newest_registered(session, id_of(journey))
    else:
        version = next((row for row in versions_of(session, id_of(journey)) if row.number == number), None)
    if version is None:
        raise NotFound(f"The journey {journey_key} has no such version; `distmark journeys show {journey_key}` lists those there are.")
    tests = experiments_in(program_of(session, id_of(version)))
    if step_id not in tests:
        raise NotFound(f'Version {version.number} has no test "{step_id}"; its tests are: {", ".join(tests) or "none"}.')
    return id_of(version), tests[step_id]


def _decide(
    session: Session, run: Experiment, arm: str, arms: Sequence[ArmNumbers], judgement: Judgement, by_id: int | None, now: datetime
) -> int:
    run.arm, run.decided_at, run.decided_by_id, run.look_at = arm, now, by_id, None
    run.numbers = {"arms": [asdict(each) for each in arms], "sureness": judgement.confidence.value, "sure": judgement.sure}
    session.add(run)
    recorded_detail = {"step": run.step_id, "arm": arm, "sureness": judgement.confidence.value}
    brand_id = id_of(_brand_of(session, run.version_id))
    record(session, brand_id, by_id, "test_decided", "journey_version", run.version_id, now, **recorded_detail)
    return _wake_waiters(session, run.version_id, run.step_id, now)


def _wake_waiters(session: Session, version_id: int, step_id: str, now: datetime) -> int:
    waiting = (*_waiters(version_id, step_id), col(Enrollment.woken_at).is_(None))
    # Locked in the order in which wakes lock theirs, or a test with many waiting and a wake of some of them would wait for each other.
    session.execute(select(col(Enrollment.id)).where(*waiting).order_by(col(Enrollment.id)).with_for_update())
    woken = session.execute(update(Enrollment).where(*waiting).values(woken_at=now), execution_options={"synchronize_session": False})
    return row_count(woken)


def entries_of(rows: Iterable[Any]) -> Iterator[ArmEntry]:
    """Iterate over the entries that rows of the timeline (moves with their enrollment's version and contact) tell, oldest first.

    Who was sent by the winner entered no arm by chance, and is not among them.
    """
    for row in rows:
        if row.kind is TimelineKind.branched and row.detail.get("arm") and not row.detail.get("winner"):
            yield ArmEntry(row.version_id, row.step_id, row.enrollment_id, row.contact_id, str(row.detail["arm"]), row.at)
