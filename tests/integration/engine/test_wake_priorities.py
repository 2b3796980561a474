"""Priorities of journeys: which message is sent first when a cap leaves room for one, in any order of wakes and for any partner."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event
from sqlmodel import select

from distmark.campaigns.table import Campaign
from distmark.contacts.consents import record_consent
from distmark.contacts.table import Contact
from distmark.enrollments.control import pause, stop
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.suspensions import Scope
from distmark.enrollments.table import Enrollment
from distmark.entries.service import enrol
from distmark.journeys.table import Journey, JourneyVersion
from tests import factories
from tests.driver import Stage, wake_together

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MAIL = "  - {id: mail, send: email, message: one}\n"
EVENING = '  - {id: evening, wait: {until: "18:00"}}\n' + MAIL
# The clock stands at Tuesday 24 November 2026, 10:00 in Tokyo.
EVENING_AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)  # 18:00 in Tokyo
MIDNIGHT = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)  # 25 November 00:00 in Tokyo
KEPT = 15 * MINUTE


def policy(priority: str = "normal", caps: str = "1 per day", more: str = "") -> str:
    return f"send_policy: {{caps: {caps}, priority: {priority}{more}}}\n"


def key_of(stage: Stage, campaign: Campaign) -> str:
    with stage.db.reading() as session:
        return session.get_one(Journey, campaign.journey_id).key


def in_(stage: Stage, campaign: Campaign, contact: Contact) -> Enrollment:
    """The contact's enrollment of this campaign, as stored now."""
    with stage.db.reading() as session:
        return session.exec(select(Enrollment).where(Enrollment.campaign_id == campaign.id, Enrollment.contact_id == contact.id)).one()


def sent_by(stage: Stage, start: datetime) -> list[tuple[str, float]]:
    """Return the hour of each campaign's message, counted from `start`."""
    with stage.db.reading() as session:
        return [
            (session.get_one(Campaign, row.campaign_id).key, (row.sent_at - start) / HOUR)
            for row in sorted(stage.messages(), key=lambda row: row.sent_at)
        ]


async def test_message_leaves_the_days_last_place_to_a_more_important_one_due_that_day(stage: Stage) -> None:
    start, hanako = stage.clock.now(), stage.contact()
    important = stage.journey(EVENING, policy("high"), key="important")
    usual = stage.journey(MAIL, policy(), key="usual")
    stage.enrol(important, hanako)
    await stage.run_for(MINUTE)
    stage.enrol(usual, hanako)
    await stage.run_for(MINUTE)
    held = in_(stage, usual, hanako)

    await stage.run_for(2 * DAY)

    assert (held.why, held.rules, held.due_at) == ("held", [f"priority:{key_of(stage, important)}"], EVENING_AT + KEPT)
    rules_of_holds = [move.detail["rules"] for move in stage.moves(hanako) if move.kind is TimelineKind.held]
    assert rules_of_holds == [[f"priority:{key_of(stage, important)}"], ["cap_day:1"]]
    assert sent_by(stage, start) == [("important", 8), ("usual", 14)]  # 18:00, and midnight


@pytest.mark.parametrize(
    ("important", "usual"),
    [
        (policy("high"), policy("high")),  # of the same priority nobody waits for one who is not there yet
        (policy("low"), policy()),
        (policy("high", "2 per day"), policy()),  # there is room for both
        (policy("high", "1 per hour"), policy()),  # by the evening it has room again
        (policy("high", "none"), policy()),  # nothing can hold it
        (policy("high"), policy(caps="none")),  # a journey without caps is held by none
        (policy("high", more=', quiet_hours: "17:00-23:00", days: [wed]'), policy()),  # it will not go today
    ],
)
async def test_message_that_takes_no_place_from_a_more_important_one_goes(stage: Stage, important: str, usual: str) -> None:
    start, hanako = stage.clock.now(), stage.contact()
    stage.enrol(stage.journey(EVENING, important, key="important"), hanako)
    await stage.run_for(MINUTE)
    stage.enrol(stage.journey(MAIL, usual, key="usual"), hanako)

    await stage.run_for(HOUR)

    assert [key for key, _at in sent_by(stage, start)] == ["usual"]


