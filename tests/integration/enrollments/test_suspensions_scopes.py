"""Pausing, resuming, stopping and draining scopes: which enrollments are held, which go on, and when."""

from datetime import timedelta

import pytest
from sqlmodel import col, select

from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.compliance.table import AuditEntry
from distmark.engagement.service import record_event
from distmark.enrollments.control import drain, pause, plan_resume, resume, stop
from distmark.enrollments.model import EnrollmentStatus, SuspensionKind, TimelineKind
from distmark.enrollments.suspensions import Scope, suspensions
from distmark.enrollments.table import Enrollment, Suspension
from distmark.entries.model import EnrolVerdict
from distmark.errors import InvalidInput, NotAllowed, NotFound
from distmark.journeys.service import newest_registered
from distmark.partners.model import Role
from distmark.sql import id_of
from tests import factories
from tests.driver import Stage

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
STEPS = (
    "  - {id: first, send: email, message: one}\n  - {id: rest, wait: {for: 3 days}}\n  - {id: second, send: email, message: two}\n"
    "  - {id: again, wait: {for: 3 days}}\n"
)


def scopes(stage: Stage, campaign: Campaign, contact_id: int | None, enrollment_id: int | None) -> dict[str, Scope]:
    with stage.db.reading() as session:
        version = newest_registered(session, campaign.journey_id)
    return {
        "journey": Scope(journey_id=campaign.journey_id),
        "version": Scope(version_id=version.id if version else None),
        "campaign": Scope(campaign_id=campaign.id),
        "partner": Scope(partner_id=stage.partner.id),
        "contact": Scope(contact_id=contact_id),
        "enrollment": Scope.listed([enrollment_id or 0]),
    }


LEVELS = ("journey", "version", "campaign", "partner", "contact", "enrollment")


@pytest.mark.parametrize("level", LEVELS)
async def test_pause_of_any_scope_holds_its_enrollments_only_until_it_is_resumed(stage: Stage, level: str) -> None:
    """L12"""
    campaign, other = stage.journey(STEPS), stage.journey(STEPS)
    hanako = stage.contact()
    with stage.db.writing() as session:
        elsewhere = factories.make_partner(session, session.get_one(type(stage.brand), stage.brand.id))
        jiro = factories.make_contact(session, elsewhere)
        from distmark.contacts.consents import record_consent

        record_consent(session, id_of(jiro), "email", given=True, now=stage.clock.now(), source="test")
        other_viewer = factories.make_viewer(session, partner=elsewhere)
    (result,) = stage.enrol(campaign, hanako)
    with stage.db.writing() as session:
        from distmark.entries.service import enrol

        enrol(session, other_viewer, id_of(other), [id_of(jiro)], stage.clock.now())
    await stage.run_for(HOUR)
    scope = scopes(stage, campaign, hanako.id, result.enrollment_id)[level]

    with stage.db.writing() as session:
        paused = pause(session, stage.marketer, scope, stage.clock.now(), "wrong rate in the text")
    await stage.run_for(5 * DAY)

    assert (paused, stage.enrollment(hanako).status, len(stage.messages(hanako))) == (1, EnrollmentStatus.paused, 1)
    assert len(stage.messages(jiro)) == 2
    with stage.db.writing() as session:
        plan = resume(session, stage.marketer, scope, stage.clock.now())
    await stage.run_for(MINUTE)
    assert (plan.paused, plan.resumed, plan.kept, plan.at_once, dict(plan.steps)) == (1, 1, 0, 1, {"rest": 1})
    assert len(stage.messages(hanako)) == 2
    kinds = [move.kind for move in stage.moves(hanako)]
    assert (kinds.count(TimelineKind.paused), kinds.count(TimelineKind.resumed)) == (1, 1)


