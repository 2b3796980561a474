"""Importing this module registers every table of every room with SQLModel's metadata."""

import distmark.campaigns.table
import distmark.compliance.table
import distmark.contacts.table
import distmark.delivery.table
import distmark.engagement.table
import distmark.enrollments.table
import distmark.journeys.table
import distmark.messages.table
import distmark.metrics.table
import distmark.partners.table
import distmark.rehearsals.table  # noqa: F401
