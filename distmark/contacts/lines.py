"""Lines of files of contacts: cells become checked fields, consents and refusals. Pure: knows no database.

A line that cannot be taken costs nobody a refusal: who refuses is taken with whatever can be read, if it is only the address.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from distmark.channels.kind import AddressForm
from distmark.channels.registry import CHANNELS
from distmark.contacts.consent_words import agreement, is_cross, is_no, is_unclear, is_yes, permission_channels, refused_in
from distmark.contacts.fields import FIELDS, ContactInput, attribute_name, message
from distmark.contacts.headings import COLUMN_FIELDS, is_mobile
from distmark.contacts.model import address_key
from distmark.contacts.names import split_name
from distmark.text import has_private_characters

# Cells that hold nothing: errors of spreadsheets, empty values of databases, dashes.
_NOTHING = frozenset(
    [
        *("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#SPILL!", "#CALC!", "#GETTING_DATA", "#ERROR!", "#N/A N/A"),
        *("NULL", "(null)", "<null>", "[null]", "(NULL)", "NaN", "nan", "N/A", "n/a", "None", "undefined", "\\N", "(空白)", "(blank)"),
        *("-", "--", "---", "ー", "－", "―", "—", "–", "‐", "−", "/", "0000-00-00", "0000-00-00 00:00:00"),
    ]
)
# Words that say so in a column of addresses or dates; elsewhere they are a value.
_NO_ADDRESS = frozenset(
    ["なし", "無し", "無", "ない", "不明", "未登録", "未記入", "未設定", "非公開", "none", "no", "unknown", "nil", "x", "×", "0"]
)
_BARE = ("email", "phone", "birthday")
_OWN_WHEN_UNREAD = ("kind", "zone")  # 種別 and 時間帯 are headings of other things, too
_LEFT_OUT = ("phone",)  # a line with another address does without


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A rejected line: its number in the file (from 1, including the headings' line), and the reason in both languages."""

    line: int
    field: str
    value: str
    message_en: str
    message_ja: str


@dataclass(frozen=True, slots=True)
class OmittedCell:
    """A cell that was left out of a line that was taken, with the reason in both languages."""

    line: int
    field: str
    value: str
    message_en: str
    message_ja: str


@dataclass(frozen=True, slots=True)
class Line:
    """An accepted line of the file. `consents` maps channels to yes or no; a channel with an empty cell is absent.

    None in `consents` is a cell that says neither: no ground covers that contact.
    """

    number: int
    written: ContactInput
    consents: Mapping[str, bool | None]

    @property
    def address(self) -> str:
        """The address by which the contact is found in the partner's book."""
        return address_key(self.written.email or self.written.phone or "")


def consent_keys() -> tuple[str, ...]:
    """Return the names of all channels among consents."""
    return tuple(kind.consent for kind in CHANNELS.values())


def read_lines(
    columns: Sequence[str],
    rows: Iterable[tuple[int, Sequence[Any]]],
    headings: Sequence[str] = (),
    omitted: list[OmittedCell] | None = None,
) -> tuple[list[Line], list[RejectedLine]]:
    """Return the accepted lines and the rejected lines, each in the file's order; cells that were left out are added to `omitted`.

    A refusal on any line of an address, accepted or not, holds for every line with that address.
    """
    numbered = list(rows)
    reader = _LineReader(_places(columns, headings), len(columns), consent_keys())
    reader.look_at_columns(numbered)
    left_out = [] if omitted is None else omitted
    seen: set[str] = set()
    lines: list[Line] = []
    rejected: list[RejectedLine] = []
    refused: dict[str, set[str]] = {channel: set() for channel in reader.channels}
    for number, cells in numbered:
        read = reader.read(number, cells, left_out)
        if isinstance(read, RejectedLine):
            rejected.append(read)
            continue
        for channel in reader.channels:
            if read.consents.get(channel) is False:
                refused[channel].update(_addresses(read, channel))
        if read.address in seen:
            written = read.written
            rejected.append(_rejected(number, "email" if written.email else "phone", "same-address", written.email or written.phone))
            continue
        seen.add(read.address)
        lines.append(read)
    return [_with_refusals(line, refused) for line in lines], rejected


def _addresses(line: Line, channel: str) -> set[str]:
    """Return the line's own address, and the one at which the channel reaches it."""
    return {line.address, *(reached for reached in [reached_at(line.written, channel)] if reached)}


