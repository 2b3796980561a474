"""Short messages land in the mailbox, for numbers that can get them."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from distmark.channels.base import OutgoingMessage
from distmark.channels.sms.mailbox_sms import MailboxSmsChannel, sms_number
from distmark.errors import InvalidInput, PermanentDeliveryError
from distmark.mailbox.store import MailboxStore, MessageKind

SMS = OutgoingMessage(
    message_id="<1@mail.brand.example>",
    from_name="みらい証券",
    from_address="",
    to_name="",
    to_address="+81 90-1234-5678",
    subject="",
    text="ご案内です。https://mirai.example/x 配信停止: https://mirai.example/u/1",
    sent_at=datetime(2026, 11, 24, 1, 0, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("given", "number"), [("+81 90-1234-5678", "+819012345678"), ("+819012345678", "+819012345678"), ("+1 202 555 0143", "+12025550143")]
)
def test_number_is_written_in_e164(given: str, number: str) -> None:
    assert sms_number(given) == number


@pytest.mark.parametrize(
    ("given", "wrong"),
    [("090-1234-5678", "not an international"), ("+81 3-3210-7000", "no mobile"), ("+81 90 12", "does not exist"), ("", "not an")],
)
def test_number_that_takes_no_sms_is_refused(given: str, wrong: str) -> None:
    with pytest.raises(InvalidInput, match=wrong):
        sms_number(given)


async def test_sms_is_kept_in_the_mailbox(tmp_path: Path) -> None:
    store = MailboxStore(tmp_path / "mailbox.sqlite3")

    receipt = await MailboxSmsChannel(store).deliver(SMS)

    [item] = store.page()
    assert (item.kind, item.recipient, item.sender, item.text) == (MessageKind.sms, "+819012345678", "みらい証券", SMS.text)
    assert (item.message_id, item.at) == (SMS.message_id, SMS.sent_at)
    assert item.links == ("https://mirai.example/x", "https://mirai.example/u/1")
    assert (receipt.code, receipt.peer) == ("200", "mailbox")
    assert store.accepted_count() == 1
    store.close()


@pytest.mark.parametrize("broken", [{"to_address": "03-3210-7000"}, {"text": " "}])
async def test_sms_that_cannot_be_sent_is_permanent(tmp_path: Path, broken: dict[str, str]) -> None:
    store = MailboxStore(tmp_path / "mailbox.sqlite3")

    with pytest.raises(PermanentDeliveryError):
        await MailboxSmsChannel(store).deliver(replace(SMS, **broken))

    assert store.count() == 0
    store.close()
