"""The channel that only remembers, and fails on demand."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from distmark.channels.base import Channel, OutgoingMessage
from distmark.channels.memory import Fault, MemoryChannel
from distmark.errors import DeliveryError, PermanentDeliveryError, TemporaryDeliveryError, UncertainDelivery

MESSAGE = OutgoingMessage(
    message_id="<1@mail.brand.example>",
    from_name="",
    from_address="brand@mail.brand.example",
    to_name="",
    to_address="hanako@customer.example",
    subject="Hello",
    text="Hello",
    sent_at=datetime(2026, 11, 24, tzinfo=UTC),
)


async def test_messages_are_kept_in_order() -> None:
    channel: Channel = (memory := MemoryChannel())
    second = replace(MESSAGE, message_id="<2@mail.brand.example>")

    receipts = [await channel.deliver(MESSAGE), await channel.deliver(second)]

    assert memory.accepted == [MESSAGE, second]
    assert [receipt.code for receipt in receipts] == ["250", "250"]


@pytest.mark.parametrize(
    ("fault", "error", "kept"),
    [
        (Fault.temporary, TemporaryDeliveryError, 0),
        (Fault.permanent, PermanentDeliveryError, 0),
        (Fault.uncertain, UncertainDelivery, 0),
        (Fault.drop, UncertainDelivery, 1),  # taken, and nobody can tell
    ],
)
async def test_address_fails_as_told_and_the_others_do_not(fault: Fault, error: type[DeliveryError], kept: int) -> None:
    channel = MemoryChannel()
    channel.fail_address("Hanako@customer.example", fault)

    with pytest.raises(error):
        await channel.deliver(MESSAGE)
    await channel.deliver(replace(MESSAGE, to_address="taro@customer.example"))

    assert len(channel.accepted) == kept + 1


async def test_address_fails_only_so_many_times() -> None:
    channel = MemoryChannel()
    channel.fail_address(MESSAGE.to_address, Fault.temporary, times=2)

    for _ in range(2):
        with pytest.raises(TemporaryDeliveryError):
            await channel.deliver(MESSAGE)
    await channel.deliver(MESSAGE)

    assert channel.accepted == [MESSAGE]


async def test_one_call_fails_by_its_number() -> None:
    channel = MemoryChannel()
    channel.fail_call(2, Fault.permanent)

    await channel.deliver(MESSAGE)
    with pytest.raises(PermanentDeliveryError):
        await channel.deliver(MESSAGE)
    await channel.deliver(MESSAGE)

    assert (channel.calls, len(channel.accepted)) == (3, 2)


async def test_healed_channel_takes_everything() -> None:
    channel = MemoryChannel()
    channel.fail_address(MESSAGE.to_address, Fault.permanent)
    channel.fail_call(1, Fault.permanent)

    channel.heal()
    await channel.deliver(MESSAGE)

    assert channel.accepted == [MESSAGE]
