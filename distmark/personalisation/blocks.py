"""Editable blocks: the partner's text, cleaned, and the layer whose value wins. Partner text is data, never template source."""

import unicodedata
from collections.abc import Callable, Collection, Mapping
from urllib.parse import urlsplit

import nh3
from inscriptis import get_text
from markupsafe import Markup, escape

from distmark.errors import InvalidInput
from distmark.personalisation.model import BlockKind, BlockValue, Layer
from distmark.personalisation.web_addresses import holds_personal_link

RICH_TAGS = {"a", "b", "br", "em", "i", "li", "ol", "p", "strong", "u", "ul"}
_RICH_SCHEMES = {"https", "http", "mailto", "tel"}


def sanitise_block(kind: BlockKind | str, value: str, max_length: int, allowed_domains: Collection[str] = ()) -> str:
    """Return `value` fit to be stored: control characters gone, lines ended alike, rich text reduced to harmless tags.

    `max_length` counts the characters a reader sees. An image must be an https URL on one of `allowed_domains` or below it. InvalidInput
    says what is too long or not allowed. Clean text stays as it is, so cleaning twice changes nothing.
    """
    clean = _CLEANERS[BlockKind(kind)](_without_controls(value))
    if holds_personal_link(clean):
        raise InvalidInput(
            "The text holds a link out of a message to one person; whoever follows it would act as that person. Use the original address."
        )
    length = len(plain_text(BlockKind(kind), clean))
    if length > max_length:
        raise InvalidInput(f"The text is {length} characters long; at most {max_length} fit here. Shorten it by {length - max_length}.")
    if kind == BlockKind.IMAGE and clean:
        _check_image(clean, allowed_domains)
    return clean


def _without_controls(value: str) -> str:
    lines = value.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return "".join(letter for letter in lines if letter in "\n\t" or not _is_control(letter)).strip()


def _is_control(letter: str) -> bool:
    # Bidirectional overrides could turn the look of a sentence or a URL around; U+E000-U+E005 delimit slots.
    return (
        unicodedata.category(letter) == "Cc"
        or letter in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
        or "\ue000" <= letter <= "\ue005"
    )


def _clean_rich(value: str) -> str:
    return nh3.clean(value, tags=RICH_TAGS, attributes={"a": {"href"}}, url_schemes=_RICH_SCHEMES, link_rel="noopener")


def _as_typed(value: str) -> str:
    return value


_CLEANERS: Mapping[BlockKind, Callable[[str], str]] = {
    BlockKind.TEXT: _as_typed,
    BlockKind.RICH: _clean_rich,
    BlockKind.IMAGE: _as_typed,
}


def _check_image(url: str, allowed_domains: Collection[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or any(letter.isspace() for letter in url) or parts.username is not None:
        raise InvalidInput(f"The picture {url!r} is not an https address; choose one from the brand's library.")
    if not any(parts.hostname == domain or parts.hostname.endswith(f".{domain}") for domain in allowed_domains):
        raise InvalidInput(
            f"The picture's site {parts.hostname} is not allowed; use one of {', '.join(sorted(allowed_domains)) or '(none)'}."
        )


def plain_text(kind: BlockKind, value: str) -> str:
    """Return what a reader sees of a block's value, for the text part and for counting."""
    if kind is not BlockKind.RICH:
        return value
    return "\n".join(line.rstrip() for line in get_text(value).strip().splitlines())


def block_html(name: str, block: BlockValue, mark: bool) -> Markup:
    """Return a block's value as HTML: text escaped with its line breaks, rich text cleaned again, an image's URL as it is.

    With `mark` the value is wrapped so that a preview shows what can be edited.
    """
    if block.kind is BlockKind.IMAGE:
        return escape(block.value)
    # The value has just been cleaned, which is what makes it safe as markup.
    shown = Markup(_clean_rich(block.value)) if block.kind is BlockKind.RICH else _with_breaks(block.value)  # noqa: S704
    return Markup('<mark class="editable" data-block="{}">{}</mark>').format(name, shown) if mark and shown else shown


def _with_breaks(value: str) -> Markup:
    return Markup("<br>").join(escape(line) for line in value.split("\n"))


def resolve_blocks(
    definition_defaults: Mapping[str, str],
    brand: Mapping[str, str | None],
    campaign: Mapping[str, str | None],
    group: Mapping[str, str | None],
    member: Mapping[str, str | None],
    *,
    kinds: Mapping[str, str] | None = None,
) -> dict[str, BlockValue]:
    """Return each block of the definition with the value that wins and the layer it comes from; a later layer wins.

    None or no entry means that a layer says nothing; an empty string means that it wants the block empty. Values for blocks that the
    definition does not have are not used: they belong to another version.
    """
    layers = ((Layer.BRAND, brand), (Layer.CAMPAIGN, campaign), (Layer.GROUP, group), (Layer.MEMBER, member))
    resolved = {}
    for name, default in definition_defaults.items():
        winning = BlockValue(default, Layer.JOURNEY, BlockKind((kinds or {}).get(name, BlockKind.TEXT)))
        for layer, values in layers:
            value = values.get(name)
            if value is not None:
                winning = BlockValue(value, layer, winning.kind)
        resolved[name] = winning
    return resolved