async def test_transactional_message_and_another_channel_wait_for_nobody(stage: Stage) -> None:
    """U5"""
    hanako = stage.contact()
    stage.enrol(stage.journey(EVENING, policy("high")), hanako)
    await stage.run_for(MINUTE)
    stage.enrol(stage.journey("  - {id: text, send: sms, message: nudge}\n", policy()), hanako)
    stage.enrol(stage.journey("  - {id: receipt, send: email, message: two, kind: transactional}\n", policy()), hanako)

    await stage.run_for(HOUR)

    assert (len(stage.mail.accepted), len(stage.sms.accepted)) == (1, 1)


async def test_when_a_cap_frees_the_more_important_goes_first_and_then_who_was_held_first(stage: Stage) -> None:
    start, hanako = stage.clock.now(), stage.contact()
    stage.enrol(stage.journey(MAIL, policy(), key="before"), hanako)
    await stage.run_for(MINUTE)
    for key, priority in (("low", "low"), ("first", "normal"), ("second", "normal"), ("high", "high")):
        stage.enrol(stage.journey(MAIL, policy(priority), key=key), hanako)
        await stage.run_for(HOUR)

    await stage.run_for(6 * DAY)

    # Held since Tuesday, all are due at midnight, 14 hours on; then one goes each day.
    assert [key for key, _at in sent_by(stage, start)] == ["before", "high", "first", "second", "low"]
    assert [at for _key, at in sent_by(stage, start)] == [0, 14, 38, 62, 86]


async def test_more_important_one_that_leaves_or_stands_still_keeps_no_place(stage: Stage) -> None:
    paused, stopped, parted = stage.contact(), stage.contact(), stage.contact()
    important, usual = stage.journey(EVENING, policy("high")), stage.journey(MAIL, policy())
    stage.enrol(important, paused, stopped, parted)
    await stage.run_for(MINUTE)
    with stage.db.writing() as session:
        pause(session, stage.viewer, Scope.listed([in_(stage, important, paused).id]), stage.clock.now())
    stage.enrol(usual, paused, stopped, parted)
    await stage.run_for(MINUTE)
    assert [in_(stage, usual, each).rules for each in (paused, stopped)] == [[], [f"priority:{key_of(stage, important)}"]]

    with stage.db.writing() as session:
        stop(session, stage.viewer, Scope.listed([in_(stage, important, stopped).id]), "asked for it", stage.clock.now())
    await stage.run_until(EVENING_AT + KEPT + MINUTE)

    assert [in_(stage, usual, each).outcome for each in (paused, stopped, parted)] == ["completed", "completed", None]
    assert sorted(message.to_address for message in stage.mail.accepted) == sorted(each.email for each in (paused, stopped, parted))


async def test_place_is_kept_a_quarter_of_an_hour_for_one_that_does_not_come(stage: Stage) -> None:
    hanako = stage.contact()
    important, usual = stage.journey(EVENING, policy("high")), stage.journey(MAIL, policy())
    stage.enrol(important, hanako)
    await stage.run_for(MINUTE)
    stage.enrol(usual, hanako)
    stage.clock.move_to(EVENING_AT + MINUTE)  # nobody wakes the other: its worker is away

    await stage.wake(in_(stage, usual, hanako))
    before = in_(stage, usual, hanako)
    stage.clock.move_to(before.due_at)
    await stage.wake(before)

    assert (before.rules, before.due_at) == ([f"priority:{key_of(stage, important)}"], EVENING_AT + MINUTE + KEPT)
    assert [in_(stage, usual, hanako).outcome, in_(stage, important, hanako).outcome] == ["completed", None]


async def test_no_place_is_kept_for_a_version_whose_approval_is_gone(stage: Stage) -> None:
    hanako = stage.contact()
    important = stage.journey(MAIL, policy("high"))
    stage.enrol(important, hanako)
    with stage.db.writing() as session:
        session.get_one(JourneyVersion, in_(stage, important, hanako).version_id).approved_hash = "withdrawn"
    await stage.run_for(MINUTE)
    stage.enrol(stage.journey(MAIL, policy()), hanako)

    await stage.run_for(HOUR)

    assert len(stage.mail.accepted) == 1


