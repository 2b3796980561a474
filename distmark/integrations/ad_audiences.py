"""Ad audiences: lists of hashed addresses that an advertising platform matches, kept as files or told to a system of the brand."""

import asyncio
import contextlib
import csv
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from distmark.contacts.model import address_key
from distmark.errors import PermanentDeliveryError, TemporaryDeliveryError
from distmark.integrations.webhooks import HttpWebhooks, WebhookCall, Webhooks, idempotency_key, secrets_of
from distmark.settings import Settings

COLUMNS = ("email_sha256", "phone_sha256")
MOST_PER_CALL = 1000


class AudienceAction(StrEnum):
    """What is done to an audience."""

    add = "add"
    remove = "remove"


@dataclass(frozen=True, slots=True)
class AudienceMember:
    """A person as platforms know one: SHA-256 (hex) of the mail address, trimmed and in lower case, and of the E.164 number, else ""."""

    email: str
    phone: str

    @classmethod
    def of(cls, email: str | None, phone: str | None) -> "AudienceMember":
        """Return the member with these addresses."""
        return cls(_hashed(email), _hashed(phone))

    @property
    def key(self) -> str:
        """What the same person is found again by."""
        return self.email or self.phone


def _hashed(address: str | None) -> str:
    return hashlib.sha256(address_key(address).encode()).hexdigest() if address and address.strip() else ""


@dataclass(frozen=True, slots=True)
class AudienceChange:
    """One person to add to an audience or remove from it. `key` is the same on every try."""

    action: AudienceAction
    member: AudienceMember
    key: str


class Audiences(Protocol):
    """Where audiences are kept."""

    async def change(self, brand: str, audience: str, changes: Sequence[AudienceChange]) -> None:
        """Make these changes, in their order; a change made twice is as one. Errors: DeliveryError when some may not have been made."""
        ...


def audiences_of(settings: Settings) -> Audiences:
    """Return where this installation keeps audiences: files in its data folder, or a system that is called with each change."""
    if settings.audience_url:
        own = HttpWebhooks(secrets_of(settings), allow_private=True)  # whoever runs this installation names it, so it may be inside
        return WebhookAudiences(own, settings.audience_url, settings.audience_secret or None)
    return FileAudiences(settings.data_dir / "audiences")


class FileAudiences:
    """One CSV file per brand and audience, to be uploaded to a platform; a reader never sees half of one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, brand: str, audience: str) -> Path:
        """Return the file of an audience."""
        return self._folder / brand / f"{audience}.csv"

    async def change(self, brand: str, audience: str, changes: Sequence[AudienceChange]) -> None:
        """Make these changes; see `Audiences`."""
        try:
            await asyncio.to_thread(self._change, self.path(brand, audience), changes)
        except OSError as error:
            raise TemporaryDeliveryError(f'The file of audience "{audience}" cannot be written: {error.strerror}.') from error

    def _change(self, path: Path, changes: Sequence[AudienceChange]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            members = _read(path)
            before = dict(members)
            for change in changes:
                if change.action is AudienceAction.add:
                    members[change.member.key] = change.member
                else:
                    members.pop(change.member.key, None)
            if members != before or not path.exists():
                _write(path, members.values())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, AudienceMember]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        found = (AudienceMember(row[COLUMNS[0]], row[COLUMNS[1]]) for row in csv.DictReader(file))
        return {member.key: member for member in found}


def _write(path: Path, members: Iterable[AudienceMember]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(COLUMNS)
            rows.writerows((member.email, member.phone) for member in members)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class WebhookAudiences:
    """Tells a system of the brand about each change: POST with audience, action and members, signed."""

    def __init__(self, webhooks: Webhooks, url: str, secret: str | None = None) -> None:
        self._webhooks = webhooks
        self._url = url
        self._secret = secret

    async def change(self, brand: str, audience: str, changes: Sequence[AudienceChange]) -> None:
        """Make these changes; see `Audiences`."""
        for action, part in _runs(changes):
            members = [dict(zip(COLUMNS, (change.member.email, change.member.phone), strict=True)) for change in part]
            call = WebhookCall(
                url=self._url,
                method="POST",
                idempotency_key=idempotency_key(*(change.key for change in part)),
                body={"brand": brand, "audience": audience, "action": str(action), "members": members},
                secret=self._secret,
                timeout_seconds=30,
            )
            answer = await self._webhooks.call(call)
            if not answer.ok:
                kind = TemporaryDeliveryError if answer.may_pass else PermanentDeliveryError
                raise kind(f'The system that keeps audience "{audience}" answered {answer.status}.', code=str(answer.status))


def _runs(changes: Sequence[AudienceChange]) -> Iterator[tuple[AudienceAction, list[AudienceChange]]]:
    """Iterate over the changes as stretches of one action, none too long for one call."""
    part: list[AudienceChange] = []
    for change in changes:
        if part and (part[0].action is not change.action or len(part) >= MOST_PER_CALL):
            yield part[0].action, part
            part = []
        part.append(change)
    if part:
        yield part[0].action, part
