"""The log on a run's page: one line for each step and for the present wait, with the address of our own page.

Lines of many wakes go to Prefect in one call, so a wake makes no call of its own for them. They hold step ids, kinds, outcomes and
addresses with the number of an enrollment, no person's data.
"""

import logging
from collections import deque
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from distmark.clock import wall_now
from distmark.engine.advance import StepShown
from distmark.engine.wake import WakeResult

LOGGER = "distmark.journey"
LINES_PER_CALL = 200
MOST_KEPT = 10_000  # while Prefect is away; the timeline of our own pages holds all of it anyway
LEAST = timedelta(milliseconds=1)


class RunLogs:
    """Lines that wait to be sent, oldest first. `base_url` begins the addresses of our pages."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._lines: deque[dict[str, Any]] = deque(maxlen=MOST_KEPT)

    def add(self, flow_run_id: UUID, result: WakeResult) -> None:
        """Keep the lines of a wake: its steps in order, then where the run rests."""
        at = wall_now() - LEAST * len(result.steps)
        for number, step in enumerate(result.steps):
            self._add(flow_run_id, at + LEAST * number, _step_text(step), step.enrollment_id, warn=step.failed)
        self._add(flow_run_id, at + LEAST * len(result.steps), result.text, result.enrollment_id, warn=result.failed)

    def _add(self, flow_run_id: UUID, at: datetime, text: str, enrollment_id: int | None, *, warn: bool) -> None:
        address = f" · {self._base_url}/enrollments/{enrollment_id}" if enrollment_id else ""
        level = logging.WARNING if warn else logging.INFO
        line = {"name": LOGGER, "level": level, "message": f"{text}{address}", "timestamp": at.isoformat(), "flow_run_id": str(flow_run_id)}
        self._lines.append(line)

    def next_lines(self) -> list[dict[str, Any]]:
        """Return the oldest lines that wait, as many as one call takes."""
        return [self._lines[place] for place in range(min(LINES_PER_CALL, len(self._lines)))]

    def sent(self, lines: list[dict[str, Any]]) -> None:
        """Forget lines that Prefect has taken. Those that were dropped meanwhile for want of room are gone already."""
        for line in lines:
            if self._lines and self._lines[0] is line:
                self._lines.popleft()


def _step_text(step: StepShown) -> str:
    return f"{step.step_id} · {step.kind}" + (f": {step.text}" if step.text else "")
