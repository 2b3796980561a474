"""Fields of a contact: reading mail addresses, phone numbers, names, dates and languages in the spellings that people use. Pure."""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from functools import cache, partial
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from distmark.contacts.model import ContactKind
from distmark.errors import InvalidInput
from distmark.journeys.days import read_day
from distmark.numbers import read_number
from distmark.text import clean, tidy

LONGEST_TEXT = 200
LONGEST_ATTRIBUTE = 2000
MOST_ATTRIBUTES = 100
OLDEST_YEAR = 1880
REGION = "JP"  # the country of phone numbers written without one
HOME_ZONE = ZoneInfo("Asia/Tokyo")  # of times written without one
FIELDS = ("kind", "first_name", "last_name", "email", "phone", "language", "zone", "company", "city", "birthday")

# The reason for each refusal, in English and Japanese; {value} is the refused value.
MESSAGES: Mapping[str, tuple[str, str]] = {
    "bad-email": (
        "“{value}” is not a mail address; write it like name@example.com.",
        "「{value}」はメールアドレスではありません。name@example.com の形で入力してください。",
    ),
    "bad-phone": (
        "“{value}” is not a phone number; write it like 090-1234-5678, or +1 212 555 0100 for another country.",
        "「{value}」は電話番号ではありません。090-1234-5678、海外の番号は +1 212 555 0100 の形で入力してください。",
    ),
    "bad-date": (
        "“{value}” is not a date; write it like 1980-04-01.",
        "「{value}」は日付ではありません。1980-04-01 の形で入力してください。",
    ),
    "bad-language": (
        "“{value}” is not a language we write in; write ja or en.",
        "「{value}」は対応していない言語です。ja または en と入力してください。",
    ),
    "bad-zone": (
        "“{value}” is not a time zone; write it like Asia/Tokyo.",
        "「{value}」はタイムゾーンではありません。Asia/Tokyo の形で入力してください。",
    ),
    "bad-kind": (
        "“{value}” is not a kind of record; write contact, lead or account.",
        "「{value}」は種別ではありません。contact、lead、account のいずれかを入力してください。",
    ),
    "bad-consent": (
        "“{value}” does not say whether the person agreed; write yes or no.",
        "「{value}」では同意の有無がわかりません。はい または いいえ と入力してください。",
    ),
    "bad-attribute": (
        "“{value}” cannot be kept; write a text, a number, a date, yes or no.",
        "「{value}」は保存できません。文字、数値、日付、はい・いいえ のいずれかにしてください。",
    ),
    "too-long": (
        "“{value}” is too long; shorten it.",
        "「{value}」は長すぎます。短くしてください。",
    ),
    "too-many-cells": (
        "The line has {value} cells, more than there are headings; put a cell that holds a comma in quotation marks.",
        "セルが {value} 個あり、見出しより多くなっています。カンマを含むセルは引用符で囲んでください。",
    ),
    "private-character": (
        "“{value}” holds a character that only the computer that wrote it can show; it was left out, so write it again.",
        "「{value}」には、作成したパソコンでしか表示できない文字（外字）があります。その文字を除いて取り込みました。入力し直してください。",
    ),
    "no-address": (
        "There is neither a mail address nor a phone number; give one of them.",
        "メールアドレスも電話番号もありません。どちらかを入力してください。",
    ),
    "same-address": (
        "“{value}” is on an earlier line of this file, too; keep one of them.",
        "「{value}」はこのファイルの前の行にもあります。どちらか一方にしてください。",
    ),
}
SHOWN_CHARACTERS = 80


def message(code: str, value: str, lang: str) -> str:
    """Return the reason why the value was refused, in the language `lang`."""
    english, japanese = MESSAGES[code]
    shown = value if len(value) <= SHOWN_CHARACTERS else f"{value[:SHOWN_CHARACTERS]}…"
    return (japanese if lang == "ja" else english).format(value=shown)


def refuse(code: str, value: object) -> PydanticCustomError:
    """Return the error for a refused value; `code` is a key of MESSAGES."""
    return PydanticCustomError("contact", "{code}", {"code": code, "value": str(value)})


