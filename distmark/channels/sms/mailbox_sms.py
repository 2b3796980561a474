"""Short messages. No provider is connected yet: they go to the mailbox, where they can be read beside the mail."""

import asyncio

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from distmark.channels.base import OutgoingMessage, Receipt
from distmark.errors import InvalidInput, PermanentDeliveryError
from distmark.mailbox.store import Incoming, MailboxStore, MessageKind

TAKES_SMS = frozenset({PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE})  # North American numbers do not tell which


def sms_number(value: str) -> str:
    """Return `value` in E.164, spaces and hyphens removed. It must begin with + and be of a kind that takes SMS. Errors: InvalidInput."""
    try:
        number = phonenumbers.parse(value, None)
    except phonenumbers.NumberParseException as error:
        raise InvalidInput(f"The number {value!r} is not an international phone number; write it like +81 90 1234 5678.") from error
    if not phonenumbers.is_valid_number(number):
        raise InvalidInput(f"The number {value!r} does not exist in its country; correct it.")
    if phonenumbers.number_type(number) not in TAKES_SMS:
        raise InvalidInput(f"The number {value!r} is no mobile phone, so it takes no SMS; enter a mobile number.")
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


class MailboxSmsChannel:
    """Puts each SMS into the mailbox of this installation. `to_address` is the number, `text` the body; the rest is of no matter."""

    def __init__(self, store: MailboxStore) -> None:
        self._store = store

    async def deliver(self, message: OutgoingMessage) -> Receipt:
        """Return once the SMS is durable in the mailbox. Errors: PermanentDeliveryError, for a number or a text that cannot be sent."""
        try:
            number = sms_number(message.to_address)
        except InvalidInput as error:
            raise PermanentDeliveryError("The SMS has no usable mobile number; correct the contact's phone.", code="21211") from error
        if not message.text.strip():
            raise PermanentDeliveryError(f"The SMS {message.message_id} has no text; write one.", code="21602")
        sms = Incoming(
            kind=MessageKind.sms,
            sender=message.from_name or message.from_address,
            recipients=(number,),
            at=message.sent_at,
            raw=message.text.encode(),
            message_id=message.message_id,
        )
        [stored] = await asyncio.to_thread(self._store.add_many, [sms])
        return Receipt(code="200", detail=f"kept as number {stored}", peer="mailbox")

    async def close(self) -> None:
        """Nothing to close: the store belongs to its maker."""
