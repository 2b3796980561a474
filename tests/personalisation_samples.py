"""Small valid messages and contexts for tests of the rendering room; each test changes only what it is about."""

from dataclasses import replace
from typing import Any

from distmark.personalisation import BlockValue, CompiledMessage, RenderContext, compile_message

BRAND = {
    "name": "みらい証券",
    "legal_name": "みらい証券株式会社",
    "address": "東京都中央区日本橋1-2-3",
    "contact": "0120-000-444",
    "website": "https://mirai.example",
}
CONTEXT = RenderContext(
    lang="ja",
    contact={"first_name": "恵", "last_name": "佐藤", "full_name": "佐藤 恵", "phone": "+819012345678"},
    partner={"name": "山本 健太", "office": "横浜支店", "phone": "045-000-1234", "code": "JP0123"},
    brand=BRAND,
    blocks={"note": BlockValue("お電話ありがとうございました。")},
    unsubscribe_url="https://mail.mirai.example/u/abc",
)
LINKS = {"plans": "https://mirai.example/plans?ref={{ partner.code }}"}
FOOTER = "{{ legal_footer }}"


def mjml(content: str) -> str:
    """Return a whole MJML document with `content` in one column and the footer below."""
    return f"<mjml><mj-body><mj-section><mj-column>\n{content}\n<mj-text>{FOOTER}</mj-text>\n</mj-column></mj-section></mj-body></mjml>"


def templates(content: str = "<mj-text>{{ greeting }}</mj-text>", subject: str = "ご案内", text: str = "{{ greeting }}") -> dict[str, str]:
    """Return the three files of the mail `welcome` in Japanese."""
    return {"welcome.ja.subject.txt": subject, "welcome.ja.text.txt": f"{text}\n{FOOTER}", "welcome.ja.mjml": mjml(content)}


def compiled(**parts: str) -> CompiledMessage:
    """Return the mail `welcome` made of these parts, compiled."""
    return compile_message(templates(**parts), "welcome", "ja", "email", LINKS)


def context(**changes: Any) -> RenderContext:
    """Return a context in which everything is there, with `changes`."""
    return replace(CONTEXT, **changes)
