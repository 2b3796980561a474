"""The machine starts its processes together, watches them and stops them; a killed one leaves nothing behind. Here they are scripts."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from distmark.errors import Refused, SettingsError
from distmark.machine import state, supervisor
from distmark.machine.parts import Part, PartStatus
from distmark.machine.processes import Mark, choose_port, end_groups, is_the_same, mark_of
from distmark.machine.state import CLOCK_FILE, STATE_FILE, as_environment, read_state, resume_time
from distmark.machine.supervisor import Machine
from distmark.settings import Mode, Settings
from tests.small_machine import SLEEPER, STUBBORN, SmallMachine, settings_of
from tests.waiting import wait_until


@pytest.fixture
def statuses() -> list[PartStatus]:
    return []


@pytest.fixture
def small(tmp_path: Path, statuses: list[PartStatus]) -> Iterator[SmallMachine]:
    made = SmallMachine(settings_of(tmp_path / "data"), report=statuses.append)
    yield made
    made.stop()


def pids(machine: Machine) -> dict[str, int]:
    return {name: child.process.pid for name, child in machine.children.items()}


def test_every_process_starts_in_order_and_stops_the_other_way_round(small: SmallMachine, statuses: list[PartStatus]) -> None:
    small.start()
    running = pids(small)
    small.stop()

    assert [each.part for each in statuses if each.state == "starting"] == ["server", "data", "catcher", "web", "registration", "worker"]
    assert [each.part for each in statuses if each.state == "stopped"] == ["worker", "web", "catcher", "server"]
    assert all(mark_of(pid) is None for pid in running.values())


def test_an_installation_without_demo_catches_no_mail(tmp_path: Path, statuses: list[PartStatus]) -> None:
    machine = SmallMachine(settings_of(tmp_path / "data").model_copy(update={"mode": Mode.production}), report=statuses.append)

    machine.start()
    machine.stop()

    assert [each.part for each in statuses if each.state == "starting"] == ["server", "data", "web", "registration", "worker"]


def test_a_process_that_is_killed_is_started_again_and_it_is_said(small: SmallMachine, statuses: list[PartStatus]) -> None:
    """Once it is said to be starting again, what other commands read names the new process: it is written down first."""
    small.start()
    before = pids(small)

    os.kill(before["web"], signal.SIGKILL)
    wait_until(lambda: any(each.part == "web" and each.state == "restarting" for each in statuses))

    after = pids(small)
    assert {name for name in before if before[name] != after[name]} == {"web"}
    assert [each.state for each in statuses if each.part == "web"][:4] == ["starting", "ready", "ended", "restarting"]  # once, not twice
    assert any(each.part == "web" and each.state == "ended" and "SIGKILL" in each.detail for each in statuses)
    assert read_state(small.data_dir)["processes"]["web"]["pid"] == after["web"]


def test_a_process_that_does_not_listen_is_killed(small: SmallMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    small.script = STUBBORN
    monkeypatch.setattr(supervisor, "STOP_SECONDS", dict.fromkeys(("server", "catcher", "web", "worker"), 0.2))
    small.start()
    running = pids(small)

    small.stop()

    assert all(mark_of(pid) is None for pid in running.values())


def test_a_second_machine_on_the_same_folder_is_refused(small: SmallMachine, tmp_path: Path) -> None:
    small.start()

    with pytest.raises(Refused, match="in use by a running distmark"):
        SmallMachine(settings_of(tmp_path / "data")).start()


def test_a_folder_of_another_mode_is_refused(small: SmallMachine, tmp_path: Path) -> None:
    small.start()
    small.stop()

    with pytest.raises(SettingsError, match="holds data of mode demo"):
        SmallMachine(settings_of(tmp_path / "data").model_copy(update={"mode": Mode.production})).start()


def test_a_process_that_ends_as_it_starts_is_an_error_with_its_last_words(tmp_path: Path, statuses: list[PartStatus]) -> None:
    class Broken(SmallMachine):
        script = "import sys; print('no such table', file=sys.stderr); sys.exit(3)"

        def _part(self, name: str) -> Part:
            return Part(name, (sys.executable, "-c", self.script), lambda: False)

    with pytest.raises(SettingsError, match=r"ended with code 3 as it started; .*\.log ends with: no such table"):
        Broken(settings_of(tmp_path / "data"), report=statuses.append).start()


def test_a_busy_port_is_no_error_and_the_one_taken_is_kept(tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        wanted = busy.getsockname()[1]
        first = SmallMachine(settings_of(tmp_path / "data", port=wanted))
        first.start()
        taken = first.ports["web"]
        first.stop()

    second = SmallMachine(settings_of(tmp_path / "data", port=wanted))
    second.start()
    second.stop()

    assert taken != wanted
    assert second.ports["web"] == taken  # links in mail that was sent by the first keep working
    assert len(set(second.ports.values())) == 3


def test_another_port_that_somebody_asks_for_wins_over_the_one_kept(tmp_path: Path) -> None:
    for port in (18_180, 18_280):
        machine = SmallMachine(settings_of(tmp_path / "data", port=port))
        machine.start()
        machine.stop()

    assert machine.ports["web"] >= 18_280


def test_ports_are_taken_in_the_order_wanted() -> None:
    free = choose_port("127.0.0.1", [18_300])

    assert choose_port("127.0.0.1", [free, 18_400], taken=[free]) >= 18_400


def test_every_process_is_told_the_same_settings(small: SmallMachine) -> None:
    small.speed = 1440.0
    small.start()

    told = small.environment()

    assert told["DISTMARK_MODE"] == "demo"
    assert told["DISTMARK_PREFECT_API_URL"] == told["PREFECT_API_URL"] == told["PREFECT_UI_API_URL"]
    assert told["DISTMARK_SMTP_PORT"] == str(small.ports["catcher"])
    assert float(told["DISTMARK_CLOCK_SPEED"]) == 1440.0
    assert told["DO_NOT_TRACK"] == "1"
    assert told["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_settings_survive_the_way_through_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings_of(tmp_path, smtp_password="secret", smtp_tls="off")
    for name, value in as_environment(before).items():
        monkeypatch.setenv(name, value)

    assert Settings(_env_file=None) == before


def test_no_secret_stands_in_the_file_that_other_commands_read(small: SmallMachine) -> None:
    small.settings = small.settings.model_copy(update={"prefect_database_url": "postgresql+asyncpg://me:hidden@db/prefect"})
    small.start()

    assert "hidden" not in (small.data_dir / STATE_FILE).read_text()


def run_and_kill(folder: Path) -> dict[str, Any]:
    """Start a machine in a process of its own, kill -9 that process, and return what it had written down."""
    script = f"""
    import sys; sys.path.insert(0, {str(Path.cwd())!r})
    from pathlib import Path
    from tests.small_machine import SmallMachine, settings_of
    SmallMachine.script = {STUBBORN!r}
    machine = SmallMachine(settings_of(Path({str(folder)!r}), port=18500))
    machine.start()
    print("started", flush=True)
    machine.wait()
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    state = read_state(folder)
    process.kill()
    process.wait()
    process.stdout.close()
    return state


