"""Labels of the values of our enums on pages: the text of each value (a message id), and for some the colour of its chip."""

from dataclasses import dataclass

from distmark.campaigns.table import CampaignStatus, MemberStatus
from distmark.channels.registry import CHANNELS
from distmark.enrollments.model import EnrollmentStatus, SuspensionKind
from distmark.entries.model import EnrolVerdict
from distmark.journeys.outcomes import Outcome
from distmark.journeys.table import VersionStatus
from distmark.messages.model import MessageStatus
from distmark.partners.model import Role
from distmark.rehearsals.table import RehearsalStatus
from distmark.web.i18n import N_


@dataclass(frozen=True, slots=True)
class Label:
    """A text and the kind of its chip: good, warn, bad, brand or "" (neutral)."""

    text: str
    chip: str = ""


ROLE: dict[str, str] = {
    Role.marketer: N_("Marketer"),
    Role.approver: N_("Approver"),
    Role.partner: N_("Partner"),
    Role.ops: N_("Operations"),
}

CAMPAIGN: dict[str, Label] = {
    CampaignStatus.draft: Label(N_("Draft")),
    CampaignStatus.open: Label(N_("Open"), "good"),
    CampaignStatus.paused: Label(N_("Paused"), "warn"),
    CampaignStatus.closed: Label(N_("Closed")),
}

MEMBER: dict[str, Label] = {
    MemberStatus.pending: Label(N_("Waiting for you"), "warn"),
    MemberStatus.approved: Label(N_("Enrolled"), "good"),
    MemberStatus.rejected: Label(N_("Left out")),
    MemberStatus.error: Label(N_("Needs attention"), "bad"),
}

QUEUED = Label(N_("Waits for a place"), "warn")

VERSION: dict[str, Label] = {
    VersionStatus.draft: Label(N_("Draft")),
    VersionStatus.submitted: Label(N_("Waiting for approval"), "warn"),
    VersionStatus.sent_back: Label(N_("Sent back"), "bad"),
    VersionStatus.approved: Label(N_("Approved"), "brand"),
    VersionStatus.registered: Label(N_("Published"), "good"),
    VersionStatus.retired: Label(N_("Retired")),
}

REHEARSAL: dict[str, Label] = {
    RehearsalStatus.running: Label(N_("In progress"), "good"),
    RehearsalStatus.finished: Label(N_("Ended")),
    RehearsalStatus.stopped: Label(N_("Stopped")),
    RehearsalStatus.failed: Label(N_("Failed"), "bad"),
    RehearsalStatus.interrupted: Label(N_("Interrupted"), "warn"),
}

ENROLLMENT: dict[str, Label] = {
    EnrollmentStatus.waiting: Label(N_("In progress"), "good"),
    EnrollmentStatus.paused: Label(N_("Paused"), "warn"),
    EnrollmentStatus.parked: Label(N_("Stuck"), "bad"),
    EnrollmentStatus.ended: Label(N_("Ended")),
}

SUSPENSION: dict[str, Label] = {
    SuspensionKind.paused: Label(N_("Paused"), "warn"),
    SuspensionKind.draining: Label(N_("Closed to new contacts"), "warn"),
}

OUTCOME: dict[str, Label] = {
    Outcome.completed: Label(N_("Completed")),
    Outcome.goal: Label(N_("Goal reached"), "good"),
    Outcome.exit: Label(N_("Left by a rule")),
    Outcome.stopped: Label(N_("Stopped")),
    Outcome.unsubscribed: Label(N_("Unsubscribed"), "bad"),
    Outcome.failed: Label(N_("Failed"), "bad"),
    Outcome.moved: Label(N_("Moved to another version")),
}