def reached_at(written: ContactInput, channel: str) -> str | None:
    """Return the address of the channel in these fields, in the form in which addresses are compared; None without one."""
    form = next((kind.form for kind in CHANNELS.values() if kind.consent == channel), AddressForm.identifier)
    found = written.email if form is AddressForm.email else written.phone if form is AddressForm.phone else None
    return address_key(found) if found else None


def _with_refusals(line: Line, refused: Mapping[str, set[str]]) -> Line:
    channels = [channel for channel, addresses in refused.items() if addresses and not addresses.isdisjoint(_addresses(line, channel))]
    if all(line.consents.get(channel) is False for channel in channels):
        return line
    return replace(line, consents={**line.consents, **dict.fromkeys(channels, False)})


def _places(columns: Sequence[str], headings: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of the columns of each field or attribute, in the file's order; mobile phones come before others."""
    places: dict[str, list[int]] = {}
    for position, name in enumerate(columns):
        if name:
            places.setdefault(name, []).append(position)
    if headings and "phone" in places:
        places["phone"].sort(key=lambda at: not is_mobile(headings[at]))
    return places


class _LineReader:
    """Reads the lines of one file."""

    def __init__(self, places: Mapping[str, list[int]], width: int, channels: tuple[str, ...]) -> None:
        self.places, self.width, self.channels = places, width, channels
        self.crosses_say_no: dict[str, bool] = {}
        self.permissions: dict[str, tuple[str, ...]] = {}

    def look_at_columns(self, rows: Sequence[tuple[int, Sequence[Any]]]) -> None:
        """Find out which columns of refusals mark a yes by another sign, so that a cross is a no, and which attributes are permissions."""
        for name, where in self.places.items():
            if name in COLUMN_FIELDS and not name.startswith("stopped"):
                continue
            filled = [cells[at] for _, cells in rows for at in where if at < len(cells) and _is_filled(cells[at])]
            if name in COLUMN_FIELDS:
                self.crosses_say_no[name] = any(is_yes(cell) and not is_cross(cell) for cell in filled)
            elif asked := permission_channels(name, filled, self.channels):
                self.permissions[name] = asked

    def read(self, number: int, cells: Sequence[Any], omitted: list[OmittedCell]) -> Line | RejectedLine:
        values = {name: value for name, where in self.places.items() if (value := _first(cells, where, name)) is not None}
        attributes = {name: value for name, value in values.items() if name not in COLUMN_FIELDS}
        refused = self._refused(values, cells, attributes)
        if any(_is_filled(cell) for cell in cells[self.width :]):
            return self._address_alone(number, values, refused, _rejected(number, "", "too-many-cells", str(len(cells))))
        try:
            consents = self._consents(values)
        except PydanticCustomError as error:
            if not refused:
                context = error.context or {}
                return _rejected(number, "consent", str(context["code"]), str(context["value"]))
            consents = {}
        unclear = {channel: None for name, asked in self.permissions.items() if is_unclear(values.get(name, "no")) for channel in asked}
        return self._line(number, values, attributes, {**unclear, **consents, **dict.fromkeys(refused, False)}, omitted)

    def _refused(self, values: Mapping[str, Any], cells: Sequence[Any], attributes: Mapping[str, Any]) -> set[str]:
        refused = refused_in(values, attributes, self.crosses_say_no, self.channels)
        for name, asked in self.permissions.items():
            if name in values and is_no(values[name]):
                refused.update(asked)
        # A second column of refusals counts as much as the first: one cell that says so is enough.
        for name, where in self.places.items():
            if len(where) > 1 and name not in FIELDS and name != "full_name":
                for at in where[1:]:
                    value = _first(cells, [at], name)
                    if value is not None:
                        refused |= refused_in(
                            {name: value}, {} if name in COLUMN_FIELDS else {name: value}, self.crosses_say_no, self.channels
                        )
        return refused

    def _consents(self, values: Mapping[str, Any]) -> dict[str, bool]:
        given = {channel: agreement(values.get(f"consent_{channel}", "")) for channel in self.channels}
        return {channel: yes for channel, yes in given.items() if yes is not None}

    def _line(
        self,
        number: int,
        values: Mapping[str, Any],
        attributes: Mapping[str, Any],
        consents: Mapping[str, bool | None],
        omitted: list[OmittedCell],
    ) -> Line | RejectedLine:
        fields = {**split_name(values), **{name: value for name, value in values.items() if name in FIELDS}}
        own = dict(attributes)
        refuses = False in consents.values()
        left_out: list[OmittedCell] = []
        while True:
            try:
                written = ContactInput(**fields, **({"attributes": own} if own else {}))
                break
            except ValidationError as error:
                first = error.errors()[0]
                name, bad = str(first["loc"][0]), _rejected_by(number, error)
                if name in _OWN_WHEN_UNREAD:
                    own[_heading_of(name)] = str(fields.pop(name))
                elif name in fields and (name in _LEFT_OUT or refuses or _lacks_year(name, fields[name])):
                    del fields[name]
                    left_out.append(OmittedCell(number, name, bad.value, bad.message_en, bad.message_ja))
                elif name == "attributes" and refuses:
                    own, lost = _readable(own)
                    left_out += [_omitted(number, attribute, *why) for attribute, why in lost.items()]
                else:
                    return bad
        if not written.email and not written.phone:
            # The address that cannot be read is the reason, if there is one.
            unread = next((cell for cell in left_out if cell.field in ("email", "phone")), None)
            if unread is not None:
                return RejectedLine(number, unread.field, unread.value, unread.message_en, unread.message_ja)
            return _rejected(number, "email", "no-address", "")
        omitted += left_out
        omitted += [
            _omitted(number, name, "private-character", str(value))
            for name, value in values.items()
            if isinstance(value, str) and has_private_characters(value)
        ]
        return Line(number, written, consents)

    def _address_alone(self, number: int, values: Mapping[str, Any], refused: set[str], rejected: RejectedLine) -> Line | RejectedLine:
        """Return a line with nothing but the addresses when it refuses; else that it is rejected."""
        fields: dict[str, Any] = {}
        for name in ("email", "phone") if refused else ():
            try:
                ContactInput(**{name: values.get(name)})
            except ValidationError:
                continue
            fields[name] = values.get(name)
        given = {name: value for name, value in fields.items() if value is not None}
        return Line(number, ContactInput(**given), dict.fromkeys(refused, False)) if given else rejected


def _heading_of(name: str) -> str:
    """Return the attribute in which a cell of this field is kept when it is something else."""
    return {"kind": "種別", "zone": "時間帯"}[name]


def _first(cells: Sequence[Any], positions: Sequence[int], name: str) -> Any:
    """Return the first of these cells that holds something, as far as this field is concerned; None when there is none."""
    for at in positions:
        if at < len(cells) and _is_filled(cells[at]):
            value = cells[at]
            if name in _BARE and isinstance(value, str) and value.strip().lower() in _NO_ADDRESS:
                continue
            # Google writes several addresses of a kind into one cell.
            return value.partition(" ::: ")[0] if isinstance(value, str) and " ::: " in value else value
    return None


def _is_filled(cell: Any) -> bool:
    if cell is None:
        return False
    if not isinstance(cell, str):
        return True
    stripped = cell.strip()
    return bool(stripped) and stripped not in _NOTHING


def _lacks_year(name: str, value: Any) -> bool:
    """Return whether this is a birthday of which only month and day are known, as address books and newsletters have them."""
    parts = str(value).strip().lstrip("-").replace("/", "-").split("-")
    return name == "birthday" and len(parts) == 2 and all(part.isascii() and part.isdigit() and len(part) <= 2 for part in parts)


def _readable(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    """Return the attributes that can be kept, and code and value of each of the others."""
    good: dict[str, Any] = {}
    lost: dict[str, tuple[str, str]] = {}
    for name, value in attributes.items():
        try:
            ContactInput(attributes={name: value})
        except ValidationError as error:
            context = error.errors()[0].get("ctx") or {}
            lost[name] = (str(context.get("code", "bad-attribute")), str(context.get("value", value)))
        else:
            good[attribute_name(name)] = value
    return good, lost


def _rejected_by(number: int, error: ValidationError) -> RejectedLine:
    first = error.errors()[0]
    context = first.get("ctx") or {}
    return _rejected(number, str(first["loc"][0]), str(context.get("code", "bad-attribute")), str(context.get("value", first["input"])))


def _rejected(number: int, name: str, code: str, value: str | None) -> RejectedLine:
    shown = value or ""
    return RejectedLine(number, name, shown, message(code, shown, "en"), message(code, shown, "ja"))


def _omitted(number: int, name: str, code: str, value: str) -> OmittedCell:
    return OmittedCell(number, name, value, message(code, value, "en"), message(code, value, "ja"))
