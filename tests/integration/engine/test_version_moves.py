"""Moving those inside one version of a journey to another, and back."""

from datetime import timedelta

import pytest
from sqlmodel import col, select

from distmark.campaigns.table import Campaign
from distmark.compliance.table import AuditEntry
from distmark.engagement.service import click
from distmark.engine.facts import gather_for
from distmark.engine.table import EarlierPosition
from distmark.engine.version_moves import MovePlan, UndoResult, forget_positions, move, moves_of, plan_move, undo_move
from distmark.enrollments.control import pause, resume
from distmark.enrollments.model import EnrollmentStatus, TimelineKind, current_step_id
from distmark.enrollments.suspensions import Scope
from distmark.enrollments.table import Enrollment
from distmark.errors import InvalidInput, NotAllowed, NotFound, Refused
from distmark.journeys.service import newest_registered
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, VersionStatus
from distmark.partners.model import Role
from distmark.sql import id_of
from tests import factories
from tests.driver import HEAD, PHONE, Stage, _templates
from tests.versions import HOUR, OLD, inside, key_of, next_version, version_of

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def dry_run(stage: Stage, campaign: Campaign, to: int = 2, **mapping: str) -> MovePlan:
    key = key_of(stage, campaign)
    steps = {old.replace("_", "-"): new for old, new in mapping.items()}
    with stage.db.reading() as session:
        return plan_move(session, stage.marketer, key, 1, to, steps, stage.clock.now(), gather_for)


def move_all(stage: Stage, campaign: Campaign, to: int = 2, start: int = 1, **mapping: str) -> int:
    key = key_of(stage, campaign)
    steps = {old.replace("_", "-"): new for old, new in mapping.items()}
    with stage.db.writing() as session:
        act, _plan = move(session, stage.marketer, key, start, to, steps, stage.clock.now(), gather_for)
        return id_of(act)


async def test_those_inside_stay_on_their_version_until_somebody_moves_them(stage: Stage) -> None:
    """L11, D10"""
    campaign, (hanako,) = await inside(stage)
    next_version(stage, campaign, OLD + "  - {id: third, send: email, message: three}\n")

    await stage.run_for(10 * DAY)

    assert [message.step_id for message in stage.messages(hanako)] == ["first", "second"]
    plan = dry_run(stage, campaign)
    assert (plan.people, plan.finished) == (0, 1)
    with stage.db.writing() as session, pytest.raises(Refused, match="1 have ended"):
        move(session, stage.marketer, key_of(stage, campaign), 1, 2, {}, stage.clock.now())


async def test_moved_people_go_on_where_they_stood_and_get_nothing_twice(stage: Stage) -> None:
    """D7, D10"""
    campaign, (hanako,) = await inside(stage)
    next_version(stage, campaign, OLD + "  - {id: third, send: email, message: three}\n")
    before = stage.enrollment(hanako)

    move_all(stage, campaign)
    after = stage.enrollment(hanako)
    await stage.run_for(10 * DAY)

    assert (after.step_id, after.arrived_at, after.visits, after.due_at) == ("rest", before.arrived_at, before.visits, before.due_at)
    assert after.wakes == before.wakes
    assert [message.step_id for message in stage.messages(hanako)] == ["first", "second", "third"]
    assert stage.messages(hanako)[1].sent_at == before.due_at
    moved = next(each for each in stage.moves(hanako) if each.kind is TimelineKind.moved)
    assert (moved.step_id, moved.detail["from"], moved.detail["to"], moved.detail["step"]) == ("rest", 1, 2, "rest")


