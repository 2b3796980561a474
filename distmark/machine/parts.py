"""The parts of a machine: how each is started, whether it answers, and what is reported of it."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import httpx2

FIRST_PAUSE_SECONDS = 0.5  # doubled with every death in a row


@dataclass(frozen=True, slots=True)
class Part:
    """One process: how it is started, how one knows that it answers, and where it can be reached."""

    name: str
    command: tuple[str, ...]
    answers: Callable[[], bool]
    address: str = ""


@dataclass(slots=True)
class Child:
    """A part's process as it runs now."""

    part: Part
    process: "subprocess.Popen[bytes]"
    started: float
    pause: float = FIRST_PAUSE_SECONDS
    restarts: int = 0
    due: float | None = None  # when it is started again


@dataclass(frozen=True, slots=True)
class PartStatus:
    """Something about one process that a person should see."""

    part: str
    state: str  # starting | ready | ended | restarting | stopping | stopped
    detail: str = ""


def answers(url: str) -> bool:
    """Return whether a web server answers at `url` without an error of its own."""
    try:
        return httpx2.get(url, timeout=2, trust_env=False).status_code < 400
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
