"""The proof counts from the mailbox and from Prefect, and names everything that does not hold."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from distmark.db import Database
from distmark.demo.audience import AudienceTally
from distmark.demo.proof import Evidence, Prefect, prove, shortfalls
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.mailbox.store import MailboxStore
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.metrics.service import roll_up
from distmark.settings import Settings
from distmark.sql import id_of
from tests.factories import NOW, make_enrollment


class StandIn(BaseHTTPRequestHandler):
    """Prefect's flow runs, as `runs` says, in pages."""

    runs: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        page = self.runs[asked["offset"] : asked["offset"] + asked["limit"]]
        body = json.dumps(page).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def run_of(number: int, state: str = "COMPLETED") -> dict[str, Any]:
    return {"idempotency_key": f"run-{number}", "state_type": state, "created": "2026-11-24T01:00:00Z"}


def mail(message_id: str) -> bytes:
    return f"Message-ID: {message_id}\r\nSubject: Hello\r\n\r\nHello\r\n".encode()


@pytest.fixture
def prefect() -> Iterator[Prefect]:
    server = HTTPServer(("127.0.0.1", 0), StandIn)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    asked = Prefect(Settings(_env_file=None, prefect_api_url=f"http://127.0.0.1:{server.server_port}/api"))
    yield asked
    asked.close()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def evidence(db: Database, tmp_path: Path, prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> Iterator[Evidence]:
    """Two people who ended, each with one message sent, in the mailbox, and a completed run: everything holds."""
    monkeypatch.setattr("distmark.demo.proof.SETTLE_SECONDS", 0.0)
    mailbox = MailboxStore(tmp_path / "mailbox.sqlite3")
    ids = []
    with db.writing() as session:
        for number in range(2):
            row = make_enrollment(session, status=EnrollmentStatus.ended, flow_run_id=f"flow-{number}", due_at=None, live_key=None)
            ids.append(id_of(row))
            session.add(message_of(row, number))
            session.add(TimelineEntry(enrollment_id=id_of(row), at=NOW, kind=TimelineKind.sent, step_id="welcome"))
    for number in range(2):
        mailbox.add(mail(f"<{number}@x>"), "a@x.example", [f"{number}@x.example"], NOW)
    roll_up(db, NOW)
    StandIn.runs = [run_of(0), run_of(1)]
    yield Evidence(db, mailbox, prefect, ("a-deployment",), tuple(ids), 0, 0, "2026-11-24T00:00:00Z")
    mailbox.close()


def message_of(row: Enrollment, number: int) -> Message:
    return Message(
        token=f"token-{number}", header_id=f"<{number}@x>", enrollment_id=id_of(row), step_id="welcome", brand_id=row.brand_id,
        partner_id=row.partner_id, contact_id=row.contact_id, campaign_id=row.campaign_id, version_id=row.version_id, channel="email",
        name="welcome", language="ja", status=MessageStatus.sent, created_at=NOW, sent_at=NOW,
    )  # fmt: skip


def test_what_holds_has_no_fault(evidence: Evidence) -> None:
    proof = prove(evidence, 12.3)

    assert proof.as_json() == {
        "enrolled": 2,
        "ended": 2,
        "flow_runs": 2,
        "accepted": 2,
        "in_mailbox": 2,
        "duplicates": 0,
        "lost": 0,
        "opened": 0,
        "clicked": 0,
        "unsubscribed": 0,
        "seconds": 12.3,
    }
    assert shortfalls(evidence, proof, AudienceTally()) == []


def test_every_page_of_runs_is_counted(evidence: Evidence) -> None:
    StandIn.runs = [run_of(number) for number in range(450)]

    assert len(evidence.prefect.runs_of(["a-deployment"])) == 450


def test_a_message_that_came_twice_is_a_duplicate(evidence: Evidence) -> None:
    evidence.mailbox.add(mail("<1@x>"), "a@x.example", ["1@x.example"], NOW)

    proof = prove(evidence, 0)

    assert (proof.accepted, proof.in_mailbox, proof.duplicates) == (3, 3, 1)
    assert any("twice" in fault for fault in shortfalls(evidence, proof, AudienceTally()))


def test_a_message_that_was_accepted_and_is_not_there_is_lost(evidence: Evidence) -> None:
    evidence.mailbox.clear()
    evidence.mailbox.add(mail("<0@x>"), "a@x.example", ["0@x.example"], NOW)

    proof = prove(evidence, 0)

    assert (proof.lost, proof.in_mailbox) == (1, 1)
    assert any("lost" in fault for fault in shortfalls(evidence, proof, AudienceTally()))


def test_who_has_not_ended_or_has_no_run_is_lost(evidence: Evidence) -> None:
    with evidence.db.writing() as session:
        row = session.get_one(Enrollment, evidence.enrollment_ids[0])
        row.status, row.flow_run_id = EnrollmentStatus.waiting, None
        session.add(row)

    proof = prove(evidence, 0)

    assert (proof.ended, proof.lost) == (1, 2)  # without a run, and without an end


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([run_of(0), run_of(1, "RUNNING")], "1 flow runs are Completed in Prefect, not 2"),
        ([run_of(0), run_of(1), run_of(2)], "3 flow runs for 2 enrollments"),
        ([run_of(0), run_of(0)], "1 flow runs are Completed in Prefect, not 2"),
    ],
    ids=["one does not end", "one too many", "one person twice"],
)
def test_runs_are_compared_one_to_one(evidence: Evidence, runs: list[dict[str, Any]], says: str) -> None:
    StandIn.runs = runs

    assert any(says in fault for fault in shortfalls(evidence, prove(evidence, 0), AudienceTally()))


def test_numbers_that_differ_from_the_recount_or_the_audience_are_named(evidence: Evidence) -> None:
    with evidence.db.writing() as session:
        session.add(TimelineEntry(enrollment_id=evidence.enrollment_ids[0], at=NOW, kind=TimelineKind.sent, step_id="welcome"))

    told = shortfalls(evidence, prove(evidence, 0), AudienceTally(opened={"<0@x>"}, refused=["open of <0@x>: 500"]))

    assert len([fault for fault in told if "recount" in fault or "opened 1 messages" in fault or "refused 1" in fault]) == 3