@pytest.mark.parametrize(
    ("days", "waited_days", "due_in_days"),
    [
        (5, 1, 4),  # 5 days are the rule now, 1 was waited: 4 are left
        (2, 1, 1),  # shorter: 1 is left
        (1, 2, 0),  # over already: at once
    ],
)
async def test_what_is_left_of_a_wait_is_by_the_new_rule_from_when_it_began(
    stage: Stage, days: int, waited_days: int, due_in_days: int
) -> None:
    campaign, (hanako,) = await inside(stage)
    await stage.run_until(stage.enrollment(hanako).arrived_at + waited_days * DAY)
    next_version(stage, campaign, OLD.replace("rest, wait: {for: 3 days}", f"rest, wait: {{for: {days} days}}", 1))

    plan = dry_run(stage, campaign)
    now = stage.clock.now()
    move_all(stage, campaign)
    await stage.run_for(9 * DAY)

    assert (plan.people, plan.at_once, dict(plan.messages)) == (1, int(due_in_days == 0), {"second": 1} if due_in_days == 0 else {})
    assert stage.messages(hanako)[1].sent_at == now + due_in_days * DAY


async def test_dry_run_counts_who_moves_where_and_who_gets_a_message_at_once_and_changes_nothing(stage: Stage) -> None:
    campaign, people = await inside(stage, people=3)
    await stage.run_for(2 * DAY)
    late = stage.contact()
    stage.enrol(campaign, late)
    await stage.run_for(HOUR)
    next_version(
        stage,
        campaign,
        "  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 1 day}}\n  - {id: hello, send: email, message: two}\n",
    )

    blocked, plan = dry_run(stage, campaign), dry_run(stage, campaign, rest="pause")

    assert (blocked.people, dict(blocked.unmapped)) == (0, {"rest": 4})
    # Three wait since two days, one since an hour: for three the day is over.
    assert [(step.step_id, step.to, step.people, step.at_once) for step in plan.steps.values()] == [("rest", "pause", 4, 3)]
    assert dict(plan.messages) == {"hello": 3}
    assert {version_of(stage, stage.enrollment(person)) for person in (*people, late)} == {1}


async def test_step_without_a_place_in_the_new_version_is_refused_by_name(stage: Stage) -> None:
    campaign, _people = await inside(stage, people=2)
    next_version(stage, campaign, "  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 1 day}}\n")

    with stage.db.writing() as session, pytest.raises(Refused, match=r"no place for those at rest \(2\)"):
        move(session, stage.marketer, key_of(stage, campaign), 1, 2, {}, stage.clock.now())


async def test_step_of_the_same_name_but_another_kind_is_not_the_same_step(stage: Stage) -> None:
    campaign, _people = await inside(stage)
    next_version(stage, campaign, "  - {id: first, send: email, message: one}\n  - {id: rest, send: email, message: two}\n")

    assert dict(dry_run(stage, campaign).unmapped) == {"rest": 1}
    plan = dry_run(stage, campaign, rest="rest")
    assert (dict(plan.unmapped), dict(plan.messages)) == ({}, {"rest": 1})


async def test_clicks_on_messages_of_old_steps_answer_for_the_steps_they_became(stage: Stage) -> None:
    campaign, (hanako, taro) = await inside(stage, people=2)
    with stage.db.writing() as session:
        click(session, stage.messages(hanako)[0].token, "link-1", PHONE, stage.clock.now())
    next_version(
        stage,
        campaign,
        "  - {id: hello, send: email, message: one}\n  - {id: rest, wait: {for: 3 days}}\n  - id: engaged\n    branch:\n"
        "      - {when: \"clicked('hello')\", steps: [{id: thanks, send: email, message: two}]}\n"
        "      - {otherwise: true, steps: [{id: nudge, send: email, message: three}]}\n",
    )

    move_all(stage, campaign, first="hello")
    await stage.run_for(4 * DAY)

    assert [message.step_id for message in stage.messages(hanako)] == ["first", "thanks"]
    assert [message.step_id for message in stage.messages(taro)] == ["first", "nudge"]


async def test_names_are_carried_through_several_moves(stage: Stage) -> None:
    campaign, (hanako,) = await inside(stage)
    with stage.db.writing() as session:
        click(session, stage.messages(hanako)[0].token, "link-1", PHONE, stage.clock.now())
    steps = (
        "  - {{id: {0}, send: email, message: one}}\n  - {{id: rest, wait: {{for: 3 days}}}}\n"
        "  - {{id: out, branch: [{{when: \"clicked('{0}')\", steps: [{{id: x, exit: clicked}}]}}]}}\n"
    )
    next_version(stage, campaign, steps.format("hello"))
    next_version(stage, campaign, steps.format("greeting"))

    move_all(stage, campaign, first="hello")
    move_all(stage, campaign, to=3, start=2, hello="greeting")
    row = stage.enrollment(hanako)
    await stage.run_for(4 * DAY)

    assert current_step_id(row.names, stage.messages(hanako)[0].version_id, "first") == "greeting"
    assert stage.enrollment(hanako).reason == "clicked"


