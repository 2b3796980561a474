"""Findings of a check: place, problem and remedy, in English and Japanese. The table of all findings is MESSAGES."""

# ruff: noqa: E501  (a wording stays on its line)

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from distmark.errors import InvalidInput


class Severity(StrEnum):
    """An error keeps a journey from being submitted; a warning is for a person to judge."""

    error = "error"
    warning = "warning"


@dataclass(frozen=True, slots=True)
class Wording:
    """The wording of one kind of finding; `{...}` are its values."""

    severity: Severity
    en: str
    ja: str


def _error(en: str, ja: str) -> Wording:
    return Wording(Severity.error, en, ja)


def _warning(en: str, ja: str) -> Wording:
    return Wording(Severity.warning, en, ja)


MESSAGES: Mapping[str, Wording] = {
    # Reading the file.
    "bad-yaml": _error("The file is not valid YAML: {reason}.", "YAML として読めません：{reason}。"),
    "not-a-mapping": _error("The file must hold a journey: fields such as key, name and steps.", "key、name、steps などの項目を持つジャーニーを書いてください。"),
    "big-file": _error("The definition is larger than {limit} characters; split the journey.", "定義が {limit} 文字を超えています。ジャーニーを分けてください。"),
    "double-field": _error('The field "{name}" is written twice; keep one.', "項目「{name}」が二重に書かれています。一つにしてください。"),
    "missing-field": _error('The field "{name}" is missing.', "項目「{name}」がありません。"),
    "unknown-field": _error('There is no field "{name}" here; allowed: {allowed}.', "ここに項目「{name}」は使えません。使えるもの：{allowed}。"),
    "bad-value": _error('The value "{value}" must be {expected}.', "値「{value}」は{expected_ja}にしてください。"),
    "empty-list": _error("The list is empty; give at least one.", "一覧が空です。一つ以上書いてください。"),
    "bad-choice": _error('The value "{value}" is not one of {allowed}.', "値「{value}」は使えません。使えるもの：{allowed}。"),
    "channel-lacking": _error(
        'This installation cannot send by "{channel}": it lacks {lacks}.', "このシステムでは「{channel}」で送信できません（不足：{lacks_ja}）。"
    ),
    "not-possible": _error(
        'This installation cannot use "{name}": it lacks {lacks}.', "このシステムでは「{name}」を使えません（不足：{lacks_ja}）。"
    ),
    "unknown-segment": _error('There is no segment "{name}".', "「{name}」というセグメントはありません。"),
    "unknown-secret": _error(
        'There is no webhook secret "{name}" in this installation; add it to DISTMARK_WEBHOOK_SECRETS.',
        "Webhook の署名鍵「{name}」がこのシステムにありません。DISTMARK_WEBHOOK_SECRETS に追加してください。",
    ),
    "never-made": _error(
        "The message {message} ({lang}) cannot be made for anybody: {reason}.", "メッセージ {message}（{lang}）は、どのお客様にも作成できません（{reason}）。"
    ),
    "sometimes-missing": _warning(
        'The value "{name}" may be missing, and the message would not be sent then; write {{{{ {name} | default("...") }}}}, or ask for it in an if.',
        "「{name}」が未登録の場合、このメッセージは送れません。{{{{ {name} | default(\"…\") }}}} のように既定値を付けるか、if で分けてください。",
    ),
    "sometimes-unmade": _warning(
        "The message {message} ({lang}) cannot be made for some contacts ({who}): {reason}.",
        "メッセージ {message}（{lang}）は、一部のお客様（{who_ja}）に作成できません（{reason}）。",
    ),
    "personal-link": _error(
        "This line holds a link out of a message to one person; use the original address.",
        "一人のお客様に送られたメッセージのリンクが含まれています。元のページの URL を使ってください。",
    ),
    "bad-field-value": _error(
        'The value "{value}" cannot be read as the {kind} that "{name}" is declared to be.', "「{name}」は {kind} の項目ですが、値「{value}」はそのように読めません。"
    ),
    "bad-name": _error(
        'The name "{value}" may have small letters, digits, "-" and "_" only, and starts with a letter or digit.',
        "名前「{value}」に使えるのは小文字の英数字と「-」「_」だけです（先頭は英数字）。",
    ),
    "bad-identifier": _error(
        'The name "{value}" may have small letters, digits and "_" only, and starts with a letter.',
        "名前「{value}」に使えるのは小文字の英数字と「_」だけです（先頭は英字）。",
    ),
    "bad-words": _error(
        'The text "{value}" must be a text, or one per language such as {{ja: ..., en: ...}}.',
        "「{value}」は文字列、または {{ja: ..., en: ...}} の形で書いてください。",
    ),
    "not-text": _error('The value "{value}" must be a text; put it in quotes.', "値「{value}」は文字列にしてください（引用符で囲みます）。"),
    "long-text": _error("The text is longer than {limit} characters.", "文字列が {limit} 文字を超えています。"),
    "bad-percent": _error('The share "{value}" must be a percentage from 0% to 100%, such as 50%.', "割合「{value}」は 50% のように 0%〜100% で書いてください。"),
    "bad-cap": _error(
        'The cap "{value}" cannot be read; write a number per hour, day, week or month, such as 3 per week.',
        "上限「{value}」を読めません。「3 per week」のように hour・day・week・month ごとの数を書いてください。",
    ),
    # Time.
    "bad-duration": _error(
        'The duration "{value}" cannot be read; write a number and minutes, hours, days, weeks, months or years, such as 3 days.',
        "期間「{value}」を読めません。「3 days」のように数と minutes・hours・days・weeks・months・years を書いてください。",
    ),
    "long-duration": _error('The duration "{value}" is longer than {years} years.', "期間「{value}」が {years} 年を超えています。"),
    "no-duration": _error("The duration must be longer than nothing.", "期間は 0 より長くしてください。"),
    "bad-time": _error('The time "{value}" cannot be read; write hours and minutes, such as "09:00".', "時刻「{value}」を読めません。\"09:00\" のように時と分を書いてください。"),
    "bad-window": _error('The hours "{value}" cannot be read; write them as "21:00-08:00".', "時間帯「{value}」を読めません。\"21:00-08:00\" のように書いてください。"),
    "whole-day-window": _error('The hours "{value}" cover the whole day, so nothing could ever be sent.', "時間帯「{value}」は終日になり、何も送れません。"),
    "bad-days": _error(
        'The day "{value}" is not known; write weekdays, weekends, every day, or names such as [mon, thu].',
        "曜日「{value}」が分かりません。weekdays・weekends・every day、または [mon, thu] のように書いてください。",
    ),
    "bad-holidays": _error(
        'There are no public holidays known for "{value}"; write a country such as JP or a part of one such as US-CA.',
        "「{value}」の祝日が分かりません。JP のような国、または US-CA のような地域を書いてください。",
    ),
    "bad-date": _error(
        'The date "{value}" is neither a day such as 2026-12-24 nor a date attribute such as contact.renewal_date.',
        "日付「{value}」は 2026-12-24 のような日、または contact.renewal_date のような日付の項目にしてください。",
    ),
    "past-wait": _error("The wait until {value} is in the past, so nobody would wait.", "{value} までの待機はすでに過ぎており、誰も待ちません。"),
    # Expressions and templates.
    "no-expression": _error("A condition must be written as text, such as clicked('welcome').", "条件は clicked('welcome') のような文字列で書いてください。"),
    "long-expression": _error("The expression is longer than {limit} characters.", "式が {limit} 文字を超えています。"),
    "bad-expression": _error('The expression "{value}" cannot be read: {reason}.', "式「{value}」を読めません：{reason_ja}。"),
    "never-evaluates": _error('"{value}" fails for every contact: {reason}.', "「{value}」は、どのお客様でも評価できません（{reason}）。"),
    "bad-template": _error("The template cannot be read: {reason}.", "テンプレートを読めません：{reason_ja}。"),
    "unknown-name": _error('There is no name "{name}" here.', "「{name}」という名前はありません。"),
    "unknown-function": _error('There is no function "{name}".', "「{name}」という関数はありません。"),
    "bad-arguments": _error("The function is written {form}, not like this.", "この関数は {form} のように書きます。"),
    "unknown-filter": _error('There is no filter "{name}".', "「{name}」というフィルターはありません。"),
    "statement-in-mjml": _error(
        "MJML may hold only {{{{ }}}} slots; move {{% %}} into the text file or use a block.",
        "MJML に書けるのは {{{{ }}}} だけです。{{% %}} はテキスト版に移すか、ブロックを使ってください。",
    ),
    "missing-template": _error('The message "{message}" has no file {template}.', "メッセージ「{message}」のファイル {template} がありません。"),
    "unused-template": _warning("No step sends the message of this file.", "このファイルのメッセージを送るステップがありません。"),
    "missing-footer": _error(
        "The template must hold {{{{ legal_footer }}}}: the law asks for sender, address and a way to refuse in every mail.",
        "{{{{ legal_footer }}}} が必要です。送信者・住所・配信停止の案内はすべてのメールに法律上必要です。",
    ),
    "big-message": _error(
        "The message has {size} KB; above {limit} KB mail programs cut it off, footer first.", "メッセージが {size} KB あります。{limit} KB を超えると末尾（フッター）から切られます。"
    ),
    "empty-subject": _error("The subject is empty.", "件名が空です。"),
    "subject-lines": _error("The subject must be one line.", "件名は 1 行にしてください。"),
    "missing-language": _warning('The text for language "{lang}" is missing.', "言語「{lang}」の文がありません。"),
    # References.
    "unknown-kind": _error("This step has no kind; give one of {allowed}.", "ステップの種類がありません。使えるもの：{allowed}。"),
    "two-kinds": _error("This step has two kinds: {kinds}; make two steps of it.", "ステップに種類が二つあります：{kinds}。二つのステップに分けてください。"),
    "double-id": _error('The step id "{value}" is used twice; ids are unique over the whole journey.', "ステップ ID「{value}」が重複しています。ID はジャーニー全体で一意です。"),
    "unknown-step": _error('There is no step "{name}".', "「{name}」というステップはありません。"),
    "not-a-send": _error('The step "{name}" sends nothing.', "ステップ「{name}」は何も送りません。"),
    "not-a-webhook": _error('The step "{name}" calls no webhook.', "ステップ「{name}」は Webhook ではありません。"),
    "unknown-block": _error('There is no block "{name}".', "「{name}」というブロックはありません。"),
    "unused-block": _warning('The block "{name}" is editable, but the message "{message}" does not show it.', "ブロック「{name}」は編集できますが、メッセージ「{message}」に出てきません。"),
    "unknown-link": _error('There is no link "{name}".', "「{name}」というリンクはありません。"),
    "link-not-in-message": _warning('The message of step "{in_step}" does not hold the link "{name}".', "ステップ「{in_step}」のメッセージにリンク「{name}」がありません。"),
    "unknown-event": _error('The event "{name}" is not listed under events.', "イベント「{name}」が events にありません。"),
    "not-a-date": _error('The attribute "{name}" is not a date.', "項目「{name}」は日付ではありません。"),
    "unknown-attribute": _error(
        'There is no attribute "{name}"; declare it under {where} or use a built-in one.', "「{name}」という項目はありません。{where} に書くか、標準の項目を使ってください。"
    ),
    "unknown-journey": _error('There is no journey "{name}".', "「{name}」というジャーニーはありません。"),
    # The shape of the journey.
    "unreachable": _error('Nobody can reach the step "{name}".', "ステップ「{name}」には誰も到達できません。"),
    "dead-arm": _error("Nobody can reach this arm: {reason}.", "この分岐には誰も進めません：{reason_ja}。"),
    "endless-loop": _error("These steps go round without a wait: {steps}; add a wait.", "待機のない繰り返しです：{steps}。待機を入れてください。"),
    "not-sent-before": _error(
        'The step "{name}" is not sent before this, so this is never true.', "ステップ「{name}」はここより前に送られないため、成り立ちません。"
    ),
    "no-time": _warning(
        'Nobody has had time to react to "{name}" here; put a wait between.', "「{name}」への反応を待つ時間がありません。間に待機を入れてください。"
    ),
    "too-often": _warning(
        "A contact may get more than {cap} messages within 7 days, which is the cap, so some will be held.",
        "7 日以内に上限の {cap} 通を超えて届くことがあり、その分は保留されます。",
    ),
    "bad-wait": _error("This wait cannot be read: {reason}.", "この待機を読めません：{reason_ja}。"),
    "bad-branch": _error(
        "A branch is a list of conditions, or random: [...], or test: {{...}} with arms.", "分岐は条件の一覧、random: [...]、または test: {{...}} と arms で書きます。"
    ),
    "otherwise-last": _error("`otherwise` must be the last arm.", "otherwise は最後に書いてください。"),
    "bad-arm": _error("An arm has either `when` or `otherwise: true`.", "分岐には when か otherwise: true のどちらかを書いてください。"),
    "bad-shares": _error("The shares add up to {sum}, not 100%.", "割合の合計が {sum} です。100% にしてください。"),
    "few-arms": _error("A split has {least} to {most} arms, this one has {count}.", "分割は {least}〜{most} 本です（今は {count} 本）。"),
    "double-arm": _error('Two arms are called "{value}".', "分岐の名前「{value}」が重複しています。"),
    "bad-test": _error("This test cannot be read: {reason}.", "このテストを読めません：{reason_ja}。"),
    "bad-entry": _error("This entry cannot be read: {reason}.", "この開始条件を読めません：{reason_ja}。"),
    "bad-url": _error('The address "{value}" must start with https://, http://, mailto: or tel:.', "アドレス「{value}」は https://、http://、mailto:、tel: で始めてください。"),
    "bad-audience": _error("Give either add or remove with the name of an audience.", "add か remove のどちらか一つと、オーディエンスの名前を書いてください。"),
}  # fmt: skip
DID_YOU_MEAN = {"en": 'Did you mean "{value}"?', "ja": "「{value}」のことですか？"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a check found. `file` is relative to the journey's folder, `line` counts from 1, `step` is None outside steps."""

    severity: Severity
    code: str
    file: str
    line: int
    step: str | None = None
    field: str | None = None
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    suggestion: str | None = None

    def message(self, lang: str = "en") -> str:
        """Return what is wrong and what to do, in `lang`."""
        wording = MESSAGES[self.code]
        return (wording.ja if lang == "ja" else wording.en).format(**self.values)

    def hint(self, lang: str = "en") -> str:
        """Return "did you mean ..." in `lang`, or nothing."""
        return DID_YOU_MEAN["ja" if lang == "ja" else "en"].format(value=self.suggestion) if self.suggestion else ""

    def line_of_text(self, lang: str = "en") -> str:
        """Return the finding as one line: file:line: severity: [step.field] message hint."""
        place = ".".join(part for part in (self.step, self.field) if part)
        body = " ".join(part for part in (f"[{place}]" if place else "", self.message(lang), self.hint(lang)) if part)
        return f"{self.file}:{self.line}: {self.severity}: {body}"

    def to_json(self, lang: str = "en") -> dict[str, object]:
        """Return the finding as plain data, worded in `lang`."""
        return {
            "severity": str(self.severity), "code": self.code, "file": self.file, "line": self.line, "step": self.step, "field": self.field,
            "message": self.message(lang), "hint": self.hint(lang),
        }  # fmt: skip


def finding(
    code: str, file: str, line: int, *, step: str | None = None, field: str | None = None, suggestion: str | None = None, **values: str
) -> Finding:
    """Return the finding `code` with its severity from the table."""
    return Finding(MESSAGES[code].severity, code, file, line, step, field, values, suggestion)


def closest(word: str, words: Iterable[str]) -> str | None:
    """Return the one of `words` that `word` was probably meant to be, or None."""
    candidates = list(words)
    found = get_close_matches(word, candidates, n=1, cutoff=0.6) or get_close_matches(word.lower(), candidates, n=1, cutoff=0.6)
    return found[0] if found else None


class DefinitionError(InvalidInput):
    """A journey file cannot be read; `findings` say where and why, in file order."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(item.line_of_text() for item in self.findings) or "The journey cannot be read.")
