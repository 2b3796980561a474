"""The parts of a machine: how each is started, whether it answers, and what is reported of it."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import httpx2

PROBE_SECONDS = 5.0
FEWEST_PROBES = 3  # a process that did not answer twice may have had a bad moment
FIRST_PAUSE_SECONDS = 0.5  # doubled with every death in a row


@dataclass(frozen=True, slots=True)
class Part:
    """One process: how it is started, how one knows that it answers, and where it can be reached.

    `answers` is asked until it is True for the first time, `still_answers` from then on; left out, it is the same.
    """

    name: str
    command: tuple[str, ...]
    answers: Callable[[], bool]
    address: str = ""
    still_answers: Callable[[], bool] | None = None


@dataclass(slots=True)
class Child:
    """A part's process as it runs now."""

    part: Part
    process: "subprocess.Popen[bytes]"
    started: float
    pause: float = FIRST_PAUSE_SECONDS
    restarts: int = 0
    due: float | None = None  # when it is started again
    ready: bool = False  # it has answered since it was started
    unanswered: int = 0  # probes in a row that got no answer
    unanswered_since: float | None = None

    def note_probe(self, answered: bool, now: float) -> None:
        """Count a probe; `now` is the monotonic clock."""
        self.unanswered = 0 if answered else self.unanswered + 1
        self.unanswered_since = None if answered else self.unanswered_since or now

    def is_hung(self, now: float, patience_seconds: float) -> bool:
        """Return whether it has been asked several times and has not answered for so long."""
        return self.unanswered >= FEWEST_PROBES and self.unanswered_since is not None and now - self.unanswered_since >= patience_seconds


@dataclass(frozen=True, slots=True)
class PartStatus:
    """Something about one process that a person should see."""

    part: str
    state: str  # starting | ready | hung | ended | restarting | failing | stopping | stopped
    detail: str = ""


def answers(url: str, seconds: float = 2.0) -> bool:
    """Return whether a web server answers at `url` within so many seconds, without an error of its own."""
    try:
        return httpx2.get(url, timeout=seconds, trust_env=False).status_code < 400
    except httpx2.HTTPError:
        return False


def greets(host: str, port: int) -> bool:
    """Return whether a mail server greets at this address."""
    import socket

    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False