async def test_new_step_that_has_the_name_of_an_old_one_is_done_although_its_namesake_was(stage: Stage) -> None:
    campaign, (hanako,) = await inside(stage)
    next_version(
        stage,
        campaign,
        "  - {id: hello, send: email, message: one}\n  - {id: rest, wait: {for: 3 days}}\n  - {id: first, send: email, message: three}\n",
    )

    move_all(stage, campaign, first="hello")
    await stage.run_for(4 * DAY)

    assert [(message.step_id, message.name) for message in stage.messages(hanako)] == [("first", "one"), ("first", "three")]


async def test_move_can_be_undone_until_the_next_wake(stage: Stage) -> None:
    campaign, (hanako, taro) = await inside(stage, people=2)
    before = stage.enrollment(hanako)
    next_version(stage, campaign, OLD.replace("for: 3 days", "for: 9 days").replace("id: rest", "id: pause"))
    act = move_all(stage, campaign, rest="pause")
    with stage.db.writing() as session:
        row = session.get_one(Enrollment, stage.enrollment(taro).id)
        row.woken_at = stage.clock.now()
        session.add(row)
    await stage.wake(stage.enrollment(taro))

    with stage.db.writing() as session:
        undone = undo_move(session, stage.marketer, act, stage.clock.now())

    after = stage.enrollment(hanako)
    assert undone == UndoResult(back=1, gone=1)
    assert (after.step_id, after.due_at, after.visits, after.names) == ("rest", before.due_at, before.visits, None)
    assert [version_of(stage, stage.enrollment(person)) for person in (hanako, taro)] == [1, 2]
    await stage.run_for(4 * DAY)
    assert stage.messages(hanako)[1].sent_at == before.due_at
    with stage.db.writing() as session, pytest.raises(Refused, match="undone already"):
        undo_move(session, stage.marketer, act, stage.clock.now())


async def test_move_that_everybody_has_gone_on_from_cannot_be_undone_and_is_forgotten(stage: Stage) -> None:
    """L14"""
    campaign, _people = await inside(stage, people=2)
    next_version(stage, campaign, OLD)
    act = move_all(stage, campaign)
    await stage.run_for(4 * DAY)

    with stage.db.writing() as session, pytest.raises(Refused, match="has gone on since"):
        undo_move(session, stage.marketer, act, stage.clock.now())
    with stage.db.writing() as session:
        forgotten = forget_positions(session)

    with stage.db.reading() as session:
        assert (forgotten, session.exec(select(EarlierPosition)).all()) == (2, [])


async def test_who_is_on_the_way_right_now_stays_and_is_counted(stage: Stage) -> None:
    campaign, (hanako, taro) = await inside(stage, people=2)
    next_version(stage, campaign, OLD)
    with stage.db.writing() as session:
        row = session.get_one(Enrollment, stage.enrollment(hanako).id)
        row.claimed_by = "default@another"
        session.add(row)

    plan = dry_run(stage, campaign)
    move_all(stage, campaign)

    assert (plan.people, plan.busy) == (1, 1)
    assert [version_of(stage, stage.enrollment(person)) for person in (hanako, taro)] == [1, 2]


async def test_send_that_is_being_retried_does_not_become_another_send(stage: Stage) -> None:
    from distmark.channels.memory import Fault

    campaign, hanako = stage.journey(OLD), stage.contact()
    stage.mail.fail_address(hanako.email or "", Fault.temporary, times=1)
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(seconds=1))
    next_version(stage, campaign, OLD.replace("id: first", "id: hello"))

    renamed = dry_run(stage, campaign, first="hello")
    next_version(stage, campaign, OLD)
    same = dry_run(stage, campaign, to=3)

    assert (renamed.people, renamed.busy) == (0, 1)
    assert (same.people, same.busy) == (1, 0)
    move_all(stage, campaign, to=3)
    await stage.run_for(10 * MINUTE)
    assert [(message.step_id, message.attempts) for message in stage.messages(hanako)] == [("first", 2)]


