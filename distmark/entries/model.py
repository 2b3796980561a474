"""Entry points and entrants of a journey, and the result of entering. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
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
    """The journey version that contacts enter, by a campaign or without one."""

    brand_id: int
    journey_id: int
    version: JourneyVersion
    program: Program
    campaign: Campaign | None = None
    contacts_per_run: int = 1

    @property
    def definition(self) -> JourneyDefinition:
        """The definition of the version."""
        return self.program.definition

    @property
    def campaign_id(self) -> int | None:
        """The id of the campaign; None without one."""
        return self.campaign.id if self.campaign else None

    @property
    def any_time(self) -> bool:
        """Return whether a contact may be in the journey several times at once."""
        return self.definition.entry.reentry is Reentry.any_time

    def live_key(self, contact: Contact) -> str | None:
        """Return the key that is unique while the contact is in the journey; None when it may be in it several times at once."""
        return None if self.any_time else f"{self.journey_id}:{contact.person_key}"


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contact that is to enter, with the journey's own data for it.

    `key` names the occasion of entering, should the contact be queued. `due_at` is when its first step is due; None: when it enters.
    """

    contact: Contact
    data: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EntryContext:
    """The source of an entry and its time. `detail` goes into each contact's timeline; `entered_at` is `now` when left out.

    Contacts that were queued (`waited`) go before contacts that come now.
    """

    by: CameBy
    now: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)
    entered_at: datetime | None = None
    waited: bool = False


class EnrolVerdict(StrEnum):
    """The result for one contact that was to enter."""

    enrolled = "enrolled"
    already_in = "already_in"
    too_soon = "too_soon"
    once_only = "once_only"
    suppressed = "suppressed"  # unsubscribed
    bounced = "bounced"  # mail to this address came back
    complained = "complained"
    blocked = "blocked"  # a person of the brand put the address on the list of those not written to
    erased = "erased"
    no_consent = "no_consent"
    no_address = "no_address"
    other_partner = "other_partner"
    not_matching = "not_matching"  # the contact does not fit the journey's entry filter
    draining = "draining"  # the journey, campaign, partner or contact is drained until a person resumes it
    left_out = "left_out"  # the partner left the contact out of this campaign
    queued = "queued"  # enters later: the journey's cap is reached


# The verdicts on a contact that is in the journey now, or will be.
ENTERED = frozenset({EnrolVerdict.enrolled, EnrolVerdict.queued, EnrolVerdict.already_in})


@dataclass(frozen=True, slots=True)
class EnrolResult:
    """The verdict on one contact. `enrollment_id` is set once it has entered, `until` says from when it may enter again."""

    contact_id: int
    verdict: EnrolVerdict
    enrollment_id: int | None = None
    partner_name: str = ""  # the partner of the live enrollment, for `other_partner`
    until: datetime | None = None
