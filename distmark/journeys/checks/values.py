"""Can each condition and text be evaluated at all? Tried with a contact that has every attribute, and with one that has none."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from distmark.journeys.checks.context import Checked, all_readables
from distmark.journeys.definition import FieldType
from distmark.journeys.expressions import Expression, ExpressionError, Names, Text, namespace
from distmark.journeys.findings import Finding
from distmark.journeys.model import EventFact, Facts

_NOW = datetime(2026, 1, 15, 3, 0, tzinfo=UTC)
_ZONE = ZoneInfo("Asia/Tokyo")
SAMPLES = {FieldType.text: "山田", FieldType.number: 3, FieldType.bool: True, FieldType.date: date(2026, 4, 1)}


def check_values(checked: Checked) -> Iterator[Finding]:
    """Yield each condition and text that fails for every contact, whatever is known about the contact."""
    tried = [_names(Facts()), _names(_full_facts(checked))]
    for step, place, readable in all_readables(checked):
        reasons = [reason for names in tried if (reason := _failure(readable, names))]
        if len(reasons) == len(tried):
            yield checked.finding("never-evaluates", step, place, value=readable.text, reason=reasons[0])


def _full_facts(checked: Checked) -> Facts:
    def values(root: str) -> dict[str, object]:
        return {name: SAMPLES[FieldType(kind)] for name, kind in checked.definition.attributes(root).items()}

    return Facts(values("contact"), values("journey"), values("partner"), values("campaign"), values("brand"))


def _names(facts: Facts) -> Names:
    return namespace(facts, _NOW, _ZONE, EventFact("event", _NOW))


def _failure(readable: Expression | Text, names: Names) -> str:
    try:
        readable.value(names)
    except ExpressionError as error:
        return str(error.__cause__)
    return ""
