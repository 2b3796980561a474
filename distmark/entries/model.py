"""What contacts enter a journey through, and what brings them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from distmark.campaigns.table import Campaign
from distmark.contacts.table import Contact
from distmark.enrollments.model import CameBy
from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.entry import Reentry
from distmark.journeys.program import Program
from distmark.journeys.table import JourneyVersion


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """What people enter through: a version of a brand's journey, by a campaign or without one."""

    brand_id: int
    journey_id: int
    version: JourneyVersion
    program: Program
    campaign: Campaign | None = None
    contacts_per_run: int = 1

    @property
    def definition(self) -> JourneyDefinition:
        return self.program.definition

    @property
    def campaign_id(self) -> int | None:
        return self.campaign.id if self.campaign else None

    @property
    def any_time(self) -> bool:
        """Whether a contact may be in the journey several times at once."""
        return self.definition.entry.reentry is Reentry.any_time


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contact who is to enter, with the journey's own data for them. `key` names the occasion, should they have to wait outside.

    `due_at` is when the journey begins for them, when that is not the moment of arrival.
    """

    contact: Contact
    data: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EntryContext:
    """What brings contacts in, and when. `detail` goes into each one's timeline; `entered_at` when left out is `now`.

    Those who waited outside (`waited`) go before those who come now.
    """

    by: CameBy
    now: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)
    entered_at: datetime | None = None
    waited: bool = False