MESSAGE: dict[str, Label] = {
    MessageStatus.queued: Label(N_("Queued")),
    MessageStatus.sending: Label(N_("Being sent")),
    MessageStatus.sent: Label(N_("Sent"), "good"),
    MessageStatus.deferred: Label(N_("Trying again"), "warn"),
    MessageStatus.delivered: Label(N_("Delivered"), "good"),
    MessageStatus.bounced: Label(N_("Bounced"), "bad"),
    MessageStatus.rejected: Label(N_("Rejected"), "bad"),
    MessageStatus.failed: Label(N_("Failed"), "bad"),
    MessageStatus.suppressed: Label(N_("Not allowed, not sent"), "warn"),
    MessageStatus.uncertain: Label(N_("Uncertain"), "warn"),
}

VERDICT: dict[str, str] = {
    EnrolVerdict.enrolled: N_("will be enrolled"),
    EnrolVerdict.already_in: N_("is already in this journey"),
    EnrolVerdict.too_soon: N_("was in this journey lately"),
    EnrolVerdict.once_only: N_("has been in this journey, which takes everybody once"),
    EnrolVerdict.suppressed: N_("has unsubscribed"),
    EnrolVerdict.bounced: N_("cannot be reached: a message to this address came back"),
    EnrolVerdict.complained: N_("has complained about a message"),
    EnrolVerdict.blocked: N_("is on the list of those who are not written to"),
    EnrolVerdict.erased: N_("was erased on request"),
    EnrolVerdict.no_consent: N_("has not agreed to be written to"),
    EnrolVerdict.no_address: N_("has no address for the first message"),
    EnrolVerdict.other_partner: N_("is in touch with another partner"),
    EnrolVerdict.not_matching: N_("is not among those whom this journey is for"),
    EnrolVerdict.draining: N_("is not taken now: nobody new enters until it is resumed"),
    EnrolVerdict.left_out: N_("was left out of this campaign; take them back first"),
    EnrolVerdict.queued: N_("waits until this journey takes more people"),
}

# Why a message must not be sent: the reason that the ledger keeps.
SUPPRESSION: dict[str, Label] = {
    "no_address": Label(N_("Not sent: no address for this channel"), "warn"),
    "no_consent": Label(N_("Not sent: has not agreed"), "warn"),
    "unsubscribed": Label(N_("Not sent: unsubscribed"), "warn"),
    "bounced": Label(N_("Not sent: an earlier message came back"), "warn"),
    "complained": Label(N_("Not sent: complained"), "warn"),
    "manual": Label(N_("Not sent: on the list of those who are not written to"), "warn"),
    "erased": Label(N_("Not sent: erased on request"), "warn"),
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

# What a consent is about: a channel, or being counted.
CONSENT: dict[str, str] = CHANNEL | {"open_tracking": N_("Counting of opens"), "click_tracking": N_("Counting of clicks")}

GROUND: dict[str, str] = {
    "opt_in": N_("Agreed to receive messages"),
    "business_card": N_("Gave a business card or wrote the address down"),
    "existing_customer": N_("Is an existing customer"),
    "published_address": N_("Is a business that publishes its address"),
}

# The fields as which the columns of an imported file are read.
COLUMN: dict[str, str] = {
    "last_name": N_("Family name"),
    "first_name": N_("Given name"),
    "full_name": N_("Full name"),
    "email": N_("Mail address"),
    "phone": N_("Phone"),
    "company": N_("Company"),
    "city": N_("City"),
    "language": N_("Language"),
    "zone": N_("Time zone"),
    "birthday": N_("Birthday"),
    "kind": N_("Kind of record"),
    "consent_email": N_("Consent to mail"),
    "consent_sms": N_("Consent to text messages"),
    "stopped_email": N_("Unsubscribed from mail"),
    "stopped_sms": N_("Unsubscribed from text messages"),
    "stopped": N_("Unsubscribed"),
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
    "worded": N_("Words changed"),
    "words_agreed": N_("Agreed to the words"),
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
    "suspension_words": SUSPENSION,
    "outcome_words": OUTCOME,
    "message_words": MESSAGE,
    "verdict_words": VERDICT,
    "layer_words": LAYER,
    "channel_words": CHANNEL,
    "consent_words": CONSENT,
    "column_words": COLUMN,
    "ground_words": GROUND,
    "step_words": STEP,
    "event_words": EVENT,
}
