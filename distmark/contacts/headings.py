"""Headings of files of contacts: the field that each column is, in the words of spreadsheets, address books and other systems. Pure."""

import re
from collections.abc import Mapping, Sequence

from distmark.contacts.consent_words import consent_field
from distmark.contacts.fields import attribute_name
from distmark.errors import InvalidInput
from distmark.text import tidy

# Field -> headings of its columns, as `heading_key` returns them. The first column of a field counts; later ones fill its empty cells.
HEADINGS: Mapping[str, tuple[str, ...]] = {
    "last_name": (
        *("姓", "氏", "名字", "苗字", "名前姓", "お名前姓", "氏名姓", "姓名姓", "姓漢字", "漢字姓"),
        *("lastname", "familyname", "surname", "lname", "last", "名前の姓"),
    ),
    "first_name": (
        *("名", "名前名", "お名前名", "氏名名", "姓名名", "名漢字", "漢字名", "下の名前"),
        *("firstname", "givenname", "forename", "fname", "first"),
    ),
    "full_name": (
        *("氏名", "お名前", "名前", "姓名", "顧客名", "お客様名", "担当者名", "ご担当者名", "会員名", "宛名", "氏名漢字", "漢字氏名"),
        *("fullname", "name", "contactname", "customername", "membername"),
    ),
    "company": (
        *("会社", "会社名", "勤務先", "勤務先名", "法人名", "企業名", "社名", "御社名", "貴社名", "団体名", "組織名", "屋号"),
        *("company", "companyname", "organization", "organisation", "organizationname", "organizationvalue", "accountname"),
        *("associatedcompany", "employer", "取引先", "取引先名"),
    ),
    "language": ("言語", "使用言語", "希望言語", "language", "lang", "locale", "preferredlanguage"),
    "zone": ("タイムゾーン", "時間帯", "timezone", "zone"),
    "birthday": ("誕生日", "生年月日", "birthday", "birthdate", "dateofbirth", "dob"),
    "kind": ("種別", "kind", "recordtype"),
}
CONSENT_FIELDS = ("consent_email", "consent_sms", "stopped_email", "stopped_sms", "stopped")
COLUMN_FIELDS = (*HEADINGS, "email", "phone", "city", *CONSENT_FIELDS)
FIELD_OF = {heading: name for name, headings in HEADINGS.items() for heading in headings}
NEEDED = ("email", "phone")
NEEDED_SHOWN = "メールアドレス (email) / 電話 (phone)"

# Address books have many columns of a kind: "E-mail 1 - Value", "電子メール 2 アドレス", "会社電話", "Business City", "TEL(自宅)".
_OF = (
    r"(?:自宅|会社|勤務先|個人|仕事|その他の?|連絡先|代表|日中|ご?本人|お客様の?|顧客|会員|主|第一|住所|"
    r"work|home|business|personal|primary|main|other|customer|contact|your|office|company|mailing|billing|shipping|address|alternate|value)*"
)
_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "email": re.compile(
        rf"{_OF}(?:pc|パソコン|携帯|スマホ|mobile)?(?:(?:e|電子)?(?:メール|mail)(?:アドレス|address|addr|id)?|メアド){_OF}"
    ),
    "phone": re.compile(
        rf"{_OF}(?:携帯|携帯電話|スマホ|スマートフォン|電話|固定電話|tel|telephone|phone|mobile|mobilephone|cell|cellphone)"
        rf"(?:tel|番号|number|no)?{_OF}"
    ),
    "city": re.compile(rf"{_OF}(?:市区町村|市町村|市区郡町?村?|市|city|town|locality){_OF}"),
}
_MOBILE = re.compile("携帯|スマホ|スマートフォン|mobile|cell")


def heading_key(written: str) -> str:
    """Return the heading without case, width, spaces, brackets and marks, in which spellings differ."""
    return re.sub(r"[\s_\-‐–—・.:;,*/#()\[\]【】「」<>'\"“”’※]+", "", tidy(written).lower()).replace("必須", "").replace("任意", "")


def read_headings(headings: Sequence[str]) -> list[str]:
    """Return the field or attribute name of each column, in the file's order; "" for a column without heading.

    InvalidInput when there is neither a mail address nor a phone number among them, naming the headings found and those needed.
    """
    columns = [_field(heading) or (attribute_name(heading) if heading else "") for heading in headings]
    if not any(needed in columns for needed in NEEDED):
        found = ", ".join(heading for heading in headings if heading)
        raise InvalidInput(f"The file has no column of addresses; it has {found}, but needs one of {NEEDED_SHOWN}.")
    return columns


def _field(heading: str) -> str | None:
    key = heading_key(heading)
    if key in FIELD_OF:
        return FIELD_OF[key]
    if consent := consent_field(key):
        return consent
    numberless = re.sub(r"\d+", "", key)
    return next((name for name, pattern in _PATTERNS.items() if pattern.fullmatch(numberless)), None)


def is_mobile(heading: str) -> bool:
    """Return whether the column holds numbers of mobile phones, which take text messages."""
    return _MOBILE.search(heading_key(heading)) is not None
