"""A journey version as a Prefect flow, with its name, its version, its steps as the description, and one wake as the body."""

from prefect import Flow

from distmark.errors import Refused
from distmark.journeys.program import Program
from distmark.journeys.steps import KINDS
from distmark.journeys.table import JourneyVersion, VersionStatus

SENDABLE = frozenset({VersionStatus.approved, VersionStatus.registered, VersionStatus.retired})
ENTRYPOINT = "flows/journey.py:compile_journey"
WORKER_TYPE = "journey"  # of the workers, and of the pools that they serve


def compile_journey(version: JourneyVersion, program: Program) -> Flow[[str], object]:
    """Return the Prefect flow of an approved version: named after the journey, versioned by its number, described by its steps.

    One run carries the enrollments that share its `run_key`. A run is one wake: it advances the enrollments that are due and returns
    Scheduled under the name Waiting, or Completed. Retries are the steps' own: a flow retry would keep Prefect from ever waking the run
    again.
    """
    if version.status not in SENDABLE:
        raise Refused(f"Version {version.number} of {program.definition.key} is {version.status}; only an approved version becomes a flow.")

    async def journey(run_key: str) -> object:
        from distmark.engine.runtime import get_engine_context
        from distmark.engine.wake import wake
        from flows.states import state_of

        context = get_engine_context()
        return state_of(await wake(context, run_key), context.clock)

    return Flow(
        journey,
        name=program.definition.key,
        version=str(version.number),
        description=describe(program),
        retries=0,
        validate_parameters=False,
        persist_result=False,
        log_prints=False,
    )


def describe(program: Program) -> str:
    """Return the steps as a Markdown list for the deployment's page. Holds texts of the brand only, no person's data."""
    lines = [f"# {program.definition.name.text('en')}", ""]
    for placed in program.order:
        step = program.steps[placed.step_id]
        lines.append(f"{'  ' * placed.depth}- **{placed.step_id}** · {KINDS[step.kind].label['en']}")
    return "\n".join(lines)
