"""What a template may be made of."""

import pytest

from distmark.personalisation import RenderError, TemplateRefused, compile_message, render
from distmark.personalisation.outline import outline
from tests.personalisation_samples import LINKS, compiled, context, mjml, templates


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ ''.__class__.__mro__() }}", "call is not part"),
        ("{{ 'a'.ljust(1000000000) }}", "call is not part"),
        ("{{ 'a' * 1000000000 }}", "\\* is not part"),
        ("{{ 9 ** 9 ** 9 }}", "\\*\\* is not part"),
        ("{% set a = 'aa' %}", "{% set %} is not part"),
        ("{% include 'x' %}", "{% include %} is not part"),
        ("{% macro m() %}{% endmacro %}", "{% macro %} is not part"),
        ("{% for a in contact.x %}{% for b in a %}{% for c in b %}{% endfor %}{% endfor %}{% endfor %}", "loops nest deeper than 2"),
        ("{% raw %}{{ x }}{% endraw %}", "raw would show slots unfilled"),
        ("{{ contact.x | attr('y') }}", "there is no filter attr"),
        ("{{ contact.x | safe }}", "there is no filter safe"),
        ("{{ customer.name }}", "customer is not a known name"),
        ("{{ links[contact.x] }}", "needs a fixed name"),
        ("{{ contact.first_name }", "line 2: unexpected"),
    ],
)
def test_template_outside_the_language_is_refused_with_file_and_line(source: str, problem: str) -> None:
    with pytest.raises(TemplateRefused, match=problem) as refused:
        compiled(text=f"一行目\n{source}")

    assert refused.value.template == "welcome.ja.text.txt"
    assert refused.value.line == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("<mj-txt>x</mj-txt>", "<mj-txt> is not an element"),
        ("<mj-include path='/etc/passwd' />", "<mj-include> is not an element"),
        ("<mj-raw><b>x</b></mj-raw>", "<mj-raw> is not an element"),
        ("<mj-text><script>x()</script></mj-text>", "<script> is not an element"),
        ("<mj-text><form action='x'></form></mj-text>", "<form> is not an element"),
        ("<mj-text><a onclick='x()'>x</a></mj-text>", "onclick would run a script"),
        ("<p>x</p>", "<p> must stand inside an element for content"),
        ("<mj-text>{% if contact.x %}x{% endif %}</mj-text>", "MJML may hold only"),
    ],
)
def test_markup_that_mail_must_not_hold_is_refused_with_its_line(content: str, problem: str) -> None:
    with pytest.raises(TemplateRefused, match=problem) as refused:
        compiled(content=content)

    assert (refused.value.template, refused.value.line) == ("welcome.ja.mjml", 2)


def test_markup_that_is_not_closed_is_refused() -> None:
    files = templates() | {"welcome.ja.mjml": "<mjml><mj-body><mj-section>{{ legal_footer }}</mj-body></mjml>"}

    with pytest.raises(TemplateRefused, match="not well-formed MJML"):
        compile_message(files, "welcome", "ja", "email", LINKS)


@pytest.mark.parametrize("ending", ["subject.txt", "text.txt", "mjml"])
def test_missing_file_is_named(ending: str) -> None:
    files = templates()
    del files[f"welcome.ja.{ending}"]

    with pytest.raises(TemplateRefused, match=f"welcome.ja.{ending}: is missing"):
        compile_message(files, "welcome", "ja", "email", LINKS)


@pytest.mark.parametrize("filename", ["welcome.ja.text.txt", "welcome.ja.mjml"])
def test_mail_without_the_legal_footer_is_refused(filename: str) -> None:
    files = templates()
    files[filename] = files[filename].replace("{{ legal_footer }}", "")

    with pytest.raises(TemplateRefused, match=f"{filename}.*legal_footer"):
        compile_message(files, "welcome", "ja", "email", LINKS)


def test_loop_has_a_bounded_number_of_rounds() -> None:
    message = compiled(text="{% for a in journey.items %}{{ a }}{% endfor %}")

    render(message, context(journey={"items": ["x"] * 50}))
    with pytest.raises(RenderError, match="more than 50 rounds"):
        render(message, context(journey={"items": ["x"] * 51}))


def test_slots_with_quotes_and_comparisons_survive_the_markup_parsers() -> None:
    picture = "<mj-image src='https://i.example/x' alt='{{ brand.name }}　絵' />"
    content = "<mj-text>{{ 'A<B' if contact.last_name > 'A' else \"&\" }}</mj-text>" + picture

    rendered = render(compiled(content=content), context())

    assert "A&lt;B" in rendered.html
    assert next(image for image in outline(rendered.html) if image.name == "img").attribute("alt") == "みらい証券　絵"


@pytest.mark.parametrize(
    ("content", "tag", "attribute", "shown"),
    [
        (
            "<mj-text><span style='font-family:\"Hiragino Sans\",serif'>x</span></mj-text>",
            "span",
            "style",
            'font-family:"Hiragino Sans",serif',
        ),
        ("<mj-image alt='The \"New Year\" offer' src='https://i.example/x' />", "img", "alt", 'The "New Year" offer'),
        ("<mj-image alt=\"It's\" src='https://i.example/x' />", "img", "alt", "It's"),
        (r'<mj-image alt="C:\\new\\table" src="https://i.example/x" />', "img", "alt", r"C:\\new\\table"),
        ('<mj-image alt="one\n   two" src="https://i.example/x" />', "img", "alt", "one    two"),
        ('<mj-image alt="one\ttwo" src="https://i.example/x" />', "img", "alt", "one two"),
        ('<mj-image alt="1 &lt; 2 &amp; 3 > 2" src="https://i.example/x" />', "img", "alt", "1 < 2 & 3 > 2"),
        ("<mj-image alt='{{ brand.name }} \"A\"' src='https://i.example/x' />", "img", "alt", 'みらい証券 "A"'),
        ("<mj-image alt='x' src='https://i.example/\n  x' />", "img", "src", "https://i.example/x"),
        (
            "<mj-text><span title='\U0001f468\u200d\U0001f469　\"絵\"'>x</span></mj-text>",
            "span",
            "title",
            '\U0001f468\u200d\U0001f469　"絵"',
        ),
    ],
)
def test_an_attribute_is_shown_as_it_was_written(content: str, tag: str, attribute: str, shown: str) -> None:
    rendered = render(compiled(content=content), context())

    assert [element.attribute(attribute) for element in outline(rendered.html) if element.name == tag] == [shown]


def test_a_font_in_quotes_reaches_the_style() -> None:
    rendered = render(compiled(content="<mj-text font-family='\"Hiragino Sans\", sans-serif'>x</mj-text>"), context())

    assert any('"Hiragino Sans", sans-serif' in (element.attribute("style") or "") for element in outline(rendered.html))


def test_style_that_looks_like_a_template_stays_style() -> None:
    files = templates() | {
        "welcome.ja.mjml": mjml("<mj-text>x</mj-text>").replace(
            "<mjml>", "<mjml><mj-head><mj-style>@media print { .a { color: red; }} .b{color:blue}</mj-style></mj-head>"
        )
    }

    rendered = render(compile_message(files, "welcome", "ja", "email", LINKS), context())

    assert "@media print { .a { color: red; }}" in rendered.html


def test_document_says_its_language() -> None:
    rendered = render(compiled(), context())

    assert next(element for element in outline(rendered.html) if element.name == "html").attribute("lang") == "ja"
