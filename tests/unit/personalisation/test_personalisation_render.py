"""What one person gets: greeting, blocks, footer, pixel; and what is refused rather than sent."""

import timeit
import unicodedata

import pytest

from distmark.channels.email.mime import text_header
from distmark.personalisation import (
    BlockKind,
    BlockValue,
    RenderError,
    TemplateRefused,
    compile_message,
    greeting_for,
    legal_footer,
    render,
)
from tests.personalisation_samples import BRAND, compiled, context

NOTE = "<mj-text css-class='only-if-note'>担当より {{ blocks.note }}</mj-text>"


@pytest.mark.parametrize(
    ("contact", "lang", "greeting"),
    [
        ({"last_name": "佐藤", "first_name": "恵"}, "ja", "佐藤様"),
        ({"full_name": "佐藤 恵"}, "ja", "佐藤 恵様"),
        ({"last_name": " "}, "ja", "お客様"),
        ({}, "ja", "お客様"),
        ({"first_name": "Megumi", "last_name": "Sato"}, "en", "Dear Megumi"),
        ({"first_name": None}, "en", "Hello"),
        ({"greeting": "佐藤先生", "last_name": "佐藤"}, "ja", "佐藤先生"),
    ],
)
def test_greeting_follows_the_custom_of_the_language(contact: dict[str, object], lang: str, greeting: str) -> None:
    assert greeting_for(contact, lang) == greeting


def test_partner_text_is_data_and_never_a_template() -> None:
    message = compiled(content=NOTE, text="{{ blocks.note }}", subject="{{ contact.last_name }}様へ")
    typed = "{{ 7*7 }} {% if x %} <script>alert(1)</script> & \ue000 7*7 \ue001\n二行目"

    rendered = render(message, context(blocks={"note": BlockValue(typed)}, contact={"last_name": "{{ 7*7 }}"}))

    assert "{{ 7*7 }} {% if x %} &lt;script&gt;alert(1)&lt;/script&gt; &amp;" in rendered.html
    assert "<br>二行目" in rendered.html
    assert typed in rendered.text
    assert rendered.subject == "{{ 7*7 }}様へ"
    assert "49" not in rendered.subject + rendered.html.split("<body")[1].split("担当より")[1].split("二行目")[0]


def test_rich_block_is_cleaned_again_when_it_is_shown() -> None:
    rich = BlockValue('<b onclick="x()">太字</b><img src=x onerror=x()><a href="javascript:x()">y</a>', kind=BlockKind.RICH)

    rendered = render(compiled(content=NOTE, text="{{ blocks.note }}"), context(blocks={"note": rich}))

    assert "担当より <b>太字</b><a rel=" in rendered.html
    assert "onerror" not in rendered.html
    assert "javascript" not in rendered.html
    assert "太字y" in rendered.text


def test_picture_without_https_is_refused() -> None:
    message = compiled(content="<mj-image src='{{ blocks.photo }}' alt='' />")

    with pytest.raises(RenderError, match=r"blocks\.photo"):
        render(message, context(blocks={"photo": BlockValue("http://i.example/x.png", kind=BlockKind.IMAGE)}))


def test_element_of_an_empty_block_is_left_out() -> None:
    message = compiled(content=NOTE, text="{% if blocks.note %}担当より{% endif %}")

    shown, empty = (render(message, context(blocks={"note": BlockValue(value)})) for value in ("一言", ""))

    assert "担当より" in shown.html
    assert "担当より" in shown.text
    assert "担当より" not in empty.html
    assert "担当より" not in empty.text
    assert shown.html.count("</td>") - empty.html.count("</td>") == 1


def test_preview_marks_what_can_be_edited_and_the_mail_does_not() -> None:
    message = compiled(content=NOTE)

    preview, mail = render(message, context(mark_blocks=True)), render(message, context())

    assert '<mark class="editable" data-block="note">お電話ありがとうございました。</mark>' in preview.html
    assert 'data-block="note"' not in mail.html
    assert "<mark" not in preview.text


@pytest.mark.parametrize(
    ("parts", "slot"),
    [
        ({"subject": "{{ contact.nickname }}様"}, "contact.nickname"),
        ({"text": "{{ journey.topic }}"}, "journey.topic"),
        ({"content": "<mj-text>{{ partner.title }}</mj-text>"}, "partner.title"),
        ({"content": "<mj-text>{{ contact.company }}</mj-text>"}, "contact.company"),
        ({"content": "<mj-text>{{ blocks.photo }}</mj-text>"}, "blocks.photo"),
    ],
)
def test_missing_value_is_named_and_nothing_is_rendered(parts: dict[str, str], slot: str) -> None:
    with pytest.raises(RenderError, match=r"Message welcome \(ja\)") as error:
        render(compiled(**parts), context(contact={"last_name": "佐藤", "company": ""}))

    assert error.value.slot == slot


@pytest.mark.parametrize("value", [None, True, {"a": 1}, ["a"]])
def test_value_that_nobody_should_read_is_not_shown(value: object) -> None:
    with pytest.raises(RenderError):
        render(compiled(text="{{ contact.x }}"), context(contact={"x": value}))


def test_missing_value_may_have_a_default_and_be_asked_about() -> None:
    message = compiled(text='{{ contact.company | default("御社") }}{% if contact.company %}!{% endif %}')

    assert render(message, context()).text.startswith("御社---")


