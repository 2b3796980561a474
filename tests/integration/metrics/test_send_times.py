"""A wait for the best time, over what contacts really opened and clicked: their own hours, their partner's contacts', the brand's, none."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlmodel import col, select

from distmark.contacts.table import Contact
from distmark.engagement.model import EventKind, Verdict
from distmark.engagement.service import click, open_pixel
from distmark.engagement.table import Event
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.metrics.rollup import roll_up
from distmark.metrics.send_times import LEAST_OWN, LEAST_SHARED
from distmark.metrics.table import EngagedHour
from distmark.partners.table import Brand, Partner
from distmark.segments.membership import update_memberships
from distmark.segments.service import create_segment
from tests import factories
from tests.driver import PHONE, Stage

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TOKYO, NEW_YORK = ZoneInfo("Asia/Tokyo"), ZoneInfo("America/New_York")
BEST = "  - {id: best, wait: {until: best_time, within: 24 hours}}\n  - {id: mail, send: email, message: one}\n"


def _opened(stage: Stage, contact: Contact, *times: datetime) -> None:
    """Messages of earlier journeys that the contact opened at these times, the first of which lies longest back."""
    with stage.db.writing() as session:
        enrollment = factories.make_enrollment(
            session, factories.make_member(session, contact=session.get_one(Contact, contact.id)), due_at=None, live_key=None
        )
        for number, at in enumerate(times):
            row = Message(
                token=f"old-{enrollment.id}-{number}",
                header_id=f"<old-{enrollment.id}-{number}@mirai.example>",
                enrollment_id=enrollment.id,
                step_id="old",
                visit=number + 1,
                brand_id=contact.brand_id,
                partner_id=contact.partner_id,
                contact_id=contact.id,
                version_id=enrollment.version_id,
                channel="email",
                name="old",
                language="ja",
                status=MessageStatus.sent,
                created_at=at - HOUR,
                sent_at=at - HOUR,
            )
            session.add(row)
            session.flush()
            open_pixel(session, row.token, PHONE, at)


def _evenings(zone: ZoneInfo, hour: int, many: int, last: date = date(2026, 11, 20)) -> list[datetime]:
    """So many evenings (or mornings), one a day, at a quarter past this hour on the zone's clock."""
    return [datetime(last.year, last.month, last.day, hour, 15, tzinfo=zone) - number * DAY for number in range(many)]


async def _sent_at(stage: Stage, contact: Contact, head: str = "", within: str = "24 hours") -> datetime:
    """When a contact who enters now gets the message behind the wait, on the contact's clock."""
    campaign = stage.journey(BEST.replace("24 hours", within), head)
    stage.enrol(campaign, contact)
    await stage.run_for(3 * DAY)
    with stage.db.reading() as session:
        mails = select(Message).where(Message.contact_id == contact.id, Message.step_id == "mail")
        sent_at = session.exec(mails).one().sent_at
    assert sent_at is not None
    return sent_at.astimezone(ZoneInfo(contact.zone or "Asia/Tokyo"))


def _rules(stage: Stage, contact: Contact) -> list[str]:
    return [rule for move in stage.moves(contact) if move.step_id == "best" and move.kind == "waiting" for rule in move.detail["rules"]]


async def test_a_contact_is_written_to_at_the_hour_at_which_they_read(stage: Stage) -> None:
    hanako = stage.contact(zone="Asia/Tokyo")
    _opened(stage, hanako, *_evenings(TOKYO, 19, LEAST_OWN), *_evenings(TOKYO, 7, 2))

    sent_at = await _sent_at(stage, hanako)  # enters at 10:00

    assert sent_at == datetime(2026, 11, 24, 19, 0, tzinfo=TOKYO)
    assert _rules(stage, hanako) == ["best_time:contact"]


async def test_clicks_weigh_like_opens(stage: Stage) -> None:
    hanako = stage.contact(zone="Asia/Tokyo")
    _opened(stage, hanako, *_evenings(TOKYO, 19, 3), *_evenings(TOKYO, 12, 2))
    with stage.db.writing() as session:
        noon = [
            row for row in session.exec(select(Message).where(Message.contact_id == hanako.id)) if row.opened_at and row.opened_at.hour == 3
        ]
        for row in noon:
            row.links = {"plans": "https://mirai.example/plans"}
            session.add(row)
            session.flush()
            click(session, row.token, "plans", PHONE, row.opened_at + timedelta(minutes=3))

    assert await _sent_at(stage, hanako) == datetime(2026, 11, 24, 12, 0, tzinfo=TOKYO)  # 2 + 2 at noon, 3 in the evening


