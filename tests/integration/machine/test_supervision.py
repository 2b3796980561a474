"""Supervision goes on through what befalls the machine: a full disk, a process that hangs, a start that fails, a terminal that is gone."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from distmark.clock import wall_now
from distmark.machine import supervisor
from distmark.machine.parts import Child, Part, PartStatus, answers
from distmark.machine.processes import Mark, is_the_same, mark_of, start_process
from distmark.machine.state import CLOCK_FILE, read_json, read_state
from distmark.machine.supervisor import Machine
from distmark.settings import Settings
from tests.prefect_server import free_port
from tests.small_machine import SmallMachine, settings_of
from tests.waiting import wait_until

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *arguments): pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Disk:
    """A disk that can be full: writing the machine's files fails then, as the system would let it."""

    def __init__(self) -> None:
        self.full = False

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        path.write_text(json.dumps(content))


class MachineWithServer(SmallMachine):
    """A machine whose web is a real HTTP server; the other parts are sleepers."""

    port = 0

    def _part(self, name: str) -> Part:
        if name != "web":
            return super()._part(name)
        url = f"http://127.0.0.1:{self.port}/healthz"
        return Part(name, (sys.executable, "-c", SERVER, str(self.port)), lambda: answers(url), url, lambda: answers(url, 0.5))


@pytest.fixture
def statuses() -> list[PartStatus]:
    return []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PROBE_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(supervisor, "HUNG_SECONDS", 0.5)
    monkeypatch.setattr(supervisor, "STOP_SECONDS", dict.fromkeys(("server", "catcher", "web", "worker"), 0.4))


@pytest.fixture
def machine(tmp_path: Path, statuses: list[PartStatus], impatient: None) -> Iterator[MachineWithServer]:
    made = MachineWithServer(settings_of(tmp_path / "data"), speed=1440.0, report=statuses.append)
    made.port = free_port()
    try:
        made.start()
        yield made
    finally:
        made.stop()


def said(statuses: list[PartStatus], part: str, state: str) -> Callable[[], bool]:
    return lambda: any((each.part, each.state) == (part, state) for each in list(statuses))


