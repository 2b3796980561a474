"""Which links of a message are counted, and where each leads for whom."""

import pytest

from distmark.errors import InvalidInput
from distmark.personalisation import RenderError, TemplateRefused, compile_message, render, sanitise_block
from distmark.personalisation.links import linking_elements, name_links
from tests.personalisation_samples import CONTEXT, compiled, context, templates


def named(html: str) -> tuple[str, dict[str, str]]:
    return name_links(html, lambda name: f"[{name}]", lambda href: None)


# E6, E7: each row is (what is written, what comes out, targets by name).
CORPUS = {
    "several on one line": (
        '<a href="https://a.example/1">1</a><a href="https://a.example/2">2</a>',
        '<a href="[link-1]">1</a><a href="[link-2]">2</a>',
        {"link-1": "https://a.example/1", "link-2": "https://a.example/2"},
    ),
    "one URL twice": (
        '<a href="https://a.example/">x</a>\n<a href="https://a.example/">y</a>',
        '<a href="[link-1]">x</a>\n<a href="[link-2]">y</a>',
        {"link-1": "https://a.example/", "link-2": "https://a.example/"},
    ),
    "a URL that begins another": (
        '<a href="https://a.example/p">p</a> <a href="https://a.example/p/q">q</a>',
        '<a href="[link-1]">p</a> <a href="[link-2]">q</a>',
        {"link-1": "https://a.example/p", "link-2": "https://a.example/p/q"},
    ),
    "the URL as text": (
        '<a href="https://a.example/">https://a.example/</a> https://a.example/',
        '<a href="[link-1]">https://a.example/</a> https://a.example/',
        {"link-1": "https://a.example/"},
    ),
    "mail, telephone and same page": (
        '<a href="mailto:a@a.example">m</a><a href="tel:+8190">t</a><a href="#top">h</a>',
        '<a href="mailto:a@a.example">m</a><a href="tel:+8190">t</a><a href="#top">h</a>',
        {},
    ),
    "single quotes, no quotes, capitals": (
        "<a href='https://a.example/1'>1</a><a href=https://a.example/2>2</a><A HREF=\"HTTPS://a.example/3\">3</A>",
        '<a href="[link-1]">1</a><a href="[link-2]">2</a><a href="[link-3]">3</A>',
        {"link-1": "https://a.example/1", "link-2": "https://a.example/2", "link-3": "HTTPS://a.example/3"},
    ),
    "encoded ampersands": (
        '<a href="https://a.example/?x=1&amp;y=2&#38;z=3">x</a>',
        '<a href="[link-1]">x</a>',
        {"link-1": "https://a.example/?x=1&y=2&z=3"},
    ),
    "stylesheet and base": (
        '<link rel="stylesheet" href="https://a.example/s.css"><base href="https://a.example/">',
        '<link rel="stylesheet" href="https://a.example/s.css"><base href="https://a.example/">',
        {},
    ),
    "over several lines, beside other attributes": (
        '<a\n  class="x > y"\n  href="https://a.example/"\n  target="_blank">x</a>',
        '<a class="x &gt; y" href="[link-1]" target="_blank">x</a>',
        {"link-1": "https://a.example/"},
    ),
    "a comment and a script": (
        '<!-- <a href="https://a.example/">x</a> --><script>"<a href=https://a.example/>"</script>',
        '<!-- <a href="https://a.example/">x</a> --><script>"<a href=https://a.example/>"</script>',
        {},
    ),
    "Outlook's twin of a button": (
        '<!--[if mso]><v:roundrect href="https://a.example/b"><center>b</center></v:roundrect><![endif]-->'
        '<!--[if !mso]><!--><a href="https://a.example/b">b</a><!--<![endif]-->',
        '<!--[if mso]><v:roundrect href="[link-1]"><center>b</center></v:roundrect><![endif]-->'
        '<!--[if !mso]><!--><a href="[link-1]">b</a><!--<![endif]-->',
        {"link-1": "https://a.example/b"},
    ),
    "a link only for Outlook": (
        '<!--[if mso | IE]><a href="https://a.example/o">o</a><![endif]--><a href="https://a.example/1">1</a>',
        '<!--[if mso | IE]><a href="[link-2]">o</a><![endif]--><a href="[link-1]">1</a>',
        {"link-1": "https://a.example/1", "link-2": "https://a.example/o"},
    ),
}


