"""Settings: environment variables `DISTMARK_*`, or a `.env` file. Every one has a default that works on one machine."""

from datetime import datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from distmark.clock import Clock, FastClock, SystemClock

ROOT = Path(__file__).resolve().parent.parent


SHORTEST_SECRET = 32  # characters


class Mode(StrEnum):
    """The purpose of an installation."""

    production = "production"
    demo = "demo"
    test = "test"


class Settings(BaseSettings):
    """All of an installation's settings; secrets are never printed."""

    model_config = SettingsConfigDict(
        env_prefix="DISTMARK_", env_file=".env", extra="ignore", hide_input_in_errors=True, populate_by_name=True
    )

    mode: Mode = Mode.production
    data_dir: Path = Path(".distmark")
    database_url: str = ""  # empty: SQLite in data_dir; Postgres: postgresql+psycopg://user:password@host/name
    journey_defs_dir: Path = ROOT / "journey_defs"

    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str = ""  # how recipients reach the tracking and unsubscribe pages; empty: http://host:port
    secret_key: SecretStr = SecretStr("")  # empty: one is made and kept in data_dir
    secure_cookies: bool = False  # cookies get the __Host- prefix and Secure; on by itself when public_url begins with https
    trusted_proxies: str = "127.0.0.1"  # addresses and networks, with commas: whose X-Forwarded-For tells the client's address

    prefect_api_url: str = "http://127.0.0.1:4200/api"
    prefect_host: str = "127.0.0.1"  # where `distmark up` lets Prefect's server listen, whatever `host` is; it commands all runs
    prefect_auth: SecretStr = Field(  # user:password of Prefect's API and dashboard; empty: one is made and kept in data_dir
        default=SecretStr(""),
        validation_alias=AliasChoices("distmark_prefect_auth", "prefect_server_api_auth_string", "prefect_api_auth_string"),
    )
    prefect_ui_url: str = ""  # what links to the dashboard start with; empty: the API address without /api
    work_pool: str = "journeys"
    system_pool: str = "system"
    work_queue: str = "default"
    worker_concurrency: int = Field(default=4, ge=1, le=64)  # wakes in flight in one worker process; more than 4 locks Prefect's SQLite
    poll_seconds: float = Field(default=1.0, gt=0)  # how often a worker looks for work that is due
    prefect_database_url: str = ""  # Prefect's own; empty: SQLite under data_dir
    trace_steps: bool = True  # each step of a wake appears on the run's page in the dashboard
    results_every_seconds: int = Field(default=60, ge=1)

    smtp_host: str = "127.0.0.1"
    smtp_port: int = 1025
    smtp_username: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_tls: str = "auto"  # auto: STARTTLS when offered, and no password without it; starttls: always; on: TLS from the start; off
    smtp_connections: int = Field(default=4, ge=1, le=100)
    smtp_timeout_seconds: float = 30.0
    mail_from: str = "hello@distmark.example"
    mail_domain: str = "distmark.example"  # right side of the Message-ID

    webhook_secrets: dict[str, SecretStr] = Field(default_factory=dict)  # JSON, name -> key that signs the calls of webhook steps
    audience_url: str = ""  # changes of ad audiences are posted here; empty: audiences are CSV files under data_dir
    audience_secret: str = ""  # the name of the webhook secret that signs them

    alarm_webhook: str = ""  # alarms are posted here as JSON, when they are raised and when they are over; empty: to nobody

    clock_speed: float = Field(default=1.0, ge=1.0)
    clock_wall_origin: datetime | None = None
    clock_origin: datetime | None = None

    @field_validator("secret_key")
    @classmethod
    def _secret_is_long(cls, given: SecretStr) -> SecretStr:
        if 0 < len(given.get_secret_value()) < SHORTEST_SECRET:
            raise ValueError(
                f"DISTMARK_SECRET_KEY has {len(given.get_secret_value())} characters; give {SHORTEST_SECRET} or more random ones, such as "
                "`openssl rand -base64 48` prints, or leave it empty: then one is made."
            )
        return given

    @model_validator(mode="after")
    def _cookies_are_secure_behind_tls(self) -> Self:
        if "secure_cookies" not in self.model_fields_set:
            self.secure_cookies = self.public_url.lower().startswith("https://")
        return self

    @model_validator(mode="after")
    def _fast_time_only_in_demo_and_tests(self) -> Self:
        if self.clock_speed != 1.0 and self.mode is Mode.production:
            raise ValueError(
                f"DISTMARK_CLOCK_SPEED is {self.clock_speed:g}, but time may run faster only in a demo or a test: "
                "remove DISTMARK_CLOCK_SPEED, or set DISTMARK_MODE=demo."
            )
        if self.clock_speed != 1.0 and (self.clock_origin is None or self.clock_wall_origin is None):
            raise ValueError("DISTMARK_CLOCK_SPEED needs DISTMARK_CLOCK_ORIGIN and DISTMARK_CLOCK_WALL_ORIGIN (ISO 8601 with a zone).")
        return self

    @property
    def database(self) -> str:
        """The SQLAlchemy address of our database."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'distmark.sqlite3').absolute()}"

    @property
    def base_url(self) -> str:
        """The start of every public link, without a trailing slash."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def dashboard_url(self) -> str:
        """The start of links into the Prefect dashboard, without a trailing slash."""
        return (self.prefect_ui_url or self.prefect_api_url.removesuffix("/api")).rstrip("/")

    def clock(self) -> Clock:
        """Return the clock that every process of this installation shares."""
        if self.clock_speed == 1.0 or self.clock_origin is None or self.clock_wall_origin is None:
            return SystemClock()
        return FastClock(speed=self.clock_speed, wall_origin=self.clock_wall_origin, origin=self.clock_origin)


@cache
def get_settings() -> Settings:
    """Return the settings of this process, read once."""
    return Settings()
