"""Waits for dates that came from files: read in any spelling; one that cannot be read is not told as one that is not there."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import select

from distmark.engine.wake import _ended_summary
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import TimelineEntry
from tests.driver import Stage

DAY = timedelta(days=1)
STEPS = '  - {id: renewal, wait: {on: contact.renewal_date, offset: -30 days, at: "09:00"}}\n  - {id: first, send: email, message: one}\n'
DECLARED, UNDECLARED = "contact_fields: {renewal_date: date}", "contact_fields: {renewal_date: text}"


@pytest.mark.parametrize(
    "written",
    [
        "2027/4/1",
        "2027/4/1 0:00",
        "2027-04-01T00:00:00Z",
        "2027-04-01 10:30",
        "2027年4月1日(木)",
        "令和9年4月1日",
        "46478",
        46478,
        20270401,
    ],
)
@pytest.mark.parametrize("head", [DECLARED, UNDECLARED])
async def test_wait_reads_a_date_in_any_spelling(stage: Stage, written: object, head: str):
    campaign, person = stage.journey(STEPS, head), stage.contact(attributes={"renewal_date": written})
    stage.enrol(campaign, person)

    await stage.run_for(DAY)

    row = stage.enrollment(person)
    assert (row.status, row.due_at) == (
        EnrollmentStatus.waiting,
        datetime(2027, 3, 2, 0, 0, tzinfo=UTC),
    )  # 1 April - 30 days, 9:00 in Tokyo


@pytest.mark.parametrize("head", [DECLARED, UNDECLARED])
async def test_reason_says_that_the_value_is_no_date(stage: Stage, head: str):
    campaign, person, nobody = stage.journey(STEPS, head), stage.contact(attributes={"renewal_date": "4月ごろ"}), stage.contact()
    stage.enrol(campaign, person, nobody)

    await stage.run_for(DAY)

    assert stage.enrollment(person).reason == "renewal_date holds “4月ごろ”, which is no date"
    assert stage.enrollment(nobody).reason == "contact.renewal_date is missing"


async def test_wait_that_goes_on_without_a_date_says_why(stage: Stage):
    steps = STEPS.replace('at: "09:00"', 'at: "09:00", if_missing: go_on')
    campaign, person = stage.journey(steps, DECLARED), stage.contact(attributes={"renewal_date": "soon"})
    stage.enrol(campaign, person)

    await stage.run_for(DAY)

    with stage.db.reading() as session:
        of_person = select(TimelineEntry).where(TimelineEntry.enrollment_id == stage.enrollment(person).id)
        rules = [entry.detail["rules"] for entry in session.exec(of_person) if entry.detail.get("rules")]
    assert ["unread_date:renewal_date"] in rules


async def test_value_of_a_contact_does_not_go_to_prefect(stage: Stage):
    campaign, person = stage.journey(STEPS, DECLARED), stage.contact(attributes={"renewal_date": "佐藤さん”に聞く"})
    stage.enrol(campaign, person)
    await stage.run_for(DAY)

    assert _ended_summary(stage.enrollment(person), {EnrollmentStatus.ended: 1}) == (
        "exit: renewal_date holds “…”, which is no date at renewal"
    )
