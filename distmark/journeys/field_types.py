"""Small written values of a journey file: names, texts per language, percentages, caps, dates."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field

from distmark.journeys.fields import Written, problem
from distmark.journeys.times import is_usable

LONGEST_NAME = 63
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
IDENTIFIER_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
LANGUAGES = ("ja", "en")
PERIODS = {"hour": 1 / 24, "day": 1.0, "week": 7.0, "month": 30.0}
DATE_ROOTS = ("contact", "journey")

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)\s*%")
_CAP = re.compile(r"(\d{1,7})\s+per\s+(hour|day|week|month)")
_ATTRIBUTE = re.compile(rf"({'|'.join(DATE_ROOTS)})\.([a-z_][a-z0-9_]*)")


def _name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise problem("bad-name", value=value)
    return value


def _identifier(value: str) -> str:
    if not re.fullmatch(IDENTIFIER_PATTERN, value):
        raise problem("bad-identifier", value=value)
    return value


Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": NAME_PATTERN})]
Identifier = Annotated[str, AfterValidator(_identifier), Field(json_schema_extra={"pattern": IDENTIFIER_PATTERN})]


@dataclass(frozen=True, slots=True)
class Words(Written, Mapping[str, str]):
    """A text that people read, by language; one that was written once is the same in all of them."""

    texts: Mapping[str, str]
    for_all: bool = False

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the words written as a text or as {ja: ..., en: ...}."""
        if isinstance(value, str):
            return cls(dict.fromkeys(LANGUAGES, value), for_all=True)
        if isinstance(value, Mapping) and value and all(isinstance(text, str) for text in value.values()):
            return cls({str(lang): text for lang, text in value.items()})
        raise problem("bad-words", value=str(value))

    @classmethod
    def described(cls) -> dict[str, Any]:
        texts = {
            "type": "object",
            "properties": {lang: {"type": "string"} for lang in LANGUAGES},
            "additionalProperties": {"type": "string"},
        }
        return {"anyOf": [{"type": "string"}, {**texts, "minProperties": 1}]}

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.texts.items())))

    def __str__(self) -> str:
        return self.text()

    def __getitem__(self, lang: str) -> str:
        return self.texts[lang]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def text(self, lang: str = "") -> str:
        """Return the text in `lang`, else the first."""
        return self.texts.get(lang) or next(iter(self.texts.values()))

    def lacks(self, lang: str) -> bool:
        """Return whether there is no text for `lang`."""
        return not self.for_all and lang not in self.texts


@dataclass(frozen=True, slots=True)
class Percent(Written):
    """A share; `rate` is 0 to 1."""

    rate: float
    written: str

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the share written as "50%" or "12.5%"."""
        match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or float(match[1]) > 100:
            raise problem("bad-percent", value=str(value))
        return cls(float(match[1]) / 100, f"{match[1]}%")

    @classmethod
    def described(cls) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^\d{1,3}(\.\d+)?\s*%$", "examples": ["50%"]}

    def __str__(self) -> str:
        return self.written


@dataclass(frozen=True, slots=True)
class Cap(Written):
    """At most so many in a period of so many days."""

    count: int
    period: str

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the cap written as "3 per week"; none at all is refused, since 0 has meant both "never" and "no cap" elsewhere."""
        match = _CAP.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or int(match[1]) == 0:
            raise problem("bad-cap", value=str(value))
        return cls(int(match[1]), match[2])

    @classmethod
    def described(cls) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[1-9]\d{0,6} per (hour|day|week|month)$", "examples": ["3 per week", "500 per day"]}

    @property
    def days(self) -> float:
        """The length of the period, in days."""
        return PERIODS[self.period]

    def __str__(self) -> str:
        return f"{self.count} per {self.period}"


@dataclass(frozen=True, slots=True)
class DateOf(Written):
    """A day, or the attribute that holds one: exactly one of `day` and `attribute` is set; `root` says whose attribute."""

    day: date | None = None
    root: str = ""
    attribute: str = ""

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the date written as "2026-12-24" or "contact.renewal_date"."""
        text = value.strip() if isinstance(value, str) else ""
        if match := _ATTRIBUTE.fullmatch(text):
            return cls(root=match[1], attribute=match[2])
        try:
            day = value if isinstance(value, date) else date.fromisoformat(text)
        except ValueError as error:
            raise problem("bad-date", value=str(value)) from error
        if not is_usable(day):
            raise problem("bad-date", value=str(value))
        return cls(day=day)

    @classmethod
    def described(cls) -> dict[str, Any]:
        return {"type": "string", "examples": ["2026-12-24", "contact.renewal_date"]}

    def __str__(self) -> str:
        return self.day.isoformat() if self.day else f"{self.root}.{self.attribute}"
