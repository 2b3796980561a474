"""`distmark journeys check`: everything that can be found wrong with a journey before anybody is in it."""

from collections.abc import Collection, Mapping
from datetime import datetime

from distmark.journeys.checks.context import Checked, places_of
from distmark.journeys.checks.installation import check_installation
from distmark.journeys.checks.references import check_references
from distmark.journeys.checks.structure import check_shape
from distmark.journeys.checks.templates import check_syntax, check_templates
from distmark.journeys.checks.values import check_values
from distmark.journeys.definition import read_definition
from distmark.journeys.findings import DefinitionError, Finding, Severity
from distmark.journeys.program import build_program
from distmark.journeys.source import Source

__all__ = ["Finding", "Severity", "check", "has_errors"]

# While these stand, the ways between steps are not known and the shape cannot be judged.
BREAKS_WAYS = {"unknown-step"}


def check(
    source: Source,
    *,
    now: datetime | None = None,
    journeys: Collection[str] | None = None,
    lacking: Mapping[str, Mapping[str, str]] | None = None,
    segments: Collection[str] | None = None,
    secrets: Collection[str] | None = None,
) -> list[Finding]:
    """Return what is wrong with a journey, by file and line; empty when nothing is.

    `now` (aware) finds waits for days that are past, `journeys` are the keys that a journey step may enter, `lacking` the channels
    and uses that are not possible in this installation, each with what it lacks, `segments` the keys of the brand's segments and
    `secrets` the names of the keys that sign webhooks; each is left out when None.
    """
    found = list(check_syntax(source))
    try:
        definition, document = read_definition(source)
    except DefinitionError as error:
        return sort_findings([*found, *error.findings], source)
    checked = Checked(source, definition, document, build_program(definition), places_of(document), now)
    references = list(check_references(checked, frozenset(journeys) if journeys is not None else None))
    found += [*references, *check_templates(checked), *check_values(checked)]
    found += check_installation(checked, lacking or {}, segments, secrets)
    if not any(item.code in BREAKS_WAYS and (item.field or "").endswith(("goto", "on_timeout")) for item in references):
        found += check_shape(checked)
    return sort_findings(found, source)


def sort_findings(found: list[Finding], source: Source) -> list[Finding]:
    """Return the findings without repeats: the definition's first, then by file and line, errors before warnings."""
    unique = [item for number, item in enumerate(found) if item not in found[:number]]
    return sorted(unique, key=lambda item: (item.file != source.file, item.file, item.line, item.severity != Severity.error))


def has_errors(findings: Collection[Finding]) -> bool:
    """Return whether any finding keeps the journey from being submitted."""
    return any(item.severity is Severity.error for item in findings)