def test_processes_left_by_a_killed_machine_are_ended_and_the_next_one_goes_on(
    tmp_path: Path, statuses: list[PartStatus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "end_groups", lambda pids, _grace, *gone: end_groups(pids, 0.5, *gone))
    left = [Mark(**each) for each in run_and_kill(tmp_path / "data")["processes"].values()]
    assert all(is_the_same(mark) for mark in left)  # they ignore SIGTERM, so the death of their parent did not end them

    machine = SmallMachine(settings_of(tmp_path / "data", port=18_500), report=statuses.append)
    machine.start()
    running = pids(machine)
    machine.stop()

    assert not any(is_the_same(mark) for mark in left)
    assert len(running) == 4
    assert any(each.part == "leftovers" for each in statuses)


def test_a_stranger_with_the_number_of_a_process_of_ours_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
    try:
        wait_until(lambda: mark_of(stranger.pid) is not None)
        mark = {"pid": stranger.pid, "born": "1", "command": "python -m distmark.web.serve"}
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / STATE_FILE).write_text(json.dumps({"mode": "demo", "processes": {"web": mark}}))

        machine = SmallMachine(settings_of(tmp_path / "data", port=18_600))
        machine.start()
        machine.stop()

        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells a process that its parent is gone.")
def test_processes_end_with_their_machine(tmp_path: Path) -> None:
    script = f"""
    import sys; sys.path.insert(0, {str(Path.cwd())!r})
    from pathlib import Path
    from tests.small_machine import SmallMachine, settings_of
    machine = SmallMachine(settings_of(Path({str(tmp_path / "data")!r}), port=18700))
    machine.start()
    print("started", flush=True)
    machine.wait()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        left = [Mark(**each) for each in read_state(tmp_path / "data")["processes"].values()]
        process.kill()

    wait_until(lambda: not any(is_the_same(mark) for mark in left))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_machine(small: SmallMachine, signum: int) -> None:
    small.start()
    running = pids(small)

    with small.obeying_signals():
        os.kill(os.getpid(), signum)
        small.wait()
    small.stop()

    assert small.signal_received == signum
    assert all(mark_of(pid) is None for pid in running.values())


def test_starting_afresh_forgets_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "data" / "logs").mkdir(parents=True)
    (tmp_path / "data" / "distmark.sqlite3").write_text("old")

    machine = SmallMachine(settings_of(tmp_path / "data", port=18_800), afresh=True)
    machine.start()
    machine.stop()

    assert not (tmp_path / "data" / "distmark.sqlite3").exists()


def test_virtual_time_begins_on_a_weekday_morning_in_tokyo(tmp_path: Path) -> None:
    begins = resume_time(tmp_path)

    local = begins.astimezone(state.TOKYO)
    assert (local.hour, local.minute, local.weekday() < 5) == (10, 0, True)
    assert timedelta() < begins - datetime.now(UTC) < timedelta(days=4)


def test_virtual_time_goes_on_where_it_was(tmp_path: Path) -> None:
    first = SmallMachine(settings_of(tmp_path / "data", port=18_900), speed=86_400.0)
    first.start()
    wait_until((first.data_dir / CLOCK_FILE).exists)
    first.stop()
    stopped_at = resume_time(first.data_dir)

    second = SmallMachine(settings_of(tmp_path / "data", port=18_900), speed=86_400.0)
    second.start()
    begun_at = second.settings.clock_origin
    second.stop()

    assert begun_at == stopped_at


def test_demo_that_is_refused_in_a_folder_of_production_leaves_it_as_it_was(tmp_path: Path) -> None:
    production = small_machine_of(tmp_path, Mode.production)
    production.start()
    production.stop()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    for _try in range(2):  # the second one found "mode: demo" written by the first, and ran
        with pytest.raises(SettingsError, match="holds data of mode production"):
            small_machine_of(tmp_path, Mode.demo, afresh=True).start()

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def small_machine_of(folder: Path, mode: Mode, *, afresh: bool = False) -> SmallMachine:
    return SmallMachine(settings_of(folder, port=18700).model_copy(update={"mode": mode}), afresh=afresh)
