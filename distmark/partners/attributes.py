"""Attributes of partners and brands, as expressions and templates see them."""

from typing import Any

from distmark.partners.table import Brand, Partner
from distmark.partners.translations import of_language


def partner_attributes(partner: Partner, lang: str = "") -> dict[str, Any]:
    """Return the attributes that expressions see as `partner`, and templates in the language of the message, as far as written in it."""
    names = ("name", "title", "phone", "email", "code", "office", "city", "language", "zone")
    return {name: getattr(partner, name) for name in names} | of_language(partner, lang)


def brand_attributes(brand: Brand, lang: str = "") -> dict[str, Any]:
    """Return the attributes that expressions see as `brand`, and templates in the language of the message; others end in `_LANGUAGE`."""
    own = {name: getattr(brand, name) for name in ("key", "name", "legal_name", "address", "contact", "website", "zone")}
    others = {f"{name}_{other}": text for other, texts in brand.translations.items() for name, text in texts.items()}
    return own | others | of_language(brand, lang)
