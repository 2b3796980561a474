"""Fields of a contact: reading mail addresses, phone numbers, names, dates and languages in the spellings that people use. Pure."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from functools import cache
from typing import Annotated, Any
from zoneinfo import available_timezones

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from distmark.contacts.model import ContactKind
from distmark.errors import InvalidInput

LONGEST_TEXT = 200
LONGEST_ATTRIBUTE = 2000
MOST_ATTRIBUTES = 100
OLDEST_YEAR = 1880
REGION = "JP"  # the country of phone numbers written without one
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


UNSTORABLE = ("Cc", "Cs")  # control characters, and halves of characters that no database takes


def tidy(value: str) -> str:
    """Return `value` on one line, in Unicode form NFKC (usual widths of kana and letters), single-spaced, without control characters."""
    usual = unicodedata.normalize("NFKC", value)
    return " ".join("".join(letter for letter in usual if letter.isspace() or _can_be_stored(letter)).split())


def _can_be_stored(letter: str) -> bool:
    return unicodedata.category(letter) not in UNSTORABLE


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


def as_email(value: object) -> str | None:
    """Return the mail address in the form that mail servers accept; None for an empty value."""
    written = as_text(value).replace(" ", "")
    if not written:
        return None
    try:
        return _checked_email(_quoted(written))
    except EmailNotValidError as error:
        raise refuse("bad-email", written) from error


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


def as_phone(value: object) -> str | None:
    """Return the phone number in E.164; None for an empty value. Without a country code it is Japanese, and may lack its leading 0."""
    written = as_text(value)
    if not written:
        return None
    try:
        number = phonenumbers.parse(written, REGION)
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


ERAS = {"明治": 1867, "大正": 1911, "昭和": 1925, "平成": 1988, "令和": 2018, "m": 1867, "t": 1911, "s": 1925, "h": 1988, "r": 2018}
_DATE = re.compile(r"(\d{4})\s*[-/.年]\s*(\d{1,2})\s*[-/.月]\s*(\d{1,2})\s*日?(?:[ T]00:00(?::00(?:\.0+)?)?)?")
_COMPACT_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_ERA_DATE = re.compile(r"(明治|大正|昭和|平成|令和|[MTSHRmtshr])\s*\.?\s*(\d{1,2}|元)\s*[-/.年]\s*(\d{1,2})\s*[-/.月]\s*(\d{1,2})\s*日?")


def as_day(value: object) -> date | None:
    """Return a date written as 1980-04-01, 1980/4/1, 1980年4月1日, 19800401 or 昭和55年4月1日; None for an empty value.

    1/4/1980 is refused: half of the world reads it as a day in April, the other half as one in January.
    """
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    written = as_text(value)
    if not written:
        return None
    try:
        found = _date(written)
    except ValueError as error:
        raise refuse("bad-date", written) from error
    if found is None or found.year < OLDEST_YEAR:
        raise refuse("bad-date", written)
    return found


def _date(written: str) -> date | None:
    if match := _DATE.fullmatch(written) or _COMPACT_DATE.fullmatch(written):
        return date(int(match[1]), int(match[2]), int(match[3]))
    if match := _ERA_DATE.fullmatch(written):
        year = 1 if match[2] == "元" else int(match[2])
        return date(ERAS[match[1].lower()] + year, int(match[3]), int(match[4]))
    return None


YES = frozenset(
    [
        "yes",
        "y",
        "true",
        "1",
        "on",
        "はい",
        "有",
        "あり",
        "有り",
        "可",
        "同意",
        "同意する",
        "同意済",
        "同意済み",
        "希望",
        "希望する",
        "配信",
        "○",
        "◯",
        "〇",
    ]
)
NO = frozenset(
    [
        "no",
        "n",
        "false",
        "0",
        "off",
        "いいえ",
        "無",
        "なし",
        "無し",
        "不可",
        "拒否",
        "同意しない",
        "不同意",
        "希望しない",
        "停止",
        "配信停止",
        "×",
        "x",
    ]
)


def yes_or_no(value: object) -> bool | None:
    """Return whether the value is a yes; None for an empty value."""
    if isinstance(value, bool):
        return value
    written = as_text(value)
    if written.lower() not in YES | NO | {""}:
        raise refuse("bad-consent", written)
    return None if not written else written.lower() in YES


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
    return "".join(letter for letter in value if letter in "\n\t" or _can_be_stored(letter)).strip()


def attribute_name(written: str) -> str:
    """Return the heading of a column as a name that expressions can use: "Renewal date" becomes `renewal_date`."""
    name = re.sub(r"\W+", "_", tidy(written).lower()).strip("_") or "column"
    return f"_{name}" if name[0].isdigit() else name[:LONGEST_TEXT]


def _number(value: object) -> float | int | None:
    if isinstance(value, bool | int | float):
        return value
    written = tidy(str(value)).replace(",", "")
    try:
        return int(written) if re.fullmatch(r"[+-]?\d+", written) else float(written)
    except ValueError:
        return None


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


def typed(values: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """Return `values`, each converted to its type in `types` (text, number, bool, date) if it has one; None when it cannot be converted.

    A file holds "false" and "2027-04-01" as text: unconverted, the first would count as true and the second would compare as text.
    """
    return {name: TYPES[types[name]](value) if value is not None and types.get(name) in TYPES else value for name, value in values.items()}


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
