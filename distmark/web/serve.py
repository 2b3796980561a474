"""The web process: `python -m distmark.web.serve`. Only this module of the web reaches Prefect, when a version is registered."""

import argparse
import logging

import uvicorn
from fastapi import FastAPI

from distmark.db import get_database
from distmark.engine.facts import gather_for
from distmark.errors import DistmarkError, Refused
from distmark.partners.model import Viewer
from distmark.rehearsals.runner import RehearsalRunner
from distmark.settings import Settings, get_settings
from distmark.web.app import create_app


class PrefectUnreachable(Refused):
    """Prefect did not answer, and nothing was changed."""


def register(version_id: int, viewer: Viewer) -> str:
    """Make the version's Prefect deployment and return its id; PrefectUnreachable when Prefect does not answer."""
    from deployments.register import register_version

    try:
        return register_version(get_database(), version_id, viewer)
    except DistmarkError:
        raise
    except Exception as error:
        # Every error of the client (connection refused, timeout, a 5xx of the server) has the same remedy: try again later.
        logging.getLogger("distmark.web").exception("registering failed")
        raise PrefectUnreachable("Prefect did not answer, so nothing was changed; check that it runs and try again.") from error


def build_app(settings: Settings | None = None) -> FastAPI:
    """Return the application of this installation."""
    settings = settings or get_settings()
    db = get_database()
    return create_app(
        settings, db, settings.clock(), register=register, rehearse=RehearsalRunner(settings, db).begin, gather_facts=gather_for
    )


def main() -> None:
    """Serve until the process is stopped. Our own request log holds no query strings and no tokens, so uvicorn's is off."""
    settings = get_settings()
    parser = argparse.ArgumentParser(description="Serve the pages of distmark.")
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=settings.port)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("distmark.web").addFilter(_add_fields)
    uvicorn.run(
        build_app(settings),
        host=arguments.host,
        port=arguments.port,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
    )


def _add_fields(record: logging.LogRecord) -> bool:
    """Write the extra fields of a request's record into its message, since the plain format drops them; keep every record."""
    if record.msg == "request":
        fields = ("method", "route", "status", "milliseconds", "request_id")
        record.msg = "request " + " ".join(f"{name}={getattr(record, name, '-')}" for name in fields)
    return True


if __name__ == "__main__":
    main()