class FieldRefused(InvalidInput):
    """A field of a contact was refused: `field`, `code`, `value`, and the reason in both languages."""

    def __init__(self, field: str, code: str, value: str) -> None:
        self.field, self.code, self.value = field, code, value
        self.message_en, self.message_ja = message(code, value, "en"), message(code, value, "ja")
        super().__init__(f"{field}: {self.message_en}")


def as_text(value: object) -> str:
    """Return the value as a text of one line, at most LONGEST_TEXT characters; "" for None."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():  # spreadsheets store all numbers as floats
        value = int(value)
    clean = tidy(str(value))
    if len(clean) > LONGEST_TEXT:
        raise refuse("too-long", clean)
    return clean


# Carriers issued addresses that the standard forbids, such as a..b@docomo.ne.jp and a.@ezweb.ne.jp. Their servers accept them quoted.
CARRIERS = ("docomo.ne.jp", "ezweb.ne.jp", "au.com", "softbank.ne.jp", "vodafone.ne.jp")
_CARRIER_LOCAL = re.compile(r"[A-Za-z0-9._+/?=~-]{1,64}")


_ANGLED = re.compile(r"[^<>]*<\s*([^<>\s]+)\s*>\s*")
_REMARK = re.compile(r"\s*\([^()@\d]*\)$")  # such as (自宅) and (代表)
_AROUND = " \t\"'“”‘’<>()[]「」『』,;:、。，；："


def as_email(value: object) -> str | None:
    """Return the mail address in the form that mail servers accept; None for an empty value.

    It may be written as in a mail program (鈴木花子 <hanako@example.com>), as a link (mailto:), with marks around it, or in full width.
    """
    written = as_text(value)
    if not written:
        return None
    try:
        return _checked_email(_quoted(_bare(written)))
    except EmailNotValidError as error:
        raise refuse("bad-email", written) from error


def _bare(written: str) -> str:
    """Return the address without the name, link and marks around it, and without spaces beside its @ and dots."""
    if angled := _ANGLED.fullmatch(written):
        written = angled[1]
    bare = _REMARK.sub("", written).strip(_AROUND)
    if bare.lower().startswith("mailto:"):
        bare = bare[len("mailto:") :].partition("?")[0].strip(_AROUND)
    if '"' in bare:  # an address whose first part is quoted: the mark at its beginning belongs to it
        bare = written if written.startswith('"') else f'"{bare}'
    local, _, domain = re.sub(r"\s*([@.])\s*", r"\1", bare).rpartition("@")
    return f"{local}@{domain.replace('。', '.').rstrip('.')}"


def _checked_email(written: str) -> str:
    checked = validate_email(
        written,
        check_deliverability=False,
        globally_deliverable=False,
        allow_smtputf8=False,
        allow_quoted_local=_is_carrier(written.rpartition("@")[2]),
    )
    address = checked.ascii_email or checked.normalized
    if "." not in checked.ascii_domain:
        raise refuse("bad-email", written)
    return address


def _quoted(written: str) -> str:
    local, _, domain = written.rpartition("@")
    odd = ".." in local or local.startswith(".") or local.endswith(".")
    return f'"{local}"@{domain}' if odd and _is_carrier(domain) and _CARRIER_LOCAL.fullmatch(local) else written


def _is_carrier(domain: str) -> bool:
    return any(domain.lower() == carrier or domain.lower().endswith(f".{carrier}") for carrier in CARRIERS)


_EXTENSION = re.compile(r"[\s(\[,;/]*(?:内線(?:番号)?|extension|extn?\.?|x|#)\s*[:.]?\s*\d{1,6}\s*[)\]]?$", re.IGNORECASE)
_PHONE_WORDS = re.compile(r"^(?:tel|phone|mobile|電話|携帯|℡|t)\s*[.:]\s*|^tel:", re.IGNORECASE)


def as_phone(value: object) -> str | None:
    """Return the phone number in E.164; None for an empty value. Without a country code it is Japanese, and may lack its leading 0.

    An extension (内線 12, ext. 12, x12) is left out: no message reaches it.
    """
    written = as_text(value)
    if not written:
        return None
    bare = _PHONE_WORDS.sub("", _EXTENSION.sub("", _REMARK.sub("", written))).strip(" ,;、。")
    try:
        number = phonenumbers.parse(bare, REGION)
    except phonenumbers.NumberParseException as error:
        raise refuse("bad-phone", written) from error
    if not phonenumbers.is_valid_number(number):
        raise refuse("bad-phone", written)
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


LANGUAGES = {
    "ja": "ja",
    "jp": "ja",
    "ja-jp": "ja",
    "japanese": "ja",
    "日本語": "ja",
    "日本": "ja",
    "和文": "ja",
    "en": "en",
    "en-us": "en",
    "en-gb": "en",
    "english": "en",
    "英語": "en",
    "英文": "en",
}


def as_language(value: object) -> str:
    """Return the language, ja or en; "" for an empty value."""
    written = as_text(value)
    key = written.lower().replace("_", "-")
    if key and key not in LANGUAGES:
        raise refuse("bad-language", written)
    return LANGUAGES.get(key, "")


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def as_zone(value: object) -> str:
    """Return the name of an IANA time zone; "" for an empty value."""
    written = as_text(value)
    if written and written not in _zones():
        raise refuse("bad-zone", written)
    return written


KINDS = {
    "": ContactKind.contact,
    "contact": ContactKind.contact,
    "連絡先": ContactKind.contact,
    "個人": ContactKind.contact,
    "顧客": ContactKind.contact,
    "lead": ContactKind.lead,
    "リード": ContactKind.lead,
    "見込み客": ContactKind.lead,
    "見込客": ContactKind.lead,
    "account": ContactKind.account,
    "アカウント": ContactKind.account,
    "法人": ContactKind.account,
}


def as_kind(value: object) -> ContactKind:
    """Return the kind of the record; a contact for an empty value."""
    written = as_text(value)
    if written.lower() not in KINDS:
        raise refuse("bad-kind", written)
    return KINDS[written.lower()]


def as_day(value: object, zone: ZoneInfo = HOME_ZONE) -> date | None:
    """Return the day that the value is in any of the forms of `journeys.days.read_day`; None for an empty value.

    1/4/1980 is refused: half of the world reads it as a day in April, the other half as one in January. `zone` is that of the contact.
    """
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    written = as_text(value)
    if not written:
        return None
    try:
        found = read_day(written, zone)
    except InvalidInput as error:
        raise refuse("bad-date", written) from error
    if found.year < OLDEST_YEAR:
        raise refuse("bad-date", written)
    return found


YES = frozenset(
    [
        *(
            "yes",
            "y",
            "true",
            "t",
            "1",
            "on",
            "ok",
            "agree",
            "agreed",
            "accepted",
            "granted",
            "allow",
            "allowed",
            "optin",
            "opt-in",
            "opted in",
        ),
        *("subscribed", "subscribe", "active", "はい", "有", "あり", "有り", "可", "可能", "許可", "承諾", "要", "必要"),
        *("同意", "同意する", "同意済", "同意済み", "希望", "希望する", "希望あり", "受け取る", "受取る", "購読", "購読する", "購読中"),
        *("登録", "登録済", "登録済み", "登録中", "配信", "配信する", "配信中", "配信可", "配信希望", "送信可"),
        *("○", "◯", "〇", "◎", "✓", "✔", "☑", "レ"),
    ]
)
NO = frozenset(
    [
        *("no", "n", "false", "f", "0", "off", "ng", "denied", "declined", "refused", "revoked", "do not allow", "not allowed", "never"),
        *("optout", "opt-out", "opted out", "unsubscribed", "unsubscribe", "never subscribed", "never_subscribed", "not subscribed"),
        *("いいえ", "否", "無", "なし", "無し", "不可", "不要", "拒否", "お断り", "辞退", "同意しない", "不同意", "未同意", "未承諾"),
        *("希望しない", "希望なし", "不希望", "受け取らない", "購読しない", "購読解除", "解除", "停止", "停止中", "配信停止", "配信しない"),
        *("配信不可", "配信不要", "配信拒否", "送信不可", "退会", "退会済", "退会済み", "×", "x", "✕", "✖", "✗", "☓"),
    ]
)


def consent_key(value: object) -> str:
    """Return the cell in the form of `YES` and `NO`: lower case, without the colour of a mark and a full stop at the end."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return tidy(str(value)).lower().replace("\ufe0e", "").replace("\ufe0f", "").rstrip("。.")


