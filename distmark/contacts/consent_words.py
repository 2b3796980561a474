"""Words of consent and refusal in files: the columns and words by which other systems say that a person agreed, or wants no messages. Pure.

Where a column or a word is unclear, it is read as a refusal or not at all, never as an agreement.
"""

import re
from collections.abc import Mapping
from typing import Any

from distmark.contacts.fields import NO, YES, consent_key, yes_or_no

# --- headings (keys as of `headings.heading_key`) ---------------------------------------------------------------------------------------

_AGREEMENTS = frozenset(
    [
        *(
            "同意",
            "配信同意",
            "配信",
            "配信希望",
            "配信可否",
            "配信許可",
            "配信有無",
            "購読",
            "購読希望",
            "案内希望",
            "案内可否",
            "受信希望",
        ),
        *("consent", "optin", "subscribed", "newsletter", "newslettersubscription", "mailinglist"),
        *("acceptsmarketing", "marketingconsent", "marketingpermission", "marketingoptin", "gdprconsent", "doubleoptin"),
        *("dm", "dm可否", "dm希望", "dm送付", "dm発送", "dm要否", "dm配信", "ダイレクトメール", "連絡可否", "マーケティング同意"),
    ]
)
_CHANNEL_AGREEMENT = re.compile(
    r"(?:(?:メール|メルマガ|メールマガジン|ニュースレター|email|mail|メール案内|sms|ショートメール|ショートメッセージ)(?:での|の|による)?)"
    r"(?:配信|受信|送信|送付|購読|案内|連絡|お知らせ)?(?:同意|希望|許可|可否|承諾|許諾|購読|要否|可|有無)?"
)
_ENGLISH_AGREEMENT = re.compile(
    r"(?:accepts?)?(?:e?mail|sms|text|marketing|newsletter)(?:marketing|messages?|subscription)?(?:consent|optin|permission|permissionstatus|subscribed|allowed|ok)"
    r"|accepts(?:e?mail|sms)(?:marketing)?"
)
_ADDRESSES = frozenset(["メール", "mail", "email"])  # alone, each is the heading of addresses
_STOPS_ENGLISH = re.compile(
    r"opt(?:ed|ing)?out|unsub|do(?:nt|not)(?:allow)?(?:bulk)?(?:e?mail|contact|call|phone|sms|text|send|market|solicit|disturb)"
    r"|^no(?:e?mails?|sms|calls?|contact|newsletter|marketing)$|suppress|blacklist|blocklist|denylist|bounce|^clean(?:time|ed|campaign)"
    r"|spamreport|complain|^dnc$"
)
_STOPS_JAPANESE = re.compile(
    r"(?:配信|受信|受け?取り?|送信|送付|発送|メール|メルマガ|マガジン|dm|ダイレクトメール|案内|連絡|電話|架電|sms|ショートメッセージ|購読|"
    r"マーケティング|ニュースレター|お知らせ|勧誘)(?:の|を|は)?(?:停止|拒否|不可|不要|解除|禁止|ng|お断り|辞退|除外|不達|エラー|しない|希望しない)"
    r"(?:希望|済み?|中|フラグ|flag|日|日時|年月日|区分|理由|者|設定|申請|申込|チェック|有無|依頼|回数|先)*$"
    r"|オプトアウト|拒否フラグ|停止フラグ|^拒否$|^(?:配信)?不達|送らない"
)
_NO_REFUSAL = re.compile(r"url|link|token|リンク|fax|ファックス|postal|郵送|郵便")
_SMS = re.compile(r"sms|text(?!area)|ショートメ|call|phone|電話|架電|mobile|^dnc$")
_MAIL = re.compile(
    r"(?<!ショート)メール|e?mail|メルマガ|マガジン|newsletter|ニュースレター|^unsub(?:time|reason|campaign)|^clean|bounce|不達"
)


def consent_field(key: str) -> str | None:
    """Return what a column with this heading says: consent_CHANNEL, stopped_CHANNEL, or stopped (of all channels); None for neither."""
    if key in _ADDRESSES or _NO_REFUSAL.search(key):
        return None
    if _STOPS_ENGLISH.search(key) or _STOPS_JAPANESE.search(key):
        sms, mail = _SMS.search(key) is not None, _MAIL.search(key) is not None and "ダイレクトメール" not in key
        return "stopped" if sms == mail else "stopped_sms" if sms else "stopped_email"
    if key in _AGREEMENTS or _CHANNEL_AGREEMENT.fullmatch(key) or _ENGLISH_AGREEMENT.fullmatch(key):
        return "consent_sms" if _SMS.search(key) else "consent_email"
    return None