async def test_hours_are_those_of_the_wall_clock_on_both_sides_of_daylight_saving(stage: Stage) -> None:
    """T2: 19:15 in New York is 23:15 UTC before 1 November 2026 and 00:15 UTC after."""
    amy = stage.contact(zone="America/New_York")
    before, after = _evenings(NEW_YORK, 19, 3, last=date(2026, 10, 20)), _evenings(NEW_YORK, 19, 2, last=date(2026, 11, 18))
    _opened(stage, amy, *before, *after)

    sent_at = await _sent_at(stage, amy)  # enters at 20:00 on the 23rd

    assert ({at.astimezone(UTC).hour for at in before}, {at.astimezone(UTC).hour for at in after}) == ({23}, {0})
    assert sent_at == datetime(2026, 11, 24, 19, 0, tzinfo=NEW_YORK)


@pytest.mark.parametrize(
    ("evening", "hours", "sent_at"),
    [
        # 7 November 2027: 02:00 EDT is 01:00 EST. One o'clock comes twice, at 05:00 and at 06:00 UTC; the first is meant.
        (datetime(2027, 11, 6, 21, 30, tzinfo=NEW_YORK), {1: 5}, datetime(2027, 11, 7, 5, 0, tzinfo=UTC)),
        # 14 March 2027: 02:00 EST is 03:00 EDT. There is no two o'clock, so the next best hour is met: 05:00 EDT.
        (datetime(2027, 3, 13, 21, 30, tzinfo=NEW_YORK), {2: 5, 5: 3}, datetime(2027, 3, 14, 9, 0, tzinfo=UTC)),
    ],
    ids=["falls back", "springs forward"],
)
async def test_in_a_night_whose_hours_change_each_is_met_at_most_once(
    stage: Stage, evening: datetime, hours: dict[int, int], sent_at: datetime
) -> None:
    """T2, T3"""
    amy = stage.contact(zone="America/New_York")
    stage.clock.move_to(evening)
    _opened(stage, amy, *(at for hour, many in hours.items() for at in _evenings(NEW_YORK, hour, many, last=evening.date() - 20 * DAY)))

    assert (await _sent_at(stage, amy)).astimezone(UTC) == sent_at
    assert len(stage.mail.accepted) == 1


async def test_the_best_time_is_never_in_quiet_hours(stage: Stage) -> None:
    hanako = stage.contact(zone="Asia/Tokyo")
    _opened(stage, hanako, *_evenings(TOKYO, 23, 20), *_evenings(TOKYO, 20, LEAST_OWN))

    sent_at = await _sent_at(stage, hanako, 'send_policy: {quiet_hours: "21:00-08:00", caps: none}\n')

    assert sent_at == datetime(2026, 11, 24, 20, 0, tzinfo=TOKYO)


async def test_few_or_old_readings_say_nothing(stage: Stage) -> None:
    hanako, taro = stage.contact(zone="Asia/Tokyo"), stage.contact(zone="Asia/Tokyo")
    _opened(stage, hanako, *_evenings(TOKYO, 19, LEAST_OWN - 1))
    _opened(stage, taro, *_evenings(TOKYO, 19, 10, last=date(2026, 5, 20)))
    now = stage.clock.now()

    assert await _sent_at(stage, hanako) == now
    later = stage.clock.now()
    assert await _sent_at(stage, taro) == later


async def test_what_machines_fetch_is_nobodys_hour(stage: Stage) -> None:
    """E2"""
    hanako = stage.contact(zone="Asia/Tokyo")
    _opened(stage, hanako, *_evenings(TOKYO, 19, LEAST_OWN))
    with stage.db.writing() as session:
        for row in session.exec(select(Message).where(Message.contact_id == hanako.id)):
            row.machine_opened_at, row.opened_at = row.opened_at, None
            session.add(row)
        for event in session.exec(select(Event).where(Event.contact_id == hanako.id)):
            event.verdict, event.first = Verdict.machine, False
            session.add(event)
    roll_up(stage.db, stage.clock.now())
    now = stage.clock.now()

    assert await _sent_at(stage, hanako) == now
    assert _shared(stage) == Counter()


def _crowd(stage: Stage, hour: int, many: int, partner: Partner | None = None) -> None:
    """Another contact of this partner who opened so many messages at this hour, rolled up."""
    with stage.db.writing() as session:
        someone = factories.make_contact(session, session.get_one(Partner, (partner or stage.partner).id), zone="Asia/Tokyo")
    _opened(stage, someone, *_evenings(TOKYO, hour, many))
    roll_up(stage.db, stage.clock.now())


def _shared(stage: Stage) -> Counter[tuple[int, int]]:
    """(partner or 0, hour) -> count."""
    counts: Counter[tuple[int, int]] = Counter()
    with stage.db.reading() as session:
        for row in session.exec(select(EngagedHour)):
            counts[row.partner_id, row.hour] += row.count
    return counts


async def test_who_never_read_anything_is_written_to_when_the_partners_contacts_read(stage: Stage) -> None:
    with stage.db.writing() as session:
        other = factories.make_partner(session, session.get_one(Brand, stage.brand.id))
    _crowd(stage, 17, LEAST_SHARED)
    _crowd(stage, 13, LEAST_SHARED * 2, other)
    hanako = stage.contact(zone="Asia/Tokyo")

    sent_at = await _sent_at(stage, hanako)

    assert sent_at == datetime(2026, 11, 24, 17, 0, tzinfo=TOKYO)
    assert _rules(stage, hanako) == ["best_time:segment"]


