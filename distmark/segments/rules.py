"""Rules of segments: reading and checking a rule, and evaluating it for a contact."""

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from distmark.contacts.attributes import attributes_of
from distmark.contacts.fields import TYPES
from distmark.contacts.table import Contact
from distmark.errors import InvalidInput
from distmark.journeys.expressions import FUNCTIONS, Expression, ExpressionError, Names, namespace
from distmark.journeys.findings import closest
from distmark.journeys.model import Facts
from distmark.journeys.times import zone_for
from distmark.segments.table import Segment

RULE_NAMES = ("contact", "now", "today")
RULE_FUNCTIONS = ("days_since", "days_until")
TIME_NAMES = frozenset(("now", "today", *RULE_FUNCTIONS))


def read_rule(rule: str) -> Expression:
    """Return the rule as an expression. InvalidInput for a name or a call that rules may not use: they see the contact and the day only."""
    try:
        expression = Expression.read(rule)
    except ValueError as error:
        reason = (getattr(error, "context", None) or {}).get("reason", "it is empty or too long")
        raise InvalidInput(f'The rule "{rule}" cannot be read: {reason}; write it like contact.city == "Tokyo".') from error
    uses = expression.uses
    called = {call.name for call in uses.calls}
    unknown = sorted(uses.names - {name for name in RULE_NAMES if name not in called} - (called & set(RULE_FUNCTIONS)))
    if unknown:
        near = closest(unknown[0], [*RULE_NAMES, *RULE_FUNCTIONS])
        meant = f" (did you mean {near}?)" if near else ""
        raise InvalidInput(f'The rule "{rule}" speaks of "{unknown[0]}"{meant}; it may use contact, today, now, days_since and days_until.')
    wrong = next((call for call in uses.calls if call.named or len(call.args) != len(FUNCTIONS[call.name].needs)), None)
    if wrong is not None:
        raise InvalidInput(f'The rule "{rule}" calls {wrong.name} wrongly; write it like {FUNCTIONS[wrong.name].form}.')
    return expression


def depends_on_time(rule: Expression) -> bool:
    """Return whether the rule may become true or false by the passing of time alone."""
    return bool(rule.uses.names & TIME_NAMES)


def read_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the types of the attributes (name -> type); InvalidInput for a type that does not exist."""
    odd = next((name for name, kind in fields.items() if kind not in TYPES), None)
    if odd is not None:
        raise InvalidInput(f'The field "{odd}" has the type "{fields[odd]}"; use one of {", ".join(TYPES)}.')
    return dict(fields)


def rule_names(contact: Contact, segment: Segment, now: datetime, zone: ZoneInfo | None) -> Names:
    """Return the names that rules of the segment see for this contact; without a zone, the contact's own."""
    return namespace(Facts(contact=attributes_of(contact, segment.fields)), now, zone or zone_for(contact.zone))


def rule_holds(rule: Expression, names: Names) -> bool | None:
    """Return whether the rule holds; None when it cannot be evaluated with these values."""
    try:
        return rule.holds(names)
    except ExpressionError:
        return None  # one odd value must neither end a membership nor keep other contacts from being evaluated
