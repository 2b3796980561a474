"""The footer that every marketing message carries: who is responsible, where, whom to ask, why, and how to refuse.

Sources: 特定電子メール法 Art. 4 and its rule (name, how to refuse and the sentence beside it, postal address, contact);
CAN-SPAM, 16 CFR 316 (advertisement, postal address, opt-out).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True, slots=True)
class _Wording:
    sender: str
    address: str
    contact: str
    licence: str
    through: str
    why: str
    refuse: str
    refuse_link: str
    refuse_in_text: str
    sms: str
    colon: str


_WORDINGS = {
    "ja": _Wording(
        sender="送信者",
        address="所在地",
        contact="お問い合わせ・苦情窓口",
        licence="登録",
        through="担当",
        why="このメールは、{sender}または担当者からのご案内をご希望いただいた方、お取引・お名刺交換のあった方にお送りする広告・宣伝のメールです。",
        refuse="今後のご案内が不要な方は、いつでも配信を停止できます。配信停止をご希望の方は",
        refuse_link="こちら",
        refuse_in_text="今後のご案内が不要な方は、いつでも配信を停止できます。\n配信停止：{url}",
        sms="{sender} 配信停止:",
        colon="：",
    ),
    "en": _Wording(
        sender="Sender",
        address="Address",
        contact="Questions and complaints",
        licence="Registration",
        through="Your contact",
        why="This is an advertisement from {sender}, sent to you because you asked for news, are a customer or gave us your card.",
        refuse="You may stop these messages at any time.",
        refuse_link="Unsubscribe",
        refuse_in_text="You may stop these messages at any time.\nUnsubscribe: {url}",
        sms="{sender} opt out:",
        colon=": ",
    ),
}
_REQUIRED = ("legal_name", "address", "contact")
_LINK_STYLE = "color:#3b4450;text-decoration:underline;font-weight:bold;"
_STYLE = "font-size:12px;line-height:1.7;color:#5b6470;text-align:left;"


@dataclass(frozen=True, slots=True)
class LegalFooter:
    """One footer, as HTML for the mail, as text for its twin and as one line for a short message."""

    html: Markup
    text: str
    sms: str


class FooterIncomplete(ValueError):
    """The brand lacks something the law wants shown; the text is the missing slot, such as `brand.address`."""


def legal_footer(
    brand: Mapping[str, object], partner: Mapping[str, object], lang: str, unsubscribe_url: str | None, why: str = ""
) -> LegalFooter:
    """Return the footer in `lang` (English when it has no wording of its own); FooterIncomplete names a missing brand fact.

    The responsible sender is `brand.legal_name`; a fact written for one language (`legal_name_en`) goes before the general one.
    `unsubscribe_url` is None only for transactional mail, which nobody can refuse.
    """
    words = _WORDINGS.get(lang, _WORDINGS["en"])
    for name in _REQUIRED:
        if not _fact(brand, name, lang):
            raise FooterIncomplete(f"brand.{name}")
    sender = _fact(brand, "legal_name", lang)
    lines = [f"{label}{words.colon}{value}" for label, value in _rows(brand, partner, lang) if value]
    reason = why or (words.why.format(sender=sender) if unsubscribe_url else "")
    return LegalFooter(
        _html(lines, reason, words, unsubscribe_url),
        _text(lines, reason, words, unsubscribe_url),
        _sms(_fact(brand, "name", lang) or sender, words, unsubscribe_url),
    )


def _fact(facts: Mapping[str, object], name: str, lang: str) -> str:
    value = facts.get(f"{name}_{lang}") or facts.get(name)
    return "" if value is None else str(value).strip()


def _rows(brand: Mapping[str, object], partner: Mapping[str, object], lang: str) -> list[tuple[str, str]]:
    words = _WORDINGS.get(lang, _WORDINGS["en"])
    person = " ".join(value for value in (_fact(partner, "office", lang), _fact(partner, "name", lang)) if value)
    website = _fact(brand, "website", lang)
    contact = _fact(brand, "contact", lang) + (f" / {website}" if website else "")
    return [
        (words.sender, _fact(brand, "legal_name", lang)),
        (words.licence, _fact(brand, "licence", lang)),
        (words.through, person),
        (words.address, _fact(brand, "address", lang)),
        (words.contact, contact),
    ]


def _html(lines: list[str], reason: str, words: _Wording, unsubscribe_url: str | None) -> Markup:
    shown = str(escape("\n".join(([reason] if reason else []) + lines))).replace("\n", "<br>")
    if unsubscribe_url:
        shown += f'<br>{words.refuse} <a href="{escape(unsubscribe_url)}" style="{_LINK_STYLE}">{words.refuse_link}</a>'
    # Every value has just been escaped; the wording is our own.
    return Markup(f'<div style="{_STYLE}">{shown}</div>')  # noqa: S704


def _text(lines: list[str], reason: str, words: _Wording, unsubscribe_url: str | None) -> str:
    refusal = [words.refuse_in_text.format(url=unsubscribe_url)] if unsubscribe_url else []
    return "\n".join(["-" * 40, *([reason] if reason else []), *lines, *refusal])


def _sms(sender: str, words: _Wording, unsubscribe_url: str | None) -> str:
    return f"{words.sms.format(sender=sender)} {unsubscribe_url}" if unsubscribe_url else ""
