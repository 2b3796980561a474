"""A test in a journey, from the first contact to the last one held out: who entered which arm, what came of it, and who won."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlmodel import col, select

from distmark.campaigns.table import Campaign
from distmark.compliance.table import AuditEntry
from distmark.contacts.table import Contact
from distmark.engagement.service import click, open_pixel, record_event
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.errors import InvalidInput, NotAllowed, NotFound, Refused
from distmark.experiments.service import DecidedExperiments, ExperimentShown, decide_experiment, experiments_of
from distmark.experiments.statistics import ArmNumbers, Confidence
from distmark.journeys.table import Journey, JourneyVersion
from distmark.metrics.rollup import roll_up
from distmark.metrics.service import count_and_decide
from distmark.partners.model import Role
from tests import factories
from tests.driver import PHONE, Stage
from tests.experiments import STEPS, click_message, experiment_steps

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MACHINE = "Mozilla/5.0 (compatible; Barracuda Sentinel)"
ENDING = STEPS.partition("  - {id: rest")[0]  # the same, over right after the test


def _round(stage: Stage) -> DecidedExperiments:
    """What the results flow does to the numbers."""
    return count_and_decide(stage.db, stage.clock.now())


def _split(stage: Stage, campaign: Campaign) -> ExperimentShown:
    with stage.db.reading() as session:
        version = session.exec(select(JourneyVersion.id).where(JourneyVersion.journey_id == campaign.journey_id)).one()
        return experiments_of(session, stage.marketer, version)[0]


def _key(stage: Stage, campaign: Campaign) -> str:
    with stage.db.reading() as session:
        return session.get_one(Journey, campaign.journey_id).key


def _counts(split: ExperimentShown) -> dict[str, tuple[int, int]]:
    return {arm.arm: (arm.contacts, arm.hits) for arm in split.arms}


def _messages(stage: Stage, contacts: Sequence[Contact]) -> Counter[str]:
    return Counter(message.step_id for contact in contacts for message in stage.messages(contact))


async def test_those_held_out_get_the_arm_that_more_people_clicked(stage: Stage) -> None:
    campaign, arms = experiment_steps(stage, "metric: click, hold_out: 50%, evaluate_after: 2 days", held=3)
    await stage.run_for(HOUR)
    click_message(stage, arms["warm"][:3])
    click_message(stage, arms["plain"][:1])
    early = _round(stage)
    await stage.run_for(2 * DAY - HOUR)

    decided = _round(stage)
    await stage.run_for(timedelta(minutes=1))

    assert all(arms.values())
    assert early == DecidedExperiments(0, 0)
    assert decided == DecidedExperiments(1, len(arms["held"]))
    assert _messages(stage, arms["held"]) == {"in-warm": len(arms["held"])}
    assert {move.detail["winner"] for contact in arms["held"] for move in stage.moves(contact) if move.kind == "branched"} == {True}
    split = _split(stage, campaign)
    assert (split.winner, split.decided_by_id, split.waiting) == ("warm", None, 0)
    assert _counts(split) == {"plain": (len(arms["plain"]), 1), "warm": (len(arms["warm"]), 3)}


async def test_everybody_who_comes_after_the_decision_takes_the_winner_and_counts_for_nobody(stage: Stage) -> None:
    campaign, arms = experiment_steps(stage, "metric: click, evaluate_after: 1 day")
    await stage.run_for(HOUR)
    click_message(stage, arms["plain"][:2])
    await stage.run_for(DAY)
    _round(stage)
    later = [stage.contact() for _number in range(6)]

    stage.enrol(campaign, *later)
    await stage.run_for(HOUR)
    _round(stage)

    assert _messages(stage, later) == {"in-plain": 6}
    assert _counts(_split(stage, campaign)) == {"plain": (len(arms["plain"]), 2), "warm": (len(arms["warm"]), 0)}


async def test_only_what_people_do_with_messages_of_the_test_counts(stage: Stage) -> None:
    """E2, E3: a click by a machine, of another link, before the split, or twice adds nothing."""
    steps = "  - {id: before, send: email, message: three}\n  - {id: pause, wait: {for: 1 day}}" + STEPS
    campaign, arms = experiment_steps(stage, "metric: click, link: link-1, evaluate_after: 9 days", steps=steps)
    await stage.run_for(HOUR)
    click_message(stage, [*arms["plain"], *arms["warm"]])
    await stage.run_for(DAY)
    with stage.db.writing() as session:
        click(session, stage.messages(arms["warm"][0])[0].token, "link-1", PHONE, stage.clock.now())
        open_pixel(session, stage.messages(arms["warm"][0])[-1].token, PHONE, stage.clock.now())
    click_message(stage, arms["warm"], agent=MACHINE)
    click_message(stage, arms["plain"][:1])
    stage.clock.move_to(stage.clock.now() + HOUR)
    click_message(stage, arms["plain"][:1])
    roll_up(stage.db, stage.clock.now())

    assert _counts(_split(stage, campaign)) == {"plain": (len(arms["plain"]), 1), "warm": (len(arms["warm"]), 0)}


async def test_opens_by_machines_decide_nothing(stage: Stage) -> None:
    campaign, arms = experiment_steps(stage, "metric: open, evaluate_after: 2 days")
    await stage.run_for(HOUR)
    with stage.db.writing() as session:
        for contact in arms["plain"]:
            open_pixel(session, stage.messages(contact)[0].token, "Mozilla/5.0", stage.clock.now())
        open_pixel(session, stage.messages(arms["warm"][0])[0].token, PHONE, stage.clock.now())
    await stage.run_for(2 * DAY)

    _round(stage)

    split = _split(stage, campaign)
    assert split.winner == "warm"
    assert _counts(split) == {"plain": (len(arms["plain"]), 0), "warm": (len(arms["warm"]), 1)}


async def test_revenue_counts_the_money_of_each_contact_even_after_the_journey(stage: Stage) -> None:
    campaign, arms = experiment_steps(stage, "metric: revenue, event: bought, evaluate_after: 3 days", steps=ENDING)
    await stage.run_for(HOUR)
    with stage.db.writing() as session:
        for contact, name, value in (
            (arms["plain"][0], "bought", 30.0),
            (arms["plain"][1], "bought", 20.0),
            (arms["warm"][0], "bought", 100.0),
            (arms["warm"][0], "bought", 11.0),
            (arms["plain"][2], "renewed", 500.0),
        ):
            record_event(session, stage.brand.id, name, stage.clock.now(), contact_id=contact.id, value=value, key=f"{contact.id}{value}")
    await stage.run_for(3 * DAY)

    _round(stage)

    split = _split(stage, campaign)
    assert stage.enrollment(arms["plain"][0]).status is EnrollmentStatus.ended
    assert split.winner == "warm"
    assert split.arms == (
        ArmNumbers("plain", len(arms["plain"]), 2, 50.0, 30.0**2 + 20.0**2),
        ArmNumbers("warm", len(arms["warm"]), 1, 111.0, 111.0**2),
    )


async def test_a_conversion_counts_for_the_arm_that_its_contact_entered_last(stage: Stage) -> None:
    steps = ENDING.replace("TEST", "metric: conversion, evaluate_after: 30 days")
    campaign = stage.journey(steps, "entry: {reentry: any_time}")
    hanako = stage.contact()
    taken: list[str] = []
    while len(set(taken)) < 2:  # her arm is drawn anew for each enrollment
        stage.enrol(campaign, hanako)
        await stage.run_for(HOUR)
        taken = [move.detail["arm"] for move in stage.moves(hanako) if move.kind == "branched"]
    with stage.db.writing() as session:
        record_event(session, stage.brand.id, "bought", stage.clock.now(), contact_id=hanako.id, conversion=True)
    roll_up(stage.db, stage.clock.now())

    counts = _counts(_split(stage, campaign))

    first, last = taken[0], taken[-1]
    assert counts == {first: (len(taken) - 1, 0), last: (1, 1)}


async def test_with_nothing_to_compare_the_test_waits_almost_a_week_until_the_arm_written_first_wins(stage: Stage) -> None:
    campaign, arms = experiment_steps(stage, "metric: click, hold_out: 50%, evaluate_after: 1 day", held=2)
    await stage.run_for(HOUR)
    held = arms["held"]
    _round(stage)
    for _day in range(7):
        await stage.run_for(DAY)
        assert _round(stage).tests == 0

    await stage.run_for(DAY - 3 * HOUR)  # two hours before those held out give up
    decided = _round(stage)
    await stage.run_for(timedelta(minutes=1))

    split = _split(stage, campaign)
    assert decided.tests == 1
    assert (split.winner, split.judgement.confidence) == ("plain", Confidence.nothing)
    assert _messages(stage, held) == {"in-plain": len(held)}


async def test_something_to_compare_that_comes_late_decides_within_the_hour(stage: Stage) -> None:
    campaign, arms = experiment_steps(stage, "metric: click, evaluate_after: 1 day")
    await stage.run_for(HOUR)
    _round(stage)
    await stage.run_for(2 * DAY)
    _round(stage)
    click_message(stage, arms["warm"][:1])

    assert _round(stage) == DecidedExperiments(0, 0)
    await stage.run_for(HOUR)
    assert _round(stage) == DecidedExperiments(1, 0)
    assert _split(stage, campaign).winner == "warm"


async def test_a_person_decides_before_the_rule_and_the_trail_says_who(stage: Stage) -> None:
    campaign, arms = experiment_steps(stage, "metric: click, hold_out: 50%, evaluate_after: 5 days, winner: manual", held=2)
    await stage.run_for(HOUR)
    click_message(stage, arms["warm"][:2])
    roll_up(stage.db, stage.clock.now())
    with stage.db.writing() as session:
        split = decide_experiment(session, stage.marketer, _key(stage, campaign), None, "subject", "plain", stage.clock.now())

    await stage.run_for(timedelta(minutes=1))

    assert _messages(stage, arms["held"]) == {"in-plain": len(arms["held"])}
    assert (split.winner, split.decided_by_id, split.decided_at) == (
        "plain",
        stage.marketer.user_id,
        stage.clock.now() - timedelta(minutes=1),
    )
    assert split.judgement.arm == "warm"
    with stage.db.reading() as session:
        entry = session.exec(select(AuditEntry).where(AuditEntry.action == "test_decided")).one()
    assert (entry.user_id, entry.detail["step"], entry.detail["arm"]) == (stage.marketer.user_id, "subject", "plain")


async def test_a_manual_test_is_never_decided_by_the_rule(stage: Stage) -> None:
    campaign, arms = experiment_steps(stage, "metric: click, hold_out: 50%, evaluate_after: 1 day, winner: manual", held=2)
    await stage.run_for(HOUR)
    click_message(stage, arms["warm"])
    await stage.run_for(20 * DAY)

    decided = _round(stage)

    split = _split(stage, campaign)
    assert decided == DecidedExperiments(0, 0)
    assert (split.winner, split.waiting) == (None, len(arms["held"]))


async def test_a_person_may_decide_before_anybody_came(stage: Stage) -> None:
    campaign, _arms = experiment_steps(stage, "metric: click, hold_out: 50%, evaluate_after: 1 day", plain=0, warm=0)
    with stage.db.writing() as session:
        decide_experiment(session, stage.marketer, _key(stage, campaign), 1, "subject", "warm", stage.clock.now())
    contacts = [stage.contact() for _number in range(8)]
    stage.enrol(campaign, *contacts)

    await stage.run_for(HOUR)

    assert _messages(stage, contacts) == {"in-warm": 8}


async def test_a_decided_test_stays_decided(stage: Stage) -> None:
    campaign, _arms = experiment_steps(stage, "metric: click, evaluate_after: 1 day")
    key, now = _key(stage, campaign), stage.clock.now()
    with stage.db.writing() as session:
        decide_experiment(session, stage.marketer, key, None, "subject", "warm", now)

    with pytest.raises(Refused, match='"warm" won'), stage.db.writing() as session:
        decide_experiment(session, stage.marketer, key, None, "subject", "plain", now)

    await stage.run_for(3 * DAY)
    assert _round(stage) == DecidedExperiments(0, 0)
    assert _split(stage, campaign).winner == "warm"


async def test_who_comes_to_rest_at_the_test_while_it_is_decided_is_woken_by_the_next_round(stage: Stage) -> None:
    campaign, arms = experiment_steps(stage, "metric: click, hold_out: 50%, evaluate_after: 1 day", held=2)
    await stage.run_for(HOUR)
    held = arms["held"]
    with stage.db.writing() as session:
        decide_experiment(session, stage.marketer, _key(stage, campaign), None, "subject", "warm", stage.clock.now())
        for row in session.exec(select(Enrollment).where(col(Enrollment.contact_id).in_([contact.id for contact in held]))):
            row.woken_at = None  # as if their wakes had begun before the decision and stored their sleep after it
            session.add(row)

    decided = _round(stage)
    await stage.run_for(timedelta(minutes=1))

    assert decided == DecidedExperiments(0, len(held))
    assert _messages(stage, held) == {"in-warm": len(held)}


async def test_rolling_up_twice_or_in_small_batches_counts_each_contact_once(stage: Stage) -> None:
    campaign, arms = experiment_steps(stage, "metric: click, evaluate_after: 5 days")
    await stage.run_for(HOUR)
    click_message(stage, arms["plain"][:2])

    for _again in range(3):
        roll_up(stage.db, stage.clock.now(), batch=3)

    assert _counts(_split(stage, campaign)) == {"plain": (len(arms["plain"]), 2), "warm": (len(arms["warm"]), 0)}


async def test_a_version_that_cannot_be_read_any_more_keeps_nobody_elses_results_from_being_counted(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    broken, _arms = experiment_steps(stage, "metric: click, evaluate_after: 1 day")
    campaign, arms = experiment_steps(stage, "metric: click, evaluate_after: 1 day")
    await stage.run_for(HOUR)
    with stage.db.writing() as session:
        version = session.exec(select(JourneyVersion).where(JourneyVersion.journey_id == broken.journey_id)).one()
        version.source, version.content_hash = {**version.source, "definition": "key: ["}, "another"

    roll_up(stage.db, stage.clock.now())
    await stage.run_for(DAY)

    assert _round(stage) == DecidedExperiments(0, 0)
    assert _counts(_split(stage, campaign)) == {"plain": (len(arms["plain"]), 0), "warm": (len(arms["warm"]), 0)}
    assert "cannot be read, so its tests are not counted" in caplog.text


async def test_a_paused_contact_takes_the_winner_when_resumed(stage: Stage) -> None:
    campaign, arms = experiment_steps(stage, "metric: click, hold_out: 50%, evaluate_after: 1 day", held=2)
    await stage.run_for(HOUR)
    held = arms["held"]
    with stage.db.writing() as session:
        row = session.exec(select(Enrollment).where(Enrollment.contact_id == held[0].id)).one()
        row.status = EnrollmentStatus.paused
        decide_experiment(session, stage.marketer, _key(stage, campaign), None, "subject", "warm", stage.clock.now())
    await stage.run_for(HOUR)
    before = _messages(stage, held[:1])
    with stage.db.writing() as session:
        row = session.exec(select(Enrollment).where(Enrollment.contact_id == held[0].id)).one()
        row.status = EnrollmentStatus.waiting

    await stage.run_for(timedelta(minutes=1))

    assert before == {}
    assert _messages(stage, held[:1]) == {"in-warm": 1}


async def test_deciding_is_refused_to_others_and_for_what_is_not_there(stage: Stage) -> None:
    campaign, _arms = experiment_steps(stage, "metric: click, evaluate_after: 1 day", plain=1, warm=0)
    key, now = _key(stage, campaign), stage.clock.now()
    with stage.db.writing() as session:
        other_brand = factories.make_viewer(session, Role.marketer, factories.make_brand(session))
        approver = replace(stage.marketer, role=Role.approver)

        for viewer, journey, step, arm, error in (
            (stage.viewer, key, "subject", "warm", NotAllowed),
            (approver, key, "subject", "warm", NotAllowed),
            (other_brand, key, "subject", "warm", NotFound),
            (stage.marketer, "no-such", "subject", "warm", NotFound),
            (stage.marketer, key, "rest", "warm", NotFound),
            (stage.marketer, key, "subject", "hot", InvalidInput),
        ):
            with pytest.raises(error):
                decide_experiment(session, viewer, journey, None, step, arm, now)
        version = session.exec(select(JourneyVersion.id).where(JourneyVersion.journey_id == campaign.journey_id)).one()
        assert experiments_of(session, other_brand, version) == []
        assert experiments_of(session, stage.viewer, version) == []


async def test_the_results_are_read_on_the_brands_wall_clock(stage: Stage) -> None:
    """3 days from 10:00 in Tokyo end at 10:00 in Tokyo."""
    campaign, _arms = experiment_steps(stage, "metric: click, evaluate_after: 3 days")
    began_at: datetime = stage.clock.now()
    await stage.run_for(HOUR)
    roll_up(stage.db, stage.clock.now())

    split = _split(stage, campaign)

    assert (split.began_at, split.due_at) == (began_at, began_at + 3 * DAY)
