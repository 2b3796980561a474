"""The definition of each metric, in both languages: shown wherever the metric is shown."""

from dataclasses import dataclass

from distmark.journeys.outcomes import Outcome
from distmark.metrics.model import EVENT_PREFIX, LINK_PREFIX, OUTCOME_PREFIX, Metric

Words = dict[str, str]  # language -> text

PEOPLE: Words = {"ja": "人", "en": "people"}
MESSAGES: Words = {"ja": "通", "en": "messages"}
TIMES: Words = {"ja": "回", "en": "times"}
ACCEPTED: Words = {"ja": "送信した通数", "en": "messages sent"}
NOTHING: Words = {"ja": "なし(実数)", "en": "none: a plain number"}


@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of one metric. A rate divides `numerator` by `denominator`; where that is `NOTHING` there is no rate."""

    metric: str
    name: Words
    numerator: Words
    denominator: Words
    unit: Words


def _define(metric: str, name: tuple[str, str], numerator: tuple[str, str], unit: Words, denominator: Words = NOTHING) -> Definition:
    return Definition(metric, _both(name), _both(numerator), denominator, unit)


def _both(words: tuple[str, str]) -> Words:
    return {"ja": words[0], "en": words[1]}


DEFINITIONS: dict[str, Definition] = {
    definition.metric: definition
    for definition in (
        _define(Metric.entered, ("開始", "Entered"), ("ジャーニーに入った回数", "enrollments that began"), PEOPLE),
        _define(
            Metric.ended,
            ("終了", "Ended"),
            ("ジャーニーを出た回数(理由を問わない)", "enrollments that ended, in any way"),
            PEOPLE,
        ),
        _define(Metric.passed, ("通過", "Passed"), ("このステップを終えて先へ進んだ回数", "times this step was done and left"), TIMES),
        _define(Metric.waiting, ("待機", "Waited"), ("このステップで待ち始めた回数", "times a wait began at this step"), TIMES),
        _define(
            Metric.held,
            ("保留", "Held"),
            ("送信時間帯や上限のために送信を遅らせた回数", "sends put off by quiet hours, caps or throttles"),
            TIMES,
        ),
        _define(Metric.branched, ("分岐", "Branched"), ("この分岐で道が決まった回数", "times a way was chosen at this split"), TIMES),
        _define(Metric.task, ("タスク", "Tasks"), ("担当者に依頼した件数", "next actions given to a person"), TIMES),
        _define(Metric.skipped, ("見送り", "Skipped"), ("規則により実行しなかった回数", "times a rule passed this step over"), TIMES),
        _define(Metric.error, ("エラー", "Errors"), ("ステップの実行に失敗した回数", "times this step raised"), TIMES),
        _define(
            Metric.sent,
            ("送信", "Sent"),
            ("相手のサーバーが受け付けた通数(1通1回)", "messages that the receiving server accepted, each once"),
            MESSAGES,
        ),
        _define(
            Metric.failed,
            ("失敗", "Failed"),
            ("作成できない、または拒否された通数", "messages that could not be made or were refused for good"),
            MESSAGES,
        ),
        _define(
            Metric.suppressed,
            ("配信停止による中止", "Suppressed"),
            ("配信停止・同意なしのため送らなかった通数", "messages not sent because of consent or suppression"),
            MESSAGES,
        ),
        _define(
            Metric.uncertain,
            ("不明", "Uncertain"),
            ("受け付けられたか確認できない通数(再送しない)", "messages that may or may not have been accepted; never resent by themselves"),
            MESSAGES,
        ),
        _define(
            Metric.opened,
            ("開封", "Opened"),
            ("人が1回以上開封した通数(クリックは開封とみなす)", "messages opened at least once by a person; a click counts as an open"),
            MESSAGES,
            ACCEPTED,
        ),
        _define(Metric.opens, ("のべ開封", "All opens"), ("人による開封の延べ回数", "every open by a person"), TIMES),
        _define(
            Metric.opened_machine,
            ("機械による開封", "Machine opens"),
            (
                "プライバシー保護やセキュリティ機器による開封。開封率には含めない",
                "opens by proxies and scanners; not in the open rate",
            ),
            TIMES,
        ),
        _define(
            Metric.clicked,
            ("クリック", "Clicked"),
            ("人がリンクを1回以上クリックした通数", "messages of which a person clicked a link at least once"),
            MESSAGES,
            ACCEPTED,
        ),
        _define(Metric.clicks, ("のべクリック", "All clicks"), ("人によるクリックの延べ回数", "every click by a person"), TIMES),
        _define(
            Metric.clicked_machine,
            ("機械によるクリック", "Machine clicks"),
            ("セキュリティ機器などによるクリック。クリック率には含めない", "clicks by scanners and other machines; not in the click rate"),
            TIMES,
        ),
        _define(Metric.replied, ("返信", "Replied"), ("返信のあった通数", "messages that were replied to"), MESSAGES, ACCEPTED),
        _define(
            Metric.unsubscribed,
            ("配信停止", "Unsubscribed"),
            ("配信停止につながった通数", "messages whose unsubscribe link or header was used"),
            MESSAGES,
            ACCEPTED,
        ),
        _define(
            Metric.bounced,
            ("不達", "Bounced"),
            ("受付後に戻ってきた通数", "messages that came back after having been accepted"),
            MESSAGES,
            ACCEPTED,
        ),
        _define(
            Metric.complained,
            ("迷惑メール報告", "Complaints"),
            ("迷惑メールとして報告された通数", "messages reported as spam"),
            MESSAGES,
            ACCEPTED,
        ),
        _define(
            Metric.converted,
            ("成果", "Converted"),
            ("成果が1回以上あった人数", "enrollments with at least one conversion"),
            PEOPLE,
            {"ja": "開始した人数", "en": "people who entered"},
        ),
        _define(
            Metric.conversions,
            ("のべ成果", "All conversions"),
            ("成果の延べ回数と金額の合計", "every conversion, and its value"),
            TIMES,
        ),
    )
}

FAMILIES: dict[str, Definition] = {
    OUTCOME_PREFIX: _define(OUTCOME_PREFIX, ("終了理由", "Outcome"), ("この理由で終了した人数", "enrollments that ended this way"), PEOPLE),
    LINK_PREFIX: _define(
        LINK_PREFIX, ("リンク", "Link"), ("このリンクを人がクリックした通数", "messages of which a person clicked this link"), MESSAGES
    ),
    EVENT_PREFIX: _define(EVENT_PREFIX, ("イベント", "Event"), ("この名前のイベントの回数", "events of this name"), TIMES),
}

OUTCOMES: dict[Outcome, Words] = {
    Outcome.completed: {"ja": "最後まで完了", "en": "Completed"},
    Outcome.goal: {"ja": "目標達成", "en": "Reached the goal"},
    Outcome.exit: {"ja": "条件により終了", "en": "Left by a rule"},
    Outcome.unsubscribed: {"ja": "配信停止", "en": "Unsubscribed"},
    Outcome.stopped: {"ja": "担当者が停止", "en": "Stopped by a person"},
    Outcome.failed: {"ja": "失敗", "en": "Failed"},
    Outcome.moved: {"ja": "別の版へ移動", "en": "Moved to another version"},
}


def define(metric: str) -> Definition:
    """Return the definition of `metric`, families such as `ended:goal` included; an unknown metric is a KeyError."""
    prefix, colon, _ = metric.partition(":")
    return FAMILIES[prefix + colon] if colon else DEFINITIONS[metric]


def outcome_name(outcome: str, lang: str) -> str:
    """Return an outcome in words; an unknown one is returned as it is."""
    return OUTCOMES[Outcome(outcome)][lang] if outcome in set(Outcome) else outcome
