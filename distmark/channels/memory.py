"""Channels that keep their messages in memory and fail on demand: for tests, previews and simulations."""

from collections import deque
from enum import StrEnum

from distmark.channels.base import OutgoingMessage, Receipt
from distmark.errors import PermanentDeliveryError, TemporaryDeliveryError, UncertainDelivery


class Fault(StrEnum):
    """A way to fail."""

    temporary = "temporary"
    permanent = "permanent"
    uncertain = "uncertain"  # no reply, and the message was not taken
    drop = "drop"  # no reply, but the message was taken: from outside the same as `uncertain`


class MemoryChannel:
    """Takes every message into `accepted`, in order, unless `fail_address` or `fail_call` says otherwise."""

    def __init__(self) -> None:
        self.accepted: list[OutgoingMessage] = []
        self.calls = 0  # `deliver` calls so far, failed ones too
        self.closed = False
        self._by_address: dict[str, deque[Fault] | Fault] = {}
        self._by_call: dict[int, Fault] = {}

    def fail_address(self, address: str, fault: Fault, times: int | None = None) -> None:
        """Make the next `times` messages to `address` fail so; every one of them when `times` is not given."""
        self._by_address[address.lower()] = fault if times is None else deque([fault] * times)

    def fail_call(self, number: int, fault: Fault) -> None:
        """Make the `number`th call of `deliver` fail so, counting from 1; it goes before a fault of the address."""
        self._by_call[number] = fault

    def heal(self) -> None:
        """Forget every fault."""
        self._by_address.clear()
        self._by_call.clear()

    async def deliver(self, message: OutgoingMessage) -> Receipt:
        """Keep the message, or fail as told."""
        self.calls += 1
        self.closed = False
        fault = self._by_call.pop(self.calls, None) or self._next_fault(message.to_address)
        if fault in {None, Fault.drop}:
            self.accepted.append(message)
        if fault is not None:
            _fail(fault)
        return Receipt(code="250", detail=f"2.0.0 kept as number {len(self.accepted)}", peer="memory")

    async def close(self) -> None:
        """Set `closed`; a later `deliver` opens it again."""
        self.closed = True

    def _next_fault(self, address: str) -> Fault | None:
        fault = self._by_address.get(address.lower())
        if isinstance(fault, deque):
            return fault.popleft() if fault else None
        return fault


def _fail(fault: Fault) -> None:
    match fault:
        case Fault.temporary:
            raise TemporaryDeliveryError("The memory channel was told to refuse this message for now.", code="450")
        case Fault.permanent:
            raise PermanentDeliveryError("The memory channel was told to refuse this message for good.", code="550")
        case _:
            raise UncertainDelivery("The memory channel was told to give no reply to this message.")