def yes_or_no(value: object) -> bool | None:
    """Return whether the value is a yes; None for an empty value."""
    if isinstance(value, bool):
        return value
    written = as_text(value)
    key = consent_key(written)
    if key not in YES | NO | {""}:
        raise refuse("bad-consent", written)
    return None if not written else key in YES


def as_attributes(value: object) -> dict[str, Any]:
    """Return a contact's own attributes with values that JSON can hold; dates become ISO 8601 texts."""
    if not isinstance(value, Mapping) or len(value) > MOST_ATTRIBUTES:
        raise refuse("bad-attribute", value)
    return {attribute_name(str(name)): as_attribute(item) for name, item in value.items()}


def as_attribute(value: object) -> str | int | float | bool | None:
    """Return the value of one attribute in a form that JSON can hold."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if not isinstance(value, str):
        raise refuse("bad-attribute", value)
    if len(value) > LONGEST_ATTRIBUTE:
        raise refuse("too-long", value)
    return clean(value)


def attribute_name(written: str) -> str:
    """Return the heading of a column as a name that expressions can use: "Renewal date" becomes `renewal_date`."""
    name = re.sub(r"\W+", "_", tidy(written).lower()).strip("_") or "column"
    return f"_{name}" if name[0].isdigit() else name[:LONGEST_TEXT]


def _number(value: object) -> float | int | None:
    if isinstance(value, bool | int | float):
        return value
    return read_number(str(value))


def _or_none(read: Callable[[object], Any]) -> Callable[[object], Any]:
    def reading(value: object) -> Any:
        try:
            return read(value)
        except PydanticCustomError:
            return None

    return reading


TYPES: Mapping[str, Callable[[object], Any]] = {
    "text": str,
    "number": _number,
    "bool": _or_none(yes_or_no),
    "date": _or_none(as_day),
}


def typed(values: Mapping[str, Any], types: Mapping[str, str], zone: ZoneInfo = HOME_ZONE) -> dict[str, Any]:
    """Return `values`, each converted to its type in `types` (text, number, bool, date) if it has one; None when it cannot be converted.

    A file holds "false" and "2027-04-01" as text: unconverted, the first would count as true and the second would compare as text. A time
    with its offset is a day in `zone`.
    """
    return {name: _typed(value, types.get(name), zone) for name, value in values.items()}


def _typed(value: Any, kind: str | None, zone: ZoneInfo) -> Any:
    if value is None or kind is None or kind not in TYPES:
        return value
    return _or_none(partial(as_day, zone=zone))(value) if kind == "date" else TYPES[kind](value)


def unread_dates(values: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, str]:
    """Return those of `values` that `types` says are dates, but cannot be read as one, as they are written."""
    dates = (name for name, kind in types.items() if kind == "date" and values.get(name) not in (None, ""))
    return {name: str(values[name]) for name in dates if TYPES["date"](values[name]) is None}


class ContactInput(BaseModel):
    """The fields of a contact as a person or file gave them: each is cleaned and checked when the object is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[ContactKind, BeforeValidator(as_kind)] = ContactKind.contact
    first_name: Annotated[str, BeforeValidator(as_text)] = ""
    last_name: Annotated[str, BeforeValidator(as_text)] = ""
    email: Annotated[str | None, BeforeValidator(as_email)] = None
    phone: Annotated[str | None, BeforeValidator(as_phone)] = None
    language: Annotated[str, BeforeValidator(as_language)] = ""
    zone: Annotated[str, BeforeValidator(as_zone)] = ""
    company: Annotated[str, BeforeValidator(as_text)] = ""
    city: Annotated[str, BeforeValidator(as_text)] = ""
    birthday: Annotated[date | None, BeforeValidator(as_day)] = None
    attributes: Annotated[dict[str, Any], BeforeValidator(as_attributes)] = {}


def read_contact(fields: Mapping[str, Any]) -> ContactInput:
    """Return the checked fields of a contact; FieldRefused for the first that is refused, with the reason in both languages."""
    try:
        return ContactInput(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        context = first.get("ctx") or {}
        field = str(first["loc"][0])
        raise FieldRefused(field, str(context.get("code", "bad-attribute")), str(context.get("value", first["input"]))) from error