@pytest.mark.parametrize(("written", "expected", "targets"), CORPUS.values(), ids=CORPUS)
def test_links_are_named_one_by_one_and_nothing_else_changes(written: str, expected: str, targets: dict[str, str]) -> None:
    """E6, E7."""
    assert named(written) == (expected, targets)


def test_every_link_of_a_compiled_mail_shows_its_public_url_and_keeps_its_target() -> None:
    """E6, E7."""
    message = compiled(
        content='<mj-text><a href="https://a.example/?x=1&amp;y={{ partner.code }}">a</a> <a href="tel:{{ partner.phone }}">t</a></mj-text>'
        '<mj-button href="{{ links.plans }}">b</mj-button><mj-image src="https://img.example/i.png" href="https://a.example/i" />'
    )

    rendered = render(message, context(tracked=lambda name: f"https://t.example/{name}?m=1&k=2"))

    hrefs = [element.attribute("href") for element in linking_elements(rendered.html)]
    assert hrefs == [
        "https://t.example/link-1?m=1&k=2",
        "tel:045-000-1234",
        "https://t.example/plans?m=1&k=2",
        "https://t.example/link-2?m=1&k=2",
        "https://mail.mirai.example/u/abc",
    ]
    assert rendered.link_targets == {
        "plans": "https://mirai.example/plans?ref=JP0123",
        "link-1": "https://a.example/?x=1&y=JP0123",
        "link-2": "https://a.example/i",
    }


def test_unsubscribe_links_are_never_counted() -> None:
    """E9."""
    message = compiled(content='<mj-text><a href="{{ unsubscribe_url }}">stop</a></mj-text>')

    rendered = render(message, context(tracked=lambda name: f"https://t.example/{name}"))

    assert [element.attribute("href") for element in linking_elements(rendered.html)] == ["https://mail.mirai.example/u/abc"] * 2
    assert rendered.link_targets == {}


def test_every_recipient_gets_only_links_of_their_own() -> None:
    """E8: one compiled message, three people."""
    message = compiled(
        content='<mj-text><a href="{{ links.plans }}">p</a><a href="https://a.example/{{ contact.token }}">q</a></mj-text>',
        text="{{ links.plans }}",
    )

    for person in ("a", "b", "c"):
        rendered = render(
            message,
            context(
                contact={"token": person},
                partner={"code": f"P{person}"},
                tracked=lambda name, person=person: f"https://t.example/{person}/{name}",
                unsubscribe_url=f"https://u.example/{person}",
            ),
        )

        assert rendered.link_targets == {"plans": f"https://mirai.example/plans?ref=P{person}", "link-1": f"https://a.example/{person}"}
        hrefs = [element.attribute("href") for element in linking_elements(rendered.html)]
        assert hrefs == [f"https://t.example/{person}/plans", f"https://t.example/{person}/link-1", f"https://u.example/{person}"]
        assert f"https://t.example/{person}/plans" in rendered.text


def test_value_in_a_link_cannot_add_a_parameter_or_a_path() -> None:
    """E8."""
    message = compiled(content='<mj-button href="{{ links.plans }}">b</mj-button>')

    rendered = render(message, context(partner={"code": "a&admin=1/../x y"}))

    assert rendered.link_targets["plans"] == "https://mirai.example/plans?ref=a%26admin%3D1%2F..%2Fx%20y"


