"""Importing this module registers every table of every room with SQLModel's metadata."""

from sqlmodel import SQLModel

import distmark.campaigns.table
import distmark.compliance.table
import distmark.contacts.table
import distmark.delivery.table
import distmark.drafts.table
import distmark.engagement.table
import distmark.engine.table
import distmark.enrollments.table
import distmark.entries.table
import distmark.experiments.table
import distmark.journeys.table
import distmark.messages.table
import distmark.metrics.table
import distmark.operations.table
import distmark.partners.table
import distmark.rehearsals.table
import distmark.segments.table
import distmark.tasks.table  # noqa: F401
from distmark.db import Database


def create_all(database: Database) -> None:
    """Create every table as the models say, without migrations: for tests, rehearsals and simulations."""
    SQLModel.metadata.create_all(database.engine)
