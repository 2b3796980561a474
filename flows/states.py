"""Prefect states of a run: enrolled, claimed, running, and the state that follows a wake."""

from datetime import datetime, timedelta

from prefect.client.schemas.objects import State, StateDetails, StateType

from distmark.clock import Clock, wall_now
from distmark.engine.wake import FOREVER, WakeResult

WAITING = "Waiting"
ENROLLED = "Enrolled"


def waiting(at: datetime, message: str) -> State[None]:
    """Return Scheduled under the name Waiting. Prefect marks only runs named Scheduled as Late."""
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


def state_of(result: WakeResult, clock: Clock) -> State[None]:
    """Return the state of the run after a wake: Waiting until its due time on the wall clock, Completed, or Failed when parked."""
    if not result.finished:
        at = clock.wall(result.due_at) if result.due_at else wall_now() + FOREVER
        return waiting(max(at, wall_now() - timedelta(days=1)), result.text)
    if result.failed:
        return State(type=StateType.FAILED, name="Parked", message=result.text)
    return State(type=StateType.COMPLETED, name="Completed", message=result.text)
