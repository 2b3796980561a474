"""The greeting of a message, in each language."""

from collections.abc import Mapping


def greeting_for(contact: Mapping[str, object], lang: str) -> str:
    """Return the salutation: the contact's own `greeting` when there is one, else by rule, else one that fits anybody.

    Japanese takes the family name and 様, English `Dear` and the given name; without a name お客様 and `Hello`.
    """
    chosen = _fact(contact, "greeting")
    return chosen or _RULES.get(lang, _english)(contact)


def _japanese(contact: Mapping[str, object]) -> str:
    name = _fact(contact, "last_name") or _fact(contact, "full_name")
    return f"{name}様" if name else "お客様"


def _english(contact: Mapping[str, object]) -> str:
    name = _fact(contact, "first_name")
    return f"Dear {name}" if name else "Hello"


def _fact(contact: Mapping[str, object], name: str) -> str:
    value = contact.get(name)
    return "" if value is None else str(value).strip()


_RULES = {"ja": _japanese, "en": _english}