async def test_resume_before_anything_fell_due_changes_no_time(stage: Stage) -> None:
    campaign, hanako = stage.journey(STEPS), stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(HOUR)
    before = stage.enrollment(hanako)
    scope = Scope(campaign_id=campaign.id)

    with stage.db.writing() as session:
        pause(session, stage.marketer, scope, stage.clock.now())
    await stage.run_for(DAY)
    with stage.db.writing() as session:
        plan = resume(session, stage.marketer, scope, stage.clock.now())

    after = stage.enrollment(hanako)
    assert (plan.at_once, after.due_at, after.arrived_at, after.woken_at) == (0, before.due_at, before.arrived_at, None)


@pytest.mark.parametrize(
    ("wait", "days_after_resume"),
    [
        ("for: 3 days", 2),  # waited 1 day, paused 5: 2 days are left
        ("for: 36 hours", 0.5),  # waited 24 h of 36
        ('for: 3 days, until: "10:00"', 2),  # arrived at 10:00, so the third day's 10:00
        ("on: 2026-12-02", 1 + 14 / 24),  # a date stays: resumed 30 Nov 10:00 in Tokyo, 2 Dec 00:00 there is 38 h later
        ("event: booked, timeout: 3 days", 2),
    ],
)
async def test_extending_makes_a_wait_as_much_longer_as_the_pause(stage: Stage, wait: str, days_after_resume: float) -> None:
    events = "events: [booked]" if "booked" in wait else ""
    campaign = stage.journey(f"  - {{id: rest, wait: {{{wait}}}}}\n  - {{id: second, send: email, message: two}}\n", events)
    hanako, scope = stage.contact(), Scope(campaign_id=campaign.id)
    stage.enrol(campaign, hanako)
    await stage.run_for(DAY)
    with stage.db.writing() as session:
        pause(session, stage.marketer, scope, stage.clock.now())
    await stage.run_for(5 * DAY)

    with stage.db.writing() as session:
        plan = resume(session, stage.marketer, scope, stage.clock.now(), extend=True)
    resumed_at = stage.clock.now()
    due_at = stage.enrollment(hanako).due_at
    await stage.run_for(10 * DAY)

    assert plan.at_once == 0
    assert due_at == resumed_at + timedelta(days=days_after_resume)
    assert stage.messages(hanako)[0].sent_at == due_at


async def test_plan_counts_enrollments_due_at_once_and_changes_nothing(stage: Stage) -> None:
    campaign, people = stage.journey(STEPS), [stage.contact() for _ in range(4)]
    scope = Scope(campaign_id=campaign.id)
    stage.enrol(campaign, *people[:3])
    await stage.run_for(2 * DAY)
    stage.enrol(campaign, people[3])
    await stage.run_for(HOUR)
    with stage.db.writing() as session:
        pause(session, stage.marketer, scope, stage.clock.now())
    await stage.run_for(2 * DAY)

    with stage.db.writing() as session:
        keep = plan_resume(session, stage.marketer, scope, stage.clock.now())
        longer = plan_resume(session, stage.marketer, scope, stage.clock.now(), extend=True)

    # Three have waited 4 days, one 2 days: by the clock three of the four waits of 3 days are over, with longer waits none is.
    assert (keep.resumed, keep.at_once, longer.resumed, longer.at_once) == (4, 3, 4, 0)
    assert {stage.enrollment(person).status for person in people} == {EnrollmentStatus.paused}


async def test_spread_spaces_those_due_at_once_evenly_and_the_same_each_time(stage: Stage) -> None:
    campaign, people = stage.journey(STEPS), [stage.contact() for _ in range(4)]
    scope = Scope(campaign_id=campaign.id)
    stage.enrol(campaign, *people)
    await stage.run_for(HOUR)
    with stage.db.writing() as session:
        pause(session, stage.marketer, scope, stage.clock.now())
    await stage.run_for(5 * DAY)

    with stage.db.writing() as session:
        plan = resume(session, stage.marketer, scope, stage.clock.now(), spread=2 * HOUR)
    start = stage.clock.now()
    await stage.run_for(DAY)

    assert plan.spread_until == start + 2 * HOUR
    # 2 h for 4 people: every 30 minutes, in the order of their enrollment
    assert [stage.messages(person)[1].sent_at for person in people] == [start + number * timedelta(minutes=30) for number in range(4)]


