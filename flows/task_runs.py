"""Steps of a wake as finished task runs on the run's page, with one event each instead of Prefect's three."""

from datetime import timedelta
from uuid import UUID, uuid4

from prefect.client.schemas.objects import State, StateType, TaskRun
from prefect.events import emit_event

from distmark.clock import wall_now
from distmark.engine.advance import StepShown

LEAST = timedelta(milliseconds=1)


def show_steps(flow_run_id: UUID, steps: tuple[StepShown, ...], wake_number: int) -> None:
    """Put the steps on the run's page, in order. They hold step ids, kinds and outcomes, no person's data. Returns at once."""
    at = wall_now() - LEAST * len(steps)
    for number, step in enumerate(steps):
        _show(flow_run_id, step, f"{wake_number}-{number}", at + LEAST * number)


def _show(flow_run_id: UUID, step: StepShown, key: str, at: object) -> None:
    kind = StateType.FAILED if step.failed else StateType.COMPLETED
    state: State[None] = State(type=kind, name=kind.value.capitalize(), message=step.text or None, timestamp=at)
    name = f"{step.step_id} · {step.kind}"
    task_run = TaskRun(
        id=uuid4(),
        name=name,
        flow_run_id=flow_run_id,
        task_key=f"journey.{step.step_id}",
        dynamic_key=key,
        start_time=at,
        end_time=at,
        expected_start_time=at,
        run_count=1,
    )
    # The payload is what the client's task engine sends with its last event; the server's recorder needs no more.
    emit_event(
        id=state.id,
        occurred=state.timestamp,
        event=f"prefect.task-run.{state.name}",
        payload={
            "intended": {"from": "RUNNING", "to": kind.value},
            "initial_state": None,
            "validated_state": {"type": kind.value, "name": state.name, "message": step.text, "state_details": {}, "data": None},
            "task_run": task_run.model_dump(
                mode="json",
                exclude_none=True,
                exclude={
                    "id",
                    "created",
                    "updated",
                    "flow_run_id",
                    "state_id",
                    "state_type",
                    "state_name",
                    "state",
                    "estimated_start_time_delta",
                    "estimated_run_time",
                },
            ),
        },
        resource={
            "prefect.resource.id": f"prefect.task-run.{task_run.id}",
            "prefect.resource.name": name,
            "prefect.run-count": "1",
            "prefect.state-message": step.text,
            "prefect.state-name": state.name or "",
            "prefect.state-timestamp": state.timestamp.isoformat(),
            "prefect.state-type": kind.value,
            "prefect.orchestration": "client",
        },
        related=[{"prefect.resource.id": f"prefect.flow-run.{flow_run_id}", "prefect.resource.role": "flow-run"}],
    )
