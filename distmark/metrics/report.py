"""Results as text: the table that the command line prints and the artifact shows. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distmark.metrics.definitions import define, outcome_name
from distmark.metrics.model import JOURNEY, Metric, Results, StepResults, rate

COLUMNS = (
    Metric.sent,
    Metric.failed,
    Metric.suppressed,
    Metric.uncertain,
    Metric.opened,
    Metric.clicked,
    Metric.unsubscribed,
    Metric.bounced,
)
RATES = frozenset({Metric.opened, Metric.clicked, Metric.unsubscribed, Metric.bounced})
WORDS = {
    "step": {"ja": "ステップ", "en": "Step"},
    "all": {"ja": "合計", "en": "All"},
    "inside": {"ja": "進行中", "en": "Inside"},
    "as_of": {"ja": "集計時刻", "en": "As of"},
    "nothing": {"ja": "まだ送信はありません。", "en": "Nothing was sent yet."},
    "meaning": {"ja": "指標の意味", "en": "What the numbers mean"},
    "per": {"ja": "÷", "en": "per"},
}


@dataclass(frozen=True, slots=True)
class Funnel:
    """A table of text: one row per step that sends, in order, and the sum of them last."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def funnel(results: Results, lang: str = "ja") -> Funnel:
    """Return what was sent and what came back, per step that sends."""
    headings = (WORDS["step"][lang], *(define(metric).name[lang] for metric in COLUMNS))
    rows = [_row(step.step_id, step.counts) for step in sending_steps(results)]
    return Funnel(headings, (*rows, _row(WORDS["all"][lang], results.totals)))


def sending_steps(results: Results) -> Sequence[StepResults]:
    """Return the steps that send messages, in the journey's order."""
    return [step for step in results.steps if step.is_send and step.step_id != JOURNEY]


def summary(results: Results, lang: str = "ja") -> str:
    """Return one line: how many entered, are inside, ended and how."""
    parts = [
        f"{define(Metric.entered).name[lang]} {results.count(Metric.entered):,}",
        f"{WORDS['inside'][lang]} {results.inside:,}",
        f"{define(Metric.ended).name[lang]} {results.count(Metric.ended):,}",
    ]
    ways = [f"{outcome_name(outcome, lang)} {count:,}" for outcome, count in results.outcomes.items()]
    return " · ".join(parts) + (f" ({', '.join(ways)})" if ways else "")


def results_markdown(results: Results, lang: str = "ja") -> str:
    """Return the results as Markdown: summary, funnel per step, and what each number means."""
    table = funnel(results, lang)
    lines = [f"## {_escape(results.title)}", "", summary(results, lang), ""]
    if results.rolled_up_at is not None:
        lines += [f"{WORDS['as_of'][lang]}: {results.rolled_up_at:%Y-%m-%d %H:%M} UTC", ""]
    if len(table.rows) > 1:
        lines += [_line(table.headings), _line(["---", *["---:"] * len(COLUMNS)]), *map(_line, table.rows), ""]
    else:
        lines += [WORDS["nothing"][lang], ""]
    return "\n".join([*lines, f"### {WORDS['meaning'][lang]}", "", *(_meaning(metric, lang) for metric in COLUMNS), ""])


def percent(part: float | None) -> str:
    """Return a rate (0 to 1) as people write it; nothing to divide by is a dash."""
    return "–" if part is None else f"{part:.1%}"


def _row(name: str, counts: Mapping[str, int]) -> tuple[str, ...]:
    return (name, *(_cell(metric, counts) for metric in COLUMNS))


def _cell(metric: Metric, counts: Mapping[str, int]) -> str:
    count = counts.get(metric, 0)
    return (
        f"{count:,} ({percent(rate(counts, metric, Metric.sent))})"
        if metric in RATES and count and counts.get(Metric.sent)
        else f"{count:,}"
    )


def _meaning(metric: Metric, lang: str) -> str:
    definition = define(metric)
    per = f" {WORDS['per'][lang]} {definition.denominator[lang]}" if metric in RATES else ""
    return f"- **{definition.name[lang]}**: {definition.numerator[lang]}{per} ({definition.unit[lang]})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
