"""Lines for the runs' pages wait for Prefect, in order, and are bounded."""

from uuid import uuid4

import pytest

from distmark.engine.advance import StepShown
from distmark.engine.wake import WakeResult
from flows import run_logs
from flows.run_logs import RunLogs

RUN = uuid4()


def result(*steps: StepShown, text: str = "booking · waits", enrollment_id: int | None = 7, failed: bool = False) -> WakeResult:
    return WakeResult(failed, None, text, failed=failed, steps=steps, enrollment_id=enrollment_id)


def test_a_wake_is_a_line_for_each_step_and_one_for_the_rest() -> None:
    logs = RunLogs("https://mail.example")
    logs.add(RUN, result(StepShown("one", "send", "sent", enrollment_id=7), StepShown("two", "branch", "", enrollment_id=7)))

    lines = logs.next_lines()

    address = " · https://mail.example/enrollments/7"
    assert [line["message"] for line in lines] == [f"one · send: sent{address}", f"two · branch{address}", f"booking · waits{address}"]
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    assert {line["flow_run_id"] for line in lines} == {str(RUN)}


def test_each_member_of_a_shared_run_has_its_own_address() -> None:
    logs = RunLogs("https://mail.example")
    logs.add(RUN, result(StepShown("one", "send", "sent", enrollment_id=7), StepShown("one", "send", "sent", enrollment_id=8)))

    assert [line["message"].rpartition("/")[2] for line in logs.next_lines()] == ["7", "8", "7"]


def test_what_failed_is_a_warning() -> None:
    logs = RunLogs("")
    logs.add(RUN, result(StepShown("one", "error", "ValueError", failed=True), failed=True, enrollment_id=None))

    assert [line["level"] for line in logs.next_lines()] == [30, 30]
    assert not any("/enrollments/" in line["message"] for line in logs.next_lines())


def test_lines_stay_until_prefect_took_them() -> None:
    logs = RunLogs("")
    for number in range(run_logs.LINES_PER_CALL + 5):
        logs.add(RUN, result(text=str(number)))

    first = logs.next_lines()
    assert logs.next_lines() == first
    logs.sent(first)

    assert [line["message"].partition(" ")[0] for line in logs.next_lines()] == [str(run_logs.LINES_PER_CALL + more) for more in range(5)]


def test_while_prefect_is_away_the_oldest_lines_are_dropped_and_no_newer_one_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_logs, "MOST_KEPT", 3)
    logs = RunLogs("")
    logs.add(RUN, result(text="a"))
    asked = logs.next_lines()
    for text in "bcde":
        logs.add(RUN, result(text=text))
    logs.sent(asked)  # taken by Prefect, after "a" was dropped here

    assert [line["message"].partition(" ")[0] for line in logs.next_lines()] == ["c", "d", "e"]
