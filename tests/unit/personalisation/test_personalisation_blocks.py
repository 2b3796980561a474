"""Whose value of a block wins, what is kept of what is typed, and how many parts a short message takes."""

import pytest

from distmark.errors import InvalidInput
from distmark.personalisation import BlockKind, BlockValue, Layer, SmsEncoding, SmsParts, resolve_blocks, sanitise_block, sms_parts


@pytest.mark.parametrize(
    ("brand", "campaign", "group", "member", "expected"),
    [
        ({}, {}, {}, {}, BlockValue("既定", Layer.JOURNEY)),
        ({"note": "b"}, {}, {}, {}, BlockValue("b", Layer.BRAND)),
        ({"note": "b"}, {"note": "c"}, {}, {}, BlockValue("c", Layer.CAMPAIGN)),
        ({"note": "b"}, {"note": "c"}, {"note": "g"}, {}, BlockValue("g", Layer.GROUP)),
        ({"note": "b"}, {"note": "c"}, {"note": "g"}, {"note": "m"}, BlockValue("m", Layer.MEMBER)),
        # None says nothing; an empty text wants the block empty.
        ({"note": "b"}, {}, {}, {"note": None}, BlockValue("b", Layer.BRAND)),
        ({"note": "b"}, {}, {}, {"note": ""}, BlockValue("", Layer.MEMBER)),
    ],
)
def test_later_layer_wins_and_is_named(
    brand: dict[str, str], campaign: dict[str, str], group: dict[str, str], member: dict[str, str | None], expected: BlockValue
) -> None:
    assert resolve_blocks({"note": "既定"}, brand, campaign, group, member) == {"note": expected}


def test_value_for_a_block_of_another_version_is_not_used() -> None:
    resolved = resolve_blocks({"photo": ""}, {"gone": "x"}, {}, {}, {"photo": "https://i.example/1.png"}, kinds={"photo": "image"})

    assert resolved == {"photo": BlockValue("https://i.example/1.png", Layer.MEMBER, BlockKind.IMAGE)}


@pytest.mark.parametrize(
    ("kind", "typed", "stored"),
    [
        ("text", "  一行目\r\n二行目\x00\x0b  ", "一行目\n二行目"),
        ("text", "<b>{{ 7*7 }}</b>", "<b>{{ 7*7 }}</b>"),
        ("text", "pay\u202egnp.exe", "paygnp.exe"),
        ("rich", "<p>a</p><script>x()</script>", "<p>a</p>"),
        (
            "rich",
            '<a href="https://a.example/" style="top:0" id=i>x</a>',
            '<a href="https://a.example/" rel="noopener">x</a>',
        ),
        ("rich", '<a href="javascript:x()">x</a><iframe src=y></iframe>', '<a rel="noopener">x</a>'),
    ],
)
def test_typed_text_is_cleaned_and_cleaning_twice_changes_nothing(kind: str, typed: str, stored: str) -> None:
    clean = sanitise_block(kind, typed, 300)

    assert clean == stored
    assert sanitise_block(kind, clean, 300) == clean


def test_length_counts_what_a_reader_sees() -> None:
    assert sanitise_block("rich", "<b>あいう</b>", 3) == "<b>あいう</b>"
    with pytest.raises(InvalidInput, match="4 characters long; at most 3"):
        sanitise_block("text", "あいうえ", 3)


@pytest.mark.parametrize("url", ["https://cdn.brand.example/a.png", "https://img.cdn.brand.example/a.png", ""])
def test_picture_from_the_brands_library_is_taken(url: str) -> None:
    assert sanitise_block("image", url, 2000, ["cdn.brand.example"]) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://cdn.brand.example/a.png",
        "https://evil.example/a.png",
        "https://evilcdn.brand.example.evil.example/a.png",
        "https://cdn.brand.example@evil.example/a.png",
        "javascript:alert(1)",
        "data:image/png;base64,AA",
    ],
)
def test_picture_from_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        sanitise_block("image", url, 2000, ["cdn.brand.example"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", SmsParts(SmsEncoding.GSM_7, 0, 0)),
        ("a" * 160, SmsParts(SmsEncoding.GSM_7, 160, 1)),
        ("a" * 161, SmsParts(SmsEncoding.GSM_7, 161, 2)),
        ("a" * 306, SmsParts(SmsEncoding.GSM_7, 306, 2)),  # 2 x 153
        ("a" * 307, SmsParts(SmsEncoding.GSM_7, 307, 3)),
        ("€" * 80, SmsParts(SmsEncoding.GSM_7, 160, 1)),  # an escape and a letter each
        ("€" * 153, SmsParts(SmsEncoding.GSM_7, 306, 3)),  # 76 fit in a part of 153, since no pair is cut: 76 + 76 + 1
        ("あ" * 70, SmsParts(SmsEncoding.UCS_2, 70, 1)),
        ("あ" * 71, SmsParts(SmsEncoding.UCS_2, 71, 2)),
        ("あ" * 134, SmsParts(SmsEncoding.UCS_2, 134, 2)),  # 2 x 67
        ("あ" * 135, SmsParts(SmsEncoding.UCS_2, 135, 3)),
        ("😀" * 35, SmsParts(SmsEncoding.UCS_2, 70, 1)),  # two units each
        ("😀" * 67, SmsParts(SmsEncoding.UCS_2, 134, 3)),  # 33 fit in a part of 67: 33 + 33 + 1
        ("a" * 69 + "あ", SmsParts(SmsEncoding.UCS_2, 70, 1)),
    ],
)
def test_short_message_is_counted_in_parts(text: str, expected: SmsParts) -> None:
    assert sms_parts(text) == expected
