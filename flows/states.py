"""Prefect states for what a wake found, and the words they carry."""

from datetime import datetime, timedelta

from prefect.client.schemas.objects import State, StateDetails, StateType

from distmark.clock import Clock, wall_now
from distmark.engine.wake import FOREVER, WakeResult

WAITING = "Waiting"
ENROLLED = "Enrolled"


def waiting(at: datetime, message: str) -> State[None]:
    """Return Scheduled under the name Waiting. The name is never marked Late, which only happens to runs named Scheduled."""
    return State(type=StateType.SCHEDULED, name=WAITING, message=message, state_details=StateDetails(scheduled_time=at))


def enrolled(at: datetime) -> State[None]:
    """Return the state in which a run is created: due at once, and never marked Late."""
    return State(type=StateType.SCHEDULED, name=ENROLLED, state_details=StateDetails(scheduled_time=at))


def claiming() -> State[None]:
    """Return Pending, the claim. It carries its own time, so a run asleep until later can be woken by claiming it."""
    return State(type=StateType.PENDING, name="Pending", state_details=StateDetails(scheduled_time=wall_now()))


def running(message: str = "") -> State[None]:
    """Return Running."""
    return State(type=StateType.RUNNING, name="Running", message=message or None)


def state_of(rest: WakeResult, clock: Clock) -> State[None]:
    """Return the state that says how the run goes on: Waiting until its due time on the wall clock, Completed, or Failed when parked."""
    if not rest.over:
        at = clock.wall(rest.due_at) if rest.due_at else wall_now() + FOREVER
        return waiting(max(at, wall_now() - timedelta(days=1)), rest.text)
    if rest.failed:
        return State(type=StateType.FAILED, name="Parked", message=rest.text)
    return State(type=StateType.COMPLETED, name="Completed", message=rest.text)
