"""What holds for every journey, contact and moment: the same position decides the same, storing changes nothing, nobody is lost."""

# ruff: noqa: E501  (a row of a table stays on its line)

import json
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distmark.journeys.checks.run import check
from distmark.journeys.definition import parse
from distmark.journeys.model import Act, End, EventFact, Facts, Go, SentFact, Sleep
from distmark.journeys.program import Program, build_program
from distmark.journeys.source import Source
from distmark.journeys.times import Duration, TimeOfDay, Window, add, next_allowed, next_time, resolve
from distmark.journeys.walk import EndlessLoop, Position, Walked, passed, start, walk
from tests.depth import examples

QUICK = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
ZONES = (
    "UTC",
    "Asia/Tokyo",
    "America/New_York",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "Europe/London",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Africa/Casablanca",
)
BIRTHDAYS = (None, "1990-06-01", "1990-02-28", "1996-02-29", "2026-12-31")
BEST_HOURS: tuple[dict[str, dict[int, float]], ...] = ({}, {"contact": {9: 1.0, 22: 2.0}}, {"default": dict.fromkeys(range(168), 1.0)})
MOMENTS = st.integers(0, 3 * 365 * 24 * 60).map(lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes))

zones = st.sampled_from(ZONES).map(ZoneInfo)
times_of_day = st.times().map(lambda at: TimeOfDay(time(at.hour, at.minute)))

WAITS = (
    "{for: 3 days}", "{for: 90 minutes}", "{for: 1 month, until: '09:00'}", "{until: '21:30', days: weekdays, holidays: JP}", "{on: 2027-05-01, at: '09:00'}",
    "{on: contact.birthday, offset: -3 days, every: year}", "{event: booked, timeout: 2 days}", "{event: booked}", "{when: \"opened('mail')\", timeout: 5 days}",
    "{until: best_time, within: 24 hours}",
)  # fmt: skip
CONDITIONS = (
    "clicked('mail')",
    "contact.score > 5",
    "not contact.phone",
    "happened('booked', days=3)",
    "written(7) < 2",
    "days_since(contact.birthday) > 9000",
)

leaves = st.one_of(
    st.sampled_from(WAITS).map(lambda wait: f"wait: {wait}"),
    st.just("send: email, message: mail"),
    st.just("task: {title: call}"),
    st.just("update: {score: '{{ contact.score + 1 }}'}"),
    st.just("exit: done"),
)


