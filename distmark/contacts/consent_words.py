"""Words of consent and refusal in files: the columns and words by which other systems say that a person agreed, or wants no messages. Pure.

Where a column or a word is unclear, it is read as a refusal or not at all, never as an agreement.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from distmark.contacts.fields import NO, YES, consent_key, yes_or_no

# --- headings (keys as of `headings.heading_key`) ---------------------------------------------------------------------------------------

_CONSENTS = re.compile(
    r"(?:e?mail|eメール|メール|sms|ショートメール|メルマガ|メールマガジン|案内|dm|newsletter|marketing|マーケティング)*(?:の|への)?(?:配信|受信|送信)?"
    r"(?:同意|承諾|許諾|consent|optin)|メール配信|sms配信"
)
_STOPS_ENGLISH = re.compile(
    r"opt(?:ed|ing)?out|unsub|do(?:nt|not)(?:allow)?(?:bulk)?(?:e?mail|contact|call|phone|sms|text|send|market|solicit|disturb)"
    r"|^no(?:e?mails?|sms|calls?|contact|newsletter|marketing)$|suppress|blacklist|blocklist|^blocked$|bounce|^clean(?:time|ed|campaign)"
    r"|spamreport|complain|^dnc$"
)
_STOPS_JAPANESE = re.compile(
    r"(?:配信|受信|受け?取り?|送信|送付|発送|メール|メルマガ|マガジン|dm|ダイレクトメール|案内|連絡|電話|架電|sms|ショートメッセージ|購読|"
    r"マーケティング|ニュースレター|お知らせ|勧誘)(?:の|を|は)?(?:停止|拒否|不可|不要|解除|禁止|ng|お断り|辞退|除外|不達|エラー|しない|希望しない)"
    r"(?:希望|済み?|中|フラグ|flag|日|日時|年月日|区分|理由|者|設定|申請|申込|チェック|有無|依頼|回数|先)*$"
    r"|オプトアウト|拒否フラグ|停止フラグ|^(?:拒否|不要|お断り|退会)(?:日|済み?|フラグ)?$|^(?:配信)?不達|送らない"
)
_NO_REFUSAL = re.compile(r"url|link|token|リンク|fax|ファックス|postal|郵送|郵便")
_SMS = re.compile(r"sms|text(?!area)|ショートメ|call|phone|電話|架電|mobile|^dnc$")
_MAIL = re.compile(
    r"(?<!ショート)(?<!ダイレクト)メール|e?mail|メルマガ|マガジン|newsletter|ニュースレター|^unsub(?:time|reason|campaign)|^clean|bounce|不達"
)


def consent_field(key: str) -> str | None:
    """Return the meaning of a column by its heading: consent_CHANNEL, stopped_CHANNEL, or stopped (all channels); None for neither."""
    if _NO_REFUSAL.search(key):
        return None
    if _STOPS_ENGLISH.search(key) or _STOPS_JAPANESE.search(key):
        sms, mail = _SMS.search(key) is not None, _MAIL.search(key) is not None
        return "stopped" if sms == mail else "stopped_sms" if sms else "stopped_email"
    if _CONSENTS.fullmatch(key):
        return "consent_sms" if _SMS.search(key) else "consent_email"
    return None


# Attributes (names as of `fields.attribute_name`) that may say whether messages are wanted.
_TOPIC = re.compile(
    r"メール|mail|メルマガ|マガジン|ニュースレター|newsletter|sms|ショートメ|(?:^|_)dm|ダイレクトメール|案内|お知らせ|配信|受信|送信|送付|発送|購読|通知|"
    r"連絡|情報提供|会報|マーケティング|marketing|promot|subscri|gdpr|opt_?in|許諾|同意|承諾|パーミッション|permission|consent"
)
_ASKS = re.compile(
    r"同意|希望|許可|許諾|承諾|承認|可否|要否|有無|可$|ok$|フラグ|flag|区分|設定|パーミッション|permission|consent|opt_?in|accept|allow|agree|"
    r"subscri|gdpr|^dm$|^メルマガ|^newsletter|dm送付|dm発送"
)
_COUNTS = re.compile(r"数$|回$|(?:^|_)(?:count|number|total|rate|score|opened|clicked|delivered|sent|sends)(?:_|$)")
_STATUS = re.compile("status|state|ステータス|状態|状況|区分")
_DIGITS = ("0", "1")


def permission_channels(name: str, cells: Sequence[Any], channels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the channels of which the attribute's column says whether messages are wanted, by its heading and its filled cells.

    A heading that asks for it is enough when half of the cells can be read; another heading about messages when all cells are yes or no.
    """
    if not cells or not _TOPIC.search(name) or _NO_REFUSAL.search(name) or _COUNTS.search(name):
        return ()
    keys = [_key(cell) for cell in cells]
    known = sum(key in _KNOWN for key in keys)
    sure = all(key in _KNOWN and key not in _DIGITS for key in keys)
    if not sure and not (_ASKS.search(name) and known * 2 >= len(keys)):
        return ()
    sms, mail = _SMS.search(name) is not None, _MAIL.search(name) is not None
    return channels if sms == mail else tuple(channel for channel in channels if (channel == "sms") is sms)


# --- cells ------------------------------------------------------------------------------------------------------------------------------

