"""A database that goes away in the middle of a wake: outcomes of external calls are kept until they can be written."""

from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from distmark.channels.memory import Fault
from distmark.engine import wake as waking
from distmark.enrollments.model import TimelineKind
from distmark.messages.model import MessageStatus
from tests.driver import Stage

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
STEPS = "  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 1 day}}\n  - {id: second, send: email, message: two}\n"


class Away:
    """A function of the wake that fails the first times it is called, as without a database: before its work or after it."""

    def __init__(self, call, times: int, *, late: bool = False) -> None:
        self.call, self.times, self.late, self.__name__ = call, times, late, call.__name__

    def __call__(self, *arguments: object) -> object:
        if self.times == 0:
            return self.call(*arguments)
        self.times -= 1
        if self.late:
            self.call(*arguments)
        raise OperationalError("INSERT", {}, Exception("server closed the connection unexpectedly"))


@pytest.mark.parametrize("late", [False, True])
async def test_answers_are_kept_until_the_database_takes_them(stage: Stage, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """D3"""
    campaign = stage.journey(STEPS, contacts_per_run=10)
    fine, refused, deferred = stage.contact(), stage.contact(), stage.contact()
    stage.mail.fail_address(refused.email, Fault.permanent, times=1)
    stage.mail.fail_address(deferred.email, Fault.temporary, times=1)
    stage.enrol(campaign, fine, refused, deferred)
    monkeypatch.setattr(waking, "_store", Away(waking._store, 0, late=late))
    write_round = waking._write_round

    def then_away(*arguments: object) -> object:
        calls = write_round(*arguments)
        waking._store.times = 2
        return calls

    monkeypatch.setattr(waking, "_write_round", then_away)
    await stage.wake(stage.enrollment(fine))
    monkeypatch.undo()
    await stage.run_for(3 * DAY)

    assert [message.status for message in stage.messages(fine)] == [MessageStatus.sent] * 2
    assert [message.status for message in stage.messages(refused)] == [MessageStatus.rejected, MessageStatus.sent]
    assert [message.status for message in stage.messages(deferred)] == [MessageStatus.sent] * 2
    assert len(stage.mail.accepted) == 5
    assert [move.step_id for move in stage.moves(fine) if move.kind is TimelineKind.sent] == ["first", "second"]


async def test_claim_is_let_go_of_as_soon_as_the_database_is_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = stage.journey(STEPS)
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    monkeypatch.setattr(waking, "_write_round", Away(waking._write_round, 1))
    monkeypatch.setattr(waking, "_release", Away(waking._release, 2))

    with pytest.raises(OperationalError):
        await stage.wake(stage.enrollment(hanako))

    assert stage.enrollment(hanako).claimed_by is None
    await stage.run_for(MINUTE)
    assert len(stage.mail.accepted) == 1


async def test_database_that_stays_away_is_given_up_and_the_message_is_uncertain(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """D3"""
    campaign = stage.journey(STEPS)
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    monkeypatch.setattr(waking, "RETRY_WRITE_SECONDS", 0.0)
    monkeypatch.setattr(waking, "_write_outcomes", Away(waking._write_outcomes, 99))

    with pytest.raises(OperationalError):
        await stage.wake(stage.enrollment(hanako))
    monkeypatch.undo()
    await stage.run_for(MINUTE)

    assert [message.status for message in stage.messages(hanako)] == [MessageStatus.uncertain]
    assert len(stage.mail.accepted) == 1
