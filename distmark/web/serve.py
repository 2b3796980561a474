"""The web process: `python -m distmark.web.serve`. Puts the application together; the only place here that reaches Prefect, and late."""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import uvicorn
from fastapi import FastAPI
from sqlmodel import Session

from distmark.db import Database, get_database
from distmark.enrollments.table import Enrollment
from distmark.errors import DistmarkError, Refused
from distmark.journeys.model import Facts
from distmark.partners.model import Viewer
from distmark.settings import Settings, get_settings
from distmark.web.app import create_app


class PrefectUnreachable(Refused):
    """Prefect did not answer; nothing was changed."""


def register(version_id: int, viewer: Viewer) -> str:
    """Make the version's Prefect deployment and return its id; PrefectUnreachable when Prefect does not answer."""
    from deployments.register import register_version

    try:
        return register_version(get_database(), version_id, viewer)
    except DistmarkError:
        raise
    except Exception as error:
        # Whatever the client raises (connection refused, timeout, a 5xx of the server) means the same to the person: try again later.
        logging.getLogger("distmark.web").exception("registering failed")
        raise PrefectUnreachable("Prefect did not answer, so nothing was changed; check that it runs and try again.") from error


def build(settings: Settings | None = None) -> FastAPI:
    """Return the application of this installation."""
    settings = settings or get_settings()
    db = get_database()
    return create_app(settings, db, settings.clock(), register=register, rehearse=_rehearse(settings, db), look=_look)


def _look(session: Session, rows: Sequence[Enrollment], now: datetime) -> Mapping[int, Facts]:
    from distmark.engine.facts import gather_for

    return gather_for(session, rows, now)


def _rehearse(settings: Settings, db: Database) -> Callable[[int], None]:
    from distmark.rehearsals.runner import RehearsalRunner

    return RehearsalRunner(settings, db).begin


def main() -> None:
    """Serve until told to stop. Our own request log holds no query strings and no tokens, so the server's is off."""
    settings = get_settings()
    parser = argparse.ArgumentParser(description="Serve the pages of distmark.")
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=settings.port)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("distmark.web").addFilter(_in_words)
    uvicorn.run(
        build(settings),
        host=arguments.host,
        port=arguments.port,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips="127.0.0.1",
    )


def _in_words(record: logging.LogRecord) -> bool:
    """Add to a request's log line what it was, since plain logging drops the extra fields."""
    if record.msg == "request":
        fields = ("method", "route", "status", "milliseconds", "request_id")
        record.msg = "request " + " ".join(f"{name}={getattr(record, name, '-')}" for name in fields)
    return True


if __name__ == "__main__":
    main()