# Columns of something else, often; a plain no in them is a refusal all the same.
_PERHAPS = frozenset(["subscription", "subscriber", "permission", "購読", "案内", "ご案内", "連絡", "通知", "お知らせ", "会報", "mailing"])
_STATUS = re.compile("status|state|ステータス|状態|状況|区分")
_ABOUT_MESSAGES = re.compile("mail|メール|メルマガ|配信|subscri|購読|newsletter|sms|marketing|optin|permission|dm")

# --- cells ------------------------------------------------------------------------------------------------------------------------------

# A refusal in whatever column it stands.
_ALWAYS = frozenset(
    [
        *("unsubscribed", "unsubscribe", "optedout", "optout", "donotcontact", "donotemail", "donotmail", "dnc"),
        *("配信停止", "配信停止中", "配信停止済", "配信停止済み", "配信拒否", "受信拒否", "送信停止", "送信不可", "配信不可", "配信解除"),
        *("購読解除", "購読停止", "オプトアウト", "連絡不可", "連絡拒否", "メール停止", "メルマガ停止", "メルマガ解除"),
    ]
)
_IN_STATUS = _ALWAYS | frozenset(
    [
        *("cleaned", "bounced", "bounce", "hardbounce", "hardbounced", "softbounced", "complained", "complaint", "spam", "markedasspam"),
        *("suppressed", "blocked", "blacklisted", "undeliverable", "abuse", "nonsubscribed", "nonmarketing", "nonmarketingcontact"),
        *("不達", "配信不能", "配信エラー", "エラー停止", "メールエラー", "ブラックリスト", "購読していない"),
    ]
)
_IN_MESSAGE_STATUS = _IN_STATUS | frozenset(
    [
        "停止",
        "停止中",
        "停止済",
        "停止済み",
        "拒否",
        "解除",
        "解除済",
        "退会",
        "退会済",
        "退会済み",
        "不可",
        "不要",
        "ng",
        "エラー",
        "無効",
    ]
)
_IN_REMARKS = re.compile(
    r"(?:メール|メルマガ|dm|ダイレクトメール|配信|ご?案内|ご?連絡|sms)(?:の|は|を|も|での)?(?:配信|送付|送信|ご?案内)?(?:の|は|を|も)?"
    r"(?:停止(?!日)|拒否|不要|不可|禁止|お断り|しないで|送らないで|ng(?![a-z]))"
)
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


def is_cross(value: Any) -> bool:
    """Return whether the cell is a cross, which means no beside circles and yes where only crosses stand."""
    return _key(value) in _CROSS


def is_yes(value: Any) -> bool:
    """Return whether the cell is a plain yes."""
    return consent_key(value) in YES


def is_stopped(value: Any, crosses_say_no: bool) -> bool:
    """Return whether a filled cell in a column of refusals says that the person refused: a date or a reason does, too."""
    key = _key(value)
    if key in _CROSS:
        return not crosses_say_no
    return key not in _NOT_STOPPED and bool(key)


def agreement(value: Any) -> bool | None:
    """Return whether a cell in a column of agreements says yes or no; None when it is empty. PydanticCustomError when it is unclear.

    The day on which somebody agreed is a yes.
    """
    if re.match(r"\d{4}[-/.年]\d{1,2}[-/.月]\d{1,2}", str(value)):
        return True
    return False if _key(value) in _IN_MESSAGE_STATUS else yes_or_no(value)


def says_no(name: str, value: Any) -> bool:
    """Return whether the attribute `name` holds a refusal: a status such as “unsubscribed”, or a remark such as 「DM不要」."""
    if isinstance(value, bool | int | float):
        return False
    key = _key(value)
    if key in _ALWAYS:
        return True
    if name in _PERHAPS:
        return key in _IN_MESSAGE_STATUS or consent_key(value) in NO
    if _STATUS.search(name):
        return key in (_IN_MESSAGE_STATUS if _ABOUT_MESSAGES.search(name) else _IN_STATUS)
    return _IN_REMARKS.search(key) is not None


def refused_in(
    values: Mapping[str, Any], attributes: Mapping[str, Any], crosses_say_no: Mapping[str, bool], channels: tuple[str, ...]
) -> set[str]:
    """Return the channels that the cells of a line refuse: by its columns of refusals and agreements, and by any other cell."""
    refused: set[str] = set()
    for name, of in (("stopped", channels), *((f"stopped_{channel}", (channel,)) for channel in channels)):
        if name in values and is_stopped(values[name], crosses_say_no.get(name, True)):
            refused.update(of)
    for channel in channels:
        value = values.get(f"consent_{channel}")
        if value is not None and (_key(value) in _IN_MESSAGE_STATUS or consent_key(value) in NO):
            refused.add(channel)
    if any(says_no(name, value) for name, value in attributes.items()):
        refused.update(channels)
    return refused


def _key(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _MARK.sub("", consent_key(value))