# A refusal in whatever column it stands.
_ALWAYS = frozenset(
    [
        *("unsubscribed", "unsubscribe", "optedout", "optout", "donotcontact", "donotemail", "donotmail", "dnc"),
        *("配信停止", "配信停止中", "配信停止済", "配信停止済み", "配信拒否", "受信拒否", "送信停止", "送信不可", "配信不可", "配信解除"),
        *("購読解除", "購読停止", "オプトアウト", "連絡不可", "連絡拒否", "メール停止", "メルマガ停止", "メルマガ解除", "dm不可", "dm不要"),
    ]
)
_IN_STATUS = _ALWAYS | frozenset(
    [
        *("cleaned", "bounced", "bounce", "hardbounce", "hardbounced", "softbounced", "complained", "complaint", "spam", "markedasspam"),
        *("suppressed", "blocked", "blacklisted", "undeliverable", "abuse", "nonsubscribed", "nonmarketing", "nonmarketingcontact"),
        *("不達", "配信不能", "配信エラー", "エラー停止", "メールエラー", "ブラックリスト", "購読していない", "退会", "退会済", "退会済み"),
    ]
)
_IN_MESSAGE_STATUS = _IN_STATUS | frozenset(
    [
        *("停止", "停止中", "停止済", "停止済み", "拒否", "解除", "解除済", "不可", "不要", "ng", "エラー", "無効", "しない", "withdrawn"),
        *("送らない", "送付不要", "送付しない", "受信しない", "受け取らない", "お断り", "辞退"),
    ]
)
_IN_REMARKS = re.compile(
    r"(?:メール|メルマガ|dm|ダイレクトメール|配信|ご?案内|ご?連絡|お知らせ|sms)(?:の|は|を|も|での)?(?:配信|送付|送信|ご?案内)?(?:の|は|を|も)?"
    r"(?:停止(?!日)|拒否|不要|不可|禁止|お断り|しない|送らない|送ら|控え|遠慮|ng(?![a-z]))"
    r"|do(?:not|nt)(?:e?mail|contact|send|call|text)|unsubscribed|optedout|no(?:more)?e?mails?(?:please)?$|stop(?:e?mail|sending|newsletter)"
)
_PARTS = re.compile(r"[,;/|、，；・\s]+")
# In a column of refusals, only these say that there is none.
_NOT_STOPPED = frozenset(
    [
        *("no", "n", "false", "f", "0", "00", "off", "いいえ", "無", "なし", "無し", "無効", "否", "未", "未設定", "該当なし", "非該当"),
        *(
            "配信",
            "配信中",
            "配信可",
            "配信する",
            "送信可",
            "購読",
            "購読中",
            "subscribed",
            "active",
            "optin",
            "optedin",
            "allow",
            "allowed",
        ),
        *("同意", "同意済", "同意済み", "none", "never", "notset", "unset", "00000000", "00000000000000"),
    ]
)
_CROSS = frozenset(["×", "x", "✕", "✖", "✗", "☓", "バツ"])
_MARK = re.compile(r"[\s_\-.,:/。、・]+")


def _key(value: Any) -> str:
    return _MARK.sub("", "yes" if value is True else "no" if value is False else consent_key(value))


_YES_KEYS, _NO_KEYS = frozenset(map(_key, YES | {"する", "express", "implied"})), frozenset(map(_key, NO)) | _IN_MESSAGE_STATUS
_KNOWN = _YES_KEYS | _NO_KEYS


def is_cross(value: Any) -> bool:
    """Return whether the cell is a cross, which means no beside circles and yes where only crosses stand."""
    return _key(value) in _CROSS


def is_yes(value: Any) -> bool:
    """Return whether the cell is a plain yes."""
    return _key(value) in _YES_KEYS


def is_stopped(value: Any, crosses_say_no: bool) -> bool:
    """Return whether a filled cell in a column of refusals says that the person refused: a date or a reason does, too."""
    key = _key(value)
    if key in _CROSS:
        return not crosses_say_no
    return key not in _NOT_STOPPED and bool(key)


def is_no(value: Any) -> bool:
    """Return whether a cell in a column that asks whether messages are wanted says no."""
    return _key(value) in _NO_KEYS


def is_unclear(value: Any) -> bool:
    """Return whether a cell in a column that asks whether messages are wanted says neither yes nor no, nor when it was a yes."""
    return _key(value) not in _KNOWN and _DAY.match(str(value)) is None


_DAY = re.compile(r"\d{4}[-/.年]\d{1,2}[-/.月]\d{1,2}")


def agreement(value: Any) -> bool | None:
    """Return whether a cell in a column of agreements says yes or no; None when it is empty. PydanticCustomError when it is unclear.

    The day on which somebody agreed is a yes.
    """
    if _DAY.match(str(value)):
        return True
    return False if is_no(value) else yes_or_no(value)


def says_no(name: str, value: Any) -> bool:
    """Return whether the attribute `name` holds a refusal: a status such as “unsubscribed”, or a remark such as 「DM不要」."""
    if isinstance(value, bool | int | float):
        return False
    key = _key(value)
    if key in _ALWAYS or not _ALWAYS.isdisjoint(map(_key, _PARTS.split(str(value)))):
        return True
    if _STATUS.search(name):
        return key in (_IN_MESSAGE_STATUS if _TOPIC.search(name) else _IN_STATUS)
    return _IN_REMARKS.search(key) is not None


def refused_in(
    values: Mapping[str, Any], attributes: Mapping[str, Any], crosses_say_no: Mapping[str, bool], channels: tuple[str, ...]
) -> set[str]:
    """Return the channels that the cells of a line refuse: by its columns of refusals and agreements, and by any other cell."""
    refused: set[str] = set()
    for name, of in (("stopped", channels), *((f"stopped_{channel}", (channel,)) for channel in channels)):
        if name in values and is_stopped(values[name], crosses_say_no.get(name, True)):
            refused.update(of)
    refused.update(channel for channel in channels if f"consent_{channel}" in values and is_no(values[f"consent_{channel}"]))
    if any(says_no(name, value) for name, value in attributes.items()):
        refused.update(channels)
    return refused
