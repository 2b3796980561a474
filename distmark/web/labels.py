"""How our closed sets are said to people: each value's words (message ids) and the colour of its chip."""

from dataclasses import dataclass

from distmark.campaigns.table import CampaignStatus, MemberStatus
from distmark.channels.registry import CHANNELS
from distmark.enrollments.model import EnrollmentStatus, SuspensionKind
from distmark.entries.model import EnrolVerdict
from distmark.journeys.model import Outcome
from distmark.journeys.table import VersionStatus
from distmark.messages.model import MessageStatus
from distmark.partners.model import Role
from distmark.rehearsals.table import RehearsalStatus
from distmark.web.i18n import N_


@dataclass(frozen=True, slots=True)
class Said:
    """Words and the kind of chip they stand in: good, warn, bad, brand or "" (calm)."""

    words: str
    chip: str = ""


ROLE: dict[str, str] = {
    Role.marketer: N_("Marketer"),
    Role.approver: N_("Approver"),
    Role.partner: N_("Partner"),
    Role.ops: N_("Operations"),
}

CAMPAIGN: dict[str, Said] = {
    CampaignStatus.draft: Said(N_("Draft")),
    CampaignStatus.open: Said(N_("Open"), "good"),
    CampaignStatus.paused: Said(N_("Paused"), "warn"),
    CampaignStatus.closed: Said(N_("Closed")),
}

MEMBER: dict[str, Said] = {
    MemberStatus.pending: Said(N_("Waiting for you"), "warn"),
    MemberStatus.approved: Said(N_("Enrolled"), "good"),
    MemberStatus.rejected: Said(N_("Left out")),
    MemberStatus.error: Said(N_("Needs attention"), "bad"),
}

VERSION: dict[str, Said] = {
    VersionStatus.draft: Said(N_("Draft")),
    VersionStatus.submitted: Said(N_("Waiting for approval"), "warn"),
    VersionStatus.sent_back: Said(N_("Sent back"), "bad"),
    VersionStatus.approved: Said(N_("Approved"), "brand"),
    VersionStatus.registered: Said(N_("Published"), "good"),
    VersionStatus.retired: Said(N_("Retired")),
}

REHEARSAL: dict[str, Said] = {
    RehearsalStatus.running: Said(N_("In progress"), "good"),
    RehearsalStatus.finished: Said(N_("Ended")),
    RehearsalStatus.stopped: Said(N_("Stopped")),
    RehearsalStatus.failed: Said(N_("Failed"), "bad"),
    RehearsalStatus.interrupted: Said(N_("Interrupted"), "warn"),
}

ENROLLMENT: dict[str, Said] = {
    EnrollmentStatus.waiting: Said(N_("In progress"), "good"),
    EnrollmentStatus.paused: Said(N_("Paused"), "warn"),
    EnrollmentStatus.parked: Said(N_("Stuck"), "bad"),
    EnrollmentStatus.ended: Said(N_("Ended")),
}

RESTRAINT: dict[str, Said] = {
    SuspensionKind.paused: Said(N_("Paused"), "warn"),
    SuspensionKind.draining: Said(N_("Takes nobody new"), "warn"),
}

OUTCOME: dict[str, Said] = {
    Outcome.completed: Said(N_("Completed")),
    Outcome.goal: Said(N_("Goal reached"), "good"),
    Outcome.exit: Said(N_("Left by a rule")),
    Outcome.stopped: Said(N_("Stopped")),
    Outcome.unsubscribed: Said(N_("Unsubscribed"), "bad"),
    Outcome.failed: Said(N_("Failed"), "bad"),
    Outcome.moved: Said(N_("Moved to another version")),
}

