"""The words of outcomes on pages and in results."""

from distmark.journeys.outcomes import Outcome
from distmark.metrics.definitions import OUTCOMES
from distmark.web.labels import OUTCOME


def test_every_outcome_has_words_on_pages_and_in_results():
    assert set(OUTCOMES) == set(OUTCOME) == set(Outcome)
    assert all(words.get(lang) for words in OUTCOMES.values() for lang in ("ja", "en"))
