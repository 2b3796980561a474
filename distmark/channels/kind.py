"""A kind of channel: everything that the other rooms need to know of it. Each channel's folder defines one; `registry.py` lists them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from distmark.channels.base import Channel
from distmark.settings import Settings


class Addressed(Protocol):
    """A person as channels see them: a contact, or anything with such fields."""

    @property
    def email(self) -> str | None: ...

    @property
    def phone(self) -> str | None: ...

    @property
    def attributes(self) -> Mapping[str, Any]: ...


class AddressForm(StrEnum):
    """The form of a channel's addresses, by which two spellings of one address are known as the same."""

    email = "email"
    phone = "phone"
    identifier = "identifier"  # as it is, such as a LINE user id


@dataclass(frozen=True, slots=True)
class Probe:
    """The answer of a channel's other side to `distmark doctor`: what was found, and what to do about it ("": nothing)."""

    subject: str
    found: str
    mend: str = ""


def no_probe(settings: Settings) -> Probe | None:
    """Return that there is nothing to ask: the channel has no other side on this installation."""
    return None


@dataclass(frozen=True, slots=True)
class ChannelKind:
    """One channel. `subject`, `text` and `html` are the endings of its template files (`welcome.ja.mjml`); "" when it has no such part.

    `address` returns where a person is reached, or None; `form` says how addresses are written. `rate_scopes` are the further scopes of
    send rates, beside partner and campaign. `short_footer`: the legal footer is one line, as in a text message. `lacks` returns what this
    installation lacks to send by the channel, by language (empty: nothing); `make` then returns the channel. `probe` asks its other side
    whether it is there, for doctor. Neither `lacks` nor `make` reaches the network.
    """

    key: str
    labels: Mapping[str, str]  # language -> name
    text: str
    address: Callable[[Addressed], str | None]
    form: AddressForm
    lacks: Callable[[Settings], Mapping[str, str]]
    make: Callable[[Settings], Channel]
    subject: str = ""
    html: str = ""
    short_footer: bool = True
    rate_scopes: frozenset[str] = frozenset()
    probe: Callable[[Settings], Probe | None] = no_probe

    @property
    def parts(self) -> tuple[str, ...]:
        """The endings of the template files that a message needs in each language."""
        return tuple(ending for ending in (self.subject, self.text, self.html) if ending)

    @property
    def consent(self) -> str:
        """The channel's name among consents and suppressions."""
        return self.key
