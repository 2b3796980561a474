"""Attributes of partners and brands, as expressions and templates see them."""

from typing import Any

from distmark.partners.table import Brand, Partner


def partner_attributes(partner: Partner) -> dict[str, Any]:
    """Return the attributes that templates and expressions see as `partner`."""
    names = ("name", "title", "phone", "email", "code", "office", "city", "language", "zone")
    return {name: getattr(partner, name) for name in names}


def brand_attributes(brand: Brand) -> dict[str, Any]:
    """Return the attributes that templates and expressions see as `brand`; those in other languages end in `_LANGUAGE`."""
    own = {name: getattr(brand, name) for name in ("key", "name", "legal_name", "address", "contact", "website", "zone")}
    return own | {f"{name}_{lang}": text for lang, texts in brand.translations.items() for name, text in texts.items()}
