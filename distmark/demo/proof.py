"""The proof of the demo, counted from outside: from the mailbox and from Prefect's API; our own rows only say what should be there."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx2
from sqlmodel import Session, col, func, select

from distmark.db import Database
from distmark.demo.audience import AudienceTally
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.machine.prefect import authorization, prefect_auth
from distmark.mailbox.store import MailboxStore
from distmark.messages.model import ACCEPTED
from distmark.messages.table import Message
from distmark.metrics.model import Metric
from distmark.metrics.service import metrics, recount
from distmark.settings import Settings

PAGE = 200
SETTLE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Proof:
    """The last line of the demo. `lost` are accepted messages that are not in the mailbox, and enrollments without a run or an end."""

    enrolled: int
    ended: int
    flow_runs: int
    accepted: int
    in_mailbox: int
    duplicates: int
    lost: int
    opened: int
    clicked: int
    unsubscribed: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Prefect:
    """Prefect's REST API, read-only but for asking for a run of the results flow."""

    def __init__(self, settings: Settings) -> None:
        headers = authorization(prefect_auth(settings))
        self._http = httpx2.Client(base_url=settings.prefect_api_url, headers=headers, timeout=60, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def runs_of(self, deployment_ids: Sequence[str], after: str = "1970-01-01T00:00:00Z") -> list[dict[str, Any]]:
        """Return every flow run of these deployments that was created after `after` (ISO 8601), page by page."""
        runs: list[dict[str, Any]] = []
        wanted = {"deployments": {"id": {"any_": list(deployment_ids)}}, "sort": "ID_DESC", "limit": PAGE}
        while True:
            page = self._post("/flow_runs/filter", {**wanted, "offset": len(runs)})
            runs += page
            if len(page) < PAGE:
                return [run for run in runs if run["created"] > after]

    def run_results(self) -> None:
        """Ask for one run of the results flow and return when it is Completed; RuntimeError when it ends otherwise."""
        deployment = self._http.get("/deployments/name/results/system").raise_for_status().json()
        run = self._post(f"/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
        until = time.monotonic() + 60
        while run["state_type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            if time.monotonic() > until:
                raise RuntimeError(f"The results flow (run {run['id']}) is still {run['state_name']} after a minute.")
            time.sleep(0.2)
            run = self._http.get(f"/flow_runs/{run['id']}").raise_for_status().json()
        if run["state_type"] != "COMPLETED":
            raise RuntimeError(f"The results flow (run {run['id']}) ended {run['state_name']}: {(run.get('state') or {}).get('message')}.")

    def _post(self, path: str, body: Any) -> Any:
        return self._http.post(path, json=body).raise_for_status().json()


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of the proof; `enrollment_ids` are those of this run, `since` says when it began."""

    db: Database
    mailbox: MailboxStore
    prefect: Prefect
    deployment_ids: tuple[str, ...]
    enrollment_ids: tuple[int, ...]
    accepted_before: int
    mailbox_before: int
    since: str


def prove(evidence: Evidence, seconds: float) -> Proof:
    """Count everything. Waits a little for Prefect to note the last states: ours are written first."""
    runs = _settled(evidence)
    with evidence.db.reading() as session:
        ended = _count(session, evidence, Enrollment.status == EnrollmentStatus.ended)
        without_run = _count(session, evidence, col(Enrollment.flow_run_id).is_(None))
        sent = set(session.exec(_messages(evidence).where(col(Message.status).in_(list(ACCEPTED)))))
        rolled = metrics(session)
    items = evidence.mailbox.since(evidence.mailbox_before, limit=1_000_000)
    copies = [(item.message_id, item.recipient) for item in items]
    enrolled = len(evidence.enrollment_ids)
    return Proof(
        enrolled=enrolled,
        ended=ended,
        flow_runs=len({run["idempotency_key"] for run in runs if run["state_type"] == "COMPLETED"}),
        accepted=len(evidence.mailbox.accepted(after=evidence.accepted_before)),
        in_mailbox=len(items),
        duplicates=len(copies) - len(set(copies)),
        lost=len(sent - {message_id for message_id, _ in copies}) + without_run + (enrolled - ended),
        **{metric.value: _total(rolled, metric) for metric in (Metric.opened, Metric.clicked, Metric.unsubscribed)},
        seconds=round(seconds, 1),
    )


def _settled(evidence: Evidence) -> list[dict[str, Any]]:
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        runs = evidence.prefect.runs_of(evidence.deployment_ids, evidence.since)
        if all(run["state_type"] == "COMPLETED" for run in runs) or time.monotonic() > until:
            return runs
        time.sleep(0.5)


def _count(session: Session, evidence: Evidence, condition: Any) -> int:
    query = select(func.count(col(Enrollment.id))).where(col(Enrollment.id).in_(evidence.enrollment_ids), condition)
    return int(session.exec(query).one())


def _messages(evidence: Evidence) -> Any:
    return select(Message.header_id).where(col(Message.enrollment_id).in_(evidence.enrollment_ids))


def _total(rolled: Any, metric: Metric) -> int:
    return sum(tally.count for key, tally in rolled.items() if key.metric == metric)


def shortfalls(evidence: Evidence, proof: Proof, tally: AudienceTally) -> list[str]:
    """Return every way in which the demo did not hold, in words; empty when all of it did."""
    runs = evidence.prefect.runs_of(evidence.deployment_ids, evidence.since)
    with evidence.db.reading() as session:
        rolled, counted = metrics(session), recount(session)
    different = {key for key in {*rolled, *counted} if rolled.get(key) != counted.get(key)}
    held: list[tuple[bool, str]] = [
        (proof.ended == proof.enrolled, f"{proof.enrolled - proof.ended} enrollments have not ended"),
        (proof.flow_runs == proof.enrolled, f"{proof.flow_runs} flow runs are Completed in Prefect, not {proof.enrolled}"),
        (len(runs) == proof.enrolled, f"there are {len(runs)} flow runs for {proof.enrolled} enrollments"),
        (proof.accepted > 0, "no message was accepted"),
        (proof.in_mailbox == proof.accepted, f"{proof.accepted} messages were accepted, but {proof.in_mailbox} are in the mailbox"),
        (proof.duplicates == 0, f"{proof.duplicates} messages are in the mailbox twice"),
        (proof.lost == 0, f"{proof.lost} are lost"),
        (not different, f"{len(different)} rolled-up numbers differ from the recount, such as {sorted(different)[:3]}"),
        (proof.opened == len(tally.opened), f"the audience opened {len(tally.opened)} messages, but {proof.opened} are counted"),
        (proof.clicked == len(tally.clicked), f"the audience clicked {len(tally.clicked)} messages, but {proof.clicked} are counted"),
        (
            proof.unsubscribed == len(tally.unsubscribed),
            f"the audience unsubscribed from {len(tally.unsubscribed)} messages, but {proof.unsubscribed} are counted",
        ),
        (not tally.refused, f"the web refused {len(tally.refused)} requests of the audience: {'; '.join(tally.refused[:3])}"),
    ]
    return [fault for holds, fault in held if not holds]


def wait_until(holds: Callable[[], bool], seconds: float, check: Callable[[], None], every: float = 0.3) -> bool:
    """Return whether `holds()` came true within so many seconds; `check` is called on the way and may raise."""
    until = time.monotonic() + seconds
    while not holds():
        check()
        if time.monotonic() > until:
            return False
        time.sleep(every)
    return True