def test_a_full_disk_ends_no_supervision(machine: MachineWithServer, statuses: list[PartStatus], monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    monkeypatch.setattr(supervisor, "write_json", disk.write_json)
    disk.full = True
    wait_until(said(statuses, "supervision", "failing"))
    os.kill(machine.children["web"].process.pid, signal.SIGKILL)
    wait_until(said(statuses, "web", "restarting"))  # though its number could not be written down
    restarted = machine.children["web"].process

    disk.full = False

    wait_until(said(statuses, "supervision", "ready"))
    assert read_state(machine.data_dir)["processes"]["web"]["pid"] == restarted.pid
    assert restarted.poll() is None
    assert len([each for each in statuses if each.part == "supervision"]) == 2  # said when it begins and when it is over


def test_virtual_time_is_kept_again_after_a_full_disk(machine: MachineWithServer, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    monkeypatch.setattr(supervisor, "write_json", disk.write_json)
    disk.full = True
    wait_until(lambda: bool(machine._failures))
    before = read_json(machine.data_dir / CLOCK_FILE)

    disk.full = False

    wait_until(lambda: read_json(machine.data_dir / CLOCK_FILE) != before)


def test_a_process_that_hangs_is_ended_and_started_again(machine: MachineWithServer, statuses: list[PartStatus]) -> None:
    hung = machine.children["web"].process.pid
    others = {name: child.process.pid for name, child in machine.children.items() if name != "web"}

    os.kill(hung, signal.SIGSTOP)
    wait_until(said(statuses, "web", "restarting"), 30)
    wait_until(lambda: machine.children["web"].ready, 30)

    assert said(statuses, "web", "hung")()
    assert mark_of(hung) is None
    assert httpx2.get(f"http://127.0.0.1:{machine.port}/healthz", trust_env=False).status_code == 200
    assert {name: child.process.pid for name, child in machine.children.items() if name != "web"} == others


def test_a_process_that_never_answers_after_it_was_started_again_is_started_once_more(
    machine: MachineWithServer, statuses: list[PartStatus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "START_SECONDS", 0.5)
    monkeypatch.setattr(machine, "script", "import time\nwhile True: time.sleep(1)")
    child = machine.children["catcher"]
    child.part = Part("catcher", (sys.executable, "-c", machine.script), lambda: False)

    os.kill(child.process.pid, signal.SIGKILL)

    wait_until(said(statuses, "catcher", "hung"), 30)
    wait_until(lambda: machine.children["catcher"].restarts >= 2, 30)


def test_a_start_that_fails_is_tried_again(machine: MachineWithServer, statuses: list[PartStatus], monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def fails_twice(*arguments: Any) -> "subprocess.Popen[bytes]":
        tries.append(arguments)
        if len(tries) < 3:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return start_process(*arguments)

    monkeypatch.setattr(supervisor, "start_process", fails_twice)
    os.kill(machine.children["catcher"].process.pid, signal.SIGKILL)

    wait_until(said(statuses, "catcher", "restarting"), 30)
    assert len(tries) == 3


def test_a_terminal_that_is_gone_ends_no_supervision(tmp_path: Path, impatient: None) -> None:
    def gone(status: PartStatus) -> None:
        raise OSError(errno.EIO, "Input/output error")

    machine = SmallMachine(settings_of(tmp_path / "data"), report=gone)
    machine.start()
    try:
        before = machine.children["web"].process.pid
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: machine.children["web"].process.pid != before)
    finally:
        machine.stop()


def test_trouble_of_the_probe_itself_is_not_held_against_the_process(machine: MachineWithServer, statuses: list[PartStatus]) -> None:
    def broken() -> bool:
        raise OSError(errno.EMFILE, "Too many open files")

    asked: list[float] = []
    child = machine.children["catcher"]
    child.part = Part("catcher", child.part.command, lambda: asked.append(0.0) or broken())
    wait_until(lambda: len(asked) > 10)

    assert not child.is_hung(float("inf"), 0.0)
    assert not said(statuses, "catcher", "hung")()


def test_a_process_is_not_hung_before_it_was_asked_several_times() -> None:
    """The machine itself may have been asleep: time alone says nothing."""
    child = Child(Part("web", (), lambda: False), None, 0.0)  # type: ignore[arg-type]
    child.note_probe(False, 10.0)

    assert not child.is_hung(1_000.0, 25.0)
    child.note_probe(False, 20.0)
    child.note_probe(False, 30.0)
    assert not child.is_hung(34.0, 25.0)
    assert child.is_hung(35.0, 25.0)
    child.note_probe(True, 36.0)
    assert not child.is_hung(100.0, 25.0)


def test_a_worker_is_silent_by_its_last_heartbeat_and_only_when_prefect_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(settings_of(tmp_path))
    beat, status = wall_now(), 200

    def prefect_says(settings: Settings, method: str, path: str, body: Any = None) -> httpx2.Response:
        if status == 0:
            raise httpx2.ConnectError("away")
        return httpx2.Response(status, json=[{"last_heartbeat_time": beat.isoformat()}])

    monkeypatch.setattr(supervisor, "call_prefect", prefect_says)
    assert machine._worker_is_not_silent()
    beat = wall_now() - timedelta(minutes=2)
    assert not machine._worker_is_not_silent()
    status = 0
    assert machine._worker_is_not_silent()
    status = 503
    assert machine._worker_is_not_silent()


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells a process that its parent is gone.")
def test_a_process_outlives_the_thread_that_asked_for_it_and_no_later_than_the_machine(tmp_path: Path) -> None:
    script = f"""
    import os, sys, threading; sys.path.insert(0, {str(Path.cwd())!r})
    from pathlib import Path
    from distmark.machine.processes import start_process
    made, sleeper = [], [sys.executable, "-c", "import time; time.sleep(60)"]
    def start():
        made.append(start_process(sleeper, os.environ, Path({str(tmp_path / "log")!r}), Path(".")))
    thread = threading.Thread(target=start); thread.start(); thread.join()
    try:
        made[0].wait(1)
    except Exception:
        print(made[0].pid, flush=True)
    sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        mark = mark_of(int(process.stdout.readline()))
        assert isinstance(mark, Mark)
        process.kill()

    wait_until(lambda: not is_the_same(mark))