async def test_enrollment_in_a_paused_scope_starts_paused_and_begins_when_it_is_resumed(stage: Stage) -> None:
    campaign, hanako, scope = stage.journey(STEPS), stage.contact(), None
    scope = Scope(campaign_id=campaign.id)
    with stage.db.writing() as session:
        pause(session, stage.marketer, scope, stage.clock.now())

    (result,) = stage.enrol(campaign, hanako)
    await stage.run_for(DAY)

    assert (result.verdict, stage.enrollment(hanako).status, stage.mail.accepted) == (EnrolVerdict.enrolled, EnrollmentStatus.paused, [])
    with stage.db.writing() as session:
        resume(session, stage.marketer, scope, stage.clock.now())
    await stage.run_for(MINUTE)
    assert len(stage.messages(hanako)) == 1


async def test_drained_scope_takes_nobody_new_while_those_inside_finish(stage: Stage) -> None:
    campaign, hanako, taro = stage.journey(STEPS), stage.contact(), stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(HOUR)
    scope = Scope(journey_id=campaign.journey_id)

    with stage.db.writing() as session:
        inside = drain(session, stage.marketer, scope, stage.clock.now())
    (refused,) = stage.enrol(campaign, taro)
    await stage.run_for(7 * DAY)

    assert (inside, refused.verdict) == (1, EnrolVerdict.draining)
    assert (stage.enrollment(hanako).outcome, len(stage.messages(hanako))) == ("completed", 2)
    with stage.db.writing() as session:
        resume(session, stage.marketer, scope, stage.clock.now())
    assert stage.enrol(campaign, taro)[0].verdict is EnrolVerdict.enrolled


@pytest.mark.parametrize("level", ["journey", "version", "campaign", "partner", "contact"])
async def test_every_level_can_be_drained(stage: Stage, level: str) -> None:
    campaign, hanako = stage.journey(STEPS), stage.contact()
    with stage.db.writing() as session:
        drain(session, stage.marketer, scopes(stage, campaign, hanako.id, None)[level], stage.clock.now())

    assert stage.enrol(campaign, hanako)[0].verdict is EnrolVerdict.draining


async def test_enrollments_inside_cannot_be_drained(stage: Stage) -> None:
    campaign, hanako = stage.journey(STEPS), stage.contact()
    (result,) = stage.enrol(campaign, hanako)

    with stage.db.writing() as session, pytest.raises(InvalidInput, match="drain a journey"):
        drain(session, stage.marketer, Scope.listed([result.enrollment_id or 0]), stage.clock.now())


async def test_pause_in_the_middle_of_a_wake_holds_after_the_step_that_is_being_done(stage: Stage) -> None:
    campaign = stage.journey("  - {id: first, send: email, message: one}\n  - {id: second, send: email, message: two}\n")
    hanako, scope = stage.contact(), Scope(campaign_id=campaign.id)
    stage.enrol(campaign, hanako)
    deliver = stage.mail.deliver

    async def pause_meanwhile(message: object) -> object:
        with stage.db.writing() as session:
            pause(session, stage.marketer, scope, stage.clock.now())
        return await deliver(message)

    stage.mail.deliver = pause_meanwhile
    await stage.run_for(DAY)
    stage.mail.deliver = deliver

    row = stage.enrollment(hanako)
    assert (row.status, row.step_id, row.claimed_by) == (EnrollmentStatus.paused, "second", None)
    assert [message.step_id for message in stage.messages(hanako)] == ["first"]
    with stage.db.writing() as session:
        resume(session, stage.marketer, scope, stage.clock.now())
    await stage.run_for(MINUTE)
    assert [message.step_id for message in stage.messages(hanako)] == ["first", "second"]