@pytest.mark.parametrize("name", ["x\r\nBcc: a@b.example", "x\ny", "x\x85y", "x\u2028y", "x\x00y", "x\ud800y", "\tx\x1b[0m"])
def test_header_injection_through_the_subject_is_impossible(name: str) -> None:
    rendered = render(compiled(subject="{{ contact.last_name }}様"), context(contact={"last_name": name}))

    assert len(rendered.subject.splitlines()) == 1
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in rendered.subject)
    assert len(text_header("Subject", rendered.subject).split("\r\n")) == 1


@pytest.mark.parametrize(
    "subject",
    [
        "ご家族で\U0001f468\u200d\U0001f469\u200d\U0001f467どうぞ", "\u2764\ufe0f\u200d\U0001f525 Sale",
        "\U0001f3f4\U000e0067\U000e0062\U000e007f Go",
        "10\u00a0% off", "10\u2009kg", "Steuer\u00aderklärung", "می\u200cخواهم", "全角\u3000空白", "\u200fשלום",
    ],
)  # fmt: skip
def test_a_subject_is_sent_as_it_was_written(subject: str) -> None:
    assert render(compiled(subject=subject), context()).subject == subject


@pytest.mark.parametrize("subject", ["one\ntwo", "one\rBcc: x", "one\x00", "one\x1b", "one\u2028two"])
def test_a_subject_of_two_lines_or_with_controls_is_refused_when_it_is_compiled(subject: str) -> None:
    with pytest.raises(TemplateRefused, match="one line of text"):
        compiled(subject=subject)


def test_pixel_stands_at_the_end_of_the_body_only_when_given() -> None:
    message = compiled()

    with_pixel, without = render(message, context(pixel_url="https://t.example/p.gif?a=1&b=2")), render(message, context())

    assert with_pixel.html.endswith(
        '<img src="https://t.example/p.gif?a=1&amp;b=2" width="1" height="1" alt="" '
        'style="display:block;border:0;width:1px;height:1px;"></body></html>'
    )
    assert with_pixel.html.count("<img") == 1
    assert "<img" not in without.html


@pytest.mark.parametrize(
    ("lang", "expected"),
    [
        ("ja", ["みらい証券株式会社", "東京都中央区日本橋1-2-3", "0120-000-444", "横浜支店 山本 健太", "配信を停止できます", "広告"]),
        ("en", ["みらい証券株式会社", "東京都中央区日本橋1-2-3", "0120-000-444", "横浜支店 山本 健太", "You may stop", "advertisement"]),
    ],
)
def test_footer_says_what_the_law_asks_for_in_both_parts(lang: str, expected: list[str]) -> None:
    partner = {"name": "山本 健太", "office": "横浜支店"}

    footer = legal_footer(BRAND, partner, lang, "https://u.example/1", why="")

    for words in [*expected, "https://u.example/1"]:
        assert words in footer.html
        assert words in footer.text
    assert "https://u.example/1" in footer.sms


def test_footer_escapes_what_it_is_told() -> None:
    footer = legal_footer(BRAND | {"legal_name": "A & <B>"}, {}, "en", 'https://u.example/"x', why="<i>")

    assert "A &amp; &lt;B&gt;" in footer.html
    assert "&lt;i&gt;" in footer.html
    assert '/"x' not in footer.html


def test_footer_takes_the_fact_written_for_the_language() -> None:
    footer = legal_footer(BRAND | {"legal_name_en": "Mirai Securities Co., Ltd."}, {}, "en", "https://u.example/1")

    assert "Sender: Mirai Securities Co., Ltd." in footer.text


@pytest.mark.parametrize("fact", ["legal_name", "address", "contact"])
def test_mail_of_a_brand_without_a_legal_fact_is_refused(fact: str) -> None:
    with pytest.raises(RenderError, match=rf"brand\.{fact} is missing"):
        render(compiled(), context(brand=BRAND | {fact: ""}))


def test_empty_unsubscribe_address_is_refused_and_none_means_transactional() -> None:
    """U7."""
    with pytest.raises(RenderError, match="unsubscribe_url"):
        render(compiled(), context(unsubscribe_url=""))

    assert "配信停止" not in render(compiled(), context(unsubscribe_url=None)).html


def test_short_message_has_text_links_and_the_way_to_refuse() -> None:
    files = {"nudge.ja.sms.txt": "{{ partner.name }}です {{ links.plans }}\n{{ legal_footer }}"}
    message = compile_message(files, "nudge", "ja", "sms", {"plans": "https://mirai.example/p"})

    rendered = render(message, context(tracked=lambda name: "https://t.example/1"))

    assert rendered.text == "山本 健太です https://t.example/1\nみらい証券 配信停止: https://mail.mirai.example/u/abc"
    assert (rendered.subject, rendered.html) == ("", "")
    assert rendered.link_targets == {"plans": "https://mirai.example/p"}


def test_message_above_the_size_that_is_clipped_is_known() -> None:
    message = compiled(content=NOTE)

    assert not render(message, context()).is_too_large
    # 33,400 Japanese characters of 3 bytes each are 100,200 bytes.
    assert render(message, context(blocks={"note": BlockValue("あ" * 33_400)})).is_too_large


def test_render_speed_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    message = compiled(content=NOTE + '<mj-button href="{{ links.plans }}">x</mj-button>', text="{{ blocks.note }} {{ links.plans }}")

    seconds = min(timeit.repeat(lambda: render(message, context()), number=100, repeat=3)) / 100

    with capsys.disabled():
        print(f"\nrender one message: {seconds * 1000:.3f} ms")
    assert message.html is not None
