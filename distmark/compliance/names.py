"""Names of partners in other languages, as their messages and pages show them, with an entry in the audit trail for each change."""

from collections.abc import Mapping
from datetime import datetime

from sqlmodel import Session

from distmark.compliance.service import record
from distmark.errors import InvalidInput
from distmark.partners.model import Permission, Role, Viewer
from distmark.partners.service import LANGUAGES, get_partner, require
from distmark.partners.table import Partner
from distmark.partners.translations import with_texts

PARTNER_TEXTS = ("name", "title", "office", "city")
LONGEST_NAME = 120


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


def checked_names(lang: str, texts: Mapping[str, str], allowed: tuple[str, ...]) -> dict[str, str]:
    """Return the texts, trimmed; InvalidInput for one that is too long, has more than one line, or is of an unknown kind or language."""
    if lang not in LANGUAGES:
        raise InvalidInput(f"The language {lang!r} is not one of {', '.join(LANGUAGES)}.")
    clean = {name: text.strip() for name, text in texts.items() if name in allowed}
    for text in clean.values():
        if len(text) > LONGEST_NAME or not text.isprintable():
            raise InvalidInput(f"The name has {len(text)} characters; write at most {LONGEST_NAME}, on one line.")
    return clean