def _splits(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    arms = st.lists(st.tuples(st.sampled_from(CONDITIONS), st.lists(inner, max_size=2)), min_size=1, max_size=3)
    return st.one_of(arms, st.tuples(st.just("random"), st.lists(inner, max_size=2), st.lists(inner, max_size=2)))


bodies = st.lists(st.recursive(leaves, _splits, max_leaves=8), min_size=1, max_size=5)


def _written(steps: list[object], ids: list[str]) -> list[str]:
    return [_step(step, ids) for step in steps]


def _step(step: object, ids: list[str]) -> str:
    ids.append(name := f"s{len(ids)}")
    if isinstance(step, str):
        return f"{{id: {name}, {step}}}"
    if isinstance(step, tuple):
        arms = ", ".join(f"{{name: a{n}, steps: [{', '.join(_written(arm, ids))}]}}" for n, arm in enumerate(step[1:]))
        return f"{{id: {name}, branch: {{random: [{arms}]}}}}"
    assert isinstance(step, list)
    arms = ", ".join(f'{{when: "{when}", steps: [{", ".join(_written(inner, ids))}]}}' for when, inner in step)
    return f"{{id: {name}, branch: [{arms}]}}"


@st.composite
def sources(draw: st.DrawFn) -> Source:
    steps = [*_written(draw(bodies), [])]
    lines = "\n".join(f"  - {step}" for step in ["{id: mail, send: email, message: mail}", *steps])
    head = "key: sample\nname: Sample\nbrand: acme\ncontact_fields: {score: number}\nevents: [booked]\nsend_policy: {quiet_hours: '21:00-08:00'}\n"
    return Source(f"{head}steps:\n{lines}\n", {"mail.ja.text.txt": "x"}, "sample")


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    moments = st.one_of(st.none(), st.just(now))
    sent = SentFact(now, opened_at=draw(moments), clicked={"plans": now} if draw(st.booleans()) else {})
    contact = {
        "zone": draw(st.sampled_from(("Nowhere/Land", *ZONES))), "score": draw(st.one_of(st.none(), st.integers(0, 9))),
        "phone": draw(st.sampled_from((None, "+81"))), "birthday": draw(st.sampled_from(BIRTHDAYS)),
    }  # fmt: skip
    events = (EventFact("booked", now),) if draw(st.booleans()) else ()
    return Facts(
        contact,
        sent={"mail": sent} if draw(st.booleans()) else {},
        events=events,
        random_key=draw(st.text(max_size=5)),
        best_hours=draw(st.sampled_from(BEST_HOURS)),
    )


def journey_of(program: Program, told: Facts, entered_at: datetime) -> list[Walked]:
    """Walk a contact from the door to the end, each sleep to its due time."""
    position, now, walks = start(program, entered_at), entered_at, []
    for _ in range(60):
        walked = walk(program, position, told, now)
        walks.append(walked)
        position = walked.position
        if isinstance(walked.decision, End) or (isinstance(walked.decision, Sleep) and walked.decision.until is None):
            return walks
        if isinstance(walked.decision, Sleep) and walked.decision.until is not None:
            assert walked.decision.until > now, "a sleep ends later than now"
            now = walked.decision.until
        else:
            position = passed(program, position, now)
    raise AssertionError("a journey without loops ends")


@QUICK
@given(sources(), facts(), MOMENTS)
def test_walking_twice_from_the_same_position_decides_the_same(source: Source, told: Facts, entered_at: datetime) -> None:
    program = build_program(parse(source))

    for walked in journey_of(program, told, entered_at):
        now = walked.position.arrived_at
        assert walk(program, walked.position, told, now) == walk(program, walked.position, told, now)


@QUICK
@given(sources(), facts(), MOMENTS)
def test_a_stored_journey_behaves_as_the_one_that_was_written(source: Source, told: Facts, entered_at: datetime) -> None:
    """T9: through save, load and run."""
    stored = Source.from_json(json.loads(json.dumps(source.to_json())))

    assert stored.content_hash == source.content_hash
    assert journey_of(build_program(parse(stored)), told, entered_at) == journey_of(build_program(parse(source)), told, entered_at)


@QUICK
@given(sources(), facts(), MOMENTS, st.integers(0, 100))
def test_asking_early_moves_nobody_and_changes_no_due_time(source: Source, told: Facts, entered_at: datetime, share: int) -> None:
    """A restart or a spurious wake in the middle of a wait leaves the contact and its due time where they are."""
    program = build_program(parse(source))

    for walked in journey_of(program, told, entered_at):
        if isinstance(walked.decision, Sleep) and walked.decision.until is not None:
            between = walked.position.arrived_at + (walked.decision.until - walked.position.arrived_at) * share / 101
            again = walk(program, walked.position, told, between)
            assert (again.position, again.decision) == (walked.position, walked.decision)


@QUICK
@given(sources(), facts(), MOMENTS)
def test_every_contact_acts_sleeps_with_a_reason_or_ends(source: Source, told: Facts, entered_at: datetime) -> None:
    """L5: nobody stands still without a due time or something that wakes them."""
    program = build_program(parse(source))

    for walked in journey_of(program, told, entered_at):
        decision = walked.decision
        assert not isinstance(decision, Go)
        assert isinstance(decision, Act | End) or decision.until is not None or decision.event
        assert all(count >= 1 for count in walked.position.visits.values())


@QUICK
@given(sources(), facts())
def test_a_journey_that_the_check_finds_in_shape_never_goes_round_for_ever(source: Source, told: Facts) -> None:
    looped = Source(source.definition + "  - {id: back, goto: mail}\n", source.templates, source.path)
    program = build_program(parse(looped))
    has_loop = any(item.code == "endless-loop" for item in check(looped))

    position, now = start(program, datetime(2026, 6, 1, tzinfo=UTC)), datetime(2026, 6, 1, tzinfo=UTC)
    acts = 0
    for _ in range(40):
        try:
            walked = walk(program, position, told, now)
        except EndlessLoop:
            assert has_loop
            return
        if not isinstance(walked.decision, Act):
            return
        acts, position = acts + 1, passed(program, walked.position, now)
    assert has_loop, "forty effects without a moment's rest"


@QUICK
@given(MOMENTS, zones, st.integers(0, 400), st.integers(0, 24), times_of_day)
def test_a_wait_with_a_time_of_day_ends_at_that_time_at_the_earliest(
    at: datetime, zone: ZoneInfo, days: int, months: int, until: TimeOfDay
) -> None:
    start_at = add(at, Duration(months=months, days=days), zone)

    due, _ = next_time(start_at, zone, until)

    wall = due.astimezone(zone).replace(tzinfo=None)
    # At the time itself, or at the end of the gap that swallowed it.
    assert due >= start_at
    assert wall.time().replace(second=0, microsecond=0) == until.at or resolve(datetime.combine(wall.date(), until.at), zone) == due
    assert due - start_at <= timedelta(hours=49)


@QUICK
@given(MOMENTS, zones, times_of_day, times_of_day, st.sets(st.integers(0, 6), min_size=1))
def test_nothing_leaves_while_the_contacts_clock_is_quiet(
    at: datetime, zone: ZoneInfo, begins: TimeOfDay, ends: TimeOfDay, days: set[int]
) -> None:
    """T3, T4."""
    if begins == ends:
        return
    quiet = Window(begins.at, ends.at)

    allowed, rules = next_allowed(at, zone, quiet)

    assert not quiet.holds(allowed.astimezone(zone).time())
    assert allowed >= at
    assert bool(rules) == (allowed > at)
    # Nothing between was open: the minute before is quiet.
    if allowed > at:
        before = max(at, allowed - timedelta(minutes=1))
        assert quiet.holds(before.astimezone(zone).time())


@QUICK
@given(MOMENTS, zones, st.integers(0, 3000))
def test_elapsed_time_elapses(at: datetime, zone: ZoneInfo, minutes: int) -> None:
    assert add(at, Duration(minutes=minutes), zone) - at == timedelta(minutes=minutes)


@QUICK
@given(MOMENTS, zones, st.integers(1, 400))
def test_days_keep_the_wall_clock_where_it_exists(at: datetime, zone: ZoneInfo, days: int) -> None:
    """T1."""
    before = at.astimezone(zone).replace(tzinfo=None)

    after = add(at, Duration(days=days), zone).astimezone(zone).replace(tzinfo=None, fold=0)

    wanted = before.replace(fold=0) + timedelta(days=days)
    assert after == wanted or (
        after > wanted and after - wanted <= timedelta(hours=1) and resolve(wanted, zone).astimezone(zone).replace(tzinfo=None) == after
    )


def test_positions_at_the_door_and_behind_the_end_differ() -> None:
    at = datetime(2026, 6, 1, tzinfo=UTC)
    program = build_program(parse(Source("key: a\nname: A\nbrand: b\nsteps: [{id: x, exit: y}]\n")))

    assert walk(program, Position(None, at), Facts(), at).position.step_id == "x"
    assert walk(program, Position(None, at, {"x": 1}), Facts(), at).position.step_id is None
