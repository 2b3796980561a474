"""The contract of every channel: the outgoing message, the receipt, and the errors of a delivery."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """One rendered message for one recipient, complete: a channel adds nothing but its own wire form."""

    message_id: str  # with its angle brackets, from `make_message_id`; the same on every attempt
    from_name: str
    from_address: str  # the brand's own or a verified domain, never the partner's free mail address: it would fail DMARC
    to_name: str
    to_address: str  # an e-mail address, or an E.164 number for SMS
    subject: str
    text: str
    sent_at: datetime  # aware; becomes the Date header
    html: str = ""  # empty: text alone
    reply_to: str = ""  # an address; empty: answers go to `from_address`
    language: str = "ja"  # BCP 47
    marketing: bool = True  # False: order confirmations and the like; they carry no list headers
    unsubscribe_url: str = ""  # opaque, for this recipient and list alone; required of marketing mail
    list_id: str = ""  # such as retirement.mail.brand.example
    feedback_id: str = ""  # campaign:partner:type:sender, for Gmail's reports
    headers: tuple[tuple[str, str], ...] = ()  # further header fields, in order


@dataclass(frozen=True, slots=True)
class Receipt:
    """The peer's word that it now answers for the message."""

    code: str  # the peer's own, such as "250"
    detail: str  # its text without addresses, such as "2.0.0 Ok: queued as 4Wx1"
    peer: str  # host:port, or the name of a channel that stays on this machine


class Channel(Protocol):
    """A way out. Safe for many `deliver` calls at once in one event loop."""

    async def deliver(self, message: OutgoingMessage) -> Receipt:
        """Return once the peer has taken the message.

        Errors: TemporaryDeliveryError (nothing was taken, later may succeed), PermanentDeliveryError (nothing was taken, later will not
        help), UncertainDelivery (nobody can tell). A cancelled call is uncertain too, unless the caller knows better.
        """
        ...

    async def close(self) -> None:
        """Leave no connection open; a later `deliver` opens new ones."""
        ...