MESSAGE: dict[str, Said] = {
    MessageStatus.queued: Said(N_("Queued")),
    MessageStatus.sending: Said(N_("Being sent")),
    MessageStatus.sent: Said(N_("Sent"), "good"),
    MessageStatus.deferred: Said(N_("Trying again"), "warn"),
    MessageStatus.delivered: Said(N_("Delivered"), "good"),
    MessageStatus.bounced: Said(N_("Bounced"), "bad"),
    MessageStatus.rejected: Said(N_("Rejected"), "bad"),
    MessageStatus.failed: Said(N_("Failed"), "bad"),
    MessageStatus.suppressed: Said(N_("Not sent: unsubscribed"), "warn"),
    MessageStatus.uncertain: Said(N_("Uncertain"), "warn"),
}

VERDICT: dict[str, str] = {
    EnrolVerdict.enrolled: N_("will be enrolled"),
    EnrolVerdict.already_in: N_("is already in this journey"),
    EnrolVerdict.too_soon: N_("was in this journey lately"),
    EnrolVerdict.once_only: N_("has been in this journey, which takes everybody once"),
    EnrolVerdict.suppressed: N_("has unsubscribed or cannot be reached at this address"),
    EnrolVerdict.no_consent: N_("has not agreed to be written to"),
    EnrolVerdict.no_address: N_("has no address for the first message"),
    EnrolVerdict.other_partner: N_("is in touch with another partner"),
    EnrolVerdict.not_matching: N_("is not among those whom this journey is for"),
    EnrolVerdict.draining: N_("is not taken now: nobody new enters until it is resumed"),
    EnrolVerdict.queued: N_("waits until this journey takes more people"),
}

LAYER: dict[str, str] = {
    "journey": N_("Journey"),
    "brand": N_("Brand"),
    "campaign": N_("This campaign"),
    "group": N_("For all my members"),
    "partner": N_("For all my members"),
    "member": N_("This person only"),
}

CHANNEL: dict[str, str] = {key: kind.labels["en"] for key, kind in CHANNELS.items()} | {"email": N_("Mail"), "sms": N_("Text message")}

GROUND: dict[str, str] = {
    "opt_in": N_("Agreed to receive messages"),
    "business_card": N_("Gave a business card or wrote the address down"),
    "existing_customer": N_("Is an existing customer"),
    "published_address": N_("Is a business that publishes its address"),
}

STEP: dict[str, str] = {
    "send": N_("Message"),
    "wait": N_("Wait"),
    "branch": N_("Split"),
    "task": N_("Task"),
    "update": N_("Contact data"),
    "webhook": N_("Webhook"),
    "audience": N_("Ad audience"),
    "journey": N_("Another journey"),
    "goto": N_("Go to"),
    "exit": N_("End"),
}

EVENT: dict[str, str] = {
    "opened": N_("Opened"),
    "clicked": N_("Clicked"),
    "replied": N_("Replied"),
    "bounced": N_("Bounced"),
    "complained": N_("Reported as spam"),
    "unsubscribed": N_("Unsubscribed"),
    "converted": N_("Converted"),
    "custom": N_("Event"),
}

CHANGE: dict[str, str] = {
    "added": N_("added"),
    "removed": N_("removed"),
    "changed": N_("changed"),
    "moved": N_("moved"),
}

ACTION: dict[str, str] = {
    "submitted": N_("Submitted"),
    "approved": N_("Approved"),
    "sent_back": N_("Sent back"),
    "registered": N_("Published"),
    "retired": N_("Retired"),
    "test_decided": N_("Test decided"),
}

TABLES = {
    "change_words": CHANGE,
    "action_words": ACTION,
    "role_words": ROLE,
    "campaign_words": CAMPAIGN,
    "member_words": MEMBER,
    "version_words": VERSION,
    "enrollment_words": ENROLLMENT,
    "rehearsal_words": REHEARSAL,
    "restraint_words": RESTRAINT,
    "outcome_words": OUTCOME,
    "message_words": MESSAGE,
    "verdict_words": VERDICT,
    "layer_words": LAYER,
    "channel_words": CHANNEL,
    "ground_words": GROUND,
    "step_words": STEP,
    "event_words": EVENT,
}
