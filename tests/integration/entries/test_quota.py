"""The cap of a journey: contacts beyond it are queued and enter later, the oldest first."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlmodel import Session, select

from distmark.campaigns.table import Campaign, CampaignStatus, Member, MemberStatus
from distmark.clock import FixedClock
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.engagement.events import NewEvent, record_events
from distmark.entries.api_calls import EntryCall, RequestedContact, enter_by_call
from distmark.entries.members import Decided, leave_out, pending_members, queued_among, take_back
from distmark.entries.model import EnrolVerdict
from distmark.entries.quota import period_start
from distmark.entries.table import Entrance, EntryCount
from distmark.journeys.field_types import Cap
from distmark.journeys.table import Journey
from tests.entry_stage import EntryStage

TOKYO = ZoneInfo("Asia/Tokyo")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> EntryStage:
    return EntryStage(db, clock)


def _book(stage: EntryStage, people: list[Contact], key: str = "") -> None:
    events = [NewEvent("booked", person.id, key=f"{key}{person.id}") for person in people]
    with stage.db.writing() as session:
        record_events(session, stage.brand.id, events, stage.clock.now())


def test_contacts_beyond_the_cap_enter_later_in_their_order(stage: EntryStage):
    journey = stage.registered("{event: booked, cap: 3 per day}")
    people = [stage.contact() for _ in range(8)]
    _book(stage, people[:5])
    stage.clock.move(HOUR)
    _book(stage, people[5:])
    days = [stage.contacts_in(journey)]

    for _day in range(3):
        stage.look_every(3 * HOUR, stage.clock.now() + DAY)
        days.append(stage.contacts_in(journey))

    ids = [person.id for person in people]
    assert days == [ids[:3], ids[:6], ids, ids]
    assert stage.queued(journey) == []


def test_day_of_the_cap_is_the_brands_own(stage: EntryStage):
    journey = stage.registered("{event: booked, cap: 1 per day}")
    people = [stage.contact() for _ in range(2)]
    _book(stage, people)

    stage.look_every(HOUR, datetime(2026, 11, 24, 14, 0, tzinfo=UTC))  # 23:00 in Tokyo
    before = len(stage.entered(journey))
    stage.look_every(HOUR, datetime(2026, 11, 24, 15, 0, tzinfo=UTC))

    assert (before, len(stage.entered(journey))) == (1, 2)


@pytest.mark.parametrize(
    ("cap", "local", "start"),
    [
        ("5 per hour", datetime(2026, 11, 25, 10, 59, 59, tzinfo=TOKYO), datetime(2026, 11, 25, 10, tzinfo=TOKYO)),
        ("5 per day", datetime(2026, 11, 25, 23, 59, tzinfo=TOKYO), date(2026, 11, 25)),
        ("5 per week", datetime(2026, 11, 29, 12, tzinfo=TOKYO), date(2026, 11, 23)),  # a Sunday: the week began on Monday 23
        ("5 per week", datetime(2026, 11, 30, 0, tzinfo=TOKYO), date(2026, 11, 30)),
        ("5 per month", datetime(2026, 11, 30, 12, tzinfo=TOKYO), date(2026, 11, 1)),
    ],
)
def test_period_begins_with_the_hour_day_monday_or_month(cap: str, local: datetime, start: date | datetime):
    assert period_start(Cap.read(cap), local) == start


def test_queued_contact_is_neither_queued_twice_nor_overtaken(stage: EntryStage):
    journey = stage.registered("{event: booked, cap: 1 per day}")
    first, second, third = (stage.contact() for _ in range(3))
    _book(stage, [first, second])
    _book(stage, [second], key="again")
    stage.clock.move(DAY)  # there is room again, and the queue was not admitted yet

    _book(stage, [third])

    assert stage.contacts_in(journey) == [first.id]
    assert stage.queued(journey) == [second.id, third.id]


def test_queued_contact_that_unsubscribed_or_entered_otherwise_takes_no_room(stage: EntryStage):
    journey = stage.registered("{event: booked, cap: 1 per day, filter: contact.city != '横浜市'}")
    people = [stage.contact() for _ in range(4)]
    _book(stage, people)
    stage.change(people[1], city="横浜市")
    with stage.db.writing() as session:
        session.get_one(Contact, people[2].id).erased_at = stage.clock.now()

    stage.look_every(3 * HOUR, stage.clock.now() + DAY)

    assert stage.contacts_in(journey) == [people[0].id, people[3].id]
    with stage.db.reading() as session:
        verdicts = {row.contact_id: row.verdict for row in session.exec(select(Entrance))}
    assert verdicts == {people[1].id: "not_matching", people[2].id: "not_matching", people[3].id: "enrolled"}


def test_campaigns_keep_to_the_cap_and_members_enter_later(stage: EntryStage):
    campaign = stage.journey("  - {id: pause, wait: {for: 1 day}}\n", "entry: {cap: 2 per day}")
    people = [stage.contact() for _ in range(5)]

    verdicts = [result.verdict for result in stage.enrol(campaign, *people)]
    again = stage.enrol(campaign, people[4])[0].verdict
    stage.look_every(3 * HOUR, stage.clock.now() + DAY)

    assert verdicts == [EnrolVerdict.enrolled] * 2 + [EnrolVerdict.queued] * 3
    assert again is EnrolVerdict.queued
    rows = [stage.enrollment(person) for person in people]
    assert [row is not None for row in rows] == [True] * 4 + [False]
    assert all(row.campaign_id == campaign.id and row.member_id for row in rows[:4])


def test_closed_campaign_admits_nobody_and_delays_nobody(stage: EntryStage):
    campaign = stage.journey("  - {id: pause, wait: {for: 1 day}}\n", "entry: {cap: 1 per day}")
    people = [stage.contact() for _ in range(3)]
    stage.enrol(campaign, *people)
    with stage.db.writing() as session:
        session.get_one(Campaign, campaign.id).status = CampaignStatus.closed

    stage.look_every(3 * HOUR, stage.clock.now() + 2 * DAY)

    assert [stage.enrollment(person) is not None for person in people] == [True, False, False]
    with stage.db.reading() as session:
        assert all(row.settled_at for row in session.exec(select(Entrance)))


def test_member_that_is_queued_waits_for_the_journey_and_no_longer_for_its_partner(stage: EntryStage):
    campaign = stage.journey("  - {id: pause, wait: {for: 1 day}}\n", "entry: {cap: 1 per day}")
    people = [stage.contact() for _ in range(2)]

    stage.enrol(campaign, *people)

    with stage.db.reading() as session:
        assert not pending_members(session, stage.viewer, campaign.id, stage.clock.now()).waiting
        assert queued_among(session, campaign.id, [person.id for person in people]) == {people[1].id}
        assert _member(session, people[1]).status is MemberStatus.approved


def test_queued_member_that_cannot_enter_any_more_needs_attention_and_says_why(stage: EntryStage):
    campaign = stage.journey("  - {id: pause, wait: {for: 1 day}}\n", "entry: {cap: 1 per day, filter: contact.city != '横浜市'}")
    people = [stage.contact() for _ in range(2)]
    stage.enrol(campaign, *people)
    stage.change(people[1], city="横浜市")

    stage.look_every(3 * HOUR, stage.clock.now() + DAY)

    with stage.db.reading() as session:
        member = _member(session, people[1])
    assert (member.status, member.error) == (MemberStatus.error, "not_matching")


def test_queued_member_that_is_left_out_does_not_enter_and_stays_left_out(stage: EntryStage):
    campaign = stage.journey("  - {id: pause, wait: {for: 1 day}}\n", "entry: {cap: 1 per day}")
    people = [stage.contact() for _ in range(2)]
    stage.enrol(campaign, *people)
    with stage.db.writing() as session:
        decided = leave_out(session, stage.viewer, campaign.id, [_member(session, person).id for person in people], stage.clock.now())

    stage.look_every(3 * HOUR, stage.clock.now() + DAY)

    assert decided == Decided(changed=1, begun=1)
    assert stage.enrollment(people[1]) is None
    with stage.db.reading() as session:
        assert [_member(session, person).status for person in people] == [MemberStatus.approved, MemberStatus.rejected]


def test_member_left_out_is_refused_at_every_entrance_of_the_campaign(stage: EntryStage):
    campaign = stage.journey("  - {id: pause, wait: {for: 1 day}}\n")
    person = stage.contact()
    stage.add_member(campaign, person)
    with stage.db.writing() as session:
        leave_out(session, stage.viewer, campaign.id, [_member(session, person).id], stage.clock.now())

    by_campaign = stage.enrol(campaign, person)[0].verdict
    with stage.db.writing() as session:
        key = session.get_one(Journey, campaign.journey_id).key
        call = EntryCall(key, [RequestedContact(person.id, None, {})], None, campaign.key)
        by_call = enter_by_call(session, stage.viewer, call, stage.clock.now()).answers[0].verdict

    assert (by_campaign, by_call) == (EnrolVerdict.left_out, EnrolVerdict.left_out)
    assert stage.enrollment(person) is None
    with stage.db.writing() as session:
        take_back(session, stage.viewer, campaign.id, [_member(session, person).id], stage.clock.now())
    assert stage.enrol(campaign, person)[0].verdict is EnrolVerdict.enrolled


def test_only_members_left_out_or_refused_are_taken_back(stage: EntryStage):
    campaign = stage.journey("  - {id: pause, wait: {for: 1 day}}\n")
    person = stage.contact()
    stage.enrol(campaign, person)

    with stage.db.writing() as session:
        decided = take_back(session, stage.viewer, campaign.id, [_member(session, person).id], stage.clock.now())

        assert decided.changed == 0
        assert _member(session, person).status is MemberStatus.approved


def _member(session: Session, person: Contact) -> Member:
    return session.exec(select(Member).where(Member.contact_id == person.id)).one()


def test_dates_beyond_the_cap_wait_like_the_others(stage: EntryStage):
    journey = stage.registered('{date: contact.birthday, every: year, at: "09:00", cap: 2 per day}')
    people = [stage.contact(birthday=date(1980, 11, 25)) for _ in range(5)]
    stage.look()

    stage.look_every(HOUR, datetime(2026, 11, 25, 12, tzinfo=UTC))
    first_day = stage.contacts_in(journey)
    stage.look_every(HOUR, datetime(2026, 11, 27, 12, tzinfo=UTC))

    assert first_day == [person.id for person in people[:2]]
    assert stage.contacts_in(journey) == [person.id for person in people]


def test_members_beyond_the_cap_are_queued_and_stay_out_when_they_leave_the_segment(stage: EntryStage):
    journey = stage.registered("{segment: gold, cap: 2 per day}")
    segment_id = stage.segment("gold")
    people = [stage.contact() for _ in range(5)]
    stage.list_in(segment_id, *people)
    stage.look()

    stage.unlist(segment_id, people[2])
    stage.look_every(3 * HOUR, stage.clock.now() + DAY)

    assert stage.contacts_in(journey) == [people[0].id, people[1].id, people[3].id, people[4].id]


def test_room_goes_to_contacts_in_the_order_in_which_they_came_not_in_that_of_their_rows(stage: EntryStage):
    journey = stage.registered("{segment: gold, cap: 2 per day}")
    segment_id = stage.segment("gold")
    people = [stage.contact() for _ in range(4)]
    for person in reversed(people):
        stage.list_in(segment_id, person)

    stage.look()

    assert stage.contacts_in(journey) == [people[3].id, people[2].id]


def test_each_event_is_queued_by_itself_in_a_journey_for_any_time(stage: EntryStage):
    journey = stage.registered("{event: booked, cap: 2 per day, reentry: any_time}")
    hanako, taro = stage.contact(), stage.contact()
    for number in range(2):
        _book(stage, [hanako, taro], key=str(number))

    stage.look_every(3 * HOUR, stage.clock.now() + DAY)

    assert stage.contacts_in(journey) == [hanako.id, taro.id] * 2


def test_new_version_without_a_cap_admits_all(stage: EntryStage):
    journey = stage.registered("{event: booked, cap: 1 per day}", key="offer")
    people = [stage.contact() for _ in range(4)]
    _book(stage, people)

    stage.registered("{event: booked}", key="offer")
    stage.look()

    assert stage.contacts_in(journey) == [person.id for person in people]


def test_room_that_was_not_needed_is_given_back(stage: EntryStage):
    stage.registered("{event: booked, cap: 5 per day}")
    hanako = stage.contact()
    _book(stage, [hanako])
    _book(stage, [hanako], key="again")

    with stage.db.reading() as session:
        assert session.exec(select(EntryCount.entered)).one() == 1


def test_queue_of_a_retired_journey_waits_for_its_next_version(stage: EntryStage):
    journey = stage.registered("{event: booked, cap: 1 per day}", key="offer")
    people = [stage.contact() for _ in range(2)]
    _book(stage, people)
    stage.retire(journey)

    stage.look_every(3 * HOUR, stage.clock.now() + 2 * DAY)
    retired = stage.contacts_in(journey)
    stage.registered("{event: booked, cap: 1 per day}", key="offer")
    stage.look()

    assert (retired, stage.contacts_in(journey)) == ([people[0].id], [people[0].id, people[1].id])
