"""Uploaded files of contacts between the page before an import and the import: kept for an hour, for one user."""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from distmark.contacts.imports import ImportReport
from distmark.contacts.lines import OmittedCell, RejectedLine
from distmark.errors import InvalidInput
from distmark.web.visit import Visit

KEPT_FOR = timedelta(hours=1)
NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file with the choices made for it and the report of its dry run, which its owner was shown."""

    name: str
    user_id: int
    filename: str
    partner_id: int
    ground: str
    channels: Sequence[str]
    report: ImportReport

    @property
    def choices(self) -> dict[str, Any]:
        """The choices, as an import takes them."""
        return {"ground": self.ground or None, "channels": list(self.channels) or ["email"]}

    def shows(self, report: ImportReport) -> bool:
        """Return whether the report that was shown says the same as this one: counts, and lines that are not taken."""
        return self.report == report

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the value of a text made by `written`."""
        values = json.loads(text)
        report = values["report"]
        report["rejected"] = [RejectedLine(**line) for line in report["rejected"]]
        report["omitted"] = [OmittedCell(**cell) for cell in report["omitted"]]
        return cls(**values | {"report": ImportReport(**report)})

    def written(self) -> str:
        """Return the upload without the file itself, as text."""
        return json.dumps(asdict(self), ensure_ascii=False)


def keep_upload(
    visit: Visit, filename: str, data: bytes, partner_id: int, ground: str, channels: Sequence[str], report: ImportReport
) -> Upload:
    """Keep an uploaded file with its choices and its dry run, and forget files that are too old."""
    folder = _folder(visit)
    oldest = datetime.now(tz=visit.now.tzinfo) - KEPT_FOR  # file times are of the wall clock
    for path in [*folder.glob("*.upload"), *folder.glob("*.json")]:
        if path.stat().st_mtime < oldest.timestamp():
            path.unlink(missing_ok=True)
    upload = Upload(secrets.token_hex(16), visit.viewer.user_id, filename, partner_id, ground, channels, report)
    (folder / f"{upload.name}.upload").write_bytes(data)
    (folder / f"{upload.name}.json").write_text(upload.written(), encoding="utf-8")
    return upload


def kept_upload(visit: Visit, name: str) -> tuple[Upload, bytes]:
    """Return the viewer's upload and its file; InvalidInput when it is not there any more, or is another user's."""
    expired = InvalidInput("The file is no longer here; choose it again.")
    if not NAME.fullmatch(name):
        raise expired
    folder = _folder(visit)
    try:
        upload = Upload.read((folder / f"{name}.json").read_text(encoding="utf-8"))
        data = (folder / f"{name}.upload").read_bytes()
    except FileNotFoundError as error:
        raise expired from error
    if upload.user_id != visit.viewer.user_id:
        raise expired
    return upload, data


def show_again(visit: Visit, upload: Upload, report: ImportReport) -> None:
    """Keep a newer report for the upload, which its owner is shown next."""
    newer = replace(upload, report=report)
    (_folder(visit) / f"{upload.name}.json").write_text(newer.written(), encoding="utf-8")


def take_upload(visit: Visit, upload: Upload) -> None:
    """Forget the upload, whose file is imported now; InvalidInput when it was taken before: each is imported once."""
    try:
        (_folder(visit) / f"{upload.name}.upload").unlink()
    except FileNotFoundError as error:
        raise InvalidInput("The file is no longer here; choose it again.") from error
    (_folder(visit) / f"{upload.name}.json").unlink(missing_ok=True)


def _folder(visit: Visit) -> Path:
    folder = visit.site.settings.data_dir / "uploads"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