async def test_pause_between_claim_and_send_is_seen_where_the_message_is_claimed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    import distmark.engine.wake

    campaign, hanako = stage.journey("  - {id: first, send: email, message: one}\n"), stage.contact()
    stage.enrol(campaign, hanako)
    advance_all = distmark.engine.wake.advance_all

    def pause_after_walking(*arguments: object) -> None:
        advance_all(*arguments)
        with stage.db.writing() as session:
            pause(session, stage.marketer, Scope(campaign_id=campaign.id), stage.clock.now())

    monkeypatch.setattr(distmark.engine.wake, "advance_all", pause_after_walking)
    await stage.run_for(HOUR)

    assert (stage.enrollment(hanako).status, stage.messages(hanako), stage.mail.accepted) == (EnrollmentStatus.paused, [], [])


async def test_event_during_a_pause_is_processed_when_it_ends(stage: Stage) -> None:
    campaign = stage.journey(
        "  - {id: booking, wait: {event: booked, timeout: 30 days}}\n  - {id: first, send: email, message: one}\n", "events: [booked]"
    )
    hanako, taro, scope = stage.contact(), stage.contact(), Scope(campaign_id=campaign.id)
    stage.enrol(campaign, hanako, taro)
    await stage.run_for(HOUR)
    with stage.db.writing() as session:
        pause(session, stage.marketer, scope, stage.clock.now())
    await stage.run_for(DAY)
    with stage.db.writing() as session:
        record_event(session, stage.brand.id, "booked", stage.clock.now(), contact_id=hanako.id)
    await stage.run_for(DAY)
    assert stage.mail.accepted == []

    with stage.db.writing() as session:
        plan = resume(session, stage.marketer, scope, stage.clock.now(), extend=True)
    await stage.run_for(MINUTE)

    assert plan.at_once == 1
    assert (len(stage.messages(hanako)), len(stage.messages(taro))) == (1, 0)


async def test_enrollment_under_two_pauses_goes_on_when_both_are_lifted(stage: Stage) -> None:
    campaign, hanako = stage.journey(STEPS), stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(HOUR)
    journey, campaign_scope = Scope(journey_id=campaign.journey_id), Scope(campaign_id=campaign.id)
    with stage.db.writing() as session:
        pause(session, stage.marketer, journey, stage.clock.now())
        pause(session, stage.marketer, campaign_scope, stage.clock.now())

    with stage.db.writing() as session:
        first = resume(session, stage.marketer, campaign_scope, stage.clock.now())
        held = [(each.kind, each.journey_id) for each in suspensions(session, stage.marketer)]
    with stage.db.writing() as session:
        second = resume(session, stage.marketer, journey, stage.clock.now())

    assert (first.resumed, first.kept, second.resumed) == (0, 1, 1)
    assert held == [(SuspensionKind.paused, campaign.journey_id)]


async def test_enrollment_paused_by_itself_stays_paused_when_its_campaign_is_resumed(stage: Stage) -> None:
    campaign, hanako, taro = stage.journey(STEPS), stage.contact(), stage.contact()
    ids = [result.enrollment_id or 0 for result in stage.enrol(campaign, hanako, taro)]
    await stage.run_for(HOUR)
    scope = Scope(campaign_id=campaign.id)
    with stage.db.writing() as session:
        pause(session, stage.marketer, scope, stage.clock.now())
        pause(session, stage.viewer, Scope.listed(ids[:1]), stage.clock.now())

    with stage.db.writing() as session:
        plan = resume(session, stage.marketer, scope, stage.clock.now())

    assert (plan.resumed, plan.kept) == (1, 1)
    assert (stage.enrollment(hanako).status, stage.enrollment(taro).status) == (EnrollmentStatus.paused, EnrollmentStatus.waiting)
    with stage.db.writing() as session:
        resume(session, stage.viewer, Scope.listed(ids), stage.clock.now())
    assert stage.enrollment(hanako).status is EnrollmentStatus.waiting


