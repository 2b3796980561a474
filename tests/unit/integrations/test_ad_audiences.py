"""Ad audiences: hashed, kept whole, and the same however often a change is made."""

import asyncio
import hashlib
import threading
from pathlib import Path

import pytest

from distmark.errors import PermanentDeliveryError, TemporaryDeliveryError
from distmark.integrations.ad_audiences import AudienceAction, AudienceChange, AudienceMember, FileAudiences, WebhookAudiences, audiences_of
from distmark.integrations.memory import MemoryWebhooks
from distmark.integrations.webhooks import WebhookAnswer
from distmark.settings import Settings

HANAKO, TARO = AudienceMember.of("hanako@example.com", "+819012345678"), AudienceMember.of("taro@example.com", None)


def adds(*members: AudienceMember) -> list[AudienceChange]:
    return [AudienceChange(AudienceAction.add, member, f"key-{member.key[:4]}") for member in members]


def removes(*members: AudienceMember) -> list[AudienceChange]:
    return [AudienceChange(AudienceAction.remove, member, f"key-{member.key[:4]}") for member in members]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_addresses_are_normalised_and_hashed() -> None:
    digest = hashlib.sha256(b"hanako@example.com").hexdigest()

    assert AudienceMember.of("  Hanako@Example.COM ", "+819012345678") == HANAKO
    assert HANAKO.email == digest
    assert TARO.phone == ""


async def test_file_holds_hashes_once_each_and_no_address(tmp_path: Path) -> None:
    audiences = FileAudiences(tmp_path)

    await audiences.change("mirai", "lookalike", adds(HANAKO, TARO))
    await audiences.change("mirai", "lookalike", adds(HANAKO))

    path = audiences.path("mirai", "lookalike")
    assert lines(path) == ["email_sha256,phone_sha256", f"{HANAKO.email},{HANAKO.phone}", f"{TARO.email},"]
    assert b"@" not in path.read_bytes()


async def test_removing_leaves_the_others_and_twice_is_as_once(tmp_path: Path) -> None:
    audiences = FileAudiences(tmp_path)
    await audiences.change("mirai", "lookalike", adds(HANAKO, TARO))

    await audiences.change("mirai", "lookalike", removes(HANAKO))
    await audiences.change("mirai", "lookalike", removes(HANAKO))

    assert lines(audiences.path("mirai", "lookalike"))[1:] == [f"{TARO.email},"]


async def test_brands_do_not_share_an_audience_of_the_same_name(tmp_path: Path) -> None:
    audiences = FileAudiences(tmp_path)
    await audiences.change("mirai", "lookalike", adds(HANAKO))

    await audiences.change("other", "lookalike", adds(TARO))

    assert lines(audiences.path("mirai", "lookalike"))[1:] == [f"{HANAKO.email},{HANAKO.phone}"]


async def test_change_that_fails_half_way_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audiences = FileAudiences(tmp_path)
    await audiences.change("mirai", "lookalike", adds(HANAKO))
    before = lines(audiences.path("mirai", "lookalike"))

    def no_space(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(TemporaryDeliveryError, match="No space left"):
        await audiences.change("mirai", "lookalike", adds(TARO))

    assert lines(audiences.path("mirai", "lookalike")) == before
    assert [path.name for path in (tmp_path / "mirai").iterdir() if path.suffix not in (".csv", ".lock")] == []


def test_changes_made_at_once_are_all_kept(tmp_path: Path) -> None:
    members = [AudienceMember.of(f"user{number}@example.com", None) for number in range(24)]

    def work(part: list[AudienceMember]) -> None:
        for member in part:
            asyncio.run(FileAudiences(tmp_path).change("mirai", "lookalike", adds(member)))

    threads = [threading.Thread(target=work, args=(members[number::4],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(lines(FileAudiences(tmp_path).path("mirai", "lookalike"))) == 1 + len(members)


async def test_webhook_connector_tells_each_stretch_of_one_action() -> None:
    webhooks = MemoryWebhooks()

    await WebhookAudiences(webhooks, "https://ads.example/", "ads").change("mirai", "lookalike", adds(HANAKO, TARO) + removes(HANAKO))

    first, second = webhooks.calls
    assert (first.body["action"], len(first.body["members"]), first.secret) == ("add", 2, "ads")
    assert second.body == {
        "brand": "mirai",
        "audience": "lookalike",
        "action": "remove",
        "members": [{"email_sha256": HANAKO.email, "phone_sha256": HANAKO.phone}],
    }
    assert first.idempotency_key != second.idempotency_key


@pytest.mark.parametrize(("status", "error"), [(503, TemporaryDeliveryError), (400, PermanentDeliveryError)])
async def test_webhook_connector_that_is_refused_says_so(status: int, error: type[Exception]) -> None:
    webhooks = MemoryWebhooks()
    webhooks.answer(WebhookAnswer(status))

    with pytest.raises(error, match=str(status)):
        await WebhookAudiences(webhooks, "https://ads.example/").change("mirai", "lookalike", adds(HANAKO))


def test_settings_say_where_audiences_are_kept(tmp_path: Path) -> None:
    assert isinstance(audiences_of(Settings(data_dir=tmp_path)), FileAudiences)
    assert isinstance(audiences_of(Settings(data_dir=tmp_path, audience_url="https://ads.internal/")), WebhookAudiences)
