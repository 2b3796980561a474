"""Importing this module registers every table of every room with SQLModel's metadata."""

from sqlmodel import SQLModel

from distmark.db import Database


def create_all(database: Database) -> None:
    """Create every table as the models say, without migrations: for tests, rehearsals and simulations."""
    SQLModel.metadata.create_all(database.engine)
