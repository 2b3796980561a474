"""YAML with positions: plain data, and the line of every value. YAML 1.2 words: `on` is a name, 21:00 and 2026-12-24 are texts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

import yaml

from distmark.journeys.findings import DefinitionError, Finding, finding

Path = tuple[str | int, ...]

LARGEST_DEFINITION = 500_000
MOST_VALUES = 50_000
DEEPEST_PATH = 120
LONGEST_NUMBER = 18  # characters: what every database and JSON reader takes

LONGEST_NUMBER = 30  # digits; a longer one is a text, and no field takes it
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WORDS: Mapping[str, object] = {"true": True, "True": True, "false": False, "False": False, "null": None, "~": None, "": None}


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data with the line (from 1) of each value and each key, by path."""

    data: object
    lines: Mapping[Path, int]
    key_lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """Return the line of the value at `path`, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def key_line(self, path: Path) -> int:
        """Return the line of the key that names the value at `path`."""
        return self.key_lines.get(path) or self.line(path)


@dataclass(slots=True)
class _Reading:
    file: str
    lines: dict[Path, int] = field(default_factory=dict)
    key_lines: dict[Path, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def value(self, node: yaml.Node, path: Path) -> object:
        if len(self.lines) > MOST_VALUES:
            raise yaml.YAMLError("it holds too many values")
        if len(path) > DEEPEST_PATH:
            raise yaml.YAMLError("it is nested too deeply")
        self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, number)) for number, item in enumerate(node.value)]
        return self.mapping(node, path)

    def mapping(self, node: yaml.Node, path: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            line = key_node.start_mark.line + 1
            if key in found:
                self.findings.append(finding("double-field", self.file, line, field=key, name=key))
            self.key_lines[(*path, key)] = line
            found[key] = self.value(value_node, (*path, key))
        return found


def _scalar(node: yaml.ScalarNode) -> object:
    text: str = node.value
    if node.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > LONGEST_NUMBER:  # a field that wants a number says so
        return text
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) and isfinite(float(text)) else text


def read_yaml(text: str, file: str) -> Document:
    """Return the data of `text` with positions; raises DefinitionError for bad YAML, a field written twice, or a text too large."""
    if len(text) > LARGEST_DEFINITION:
        raise DefinitionError([finding("big-file", file, 1, limit=str(LARGEST_DEFINITION))])
    reading = _Reading(file)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = reading.value(node, ()) if node is not None else None
    except yaml.YAMLError as error:
        raise DefinitionError([_bad_yaml(error, file)]) from error
    except RecursionError as error:
        raise DefinitionError([finding("bad-yaml", file, 1, reason="it is nested too deeply or refers to itself")]) from error
    if reading.findings:
        raise DefinitionError(reading.findings)
    return Document(data, reading.lines, reading.key_lines)


def _bad_yaml(error: yaml.YAMLError, file: str) -> Finding:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error)
    return finding("bad-yaml", file, mark.line + 1 if mark else 1, reason=" ".join(str(reason).split()))