async def test_held_send_keeps_its_time_when_it_is_moved(stage: Stage) -> None:
    stage.clock.move(timedelta(hours=12))  # 22:00 in Tokyo
    head = 'send_policy: {quiet_hours: "21:00-08:00", caps: none}'
    campaign, hanako = stage.journey("  - {id: first, send: email, message: one}\n", head), stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(MINUTE)
    held_until = stage.enrollment(hanako).due_at
    with stage.db.writing() as session:
        journey = session.get_one(Journey, campaign.journey_id)
        steps = "steps:\n  - {id: hello, send: email, message: two}\n"
        source = Source(HEAD.format(key=journey.key) + head + "\n" + steps, _templates(), path=journey.key)
        factories.make_version(session, journey=journey, source=source)

    plan = dry_run(stage, campaign, first="hello")
    move_all(stage, campaign, first="hello")
    await stage.run_for(DAY)

    assert (plan.people, plan.at_once) == (1, 0)
    assert [(message.name, message.sent_at) for message in stage.messages(hanako)] == [("two", held_until)]


async def test_cohort_whose_members_are_in_two_versions_walks_each_in_its_own(stage: Stage) -> None:
    campaign, (hanako, taro) = await inside(stage, people=2, contacts_per_run=10)
    next_version(stage, campaign, OLD.replace("message: two", "message: three"))
    with stage.db.writing() as session:
        row = session.get_one(Enrollment, stage.enrollment(taro).id)
        row.claimed_by = "default@another"
        session.add(row)
    move_all(stage, campaign)
    with stage.db.writing() as session:
        row = session.get_one(Enrollment, stage.enrollment(taro).id)
        row.claimed_by = None
        session.add(row)

    await stage.run_for(4 * DAY)

    assert stage.enrollment(hanako).run_key == stage.enrollment(taro).run_key
    assert [stage.messages(person)[1].name for person in (hanako, taro)] == ["three", "two"]


async def test_paused_people_move_paused_and_go_on_in_the_new_version(stage: Stage) -> None:
    campaign, (hanako,) = await inside(stage)
    next_version(stage, campaign, OLD.replace("message: two", "message: three"))
    scope = Scope(campaign_id=campaign.id)
    with stage.db.writing() as session:
        pause(session, stage.marketer, scope, stage.clock.now())

    move_all(stage, campaign)
    await stage.run_for(5 * DAY)
    held = len(stage.messages(hanako))
    with stage.db.writing() as session:
        resume(session, stage.marketer, scope, stage.clock.now())
    await stage.run_for(MINUTE)

    assert held == 1
    assert stage.messages(hanako)[1].name == "three"


async def test_who_moves_into_a_paused_version_is_paused_there_and_free_again_when_it_is_undone(stage: Stage) -> None:
    campaign, (hanako,) = await inside(stage)
    next_version(stage, campaign, OLD)
    with stage.db.writing() as session:
        version = newest_registered(session, campaign.journey_id)
        pause(session, stage.marketer, Scope(version_id=version.id if version else 0), stage.clock.now())

    act = move_all(stage, campaign)
    moved = stage.enrollment(hanako).status
    with stage.db.writing() as session:
        undo_move(session, stage.marketer, act, stage.clock.now())

    assert (moved, stage.enrollment(hanako).status) == (EnrollmentStatus.paused, EnrollmentStatus.waiting)


@pytest.mark.parametrize("status", [VersionStatus.draft, VersionStatus.submitted, VersionStatus.approved, VersionStatus.retired])
async def test_only_a_registered_version_takes_moved_people(stage: Stage, status: VersionStatus) -> None:
    campaign, _people = await inside(stage)
    next_version(stage, campaign, OLD, status=status)

    with stage.db.writing() as session, pytest.raises(Refused, match="can only be moved to a registered version"):
        move(session, stage.marketer, key_of(stage, campaign), 1, 2, {}, stage.clock.now())


