"""Prefect's server as the machine starts it: it obeys nobody without the sign-in, and no foreign web page."""

import stat
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from prefect.client.orchestration import get_client
from pydantic import SecretStr

from distmark.commands.doctor import PREFECT_PROBE, State, _prefect_writes, _server
from distmark.console import addresses
from distmark.machine.prefect import AUTH_FILE, allowed_origins, api_address, call_prefect, prefect_auth, server_environment
from distmark.machine.supervisor import Machine
from distmark.settings import Mode, Settings
from flows.connection import connected
from tests.prefect_server import copy_template
from tests.small_machine import SmallMachine, settings_of

EVIL = "https://evil.example"


class ServerAlone(Machine):
    """A machine of which only Prefect's server is started."""

    def start_server(self) -> None:
        """The server answers."""
        self._take_lock()
        self._choose()
        copy_template(self.data_dir / "prefect")
        self._launch("server")
        self._wait_for("server")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAlone]:
    folder = tmp_path_factory.mktemp("machine")
    made = ServerAlone(Settings(_env_file=None, mode=Mode.production, data_dir=folder, prefect_api_url="http://127.0.0.1:14300/api"))
    try:
        made.start_server()
        yield made
    finally:
        made.stop()


def test_prefect_obeys_nobody_without_the_sign_in(machine: ServerAlone) -> None:
    url = machine.settings.prefect_api_url

    assert httpx2.post(f"{url}/flow_runs/filter", json={}, trust_env=False).status_code == 401
    assert httpx2.get(f"{url}/admin/settings", trust_env=False).status_code == 401
    assert call_prefect(machine.settings, "POST", "/flow_runs/filter", {}).status_code == 200


def test_no_foreign_page_may_call_prefect(machine: ServerAlone) -> None:
    pools = f"{machine.settings.prefect_api_url}/work_pools/journeys"
    asked = {"access-control-request-method": "PATCH", "access-control-request-headers": "authorization,content-type"}

    foreign = httpx2.request("OPTIONS", pools, headers={"origin": EVIL, **asked}, trust_env=False)
    own = httpx2.request("OPTIONS", pools, headers={"origin": machine.settings.dashboard_url, **asked}, trust_env=False)

    assert "access-control-allow-origin" not in foreign.headers
    assert foreign.status_code == 400
    assert own.headers["access-control-allow-origin"] == machine.settings.dashboard_url
    assert call_prefect(machine.settings, "GET", "/health").headers.get("access-control-allow-origin") is None


def test_the_client_of_the_flows_signs_in(machine: ServerAlone, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("flows.connection.get_settings", lambda: machine.settings)

    with connected(), get_client(sync_client=True) as client:
        assert client.read_work_pools() == []


def test_the_doctor_signs_in_writes_and_leaves_nothing_behind(machine: ServerAlone) -> None:
    found = [_server(machine.settings), _prefect_writes(machine.settings), _prefect_writes(machine.settings)]

    assert {each.state for each in found} == {State.good}
    assert call_prefect(machine.settings, "POST", "/variables/filter", {}).json() == []


def test_the_doctor_goes_on_after_a_look_that_was_interrupted(machine: ServerAlone) -> None:
    call_prefect(machine.settings, "POST", "/variables/", {"name": PREFECT_PROBE, "value": "probe"})

    assert _prefect_writes(machine.settings).state is State.good


def test_the_doctor_names_a_sign_in_that_prefect_refuses(machine: ServerAlone) -> None:
    found = _server(machine.settings.model_copy(update={"prefect_auth": SecretStr("admin:wrong")}))

    assert (found.state, "DISTMARK_PREFECT_AUTH" in found.mend) == (State.bad, True)


def test_the_sign_in_is_kept_for_its_owner_alone_and_shown_at_the_start(machine: ServerAlone) -> None:
    file = machine.data_dir / AUTH_FILE

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert prefect_auth(machine.settings) == file.read_text()
    assert file.read_text() in "".join(str(cell) for column in addresses(machine.settings).columns for cell in column.cells)


def test_the_sign_in_stays_the_same_at_the_next_start(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        machine = SmallMachine(settings_of(tmp_path / "data"))
        machine.start()
        found.append(server_environment(machine.settings)["PREFECT_SERVER_API_AUTH_STRING"])
        machine.stop()

    assert found[0] == found[1]
    assert len(found[0]) > 20


@pytest.mark.parametrize("name", ["DISTMARK_PREFECT_AUTH", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"])
def test_a_sign_in_that_the_operator_chose_is_used_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "ops:chosen-by-me")
    machine = SmallMachine(settings_of(tmp_path / "data").model_copy(update={"mode": Mode.production}))
    machine.start()

    told = machine.environment()
    machine.stop()

    assert told["PREFECT_SERVER_API_AUTH_STRING"] == told["PREFECT_API_AUTH_STRING"] == told["DISTMARK_PREFECT_AUTH"] == "ops:chosen-by-me"
    assert not (tmp_path / "data" / AUTH_FILE).exists()
    assert "chosen-by-me" not in "".join(str(cell) for column in addresses(machine.settings).columns for cell in column.cells)


def test_a_web_server_open_to_all_leaves_prefect_and_the_catcher_on_loopback(tmp_path: Path) -> None:
    machine = SmallMachine(settings_of(tmp_path / "data", host="0.0.0.0"))
    machine.start()
    commands = {name: Machine._part(machine, name).command for name in ("server", "catcher")}
    machine.stop()

    assert all(command[command.index("--host") + 1] == "127.0.0.1" for command in commands.values())
    assert machine.settings.prefect_api_url.startswith("http://127.0.0.1:")


def test_prefect_that_listens_everywhere_is_called_on_loopback() -> None:
    assert api_address("0.0.0.0", 4200) == "http://127.0.0.1:4200/api"
    assert api_address("::", 4200) == "http://[::1]:4200/api"
    assert api_address("10.0.0.5", 4200) == "http://10.0.0.5:4200/api"


def test_a_dashboard_behind_a_proxy_calls_its_own_address(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, prefect_ui_url="https://prefect.mirai.example/")

    assert server_environment(settings)["PREFECT_UI_API_URL"] == "https://prefect.mirai.example/api"
    assert "https://prefect.mirai.example" in allowed_origins(settings)


def test_origins_that_the_operator_chose_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "https://a.example,https://b.example")

    assert allowed_origins(settings_of(tmp_path).model_copy(update={"mode": Mode.production})) == ["https://a.example", "https://b.example"]


def test_what_a_machine_makes_is_private(tmp_path: Path) -> None:
    machine = SmallMachine(settings_of(tmp_path / "data"))
    machine.start(prepare)
    made = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in made}
    machine.stop()

    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077 and not name.endswith("machine.lock")} == {}
    assert modes["data"] == 0o700
    assert modes["data/distmark.sqlite3"] == 0o600


def prepare(settings: Settings) -> tuple[int, ...]:
    from distmark.machine.database import prepare_database

    return prepare_database(settings)


def test_a_folder_whose_mode_the_operator_chose_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o750)
    (tmp_path / "data").chmod(0o750)

    machine = SmallMachine(settings_of(tmp_path / "data"))
    machine.start()
    machine.stop()

    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o750