async def test_people_in_the_same_segment_decide_before_the_partners_other_contacts(stage: Stage) -> None:
    with stage.db.writing() as session:
        create_segment(session, stage.marketer, "early", "Early", stage.clock.now(), rule="contact.city == '札幌市'")
    _crowd(stage, 17, LEAST_SHARED * 2)
    with stage.db.writing() as session:
        alike = factories.make_contact(session, session.get_one(Partner, stage.partner.id), zone="Asia/Tokyo", city="札幌市")
        update_memberships(session, [alike], stage.clock.now())
    _opened(stage, alike, *_evenings(TOKYO, 11, LEAST_SHARED))
    roll_up(stage.db, stage.clock.now())
    hanako, taro = stage.contact(zone="Asia/Tokyo", city="札幌市"), stage.contact(zone="Asia/Tokyo", city="横浜市")
    with stage.db.writing() as session:
        update_memberships(session, [session.get_one(Contact, each.id) for each in (hanako, taro)], stage.clock.now())

    together = await _sent_at(stage, hanako), await _sent_at(stage, taro)

    assert [at.hour for at in together] == [11, 17]
    assert _rules(stage, hanako) == ["best_time:segment"]


async def test_where_a_partners_contacts_read_too_little_the_brands_decide(stage: Stage) -> None:
    with stage.db.writing() as session:
        other = factories.make_partner(session, session.get_one(Brand, stage.brand.id))
    _crowd(stage, 17, LEAST_SHARED - 1)
    _crowd(stage, 13, LEAST_SHARED, other)
    hanako = stage.contact(zone="Asia/Tokyo")

    assert await _sent_at(stage, hanako) == datetime(2026, 11, 24, 13, 0, tzinfo=TOKYO)


async def test_another_brands_contacts_decide_nothing(stage: Stage) -> None:
    with stage.db.writing() as session:
        stranger = factories.make_partner(session, factories.make_brand(session))
    _crowd(stage, 13, LEAST_SHARED, stranger)
    hanako, now = stage.contact(zone="Asia/Tokyo"), stage.clock.now()

    assert await _sent_at(stage, hanako) == now


async def test_with_nothing_known_the_best_time_is_now_or_when_quiet_hours_end(stage: Stage) -> None:
    hanako = stage.contact(zone="Asia/Tokyo")
    stage.clock.move_to(datetime(2026, 11, 24, 22, 30, tzinfo=TOKYO))

    sent_at = await _sent_at(stage, hanako, 'send_policy: {quiet_hours: "21:00-08:00", caps: none}\n')

    assert sent_at == datetime(2026, 11, 25, 8, 0, tzinfo=TOKYO)


def test_rolled_up_hours_equal_a_count_of_the_events_however_often_they_are_rolled(stage: Stage) -> None:
    for zone, name in ((TOKYO, "Asia/Tokyo"), (NEW_YORK, "America/New_York")):
        contact = stage.contact(zone=name)
        _opened(stage, contact, *_evenings(zone, 19, 4), *_evenings(zone, 8, 3, last=date(2026, 11, 3)))
        roll_up(stage.db, stage.clock.now(), batch=2)
    roll_up(stage.db, stage.clock.now())

    with stage.db.reading() as session:
        zones = {row.id: ZoneInfo(row.zone) for row in session.exec(select(Contact)) if row.zone}
        events = session.exec(select(Event).where(col(Event.first), col(Event.kind).in_([EventKind.opened, EventKind.clicked]))).all()
        counted = Counter(event.at.astimezone(zones[event.contact_id]).hour for event in events)
        months = {(row.month, row.hour): row.count for row in session.exec(select(EngagedHour).where(EngagedHour.partner_id == 0))}
    assert counted == {19: 8, 8: 6}
    assert _shared(stage) == {(partner, hour): many for hour, many in counted.items() for partner in (0, stage.partner.id)}
    # 08:15 in Tokyo on 1 November is 23:15 UTC on 31 October.
    assert months == {(date(2026, 10, 1), 8): 1, (date(2026, 11, 1), 8): 5, (date(2026, 11, 1), 19): 8}


async def test_a_journey_without_such_a_wait_reads_no_hours(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from distmark.metrics import send_times

    def never(*_arguments: object) -> None:
        raise AssertionError("nobody asked for hours")

    monkeypatch.setattr(send_times, "_own", never)
    monkeypatch.setattr(send_times, "_shared", never)
    hanako = stage.contact()
    stage.enrol(stage.journey("  - {id: pause, wait: {for: 1 day}}\n  - {id: mail, send: email, message: one}\n"), hanako)

    await stage.run_for(2 * DAY)

    assert len(stage.mail.accepted) == 1