async def test_version_whose_text_is_not_the_approved_one_takes_nobody(stage: Stage) -> None:
    campaign, _people = await inside(stage)
    next_version(stage, campaign, OLD)
    with stage.db.writing() as session:
        version = newest_registered(session, campaign.journey_id)
        assert version is not None
        version.approved_hash = "another"
        session.add(version)

    with stage.db.writing() as session, pytest.raises(Refused, match="not the one that was approved"):
        move(session, stage.marketer, key_of(stage, campaign), 1, 2, {}, stage.clock.now())


@pytest.mark.parametrize(
    ("mapping", "numbers", "error", "says"),
    [
        ({"rset": "rest"}, (1, 2), InvalidInput, "Version 1 has no step rset; did you mean rest?"),
        ({"rest": "rst"}, (1, 2), InvalidInput, "Version 2 has no step rst; did you mean rest?"),
        ({}, (1, 1), InvalidInput, "Both versions are 1"),
        ({}, (1, 9), NotFound, "has no version 9; it has 1, 2."),
    ],
)
async def test_map_that_cannot_be_is_refused(
    stage: Stage, mapping: dict[str, str], numbers: tuple[int, int], error: type[Exception], says: str
) -> None:
    campaign, _people = await inside(stage)
    next_version(stage, campaign, OLD)

    with stage.db.reading() as session, pytest.raises(error, match=says.replace("?", r"\?")):
        plan_move(session, stage.marketer, key_of(stage, campaign), *numbers, mapping, stage.clock.now())


async def test_only_people_who_register_journeys_move_and_only_their_brands(stage: Stage) -> None:
    campaign, _people = await inside(stage)
    next_version(stage, campaign, OLD)
    key, act = key_of(stage, campaign), move_all(stage, campaign)
    with stage.db.writing() as session:
        stranger = factories.make_viewer(session, Role.marketer)

    for viewer, error in ((stage.viewer, NotAllowed), (stranger, NotFound)):
        with stage.db.writing() as session, pytest.raises(error):
            move(session, viewer, key, 1, 2, {}, stage.clock.now())
        with stage.db.writing() as session, pytest.raises(error):
            undo_move(session, viewer, act, stage.clock.now())
    with stage.db.reading() as session:
        assert [each.id for each in moves_of(session, stage.marketer, campaign.journey_id)] == [act]
        assert moves_of(session, stranger, campaign.journey_id) == []


async def test_moves_are_in_the_audit_trail(stage: Stage) -> None:
    campaign, _people = await inside(stage, people=2)
    next_version(stage, campaign, OLD)
    act = move_all(stage, campaign)
    with stage.db.writing() as session:
        undo_move(session, stage.marketer, act, stage.clock.now())

    with stage.db.reading() as session:
        audited = session.exec(
            select(AuditEntry).where(col(AuditEntry.action).in_(["moved", "move_undone"])).order_by(col(AuditEntry.id))
        ).all()
    assert [(entry.action, entry.user_id, entry.detail["count"], entry.detail["move"]) for entry in audited] == [
        ("moved", stage.marketer.user_id, 2, act),
        ("move_undone", stage.marketer.user_id, 2, act),
    ]


async def test_exit_rule_of_the_new_version_is_told_and_ends_those_it_meets(stage: Stage) -> None:
    campaign, hanako = stage.journey(OLD, "contact_fields: {is_client: bool}"), stage.contact(attributes={"is_client": True})
    stage.enrol(campaign, hanako)
    await stage.run_for(HOUR)
    next_version(stage, campaign, OLD, 'contact_fields: {is_client: bool}\nexit: [{when: "contact.is_client", reason: became a client}]')

    plan = dry_run(stage, campaign)
    move_all(stage, campaign)
    await stage.run_for(MINUTE)

    assert (plan.at_once, plan.leaving) == (1, 1)
    assert stage.enrollment(hanako).reason == "became a client"
