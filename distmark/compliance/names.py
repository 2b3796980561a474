"""Names of brands and partners in other languages, as messages and pages show them; each change is in the audit trail."""

from collections.abc import Mapping
from datetime import datetime

from sqlmodel import Session

from distmark.compliance.service import record
from distmark.errors import InvalidInput
from distmark.partners.model import Permission, Role, Viewer
from distmark.partners.service import LANGUAGES, brand_of, get_partner, require
from distmark.partners.table import Brand, Partner
from distmark.partners.translations import with_texts

PARTNER_TEXTS = ("name", "title", "office", "city")
BRAND_TEXTS = ("name", "legal_name", "address", "contact")
LONGEST_NAME = 120
LONGEST_ADDRESS = 300


def translate_partner(session: Session, viewer: Viewer, partner_id: int, lang: str, texts: Mapping[str, str], now: datetime) -> Partner:
    """Set the partner's name, title, office and city in a language other than its own, and return the partner; "" removes one.

    Errors: NotFound outside the viewer's sight, InvalidInput for a text or language that cannot be used.
    """
    require(viewer, Permission.enrol_contacts if viewer.role is Role.partner else Permission.publish_campaigns)
    partner = get_partner(session, viewer, partner_id)
    after = with_texts(partner, lang, checked_names(lang, texts, PARTNER_TEXTS))
    if after != partner.translations:
        partner.translations = after
        session.add(partner)
        record(session, partner.brand_id, viewer.user_id, "named", "partner", partner_id, now, lang=lang, names=sorted(texts))
    return partner


def translate_brand(session: Session, viewer: Viewer, lang: str, texts: Mapping[str, str], now: datetime) -> Brand:
    """Set the names and the address of the viewer's brand in a language other than its own, and return the brand; "" removes one.

    The footer of every message in that language says them. InvalidInput for a text or language that cannot be used.
    """
    require(viewer, Permission.publish_campaigns)
    brand = brand_of(session, viewer)
    after = with_texts(brand, lang, checked_names(lang, texts, BRAND_TEXTS, LONGEST_ADDRESS))
    if after != brand.translations:
        brand.translations = after
        session.add(brand)
        record(session, viewer.brand_id, viewer.user_id, "named", "brand", viewer.brand_id, now, lang=lang, names=sorted(texts))
    return brand


def checked_names(lang: str, texts: Mapping[str, str], allowed: tuple[str, ...], longest: int = LONGEST_NAME) -> dict[str, str]:
    """Return the texts, trimmed; InvalidInput for one that is too long, has more than one line, or is of an unknown kind or language."""
    if lang not in LANGUAGES:
        raise InvalidInput(f"The language {lang!r} is not one of {', '.join(LANGUAGES)}.")
    clean = {name: text.strip() for name, text in texts.items() if name in allowed}
    for text in clean.values():
        if len(text) > longest or not text.isprintable():
            raise InvalidInput(f"The name has {len(text)} characters; write at most {longest}, on one line.")
    return clean
