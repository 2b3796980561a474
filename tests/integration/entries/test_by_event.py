"""Entry by an event: its contact enters the journeys that listen for it, in the transaction that records it."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import select

from distmark.clock import FixedClock
from distmark.db import Database
from distmark.engagement.events import NewEvent, record_events
from distmark.engagement.table import Event
from distmark.enrollments.model import TimelineKind
from distmark.journeys.table import JourneyVersion
from distmark.partners.table import Partner
from tests import factories
from tests.entry_stage import EntryStage


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> EntryStage:
    return EntryStage(db, clock)


async def test_event_enters_the_contact_without_a_campaign_and_the_journey_runs(stage: EntryStage):
    journey = stage.registered("{event: booked}", "  - {id: first, send: email, message: one}\n")
    hanako, taro = stage.contact(), stage.contact()

    stage.happens("booked", hanako)
    await stage.run_for(timedelta(minutes=1))

    (row,) = stage.entered(journey)
    assert (row.contact_id, row.campaign_id, row.member_id, row.partner_id) == (hanako.id, None, None, stage.partner.id)
    assert [message.subject for message in stage.mail.accepted] == ["one"]
    entry = next(move for move in stage.moves(hanako) if move.kind is TimelineKind.entered)
    assert entry.detail == {"by": "event", "event": "booked"}
    assert stage.moves(taro) == []


def test_event_and_enrollment_are_stored_together_or_not_at_all(stage: EntryStage):
    journey = stage.registered("{event: booked}")
    hanako = stage.contact()

    with stage.db.writing() as session:
        record_events(session, stage.brand.id, [NewEvent("booked", hanako.id)], stage.clock.now())
        session.rollback()

    with stage.db.reading() as session:
        assert session.exec(select(Event)).all() == []
    assert stage.entered(journey) == []


def test_same_event_sent_again_enters_nobody_again(stage: EntryStage):
    """D13"""
    journey = stage.registered("{event: booked, reentry: any_time}")
    hanako = stage.contact()

    for _again in range(3):
        stage.happens("booked", hanako, key="crm-17")

    assert stage.contacts_in(journey) == [hanako.id]


@pytest.mark.parametrize(
    ("entry", "times"),
    [
        ("{event: booked, reentry: any_time}", 3),  # each event is one more enrollment
        ("{event: booked, reentry: after_exit}", 1),  # still inside at the second and third
        ("{event: booked, reentry: never}", 1),
    ],
)
def test_reentry_while_inside_follows_the_journey(stage: EntryStage, entry: str, times: int):
    """D9"""
    journey = stage.registered(entry)
    hanako = stage.contact()
    events = [NewEvent("booked", hanako.id, key=str(number)) for number in range(3)]

    with stage.db.writing() as session:
        record_events(session, stage.brand.id, events, stage.clock.now())

    assert stage.contacts_in(journey) == [hanako.id] * times


@pytest.mark.parametrize(
    ("entry", "after_days", "times"),
    [
        ("{event: booked, reentry: never}", 40, 1),
        ("{event: booked, reentry: after_exit}", 2, 2),
        ("{event: booked, reentry: after_exit, cooldown: 30 days}", 30, 1),  # left after 1 day: 31 days after the first event
        ("{event: booked, reentry: after_exit, cooldown: 30 days}", 31, 2),
    ],
)
async def test_reentry_after_leaving_follows_the_journey(stage: EntryStage, entry: str, after_days: int, times: int):
    journey = stage.registered(entry)
    hanako = stage.contact()
    stage.happens("booked", hanako)

    await stage.run_for(timedelta(days=after_days))
    stage.happens("booked", hanako)

    assert stage.contacts_in(journey) == [hanako.id] * times


@pytest.mark.parametrize(
    ("entry", "data", "enters"),
    [
        ('{event: booked, where: "event.data.amount > 100"}', {"amount": 101}, True),
        ('{event: booked, where: "event.data.amount > 100"}', {"amount": 100}, False),
        ('{event: booked, where: "event.data.amount > 100"}', {"amount": "much"}, False),  # odd data: recorded, without an entry
        ('{event: booked, where: "event.data.amount > 100"}', {}, False),
        ("{event: booked, filter: \"contact.city == '名古屋市'\"}", {}, True),
        ("{event: booked, filter: \"contact.city == '横浜市'\"}", {}, False),
        ("{event: booked, filter: \"journey.topic == 'nisa'\"}", {"topic": "nisa"}, True),
        ("{event: booked, filter: \"partner.city == '名古屋市' and brand.name == 'みらい証券'\"}", {}, True),
        ('{event: booked, filter: "contact.city > 3"}', {}, False),
        ("{event: visited}", {}, False),
    ],
)
def test_where_and_filter_decide_whether_an_event_enters(stage: EntryStage, entry: str, data: dict[str, object], enters: bool):
    journey = stage.registered(entry, head="events: [booked, visited]\njourney_fields: {topic: text}\n")
    hanako = stage.contact()

    stage.happens("booked", hanako, data=data)

    assert bool(stage.entered(journey)) is enters
    with stage.db.reading() as session:
        assert len(session.exec(select(Event)).all()) == 1


def test_data_of_the_event_is_frozen_as_the_journeys_own(stage: EntryStage):
    head = "events: [booked]\njourney_fields: {amount: number, on: date, topic: text}\n"
    journey = stage.registered("{event: booked}", head=head)
    hanako = stage.contact(attributes={"topic": "nisa"})

    stage.happens("booked", hanako, data={"amount": "12.5", "on": "2026-12-24", "secret": "not the journey's"})

    assert stage.entered(journey)[0].data == {"topic": "nisa", "amount": 12.5, "on": "2026-12-24"}


@pytest.mark.parametrize("consent", [None, False])
def test_consent_is_asked_for_as_anywhere(stage: EntryStage, consent: bool | None):
    journey = stage.registered("{event: booked}", "  - {id: first, send: email, message: one}\n")
    hanako = stage.contact(consent=consent)

    stage.happens("booked", hanako)

    assert stage.entered(journey) == []


async def test_event_of_the_entry_ends_no_wait_and_reaches_no_goal(stage: EntryStage):
    steps = (
        "  - {id: again, wait: {event: booked, timeout: 7 days, on_timeout: late}}\n"
        "  - {id: came, exit: came}\n  - {id: late, exit: late}\n"
    )
    head = "events: [booked]\ngoal: {when: \"happened('booked')\"}\n"
    waiting, aiming = stage.registered("{event: booked}", steps, "events: [booked]\n"), stage.registered("{event: booked}", head=head)
    hanako = stage.contact()

    stage.happens("booked", hanako)
    await stage.run_for(timedelta(hours=1))
    inside = [row.outcome for journey in (waiting, aiming) for row in stage.entered(journey)]
    stage.happens("booked", hanako)
    await stage.run_for(timedelta(hours=1))

    assert inside == [None, None]
    assert [row.reason for row in stage.entered(waiting)] == ["came"]
    assert [row.outcome for row in stage.entered(aiming)] == ["goal"]


def test_journey_that_is_retired_or_another_brands_takes_nobody(stage: EntryStage):
    journey = stage.registered("{event: booked}")
    stage.retire(journey)
    with stage.db.writing() as session:
        elsewhere = factories.make_contact(session, factories.make_partner(session))
    other = stage.registered("{event: booked}")

    stage.happens("booked", stage.contact())
    with stage.db.writing() as session:
        record_events(session, elsewhere.brand_id, [NewEvent("booked", elsewhere.id)], stage.clock.now())

    assert stage.entered(journey) == []
    assert elsewhere.id not in stage.contacts_in(other)


def test_newest_version_decides(stage: EntryStage):
    journey = stage.registered("{event: booked}", key="offers")
    stage.registered("{event: visited}", key="offers")
    hanako, taro = stage.contact(), stage.contact()

    stage.happens("booked", hanako)
    stage.happens("visited", taro)

    assert stage.contacts_in(journey) == [taro.id]


def test_text_that_is_not_the_approved_one_enters_nobody_and_the_event_is_kept(stage: EntryStage):
    journey = stage.registered("{event: booked}")
    with stage.db.writing() as session:
        version = session.exec(select(JourneyVersion).where(JourneyVersion.journey_id == journey.id)).one()
        version.approved_hash = "what the approver saw"

    stage.happens("booked", stage.contact())

    assert stage.entered(journey) == []
    with stage.db.reading() as session:
        assert len(session.exec(select(Event)).all()) == 1


def test_many_events_at_once_have_each_their_own_verdict(stage: EntryStage):
    journey = stage.registered("{event: booked}")
    people = [stage.contact() for _ in range(3)]
    with stage.db.writing() as session:
        other = factories.make_contact(session, factories.make_partner(session, session.get_one(type(stage.brand), stage.brand.id)))
    events = [
        NewEvent("booked", people[0].id, key="a"),
        NewEvent("booked", email=people[1].email.upper(), key="b"),
        NewEvent("booked", people[0].id, key="a"),
        NewEvent("booked", 999_999),
        NewEvent("booked"),
        NewEvent(" ", people[2].id),
        NewEvent("booked", other.id),
    ]

    with stage.db.writing() as session:
        answers = record_events(session, stage.brand.id, events, stage.clock.now(), partner_id=stage.partner.id)

    results = [getattr(answer, "repeated", type(answer).__name__) for answer in answers]
    assert results == [False, False, True, "NotFound", "InvalidInput", "InvalidInput", "NotFound"]
    assert stage.contacts_in(journey) == [people[0].id, people[1].id]


def test_first_event_of_its_name_is_counted_once_for_each_enrollment(stage: EntryStage):
    hanako, taro = stage.contact(), stage.contact()
    campaign = stage.journey("  - {id: pause, wait: {for: 3 days}}\n")
    stage.happens("visited", hanako)
    stage.enrol(campaign, hanako)
    names = ["visited", "visited", "booked"]
    events = [NewEvent(name, person.id, key=f"{name}{person.id}{number}") for person in (hanako, taro) for number, name in enumerate(names)]

    with stage.db.writing() as session:
        record_events(session, stage.brand.id, events, stage.clock.now())
        first = {(row.contact_id, row.name, row.natural_key): row.first for row in session.exec(select(Event))}

    assert (
        sum(first.values()) == 1 + 2 + 2
    )  # Hanako's visit before entering; inside: one visit, one booking; Taro: the same without entering
    assert [value for (contact_id, name, _), value in first.items() if contact_id == taro.id and name == "visited"] == [True, False]


async def test_event_wakes_only_its_contacts_enrollments_that_wait_for_it(stage: EntryStage):
    steps = "  - {id: booking, wait: {event: booked}}\n  - {id: done, exit: done}\n"
    campaign = stage.journey(steps, "events: [booked, visited]")
    hanako, taro = stage.contact(), stage.contact()
    stage.enrol(campaign, hanako, taro)
    await stage.run_for(timedelta(minutes=1))

    with stage.db.writing() as session:
        record_events(session, stage.brand.id, [NewEvent("booked", hanako.id), NewEvent("visited", taro.id)], stage.clock.now())

    assert [stage.enrollment(each).woken_at for each in (hanako, taro)] == [stage.clock.now(), None]


def test_event_of_an_address_in_two_books_belongs_to_the_contact_with_an_enrollment(stage: EntryStage):
    with stage.db.writing() as session:
        brand = session.get_one(type(stage.brand), stage.brand.id)
        own_contact = factories.make_contact(session, session.get_one(Partner, stage.partner.id), email="both@example.com")
        factories.make_contact(session, factories.make_partner(session, brand), email="both@example.com")
    stage.enrol(stage.journey("  - {id: pause, wait: {for: 3 days}}\n"), own_contact)

    with stage.db.writing() as session:
        (answer,) = record_events(session, stage.brand.id, [NewEvent("booked", email="both@example.com")], stage.clock.now())

    assert getattr(answer, "contact_id", None) == own_contact.id


def test_late_event_still_counts_as_before_the_journey_that_it_entered(stage: EntryStage):
    journey = stage.registered("{event: booked}")
    hanako = stage.contact()

    stage.happens("booked", hanako, at=datetime(2026, 11, 20, 3, 0, tzinfo=UTC))

    assert stage.entered(journey)[0].entered_at > stage.clock.now() - timedelta(seconds=1)
