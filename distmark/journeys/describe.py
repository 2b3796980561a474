"""Steps in words, in Japanese and English: for pictures, lists and pages. The words stand beside each kind."""

from distmark.journeys.steps import KINDS, Step


def describe_step(step: Step, lang: str) -> tuple[str, str]:
    """Return a title and a second line (perhaps empty) for `step` in `lang`: "ja", or anything else for English."""
    lang = "ja" if lang == "ja" else "en"
    title, detail = KINDS[step.kind].describe(step, lang)
    return (step.name.text(lang), detail or title) if step.name is not None else (title, detail)
