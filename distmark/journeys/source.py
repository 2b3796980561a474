"""The text of a journey: its definition and its templates, as read from disk or stored with a version. Understands none of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

from distmark.errors import InvalidInput

DEFINITION_FILE = "journey.yaml"
MESSAGES_FOLDER = "messages"
DEFINITION_SUFFIXES = (".yaml", ".yml")
TEMPLATE_SUFFIXES = (".txt", ".mjml")


@dataclass(frozen=True)
class Source:
    """A journey as text. `templates` maps a name below `messages/`, such as "welcome.ja.mjml", to its text; `path` is only for people."""

    definition: str
    templates: Mapping[str, str] = field(default_factory=dict)
    path: str = DEFINITION_FILE

    @cached_property
    def content_hash(self) -> str:
        """The SHA-256 (hex) of definition and templates; the same wherever the journey lies."""
        content = {"definition": self.definition, "templates": dict(self.templates)}
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()

    @property
    def file(self) -> str:
        """The name of the definition's file."""
        return Path(self.path).name if self.path.endswith(DEFINITION_SUFFIXES) else DEFINITION_FILE

    def template(self, message: str, lang: str, part: str) -> str | None:
        """Return the text of one part ("subject.txt", "text.txt", "mjml", "sms.txt") of `message` in `lang`, or None."""
        return self.templates.get(template_name(message, lang, part))

    def to_json(self) -> dict[str, object]:
        """Return the source as plain data that `from_json` reads back the same."""
        return {"definition": self.definition, "templates": dict(self.templates), "path": self.path}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Self:
        """Return the source that `to_json` wrote; raises InvalidInput for anything else."""
        definition, templates, path = data.get("definition"), data.get("templates"), data.get("path", DEFINITION_FILE)
        if not isinstance(definition, str) or not isinstance(templates, Mapping) or not isinstance(path, str):
            raise InvalidInput(
                "The stored journey cannot be read: definition, templates or path is missing; store it again from its files."
            )
        return cls(definition, {str(name): str(text) for name, text in templates.items()}, path)


def template_name(message: str, lang: str, part: str) -> str:
    """Return the name of a template below `messages/`."""
    return f"{message}.{lang}.{part}"


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The file {path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise InvalidInput(f"The file {path} cannot be read: {error.strerror}; check that it exists.") from error


def _definition_of(folder: Path) -> Path | None:
    return next((folder / f"journey{suffix}" for suffix in DEFINITION_SUFFIXES if (folder / f"journey{suffix}").is_file()), None)


def _templates_of(folder: Path) -> dict[str, str]:
    messages = folder / MESSAGES_FOLDER
    files = sorted(path for path in messages.rglob("*") if path.is_file() and path.suffix in TEMPLATE_SUFFIXES)
    return {path.relative_to(messages).as_posix(): _read(path) for path in files}


def load_source(path: Path) -> Source:
    """Return the journey in the folder or file `path`; raises InvalidInput when there is none or a file is not UTF-8."""
    path = Path(path)
    if path.is_file() and path.stem == "journey" and (path.parent / MESSAGES_FOLDER).is_dir():
        path = path.parent
    if path.is_dir():
        definition = _definition_of(path)
        if definition is None:
            raise InvalidInput(f"The folder {path} holds no {DEFINITION_FILE}; give a journey's folder or file.")
        return Source(_read(definition), _templates_of(path), str(path))
    if path.suffix not in DEFINITION_SUFFIXES:
        raise InvalidInput(f"The file {path} is not a journey; give a .yaml file or a folder with {DEFINITION_FILE}.")
    return Source(_read(path), {}, str(path))


def scan(directory: Path) -> list[Path]:
    """Return the journeys directly in `directory`: folders with a definition and single .yaml files, sorted by name."""
    if not Path(directory).is_dir():
        raise InvalidInput(f"The folder {directory} does not exist; give the folder that holds the journeys.")
    found = [
        path
        for path in Path(directory).iterdir()
        if (path.is_dir() and _definition_of(path))
        or (path.is_file() and path.suffix in DEFINITION_SUFFIXES and not path.name.startswith("."))
    ]
    return sorted(found, key=lambda path: path.name)