async def test_partner_cannot_resume_what_the_brand_paused(stage: Stage) -> None:
    campaign, hanako = stage.journey(STEPS), stage.contact()
    (result,) = stage.enrol(campaign, hanako)
    await stage.run_for(HOUR)
    with stage.db.writing() as session:
        pause(session, stage.marketer, Scope(partner_id=stage.partner.id), stage.clock.now())

    with stage.db.writing() as session:
        plans = [
            resume(session, stage.viewer, scope, stage.clock.now())
            for scope in (Scope(partner_id=stage.partner.id), Scope(contact_id=hanako.id), Scope.listed([result.enrollment_id or 0]))
        ]

    assert [(plan.resumed, plan.kept) for plan in plans] == [(0, 1)] * 3
    assert stage.enrollment(hanako).status is EnrollmentStatus.paused


async def test_partner_pauses_only_their_own_part_of_a_campaign(stage: Stage) -> None:
    campaign, hanako = stage.journey(STEPS), stage.contact()
    with stage.db.writing() as session:
        other = factories.make_partner(session, session.get_one(type(stage.brand), stage.brand.id))
        other_viewer = factories.make_viewer(session, partner=other)
    stage.enrol(campaign, hanako)

    with stage.db.writing() as session:
        paused = pause(session, other_viewer, Scope(campaign_id=campaign.id), stage.clock.now())

    assert paused == 0
    with stage.db.reading() as session:
        suspension = session.exec(select(Suspension)).one()
        status = session.get_one(Campaign, campaign.id).status
    assert (suspension.partner_id, suspension.by_partner, status) == (other.id, True, CampaignStatus.open)


async def test_scope_outside_the_viewers_sight_cannot_be_changed(stage: Stage) -> None:
    campaign, hanako = stage.journey(STEPS), stage.contact()
    (result,) = stage.enrol(campaign, hanako)
    with stage.db.writing() as session:
        foreign_viewer = factories.make_viewer(session, Role.marketer)
        neighbour = factories.make_viewer(
            session, partner=factories.make_partner(session, session.get_one(type(stage.brand), stage.brand.id))
        )
        approver = factories.make_viewer(session, Role.approver, session.get_one(type(stage.brand), stage.brand.id))
    everything = scopes(stage, campaign, hanako.id, result.enrollment_id)

    for act in (pause, resume, drain, lambda *given: stop(*given[:3], "gone", given[3])):
        for level in LEVELS:
            with stage.db.writing() as session, pytest.raises((NotFound, InvalidInput)):
                act(session, foreign_viewer, everything[level], stage.clock.now())
        for level in ("contact", "enrollment", "partner"):
            with stage.db.writing() as session, pytest.raises((NotFound, InvalidInput)):
                act(session, neighbour, everything[level], stage.clock.now())
        with stage.db.writing() as session, pytest.raises(NotAllowed):
            act(session, approver, everything["campaign"], stage.clock.now())

    assert stage.enrollment(hanako).status is EnrollmentStatus.waiting


@pytest.mark.parametrize("level", LEVELS)
async def test_stopping_a_scope_ends_everybody_in_it_with_the_reason_and_frees_them_to_enter_again(stage: Stage, level: str) -> None:
    campaign, hanako = stage.journey(STEPS, "entry: {reentry: after_exit}"), stage.contact()
    (result,) = stage.enrol(campaign, hanako)
    await stage.run_for(HOUR)

    with stage.db.writing() as session:
        scope = scopes(stage, campaign, hanako.id, result.enrollment_id)[level]
        stopped = stop(session, stage.marketer, scope, "offer ended", stage.clock.now())
        again = stop(session, stage.marketer, scope, "twice", stage.clock.now())
    await stage.run_for(5 * DAY)

    row = stage.enrollment(hanako)
    assert (stopped, again, row.outcome, row.reason, len(stage.mail.accepted)) == (1, 0, "stopped", "offer ended", 1)
    assert [move.detail["reason"] for move in stage.moves(hanako) if move.kind is TimelineKind.ended] == ["offer ended"]
    assert stage.enrol(campaign, hanako)[0].verdict is EnrolVerdict.enrolled


