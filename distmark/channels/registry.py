"""The channels of distmark, one row each. Adding one: a folder beside this file with its `KIND`, and one row here."""

from collections.abc import Iterator, Mapping

from distmark.channels import email, sms
from distmark.channels.base import Channel
from distmark.channels.kind import Addressed, ChannelKind, Probe
from distmark.settings import Settings

CHANNELS: dict[str, ChannelKind] = {
    "email": email.KIND,
    "sms": sms.KIND,
}


def address_of(person: Addressed, channel: str) -> str | None:
    """Return where `channel` reaches a person; None when it does not, or when there is no such channel."""
    kind = CHANNELS.get(channel)
    return (kind.address(person) or None) if kind else None


def make_channels(settings: Settings) -> dict[str, Channel]:
    """Return the channels that this installation can send by, by name."""
    return {key: kind.make(settings) for key, kind in CHANNELS.items() if not kind.lacks(settings)}


def lacking(settings: Settings) -> dict[str, Mapping[str, str]]:
    """Return the channels that this installation cannot send by, each with what it lacks, by language."""
    return {key: lack for key, kind in CHANNELS.items() if (lack := kind.lacks(settings))}


def probes(settings: Settings) -> Iterator[Probe]:
    """Yield what the other side of each channel answers; channels that this installation lacks are left out."""
    for kind in CHANNELS.values():
        if not kind.lacks(settings) and (probe := kind.probe(settings)) is not None:
            yield probe
