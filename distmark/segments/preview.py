"""A rule tried on the viewer's contacts before it is stored: how many fit, and the values that cannot be read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func
from sqlmodel import Session, col, select

from distmark.contacts.attributes import zones_of
from distmark.contacts.fields import ContactInput, typed
from distmark.contacts.table import Contact
from distmark.partners.model import Viewer
from distmark.partners.scope import visible
from distmark.segments.rules import read_fields, read_rule, rule_holds, rule_names
from distmark.segments.table import Segment
from distmark.sql import id_of

MOST_TRIED = 5000  # contacts: a page waits for the answer
MOST_VALUES = 8
SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class UnreadableValue:
    """A value of an attribute that the rule cannot read, and the number of contacts that have it."""

    attribute: str
    value: str
    contacts: int


@dataclass(frozen=True, slots=True)
class RulePreview:
    """The contacts that fit a rule, out of the `tried` newest of `total`; those that cannot be evaluated, and the values that are why."""

    fits: int
    tried: int
    total: int
    unclear: int
    unreadable: list[UnreadableValue]


def preview_rule(
    session: Session, viewer: Viewer, rule: str, fields: Mapping[str, str], now: datetime, partner_id: int | None = None
) -> RulePreview:
    """Try the rule on the viewer's newest contacts, of one partner only with `partner_id`. InvalidInput for a rule that cannot be used."""
    expression, types = read_rule(rule), read_fields(fields)
    used = {name for root, name in expression.uses.attributes if root == "contact"}
    contacts, total = _newest_contacts(session, viewer, partner_id)
    segment = Segment(brand_id=viewer.brand_id, key="", name="", rule=expression.text, fields=types, created_at=now)
    zones = zones_of(session, contacts)
    fits = unclear = 0
    unreadable = Counter[tuple[str, str]]()
    for contact in contacts:
        verdict = rule_holds(expression, rule_names(contact, segment, now, zones[id_of(contact)]))
        fits += verdict is True
        unclear += verdict is None
        unreadable.update(_unreadable(contact, used, types, verdict is None))
    rows = [UnreadableValue(name, value, count) for (name, value), count in unreadable.most_common(MOST_VALUES)]
    return RulePreview(fits, len(contacts), total, unclear, rows)


def _unreadable(contact: Contact, used: set[str], types: Mapping[str, str], is_unclear: bool) -> list[tuple[str, str]]:
    """Return the (attribute, value) pairs of this contact that the rule uses and cannot read as their type."""
    given = {name: value for name, value in contact.attributes.items() if name in used and value not in (None, "")}
    read = typed(given, types)
    return [
        (name, str(value)[:SHOWN_CHARACTERS]) for name, value in given.items() if read[name] is None or (is_unclear and name not in types)
    ]


def known_attributes(session: Session, viewer: Viewer) -> list[str]:
    """Return the names of the viewer's contacts' own attributes, the most frequent first."""
    contacts, _ = _newest_contacts(session, viewer, None)
    names = Counter(name for contact in contacts for name in contact.attributes if name not in ContactInput.model_fields)
    return [name for name, _ in names.most_common()]


def _newest_contacts(session: Session, viewer: Viewer, partner_id: int | None) -> tuple[list[Contact], int]:
    conditions: list[ColumnElement[bool]] = [col(Contact.erased_at).is_(None)]
    if partner_id is not None:
        conditions.append(col(Contact.partner_id) == partner_id)
    total = session.exec(visible(select(func.count(col(Contact.id))), Contact, viewer).where(*conditions)).one()
    newest = visible(select(Contact), Contact, viewer).where(*conditions).order_by(col(Contact.id).desc()).limit(MOST_TRIED)
    return list(session.exec(newest)), total
