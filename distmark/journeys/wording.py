"""Times and waits in words, in Japanese and English."""

import re
from collections.abc import Callable

from distmark.journeys.times import DAY_GROUPS, DAY_NAMES, DAYS_JA, Days, Duration, Holidays, Offset, TimeOfDay
from distmark.journeys.waits import BEST_TIME, Wait

Described = tuple[str, str]

DAY_GROUPS_JA = {"weekdays": "平日", "weekends": "土日", "every day": "毎日"}
_SLOT = re.compile(r"\{\{.*?\}\}")
# Events that every journey knows.
HAPPENINGS = {
    "opened": {"ja": "開封", "en": "an open"},
    "clicked": {"ja": "クリック", "en": "a click"},
    "replied": {"ja": "返信", "en": "a reply"},
    "unsubscribed": {"ja": "配信停止", "en": "an unsubscribe"},
    "converted": {"ja": "成約", "en": "a conversion"},
}
LATE = {"ja": "時間切れ → {step}", "en": "times out → {step}"}


def listed(parts: list[str], lang: str) -> str:
    """Return `parts` as one line, parted as the language does."""
    return ("・" if lang == "ja" else ", ").join(parts)


def readable(key: str) -> str:
    """Return a key that has no name of its own for readers: visit_booked is visit booked."""
    return " ".join(key.replace("_", " ").split())


def without_slots(text: str, lang: str) -> str:
    """Return a text with its `{{ }}` slots shown as blanks."""
    return _SLOT.sub("○○" if lang == "ja" else "…", text)


def duration_words(duration: Duration, lang: str) -> str:
    """Return the duration in words: "3日", "1時間30分" or "3 days"."""
    if lang != "ja":
        return str(duration).lstrip("+-").strip()
    years, months = divmod(abs(duration.months), 12)
    hours, minutes = divmod(abs(duration.minutes), 60)
    weeks, days = divmod(abs(duration.days), 7) if abs(duration.days) % 7 == 0 and "week" in str(duration) else (0, abs(duration.days))
    parts = ((years, "年"), (months, "か月"), (weeks, "週間"), (days, "日"), (hours, "時間"), (minutes, "分"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0分"


def time_words(time: TimeOfDay, lang: str) -> str:
    """Return the time of day: "9:00" in Japanese, "09:00" in English."""
    return f"{time.at.hour}:{time.at.minute:02}" if lang == "ja" else str(time)


def days_words(days: Days, lang: str) -> str:
    """Return the days of the week in words: "平日", "月曜・木曜", "weekdays", "Mon, Thu"."""
    group = next((name for name, numbers in DAY_GROUPS.items() if numbers == days.numbers), None)
    if group is not None:
        return DAY_GROUPS_JA[group] if lang == "ja" else group
    names = [DAY_NAMES[number] for number in sorted(days.numbers)]
    return "・".join(DAYS_JA[name] for name in names) if lang == "ja" else ", ".join(name.capitalize() for name in names)


def limits_words(days: Days | None, holidays: Holidays | None, lang: str) -> str:
    """Return on which days something may happen: "平日のみ・祝日（JP）を除く" or "weekdays only, no JP holidays"; empty for any day."""
    parts = []
    if days is not None:
        parts.append(f"{days_words(days, lang)}のみ" if lang == "ja" else f"{days_words(days, lang)} only")
    if holidays is not None:
        parts.append(f"祝日（{holidays}）を除く" if lang == "ja" else f"no {holidays} holidays")
    return ("・" if lang == "ja" else ", ").join(parts)


def wait_words(wait: Wait, lang: str) -> Described:
    """Return the wait in words: "3日後の9:00まで" or "3 days, then 09:00", and its limits or what happens when time is up."""
    for given, words in WAITS:
        if given(wait):
            return words(wait, lang)
    raise AssertionError("a wait has one of its forms")


def _until_days(wait: Wait, lang: str) -> Described:
    assert isinstance(wait.until, TimeOfDay), "asked only for a time of day"
    time = time_words(wait.until, lang)
    if wait.for_ is not None:
        lasts = duration_words(wait.for_, lang)
        return (f"{lasts}後の{time}まで" if lang == "ja" else f"{lasts}, then {time}"), limits_words(wait.days, wait.holidays, lang)
    if wait.days is not None:
        days = days_words(wait.days, lang)
        return (f"次の{days}{time}まで" if lang == "ja" else f"until {days} {time}"), limits_words(None, wait.holidays, lang)
    return (f"次の{time}まで" if lang == "ja" else f"until {time}"), limits_words(None, wait.holidays, lang)


def _for(wait: Wait, lang: str) -> Described:
    assert wait.for_ is not None, "asked only for a duration"
    lasts = duration_words(wait.for_, lang)
    return (f"{lasts}待つ" if lang == "ja" else lasts), limits_words(wait.days, wait.holidays, lang)


def _best_time(wait: Wait, lang: str) -> Described:
    within = duration_words(wait.within, lang) if wait.within else ""
    return (f"{within}以内の反応の良い時刻まで" if lang == "ja" else f"best time within {within}"), ""


def _on(wait: Wait, lang: str) -> Described:
    day = _day_words(wait, lang)
    time = time_words(wait.at, lang) if wait.at else ""
    yearly = ("毎年 " if lang == "ja" else "every year, ") if wait.every else ""
    title = f"{yearly}{day}{'の' + time if time else ''}まで" if lang == "ja" else f"until {yearly}{day}{', ' + time if time else ''}"
    return title, limits_words(wait.days, wait.holidays, lang)


def _day_words(wait: Wait, lang: str) -> str:
    assert wait.on is not None, "asked only for a date"
    day = wait.on.day
    named = f"{day.year}年{day.month}月{day.day}日" if day and lang == "ja" else readable(str(wait.on).removeprefix("contact."))
    return _offset_words(named, wait.offset, lang) if wait.offset is not None and not wait.offset.is_zero else named


def _offset_words(day: str, offset: Offset, lang: str) -> str:
    is_before = min(offset.months, offset.days, offset.minutes) < 0
    length = duration_words(offset, lang)
    if lang == "ja":
        return f"{day} の{length}{'前' if is_before else '後'}"
    return f"{length} {'before' if is_before else 'after'} {day}"


def _event(wait: Wait, lang: str) -> Described:
    event = HAPPENINGS[str(wait.event)][lang] if str(wait.event) in HAPPENINGS else readable(str(wait.event))
    what = (f"{readable(str(wait.of))} の{event}" if lang == "ja" else f"{event} of {readable(str(wait.of))}") if wait.of else event
    return _awaited(what, wait, lang)


def _condition(wait: Wait, lang: str) -> Described:
    title, late = _awaited("条件" if lang == "ja" else "a condition", wait, lang)
    return title, late


def _awaited(what: str, wait: Wait, lang: str) -> Described:
    late = LATE[lang].format(step=readable(wait.on_timeout)) if wait.on_timeout else ""
    if wait.timeout is None:
        return (f"{what} を待つ" if lang == "ja" else f"wait for {what}"), late
    lasts = duration_words(wait.timeout, lang)
    return (f"{what} を待つ・{lasts}" if lang == "ja" else f"wait for {what}, up to {lasts}"), late


WAITS: tuple[tuple[Callable[[Wait], bool], Callable[[Wait, str], Described]], ...] = (
    (lambda wait: wait.event is not None, _event),
    (lambda wait: wait.when is not None, _condition),
    (lambda wait: wait.on is not None, _on),
    (lambda wait: wait.until == BEST_TIME, _best_time),
    (lambda wait: wait.until is not None, _until_days),
    (lambda wait: wait.for_ is not None, _for),
)