@pytest.mark.parametrize("website", ["javascript:alert(1)", "//evil.example", "https://", "https://a b.example/", "https://a.example:x/"])
def test_link_that_comes_from_data_must_be_a_web_address(website: str) -> None:
    message = compiled(content='<mj-text><a href="{{ contact.website }}">x</a></mj-text>')

    with pytest.raises(RenderError, match=r"links\.link-1"):
        render(message, context(contact={"website": website}))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('<mj-text><a href="/plans">x</a></mj-text>', "must begin with https://"),
        ('<mj-text><a href="javascript:alert(1)">x</a></mj-text>', "must begin with https://"),
        ('<mj-button href="{{ links.plan }}">x</mj-button>', "links.plan is not a link of the journey; it has plans"),
        ('<mj-button href="{{ links.plans }}&amp;x=1">x</mj-button>', "mixes a named link with other text"),
    ],
)
def test_link_that_leads_nowhere_is_refused(content: str, problem: str) -> None:
    with pytest.raises(TemplateRefused, match=problem):
        compiled(content=content)


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("https://a.example/new year 2027.pdf", "https://a.example/new%20year%202027.pdf"),
        ("  https://a.example/x  ", "https://a.example/x"),
        ("https://a.example/x\u200b", "https://a.example/x"),
        ("\ufeffhttps://a.example/x\u2060", "https://a.example/x"),
        ("https://a.exam\u00adple/x", "https://a.example/x"),
        ("https://a.example/?a=1\n     &amp;b=2", "https://a.example/?a=1&b=2"),
        ("https://a.example/全\u3000角", "https://a.example/全%E3%80%80角"),
        ("https://a.example/\u00a0x", "https://a.example/%C2%A0x"),
        ("https://a.example/\U0001f468\u200d\U0001f469", "https://a.example/\U0001f468%E2%80%8D\U0001f469"),
        ("https://a.example/?n={{ contact.first_name }} {{ partner.code }}", "https://a.example/?n=%E6%81%B5%20JP0123"),
    ],
)
@pytest.mark.parametrize("element", ['<mj-button href="{}">x</mj-button>', "<mj-text><a href='{}'>x</a></mj-text>"])
def test_a_link_is_cleaned_of_what_was_pasted_with_it(element: str, written: str, target: str) -> None:
    rendered = render(compiled(content=element.format(written)), context())

    assert rendered.link_targets == {"link-1": target}


def test_a_named_link_is_cleaned_alike() -> None:
    files = templates(content='<mj-button href="{{ links.plans }}">x</mj-button>')

    message = compile_message(files, "welcome", "ja", "email", {"plans": " https://a.example/a b\u200b?r={{ partner.code }}"})

    assert render(message, context()).link_targets == {"plans": "https://a.example/a%20b?r=JP0123"}


@pytest.mark.parametrize(
    "written", ["https://", "https:///x", "https://a b.example/", "https://[x/", "https://a.example:port/", "ftp://a.example", "a.example"]
)
def test_a_link_that_leads_nowhere_is_refused_when_it_is_compiled(written: str) -> None:
    with pytest.raises(TemplateRefused):
        compiled(content=f'<mj-button href="{written}">x</mj-button>')


@pytest.mark.parametrize(
    "text",
    [
        "https://mail.example/u/AbCdEfGhIjKlMnOpQrStUv",
        "ご確認ください：https://mail.example/c/AbCdEfGhIjKlMnOpQrStUv/plans です",
        "http://127.0.0.1:8000/o/AbCdEfGhIjKlMnOpQrStUv.gif",
        "https://mail.example/t/key/u/AbCdEfGhIjKlMnOpQrStUv。",
        '<a href="https://mail.example/u/AbCdEfGh&#73;jKlMnOpQrStUv">x</a>',
    ],
)
@pytest.mark.parametrize("kind", ["text", "rich"])
def test_a_link_of_another_person_is_refused_in_a_note(kind: str, text: str) -> None:
    with pytest.raises(InvalidInput, match="to one person"):
        sanitise_block(kind, text, 1000)


@pytest.mark.parametrize(
    "text", ["https://a.example/c/plans", "https://a.example/u/taro", "https://youtube.com/c/somebody", "a/c/b and/or c"]
)
def test_an_ordinary_link_is_kept_in_a_note(text: str) -> None:
    assert sanitise_block("text", text, 1000) == text


def test_link_that_lacks_a_value_names_the_value_and_not_itself() -> None:
    partner = {name: value for name, value in CONTEXT.partner.items() if name != "code"}

    with pytest.raises(RenderError, match="link plans") as refused:
        render(compiled(content='<mj-button href="{{ links.plans }}">b</mj-button>'), context(partner=partner))

    assert refused.value.slot == "partner.code"
