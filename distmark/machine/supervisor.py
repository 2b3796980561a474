"""All processes of one machine, each as its real self: started in order, watched, started again when they die, stopped together.

What the next start needs stands in the data folder: the ports (links in old mail keep working), the running processes (so that leftovers of
a killed machine can be ended), the settings handed to the processes (so that other commands find them), and how far virtual time got.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import httpx2
from pydantic import SecretStr

from distmark.clock import Clock, wall_now
from distmark.errors import DistmarkError, Refused, SettingsError
from distmark.machine.parts import FIRST_PAUSE_SECONDS, PROBE_SECONDS, Child, Part, PartStatus, answers, greets
from distmark.machine.prefect import REGISTER, add_poll_index, api_address, call_prefect, has_tables, keep_prefect_auth, server_environment
from distmark.machine.private import ensure_folder
from distmark.machine.processes import Mark, choose_port, end_groups, is_the_same, mark_of, start_process
from distmark.machine.state import CLOCK_FILE, LOCK_FILE, MAILBOX_FILE, STATE_FILE, as_environment, read_state, resume_time, write_json
from distmark.settings import ROOT, Mode, Settings

START_SECONDS = 120.0
STOP_SECONDS = {"worker": 12.0, "web": 5.0, "catcher": 3.0, "server": 8.0}
LONGEST_PAUSE_SECONDS = 30.0
LOOPBACK = "127.0.0.1"
TURN_SECONDS = 0.5
PROBE_EVERY_SECONDS = 3.0
HUNG_SECONDS = 25.0  # a process that answered before and has not for so long is ended and started again
SILENT_SECONDS = 40.0  # a worker says that it lives every ten seconds or so
STEADY_SECONDS = 60.0  # a process that lived this long starts again at once when it dies


class MachineStopped(DistmarkError):
    """A person or a signal asked the machine to stop while it was starting or at work."""


@dataclass
class Machine:
    """The processes of one installation on this machine. `speed` above 1 runs virtual time; only a demo may."""

    settings: Settings
    speed: float = 1.0
    afresh: bool = False  # forget everything in the data folder first
    report: Callable[[PartStatus], None] = lambda status: None
    children: dict[str, Child] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    stop_asked: threading.Event = field(default_factory=threading.Event)
    signal_received: int | None = None
    _lock_file: IO[str] | None = None
    _watcher: threading.Thread | None = None
    _failures: frozenset[str] = frozenset()
    _state_is_written: bool = True
    _wanted: dict[str, int] = field(default_factory=dict)
    _launched_at: dict[str, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data_dir = self.settings.data_dir.absolute()
        self.is_demo = self.settings.mode is not Mode.production
        self.report = _never_raising(self.report)

    # --- what happens, in order -------------------------------------------------------------------------------------------------------

    def start(self, meanwhile: Callable[[Settings], Sequence[int]] = lambda settings: ()) -> None:
        """Start every process and wait until each answers.

        `meanwhile` is called while the Prefect server starts, with the settings of every process; it returns the journey versions to
        register once the server answers.

        Raises Refused when this data folder's machine runs already, MachineStopped when it was told to stop.
        """
        ensure_folder(self.data_dir)
        self._take_lock()
        try:
            self._check_mode()
            self._end_leftovers()
            if self.afresh:
                self._empty()
            self._choose()
            self._launch("server")
            with self._reported("data"):
                version_ids = meanwhile(self.settings)
            self._begin_time()
            for name in ("catcher", "web") if self.is_demo else ("web",):
                self._launch(name)
            self._wait_for(*self.children)
            add_poll_index(self.settings)
            with self._reported("registration"):
                self.run_once("registration", [sys.executable, "-c", REGISTER, *map(str, version_ids)])
            self._launch("worker")
            self._wait_for("worker")
        except BaseException:
            self.stop()
            raise
        self._begin_watching()

    def stop(self) -> None:
        """Every process is gone, the last started first. Safe to repeat."""
        self.stop_asked.set()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(10)
        for name in reversed(list(self.children)):
            child = self.children[name]
            self.report(PartStatus(name, "stopping"))
            end_groups([child.process.pid], STOP_SECONDS[name], _is_over(child.process))
            del self.children[name]
            self.report(PartStatus(name, "stopped"))
        if self._lock_file is not None:
            if self.ports:  # a start that was refused leaves the folder as it found it
                with suppress(OSError):  # on a full disk the processes have ended all the same
                    self._write_state()
            self._lock_file.close()
            self._lock_file = None

    @contextmanager
    def obeying_signals(self) -> Iterator[None]:
        """Within, Ctrl-C and SIGTERM ask the machine to stop; a second one kills at once."""

        def on_signal(signum: int, frame: object) -> None:
            if self.stop_asked.is_set():
                for child in list(self.children.values()):
                    with suppress(ProcessLookupError):
                        os.killpg(child.process.pid, signal.SIGKILL)
            self.signal_received = signum
            self.stop_asked.set()

        before = {signum: signal.signal(signum, on_signal) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def wait(self) -> None:
        """Wait until the machine is asked to stop."""
        while not self.stop_asked.wait(TURN_SECONDS):
            if self._watcher is not None and not self._watcher.is_alive():
                self._begin_watching()

    def check_stop(self) -> None:
        """Raise MachineStopped when a stop was asked for."""
        if self.stop_asked.is_set():
            raise MachineStopped("The machine was told to stop.")

    @property
    def clock(self) -> Clock:
        return self.settings.clock()

    # --- one at a time ----------------------------------------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        file = (self.data_dir / LOCK_FILE).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            other = read_state(self.data_dir).get("pid", "?")
            raise Refused(
                f"The folder {self.data_dir} is in use by a running distmark (process {other}); stop that one with Ctrl-C, "
                "or give DISTMARK_DATA_DIR another folder."
            ) from None
        self._lock_file = file

    def _end_leftovers(self) -> None:
        """End the processes of a machine that was killed: only those that carry exactly the marks it wrote down."""
        marks = [Mark(**each) for each in read_state(self.data_dir).get("processes", {}).values()]
        ours = [mark.pid for mark in marks if is_the_same(mark)]
        if ours:
            self.report(PartStatus("leftovers", "stopping", ", ".join(map(str, ours))))
            end_groups(ours, 10.0)
            self.report(PartStatus("leftovers", "stopped"))

    def _empty(self) -> None:
        for path in self.data_dir.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK_FILE:
                path.unlink()

    # --- ports, settings, time --------------------------------------------------------------------------------------------------------

    def _check_mode(self) -> None:
        """Refuse a folder of another mode before anything in it is touched: a demo must not run on data of production."""
        state = read_state(self.data_dir)
        if state and state.get("mode", self.settings.mode) != self.settings.mode:
            raise SettingsError(
                f"The folder {self.data_dir} holds data of mode {state['mode']}, not {self.settings.mode}; "
                "give DISTMARK_DATA_DIR another folder."
            )

    def _choose(self) -> None:
        state = read_state(self.data_dir)
        wanted = {"web": self.settings.port, "server": urlsplit(self.settings.prefect_api_url).port or 4200}
        if self.is_demo:
            wanted["catcher"] = self.settings.smtp_port
        for name, port in wanted.items():
            before = state.get("ports", {}).get(name, {})
            first = [before["taken"]] if before.get("wanted") == port else []
            self.ports[name] = choose_port(self._host_of(name), [*first, port], self.ports.values())
        self._wanted = wanted
        self.settings = self._settings_for_all()
        self._write_state()

    def _settings_for_all(self) -> Settings:
        changes: dict[str, Any] = {
            "data_dir": self.data_dir,
            "port": self.ports["web"],
            "prefect_api_url": api_address(self.settings.prefect_host, self.ports["server"]),
            "prefect_auth": SecretStr(keep_prefect_auth(self.settings)),
        }
        if self.is_demo:
            changes |= {"smtp_host": LOOPBACK, "smtp_port": self.ports["catcher"], "smtp_tls": "off", "smtp_username": ""}
        if self.speed != 1.0:
            changes |= {"clock_speed": self.speed, "clock_origin": resume_time(self.data_dir), "clock_wall_origin": wall_now()}
        return self.settings.model_copy(update=changes)

    def _begin_time(self) -> None:
        """Let virtual time begin now: while the data is made it stands still."""
        if self.speed != 1.0:
            self.settings = self.settings.model_copy(update={"clock_wall_origin": wall_now()})

    def _host_of(self, name: str) -> str:
        """Return where a process listens. `host` opens the pages alone: Prefect commands all runs, and a catcher takes anybody's mail."""
        return {"web": self.settings.host, "server": self.settings.prefect_host}.get(name, LOOPBACK)

    def environment(self) -> dict[str, str]:
        """Return the environment of every process: all our settings spelled out, so that no file nearby says otherwise."""
        inherited = {name: value for name, value in os.environ.items() if not (self.is_demo and name.startswith("PREFECT_"))}
        return {**inherited, **server_environment(self.settings), **as_environment(self.settings), "PYTHONUNBUFFERED": "1"}

    # --- processes --------------------------------------------------------------------------------------------------------------------

    def _part(self, name: str) -> Part:
        host, python = self._host_of(name), sys.executable
        if name == "server":
            port, url = self.ports["server"], self.settings.prefect_api_url
            command: tuple[str, ...] = (python, "-m", "flows.server", "--host", host, "--port", str(port))
            return Part(
                name,
                command,
                lambda: answers(f"{url}/health") and has_tables(self.settings),
                self.settings.dashboard_url,
                still_answers=lambda: answers(f"{url}/health", PROBE_SECONDS),
            )
        if name == "catcher":
            port = self.ports["catcher"]
            store = str(self.data_dir / MAILBOX_FILE)
            command = (python, "-m", "distmark.mailbox.catcher", "--host", host, "--port", str(port), "--store", store)
            return Part(name, command, lambda: greets(host, port), f"{host}:{port}")
        if name == "web":
            url = api_address(host, self.ports["web"]).removesuffix("/api")
            return Part(
                name,
                (python, "-m", "distmark.web.serve"),
                lambda: answers(f"{url}/healthz"),
                url,
                still_answers=lambda: answers(f"{url}/healthz", PROBE_SECONDS),
            )
        return Part(name, (python, "-m", "flows.serve"), self._worker_is_heard, still_answers=self._worker_is_not_silent)

    def _worker_is_heard(self) -> bool:
        started = self._launched_at.get("worker", wall_now())
        return any(beat >= started for beat in self._beats_of_worker() or [])

    def _worker_is_not_silent(self) -> bool:
        """Return whether the worker was heard lately; True while Prefect, which hears it, cannot say."""
        beats = self._beats_of_worker()
        return beats is None or any(wall_now() - beat <= timedelta(seconds=SILENT_SECONDS) for beat in beats)

    def _beats_of_worker(self) -> list[datetime] | None:
        with suppress(httpx2.HTTPError):
            answer = call_prefect(self.settings, "POST", f"/work_pools/{self.settings.work_pool}/workers/filter", {})
            if answer.status_code == 200:
                return [datetime.fromisoformat(beat) for worker in answer.json() if (beat := worker.get("last_heartbeat_time"))]
        return None

    def _launch(self, name: str) -> None:
        self.check_stop()
        part = self._part(name)
        self.report(PartStatus(name, "starting", part.address))
        self.children[name] = self._spawn(part)
        self._write_state()

    def _spawn(self, part: Part) -> Child:
        self._launched_at[part.name] = wall_now()
        process = start_process(part.command, self.environment(), self.log_of(part.name), ROOT)
        return Child(part, process, time.monotonic())

    def log_of(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    def _wait_for(self, *names: str) -> None:
        """Return when all of them answer. One that dies meanwhile is an error: its log is named and its last words are shown."""
        waiting = list(names)
        until = time.monotonic() + START_SECONDS
        while waiting:
            self.check_stop()
            for child in self.children.values():
                self._refuse_dead(child)
            for name in [name for name in waiting if self.children[name].part.answers()]:
                waiting.remove(name)
                child = self.children[name]
                child.ready = True
                self.report(PartStatus(name, "ready", _after(child.part.address, child.started)))
            if waiting and time.monotonic() > until:
                raise SettingsError(f"The {waiting[0]} did not answer within {START_SECONDS:.0f} seconds; see {self.log_of(waiting[0])}.")
            time.sleep(0.1 if waiting else 0)

    @contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        """Report the beginning and the end of work that is no process of its own."""
        started = time.monotonic()
        self.report(PartStatus(name, "starting"))
        yield
        self.report(PartStatus(name, "ready", _after("", started)))

    def _refuse_dead(self, child: Child) -> None:
        code, name = child.process.poll(), child.part.name
        if code is not None:
            raise SettingsError(f"The {name} {_how(code)} as it started; {self.log_of(name)} ends with: {self._last_words(name)}")

    def _last_words(self, name: str) -> str:
        lines = [line for line in self.log_of(name).read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-3:])

    def run_once(self, name: str, command: list[str]) -> None:
        """Run a short command of ours with everybody's settings; raises SettingsError with its last words when it fails."""
        process = start_process(command, self.environment(), self.log_of(name), ROOT)
        while process.poll() is None:
            if self.stop_asked.wait(0.05):
                end_groups([process.pid], 3.0, _is_over(process))
                self.check_stop()
        if process.returncode:
            raise SettingsError(f"The {name} ended with code {process.returncode}; {self.log_of(name)} ends with: {self._last_words(name)}")

    # --- watching ---------------------------------------------------------------------------------------------------------------------

    def _begin_watching(self) -> None:
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._watcher.start()
        threading.Thread(target=self._probe, args=(self._watcher,), name="prober", daemon=True).start()

    def _watch(self) -> None:
        """Look after everything until the machine stops. What fails in a turn (a full disk, no memory) is reported and tried again."""
        while not self.stop_asked.wait(TURN_SECONDS):
            care: list[Callable[[], None]] = [partial(self._look_after, name, child) for name, child in list(self.children.items())]
            duties = [self._keep_time, *care, self._rewrite_state]
            self._report_failures(frozenset(fault for duty in duties if (fault := _fault_of(duty))))

    def _report_failures(self, failures: frozenset[str]) -> None:
        if failures != self._failures:
            self.report(PartStatus("supervision", "failing" if failures else "ready", "; ".join(sorted(failures))))
        self._failures = failures

    def _look_after(self, name: str, child: Child) -> None:
        now = time.monotonic()
        if child.due is None and (code := child.process.poll()) is not None:
            lived_long = now - child.started > STEADY_SECONDS
            child.pause = min((FIRST_PAUSE_SECONDS if lived_long else child.pause) * 2, LONGEST_PAUSE_SECONDS)
            child.due = now + child.pause
            self.report(PartStatus(name, "ended", f"{_how(code)}; starts again in {child.pause:.0f} s"))
        elif child.due is not None and now >= child.due:
            self._start_again(name, child)
        elif child.is_hung(now, HUNG_SECONDS if child.ready else START_SECONDS):
            self.report(PartStatus(name, "hung", f"no answer for {now - (child.unanswered_since or now):.0f} s; it is ended"))
            child.note_probe(True, now)
            end_groups([child.process.pid], STOP_SECONDS[name] / 2, _is_over(child.process))

    def _start_again(self, name: str, child: Child) -> None:
        child.due = time.monotonic() + child.pause  # for the next try, if this one fails
        fresh = self._spawn(child.part)
        fresh.pause, fresh.restarts = child.pause, child.restarts + 1
        self.children[name] = fresh
        with suppress(OSError):  # on a full disk it is written in a later turn
            self._write_state()
        self.report(PartStatus(name, "restarting", child.part.address))

    def _rewrite_state(self) -> None:
        if not self._state_is_written:
            self._write_state()

    def _probe(self, watcher: threading.Thread) -> None:
        """Ask each process whether it answers. In a thread of its own: one that hangs must not keep the watcher from the others.

        A probe that fails for a reason of our own, such as too many open files, says nothing about the process.
        """
        while watcher.is_alive() and not self.stop_asked.wait(PROBE_EVERY_SECONDS):
            for child in list(self.children.values()):
                if child.due is None and child.process.poll() is None:
                    _fault_of(partial(self._probe_child, child))

    def _probe_child(self, child: Child) -> None:
        part = child.part
        answered = (part.still_answers or part.answers)() if child.ready else part.answers()
        child.note_probe(answered, time.monotonic())
        if answered and not child.ready:
            child.ready = True
            self.report(PartStatus(part.name, "ready", _after(part.address, child.started)))

    def _keep_time(self) -> None:
        if self.speed != 1.0:
            write_json(self.data_dir / CLOCK_FILE, {"virtual": self.clock.now().isoformat()})

    def _write_state(self) -> None:
        self._state_is_written = False
        marks = {name: mark for name, child in self.children.items() if (mark := mark_of(child.process.pid)) is not None}
        write_json(
            self.data_dir / STATE_FILE,
            {
                "pid": os.getpid(),
                "mode": self.settings.mode.value,
                "ports": {name: {"wanted": self._wanted[name], "taken": port} for name, port in self.ports.items()},
                "processes": {name: {"pid": mark.pid, "born": mark.born, "command": mark.command} for name, mark in marks.items()},
                "environment": as_environment(self.settings, secrets=False),
            },
        )
        self._state_is_written = True


def _never_raising(report: Callable[[PartStatus], None]) -> Callable[[PartStatus], None]:
    """Return `report` for use while watching: a terminal that is gone or a full disk must not end the supervision."""

    def report_if_possible(status: PartStatus) -> None:
        with suppress(OSError, ValueError):
            report(status)

    return report_if_possible


def _fault_of(duty: Callable[[], None]) -> str:
    """Do the duty, and return its failure in words, "" without one."""
    try:
        duty()
    except Exception as error:  # whatever it is, the other processes are to be looked after
        return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
    return ""


def _is_over(process: "subprocess.Popen[bytes]") -> Callable[[int], bool]:
    """Return whether our own child has ended; asking also takes it off the system's list."""
    return lambda pid: process.poll() is not None


def _after(address: str, started: float) -> str:
    """Return an address with the seconds that have passed since `started`, on the monotonic clock."""
    return f"{address} after {time.monotonic() - started:.0f} s".strip()


def _how(code: int) -> str:
    return f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
