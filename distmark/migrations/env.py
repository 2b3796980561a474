"""Run by Alembic: which tables there should be, and on which connection to work."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import JSON, Connection
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString

import distmark.tables  # noqa: F401  (importing registers every table)
from distmark.db import UTCDateTime


def render_item(kind: str, item: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    """Write our column types by the names that they have in `distmark.db`."""
    if kind != "type":
        return False
    if isinstance(item, UTCDateTime):
        autogen_context.imports.add("from distmark.db import UTCDateTime")
        return "UTCDateTime()"
    if isinstance(item, JSON):
        autogen_context.imports.add("from distmark.db import JSON_TYPE")
        return "JSON_TYPE"
    return "sa.String()" if isinstance(item, AutoString) and item.length is None else False


def run() -> None:
    """Migrate on the connection that the caller opened, in its transaction."""
    connection: Connection | None = context.config.attributes.get("connection")
    if connection is None:
        raise RuntimeError("Migrations run through distmark.migrations.upgrade, which brings the connection.")
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_item=render_item,
        render_as_batch=bool(context.config.attributes.get("batch")),  # SQLite changes a table by copying it
        transactional_ddl=True,  # SQLite can, too, and half an upgrade would have to be mended by hand
    )
    with context.begin_transaction():
        context.run_migrations()


run()