async def test_parked_enrollment_that_is_resumed_tries_its_step_again(stage: Stage) -> None:
    campaign = stage.journey(
        '  - id: odd\n    branch:\n      - {when: "contact.amount > 5", steps: [{id: out, exit: rich}]}\n'
        "  - {id: first, send: email, message: one}\n",
        "contact_fields: {amount: number}",
    )
    hanako = stage.contact(attributes={"amount": 3})
    (result,) = stage.enrol(campaign, hanako)
    with stage.db.writing() as session:
        row = session.get_one(Enrollment, result.enrollment_id)
        row.status, row.due_at, row.tries, row.error = EnrollmentStatus.parked, None, 5, "KeyError"
        session.add(row)

    with stage.db.writing() as session:
        resume(session, stage.viewer, Scope.listed([result.enrollment_id or 0]), stage.clock.now())
    await stage.run_for(MINUTE)

    row = stage.enrollment(hanako)
    assert (row.outcome, row.tries, len(stage.mail.accepted)) == ("completed", 0, 1)


async def test_every_act_is_in_the_audit_trail_with_who_and_how_many(stage: Stage) -> None:
    campaign, hanako = stage.journey(STEPS), stage.contact()
    stage.enrol(campaign, hanako)
    scope = Scope(journey_id=campaign.journey_id)

    with stage.db.writing() as session:
        pause(session, stage.marketer, scope, stage.clock.now(), "wrong rate")
        resume(session, stage.marketer, scope, stage.clock.now(), extend=True)
        drain(session, stage.marketer, scope, stage.clock.now())
        stop(session, stage.marketer, scope, "over", stage.clock.now())

    with stage.db.reading() as session:
        entries = session.exec(select(AuditEntry).where(AuditEntry.subject_kind == "journey").order_by(col(AuditEntry.id))).all()
    assert [(entry.action, entry.user_id, entry.detail["count"]) for entry in entries] == [
        ("paused", stage.marketer.user_id, 1),
        ("resumed", stage.marketer.user_id, 1),
        ("drained", stage.marketer.user_id, 1),
        ("stopped", stage.marketer.user_id, 1),
    ]
    assert entries[0].detail["reason"] == "wrong rate"


async def test_cohort_whose_members_are_partly_paused_moves_the_others(stage: Stage) -> None:
    campaign = stage.journey(STEPS, contacts_per_run=10)
    people = [stage.contact() for _ in range(4)]
    ids = [result.enrollment_id or 0 for result in stage.enrol(campaign, *people)]
    await stage.run_for(HOUR)
    with stage.db.writing() as session:
        pause(session, stage.viewer, Scope.listed(ids[:2]), stage.clock.now())

    rest = await stage.wake(stage.enrollment(people[3]))
    await stage.run_for(4 * DAY)

    assert [len(stage.messages(person)) for person in people] == [1, 1, 2, 2]
    assert rest.due_at == stage.enrollment(people[0]).due_at  # a paused enrollment keeps the due time of its run


async def test_run_of_a_paused_enrollment_still_fires_in_time_for_one_resumed_before_it_is_due(stage: Stage) -> None:
    campaign, hanako = stage.journey(STEPS), stage.contact()
    (result,) = stage.enrol(campaign, hanako)
    await stage.run_for(HOUR)
    due_at = stage.enrollment(hanako).due_at
    with stage.db.writing() as session:
        pause(session, stage.viewer, Scope.listed([result.enrollment_id or 0]), stage.clock.now())

    before = await stage.wake(stage.enrollment(hanako))
    await stage.run_for(4 * DAY)
    after = await stage.wake(stage.enrollment(hanako))

    assert (before.finished, before.due_at) == (False, due_at)
    assert (after.finished, after.due_at, "Paused" in after.text) == (False, None, True)
