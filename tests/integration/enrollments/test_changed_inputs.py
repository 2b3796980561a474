"""A change of what a waiting time was computed from counts at once, to an earlier time as to a later one."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from distmark.clock import FixedClock
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.enrollments.control import Scope, pause, resume
from distmark.partners.table import Brand, Partner
from tests.entry_stage import EntryStage

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RENEWAL = "contact_fields: {renewal: date}\n"
STEPS = "  - {{id: w, wait: {wait}}}\n  - {{id: after, send: email, message: one}}\n"
NEW_YORK, TOKYO = "America/New_York", "Asia/Tokyo"


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> EntryStage:
    return EntryStage(db, clock)  # Tuesday 24 November 2026, 10:00 in Tokyo


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def sent_at(stage: EntryStage, contact: Contact, days: int = 200) -> list[datetime | None]:
    stage.look()
    await stage.run_for(days * DAY)
    return [message.sent_at for message in stage.messages(contact)]


def set_zone(stage: EntryStage, table: type[Brand] | type[Partner], zone: str) -> None:
    with stage.db.writing() as session:
        session.get_one(table, stage.brand.id if table is Brand else stage.partner.id).zone = zone


@pytest.mark.parametrize(
    ("wait", "before", "changed", "due"),
    [
        # 30 days before 10 January is 11 December, 9:00 in Tokyo; later: 30 days before 10 June.
        ('{on: contact.renewal, offset: -30 days, at: "09:00"}', {"renewal": "2027-03-01"}, {"renewal": "2027-01-10"}, "2026-12-11T00:00"),
        ('{on: contact.renewal, offset: -30 days, at: "09:00"}', {"renewal": "2027-03-01"}, {"renewal": "2027-06-10"}, "2027-05-11T00:00"),
        ('{on: contact.renewal, every: year, at: "09:00"}', {"renewal": "2020-05-01"}, {"renewal": "2020-12-24"}, "2026-12-24T00:00"),
        # Moved into the past: the wait is over, one hour after the entry.
        ("{on: contact.renewal}", {"renewal": "2027-03-01"}, {"renewal": "2026-11-01"}, "2026-11-24T02:00"),
    ],
)
async def test_moved_date_of_the_contact(stage: EntryStage, wait: str, before: dict[str, str], changed: dict[str, str], due: str):
    contact = stage.contact(attributes=before)
    stage.enrol(stage.journey(STEPS.format(wait=wait), RENEWAL), contact)
    await stage.run_for(HOUR)

    stage.change(contact, attributes=changed)

    assert await sent_at(stage, contact) == [at(due)]


@pytest.mark.parametrize(
    ("wait", "changed", "due"),
    [
        ('{on: contact.birthday, every: year, at: "09:00"}', {"birthday": date(1980, 12, 1)}, "2026-12-01T00:00"),
        ('{on: contact.birthday, every: year, at: "09:00", offset: -3 days}', {"birthday": date(1980, 12, 1)}, "2026-11-28T00:00"),
        # New York is 14 hours behind in winter.
        ('{on: contact.birthday, every: year, at: "09:00"}', {"zone": NEW_YORK}, "2027-04-01T13:00"),
        ('{on: 2026-12-24, at: "09:00"}', {"zone": "Pacific/Auckland"}, "2026-12-23T20:00"),
        ('{for: 3 days, until: "09:00"}', {"zone": NEW_YORK}, "2026-11-27T14:00"),
        ('{until: "09:00"}', {"zone": "Pacific/Auckland"}, "2026-11-24T20:00"),
        # 02:00 in UTC is 21:00 of the day before in New York: on Saturday that is 02:00 of Sunday.
        ("{for: 1 hour, days: saturday}", {"zone": NEW_YORK}, "2026-11-29T02:00"),
        # Berlin's clocks go forward in March: 200 calendar days are an hour shorter there.
        ("{event: visited, timeout: 200 days}", {"zone": "Europe/Berlin"}, "2027-06-12T00:00"),
    ],
)
async def test_corrected_birthday_or_zone_of_the_contact(stage: EntryStage, wait: str, changed: dict[str, Any], due: str):
    contact = stage.contact()
    stage.enrol(stage.journey(STEPS.format(wait=wait), "events: [visited]\n"), contact)
    await stage.run_for(HOUR)

    stage.change(contact, **changed)

    assert await sent_at(stage, contact, 250) == [at(due)]


@pytest.mark.parametrize("table", [Partner, Brand])
@pytest.mark.parametrize(
    ("wait", "due"),
    [('{until: "09:00"}', "2026-11-24T20:00"), ('{on: contact.birthday, every: year, at: "09:00"}', "2027-03-31T20:00")],
)
async def test_changed_zone_of_partner_or_brand(stage: EntryStage, table: type[Brand] | type[Partner], wait: str, due: str):
    own, inherited = stage.contact(zone=TOKYO), stage.contact()
    stage.enrol(stage.journey(STEPS.format(wait=wait)), own, inherited)
    await stage.run_for(HOUR)
    stage.look()

    set_zone(stage, table, "Pacific/Auckland")

    assert await sent_at(stage, inherited) == [at(due)]
    assert stage.messages(own)[0].sent_at != at(due)


async def test_changed_zone_of_the_brand_leaves_partners_with_one_of_their_own(stage: EntryStage):
    contact = stage.contact()
    set_zone(stage, Partner, TOKYO)
    stage.enrol(stage.journey(STEPS.format(wait='{until: "09:00"}')), contact)
    await stage.run_for(HOUR)
    stage.look()

    set_zone(stage, Brand, "Pacific/Auckland")

    assert stage.look().contacts == 0
    assert await sent_at(stage, contact) == [at("2026-11-25T00:00")]


async def test_message_held_for_the_night_goes_when_the_contacts_morning_turns_out_to_be_earlier(stage: EntryStage):
    contact = stage.contact()
    stage.clock.move_to(at("2026-11-24T13:00"))  # 22:00 in Tokyo, 14:00 in Berlin
    quiet = 'send_policy: {quiet_hours: "21:00-08:00", caps: none}\n'
    stage.enrol(stage.journey("  - {id: after, send: email, message: one}\n", quiet), contact)
    await stage.run_for(HOUR)
    assert stage.messages(contact) == []

    stage.change(contact, zone="Europe/Berlin")

    assert await sent_at(stage, contact) == [at("2026-11-24T14:00")]


async def test_paused_contact_goes_on_by_the_changed_date_when_resumed(stage: EntryStage):
    contact = stage.contact(attributes={"renewal": "2027-03-01"})
    stage.enrol(stage.journey(STEPS.format(wait="{on: contact.renewal}"), RENEWAL), contact)
    await stage.run_for(HOUR)
    scope = Scope(contact_id=contact.id)
    with stage.db.writing() as session:
        pause(session, stage.viewer, scope, stage.clock.now(), "holiday")
    stage.change(contact, attributes={"renewal": "2026-12-10"})
    stage.look()

    with stage.db.writing() as session:
        resume(session, stage.viewer, scope, stage.clock.now())

    assert await sent_at(stage, contact) == [at("2026-12-09T15:00")]


@pytest.mark.parametrize(
    ("wait", "changed"),
    [
        ("{on: contact.renewal}", {"city": "横浜市"}),
        ("{on: contact.renewal}", {"attributes": {"plan": "B"}}),
        ('{until: "09:00"}', {"birthday": date(1980, 12, 1)}),
        ("{for: 2 hours}", {"zone": NEW_YORK}),
        ("{event: visited}", {"zone": NEW_YORK}),
        ("{event: visited, timeout: 7 days}", {"language": "en"}),
    ],
)
async def test_change_that_moves_no_time_wakes_nobody(stage: EntryStage, wait: str, changed: Mapping[str, Any]):
    contact = stage.contact(attributes={"renewal": "2027-03-01"})
    stage.enrol(stage.journey(STEPS.format(wait=wait), RENEWAL + "events: [visited]\n"), contact)
    await stage.run_for(HOUR)
    stage.look()

    stage.change(contact, **changed)
    stage.look()

    assert stage.enrollment(contact).woken_at is None


@pytest.mark.parametrize("table", [Partner, Brand])
def test_entry_by_date_follows_the_changed_zone_of_partner_or_brand(stage: EntryStage, table: type[Brand] | type[Partner]):
    contact = stage.contact(birthday=date(1980, 11, 26))
    stage.registered('{date: contact.birthday, every: year, at: "09:00"}')
    stage.look()

    set_zone(stage, table, "Pacific/Auckland")
    stage.look_every(HOUR, at("2026-11-25T20:00"))

    assert stage.enrollment(contact) is not None


@pytest.mark.parametrize("changed", [{"birthday": date(1980, 11, 25)}, {"zone": "Pacific/Auckland", "birthday": date(1980, 11, 26)}])
def test_entry_by_date_follows_the_corrected_contact(stage: EntryStage, changed: dict[str, Any]):
    contact = stage.contact(birthday=date(1980, 12, 24))
    stage.registered('{date: contact.birthday, every: year, at: "09:00"}')
    stage.look()

    stage.change(contact, **changed)
    stage.look_every(HOUR, at("2026-11-25T20:00"))

    assert stage.enrollment(contact) is not None
