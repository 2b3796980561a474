"""Steps in words, in Japanese and English: for pictures, lists and pages. The words stand beside each kind."""

from distmark.journeys.phrases import listed
from distmark.journeys.steps import KINDS, Step


def describe_step(step: Step, lang: str) -> tuple[str, str]:
    """Return a title and a second line (perhaps empty) for `step` in `lang`: "ja", or anything else for English."""
    lang = "ja" if lang == "ja" else "en"
    title, detail = KINDS[step.kind].describe(step, lang)
    if step.name is None:
        return title, detail
    # How long a wait takes must be seen whatever the wait is called; of other kinds the name says as much as the title.
    return step.name.text(lang), listed([part for part in (title, detail) if part], lang) if step.kind == "wait" else detail or title