async def test_more_important_one_held_for_days_keeps_its_place_in_the_week(stage: Stage) -> None:
    """A journey that may send ten times a week must not delay one that may send once: the cap of the latter counts both."""
    start, hanako = stage.clock.now(), stage.contact()
    stage.enrol(stage.journey(MAIL, policy(caps="none"), key="before"), hanako)
    await stage.run_for(DAY)
    stage.enrol(stage.journey(MAIL, policy("high", "1 per week"), key="important"), hanako)
    await stage.run_for(MINUTE)
    usual = stage.journey(MAIL, policy(caps="10 per week"), key="usual")
    stage.enrol(usual, hanako)
    await stage.run_for(MINUTE)
    assert in_(stage, usual, hanako).due_at == start + 2 * DAY + MINUTE + KEPT  # it looks again after a day

    await stage.run_for(8 * DAY)

    # On 1 December that of the 24th is out of the seven days: 6 days and 14 hours on.
    assert sent_by(stage, start)[1:] == [("important", 158), ("usual", 158.25)]


async def test_step_that_says_skip_leaves_the_message_out(stage: Stage) -> None:
    hanako = stage.contact()
    important = stage.journey(EVENING, policy("high"))
    stage.enrol(important, hanako)
    await stage.run_for(MINUTE)
    stage.enrol(stage.journey(MAIL, policy(more=", if_held: skip")), hanako)

    await stage.run_for(HOUR)

    (skipped,) = [move for move in stage.moves(hanako) if move.kind is TimelineKind.skipped]
    assert skipped.detail["reason"] == f"priority:{key_of(stage, important)}"


async def test_priority_holds_over_partners_who_have_the_same_person(stage: Stage) -> None:
    hanako = stage.contact()
    with stage.db.writing() as session:
        other = factories.make_partner(session, session.merge(stage.brand))
        viewer = factories.make_viewer(session, partner=other)
        same = factories.make_contact(session, other, email=hanako.email, phone=hanako.phone)
        record_consent(session, same.id, "email", given=True, now=stage.clock.now(), source="test")
    important, usual = stage.journey(EVENING, policy("high")), stage.journey(MAIL, policy())
    stage.enrol(important, hanako)
    await stage.run_for(MINUTE)
    with stage.db.writing() as session:
        enrol(session, viewer, usual.id, [same.id], stage.clock.now())

    await stage.run_for(HOUR)

    assert in_(stage, usual, same).rules == [f"priority:{key_of(stage, important)}"]


@pytest.mark.parametrize("turn", range(3))
def test_workers_at_once_give_the_one_place_to_the_more_important(stage: Stage, turn: int) -> None:
    """D2: whichever wake locks the contact first, the other wake's message is due and is sent."""
    people = [stage.contact() for _person in range(6)]
    campaigns = [stage.journey(MAIL, policy(priority), key=priority, contacts_per_run=50) for priority in ("low", "high", "normal")]
    runs = []
    for campaign in campaigns[turn:] + campaigns[:turn]:
        stage.enrol(campaign, *people)
        runs.append(stage.enrollment(people[0]).run_key)

    wake_together(stage, [[run_key] for run_key in runs])

    assert [key for key, _at in sent_by(stage, stage.clock.now())] == ["high"] * len(people)
    assert all(in_(stage, campaigns[0], each).rules[0].partition(":")[0] in ("priority", "cap_day") for each in people)
    assert all(in_(stage, campaigns[0], each).due_at > stage.clock.now() for each in people)


async def test_cohort_asks_once_for_all_its_people(stage: Stage) -> None:
    statements: list[str] = []
    people = [stage.contact() for _person in range(40)]
    stage.enrol(stage.journey(EVENING, policy("high"), contacts_per_run=50), *people)
    await stage.run_for(MINUTE)
    stage.enrol(stage.journey(MAIL, policy(), contacts_per_run=50), *people)
    engine = stage.db.engine

    def note(_connection, _cursor, statement, *_rest) -> None:
        if ("person_key" in statement and "EXISTS" in statement) or "content_hash" in statement.partition("FROM")[0]:
            statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    await stage.run_for(MINUTE)
    event.remove(engine, "before_cursor_execute", note)

    assert len(statements) < 10  # who they are, and what their versions say: nothing for each of the 40
    assert stage.mail.accepted == []
