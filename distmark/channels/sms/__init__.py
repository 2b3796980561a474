"""Text messages to mobile phones. No provider is connected yet: outside production they go to the mailbox."""

from collections.abc import Mapping

from distmark.channels.base import Channel
from distmark.channels.kind import Addressed, AddressForm, ChannelKind
from distmark.settings import Mode, Settings


def _lacks(settings: Settings) -> Mapping[str, str]:
    return {"ja": "SMS の配信会社との接続", "en": "a provider of text messages"} if settings.mode is Mode.production else {}


def _make(settings: Settings) -> Channel:
    from distmark.channels.sms.mailbox_sms import MailboxSmsChannel
    from distmark.mailbox.store import MailboxStore

    return MailboxSmsChannel(MailboxStore(settings.data_dir / "mailbox.sqlite3"))


def _address(person: Addressed) -> str | None:
    return person.phone


KIND = ChannelKind(
    key="sms",
    labels={"ja": "SMS", "en": "SMS"},
    text="sms.txt",
    address=_address,
    form=AddressForm.phone,
    lacks=_lacks,
    make=_make,
)
