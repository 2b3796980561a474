"""The statuses of a message. Pure."""

from enum import StrEnum


class MessageStatus(StrEnum):
    """Delivery status. `sending` is written before the conversation and never outlives the process that wrote it."""

    queued = "queued"
    sending = "sending"
    sent = "sent"
    deferred = "deferred"  # a temporary refusal; tried again at `next_try_at`
    delivered = "delivered"
    bounced = "bounced"
    rejected = "rejected"  # refused for good in the conversation
    failed = "failed"  # could not be made or handed over
    suppressed = "suppressed"
    uncertain = "uncertain"  # may or may not have been accepted; never resent by itself


ACCEPTED = frozenset({MessageStatus.sent, MessageStatus.delivered, MessageStatus.bounced})
MAY_HAVE_ARRIVED = ACCEPTED | {MessageStatus.sending, MessageStatus.uncertain}  # what a person was written, as far as we know
FINAL = frozenset(set(MessageStatus) - {MessageStatus.queued, MessageStatus.sending, MessageStatus.deferred})
MAX_ATTEMPTS = 8
