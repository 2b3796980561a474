"""Processes and ports of this machine: start one that dies with us, tell whether it is ours, end it with all its children."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from distmark.machine.private import PRIVATE_UMASK, ensure_file, ensure_folder

PR_SET_PDEATHSIG = 1
PORTS_TRIED = 200
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Mark:
    """The identity of a process, apart from a later one with the same number: its start time, as the system reports it, and its command."""

    pid: int
    born: str
    command: str


# Linux sends the parent-death signal when the thread that started the process ends. This thread ends with our process, and not before.
_starter = ThreadPoolExecutor(1, "starter")


def start_process(command: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> "subprocess.Popen[bytes]":
    """Start a process in its own group, writing to `log`. On Linux it gets SIGTERM when our process is gone, however that ends."""
    return _starter.submit(_start, command, env, log, cwd).result()


def _start(command: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> "subprocess.Popen[bytes]":
    ensure_folder(log.parent)
    ensure_file(log)
    parent = os.getpid()

    def die_with_parent() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before we asked to be told
                os._exit(1)

    with log.open("ab") as out:
        return subprocess.Popen(  # noqa: S603 - our own commands
            list(command),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            umask=PRIVATE_UMASK,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - two plain system calls, no allocation
        )


def mark_of(pid: int) -> Mark | None:
    """Return the mark of a running process, or None when there is none of that number (a zombie is none)."""
    if sys.platform == "linux":
        return _mark_from_proc(pid)
    listed = subprocess.run(["ps", "-o", "stat=,lstart=,command=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    words = listed.stdout.split()
    if len(words) < 7 or words[0].startswith("Z"):
        return None
    return Mark(pid, " ".join(words[1:6]), " ".join(words[6:]))


def _mark_from_proc(pid: int) -> Mark | None:
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] in "ZX" else Mark(pid, after_name[19], command)  # state, start time in ticks since boot


def is_the_same(mark: Mark) -> bool:
    """Return whether the marked process still runs; another process with its number is not it."""
    return mark_of(mark.pid) == mark


def end_groups(pids: Iterable[int], grace_seconds: float, is_gone: Callable[[int], bool] | None = None) -> None:
    """The process groups led by `pids` are gone: asked first, killed after `grace_seconds`."""
    left = [pid for pid in pids if _signal_group(pid, signal.SIGTERM)]
    gone = is_gone or (lambda pid: mark_of(pid) is None)
    until = time.monotonic() + grace_seconds
    while left and time.monotonic() < until:
        left = [pid for pid in left if not gone(pid)]
        time.sleep(0.05)
    for pid in left:
        _signal_group(pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while any(not gone(pid) for pid in left) and time.monotonic() < until:
        time.sleep(0.02)


def _signal_group(pid: int, signum: signal.Signals) -> bool:
    try:
        os.killpg(pid, signum)
    except ProcessLookupError:
        return False
    return True


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose_port(host: str, wanted: Sequence[int], taken: Iterable[int] = ()) -> int:
    """Return the first free port of `wanted`, else the next free one after the last of them. Raises OSError when none is near."""
    avoid = set(taken)
    last: int = wanted[-1]
    beyond = range(last + 1, min(last + PORTS_TRIED, 65_535))
    candidates: list[int] = [*wanted, *beyond]
    for port in candidates:
        if port not in avoid and is_free(host, port):
            return port
    raise OSError(f"No port from {last} to {beyond.stop - 1} is free on {host}.")
