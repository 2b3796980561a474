"""Prefect's server on this machine: its settings, its database, and what this project adds to them."""

import base64
import os
import secrets
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from sqlalchemy import make_url

from distmark.errors import Refused
from distmark.machine.parts import answers
from distmark.machine.private import keep_secret, read_secret
from distmark.settings import Mode, Settings

# PREFECT.md of the design names each; the dashboard, the events and the retention stay on.
PREFECT_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_API_DEFAULT_LIMIT": "1000",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P1D",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",  # by which a worker that hangs is noticed
    "PREFECT_WORKER_PREFETCH_SECONDS": "0",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # a server that is away is waited for, never replaced by one of its own
}
AUTH_FILE = "prefect.auth"
AUTH_USER = "admin"
# Prefect reads either name; the default of both is every web page there is.
ORIGINS_SETTINGS = ("PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS", "PREFECT_SERVER_CORS_ALLOWED_ORIGINS")
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a server listens, and how it is reached from here
# Without statistics, which Prefect never gathers, SQLite would read every sleeping run at each poll.
POLL_INDEX = "CREATE INDEX IF NOT EXISTS ix_flow_run__distmark_poll ON flow_run (state_type, next_scheduled_start_time)"
# In a process of its own: importing Prefect here would cost the watcher 100 MB for as long as it lives.
REGISTER = """
import sys
from deployments.register import register_system_flows, register_version
from distmark.db import get_database
register_system_flows()
for version_id in sys.argv[1:]:
    register_version(get_database(), int(version_id))
"""


def prefect_database(settings: Settings) -> str:
    """Return the address of Prefect's own database, with the driver that Prefect needs."""
    home = settings.data_dir.absolute() / "prefect"
    return settings.prefect_database_url.replace("+psycopg", "+asyncpg", 1) or f"sqlite+aiosqlite:///{home / 'prefect.db'}"


def server_environment(settings: Settings) -> dict[str, str]:
    """Return Prefect's settings for every process of this machine, server and clients alike."""
    auth = prefect_auth(settings)
    return {
        **PREFECT_SETTINGS,
        **dict.fromkeys(ORIGINS_SETTINGS, ",".join(allowed_origins(settings))),
        **({"PREFECT_SERVER_API_AUTH_STRING": auth, "PREFECT_API_AUTH_STRING": auth} if auth else {}),
        "PREFECT_HOME": str(settings.data_dir.absolute() / "prefect"),
        "PREFECT_API_URL": settings.prefect_api_url,
        "PREFECT_UI_API_URL": f"{settings.dashboard_url}/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": prefect_database(settings),
    }


def prefect_auth(settings: Settings) -> str:
    """Return `user:password` of Prefect's API: the configured one, else the one that was made here; "" when Prefect asks for none."""
    if chosen := settings.prefect_auth.get_secret_value():
        return chosen
    try:
        return read_secret(settings.data_dir / AUTH_FILE)
    except PermissionError:  # another user's installation: Prefect answers 401, and whoever asked says so
        return ""


def keep_prefect_auth(settings: Settings) -> str:
    """Return `user:password` of the Prefect server that is started here: the configured one, else one made once and kept in `data_dir`."""
    known = settings.prefect_auth.get_secret_value()
    return known or keep_secret(settings.data_dir / AUTH_FILE, lambda: f"{AUTH_USER}:{secrets.token_urlsafe(18)}")


def allowed_origins(settings: Settings) -> list[str]:
    """Return the web origins whose pages may call Prefect's API from a browser: the dashboard's own ones."""
    if settings.mode is Mode.production and (given := next((os.environ[name] for name in ORIGINS_SETTINGS if os.environ.get(name)), "")):
        return given.split(",")
    dashboard, api = urlsplit(settings.dashboard_url), urlsplit(settings.prefect_api_url)
    local = [f"http://{host}:{api.port}" for host in ("127.0.0.1", "localhost") if api.port]
    return list(dict.fromkeys([f"{dashboard.scheme}://{dashboard.netloc}", *local]))


def api_address(host: str, port: int) -> str:
    """Return the address of Prefect's API, as the processes of this machine reach a server that listens on `host`."""
    reached = EVERY_ADDRESS.get(host, host)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}/api"


def call_prefect(settings: Settings, method: str, path: str, body: Any = None, timeout_seconds: float = 5.0) -> httpx2.Response:
    """Return Prefect's answer to one call of its REST API, signed in. Errors: httpx2.HTTPError when it is away."""
    headers = authorization(prefect_auth(settings))
    with httpx2.Client(headers=headers, timeout=timeout_seconds, trust_env=False) as client:
        return client.request(method, f"{settings.prefect_api_url}{path}", **({} if body is None else {"json": body}))


def authorization(auth: str) -> dict[str, str]:
    """Return the header that signs in to Prefect's API; empty without `auth`."""
    return {"authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"} if auth else {}


def has_tables(settings: Settings) -> bool:
    """Return whether Prefect's server has made its tables: another's may have taken the port a moment before ours, and answers too."""
    url = make_url(prefect_database(settings))
    if url.get_backend_name() != "sqlite" or not url.database:
        return True
    if not Path(url.database).exists():
        return False
    with sqlite3.connect(url.database, timeout=60) as connection:
        return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'flow_run'").fetchone() is not None


def add_poll_index(settings: Settings) -> None:
    """Add the index by which Prefect finds due runs in its SQLite database."""
    url = make_url(prefect_database(settings))
    if has_tables(settings) and url.get_backend_name() == "sqlite" and url.database:
        with sqlite3.connect(url.database, timeout=60) as connection:
            connection.execute(POLL_INDEX)


def point_prefect_here(settings: Settings) -> None:
    """Point Prefect's client in this process at our server. Its settings are read once, when it is imported.

    Raises Refused when the server does not answer.
    """
    if not answers(f"{settings.prefect_api_url}/health"):
        raise Refused(f"Prefect does not answer at {settings.prefect_api_url}; start it with `distmark up` and try again.")
    auth = prefect_auth(settings)
    for name, value in {**PREFECT_SETTINGS, "PREFECT_API_URL": settings.prefect_api_url, "PREFECT_API_AUTH_STRING": auth}.items():
        if value:
            os.environ.setdefault(name, value)
