"""Words that people write into messages: one text per language and block, and whether a partner agreed to those of now. Pure."""

import hashlib
import json
from collections.abc import Collection, Mapping

Words = Mapping[str, Mapping[str, str]]  # language -> block -> text


def own_words(layers: Collection[Words], lang: str) -> dict[str, str]:
    """Return the text of each block that a layer above the journey writes in this language; a later layer wins."""
    return {name: text for layer in layers for name, text in layer.get(lang, {}).items()}


def are_agreed(agreed: Words | None, present: Mapping[str, str], lang: str, blocks: Collection[str]) -> bool:
    """Return whether the partner agreed to the present texts of these blocks; the journey's own texts were approved with its version.

    `agreed` are the words at the time of sending, kept when a word changed after it; None: nothing changed.
    """
    if agreed is None:
        return True
    before = agreed.get(lang, {})
    return all(name not in present or present[name] == before.get(name) for name in blocks)


def with_words(words: Words, lang: str, texts: Mapping[str, str | None]) -> dict[str, dict[str, str]]:
    """Return the words with these texts of one language in them; None removes a text, and a language without texts is left out."""
    merged = {name: text for name, text in {**words.get(lang, {}), **texts}.items() if text is not None}
    others = {each: dict(of_language) for each, of_language in words.items() if each != lang}
    return others | ({lang: merged} if merged else {})


def fingerprint(words: object) -> str:
    """Return a short hash that is equal for equal words."""
    return hashlib.sha256(json.dumps(words, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:32]
