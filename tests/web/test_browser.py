"""The pages in a real browser: one walk through them without browser errors, accessibility, and the width of a phone."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from distmark.clock import FixedClock
from distmark.db import Database
from distmark.settings import Settings
from distmark.tables import create_all
from distmark.web.app import create_app
from tests.factories import NOW, PASSWORD
from tests.web import showcase
from tests.web.showcase import Showcase

pytestmark = pytest.mark.browser
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
    "--no-first-run",
]  # fmt: skip
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
PICTURES = Path(os.environ.get("DISTMARK_SCREENSHOTS", ""))


@dataclass
class Live:
    """The running application, and the errors and warnings of the browser."""

    url: str
    show: Showcase
    browser: Browser
    browser_errors: list[str] = field(default_factory=list)
    sessions: dict[str, list] = field(default_factory=dict)

    def open(self, who: str | None, *, size: dict[str, int] = WIDE, language: str = "ja", scheme: str = "light") -> Page:
        """Return a page of a new browser context in which the user `who` is signed in."""
        locale = {"ja": "ja-JP", "en": "en-US"}[language]
        context = self.browser.new_context(viewport=size, locale=locale, color_scheme=scheme, reduced_motion="reduce")
        self._sign_in(context, who, language)
        page = context.new_page()
        page.on(
            "console", lambda entry: self.browser_errors.append(f"{page.url}: {entry.text}") if entry.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.browser_errors.append(f"{page.url}: {error}"))
        return page

    def _sign_in(self, context: BrowserContext, who: str | None, language: str) -> None:
        ours = {"sec-fetch-site": "same-origin"}
        if who and who not in self.sessions:
            form = {"email": f"{who}@mirai.example", "password": PASSWORD, "next": "/healthz"}
            assert context.request.post(f"{self.url}/sign-in", form=form, headers=ours).ok
            self.sessions[who] = context.cookies()
        elif who:
            context.add_cookies(self.sessions[who])  # signing in is limited, and these are many pages
        self.set_language(context, language)

    def set_language(self, context: BrowserContext, language: str) -> None:
        """Set the language of this context's pages, with or without a signed-in user."""
        form = {"language": language, "next": "/healthz"}
        context.request.post(f"{self.url}/language", form=form, headers={"sec-fetch-site": "same-origin"})


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The application on a port of its own, over a showcase, with Debian's Chromium."""
    if not shutil.which(CHROMIUM):
        pytest.fail(f"{CHROMIUM} is missing.") if os.environ.get("CI") == "true" else pytest.skip(f"{CHROMIUM} is missing.")
    folder = tmp_path_factory.mktemp("live")
    settings = Settings(mode="demo", data_dir=folder, _env_file=None)
    db = Database(settings.database)
    create_all(db)
    show = showcase.build(db, folder)
    server = uvicorn.Server(uvicorn.Config(create_app(settings, db, FixedClock(NOW)), port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield Live(f"http://127.0.0.1:{port}", show, browser)
        browser.close()
    server.should_exit = True
    thread.join(10)
    db.close()


PAGES: list[tuple[str | None, str]] = [
    (None, "/sign-in"),
    (None, "/u/{token}"),
    (None, "/nothing-here"),
    ("partner", "/"),
    ("partner", "/campaigns"),
    ("partner", "/campaigns/{campaign}"),
    ("partner", "/campaigns/{campaign}/people"),
    ("partner", "/campaigns/{campaign}/send"),
    ("partner", "/campaigns/{campaign}/words"),
    ("partner", "/campaigns/{campaign}/control?act=stop"),
    ("partner", "/contacts"),
    ("partner", "/contacts/{contact}"),
    ("partner", "/contacts/{contact}/edit"),
    ("partner", "/contacts/new"),
    ("partner", "/contacts/import"),
    ("partner", "/results"),
    ("partner", "/results/{journey}"),
    ("partner", "/mailbox"),
    ("partner", "/mailbox/1"),
    ("marketer", "/"),
    ("marketer", "/journeys"),
    ("marketer", "/journeys/{journey}"),
    ("marketer", "/journeys/{journey}/edit"),
    ("marketer", "/journeys/{journey}/1/messages"),
    ("marketer", "/journeys/{journey}/compare?old=1&new=2"),
    ("marketer", "/journeys/new"),
    ("marketer", "/campaigns/new"),
    ("marketer", "/campaigns/{campaign}/names"),
    ("marketer", "/brand/names"),
    ("marketer", "/campaigns/{campaign}/control"),
    ("marketer", "/journeys/{journey}/1/control"),
    ("marketer", "/journeys/{journey}/1/move"),
    ("marketer", "/partners"),
    ("marketer", "/partners/new"),
    ("marketer", "/partners/1"),
    ("ops", "/people"),
    ("partner", "/account"),
    (None, "/forgotten"),
    (None, "/password/unknown"),
    ("partner", "/contacts/{contact}/control"),
    ("approver", "/approvals"),
    ("approver", "/approvals/{submitted}"),
    ("ops", "/"),
    ("marketer", "/campaigns/{campaign}/brand-words"),
    ("marketer", "/segments"),
    ("marketer", "/segments/new"),
    ("partner", "/segments/new"),
    ("ops", "/rates"),
    ("ops", "/operations"),
    ("marketer", "/operations"),
]


def address(live: Live, path: str) -> str:
    show = live.show
    names = {
        "campaign": show.campaign_id, "journey": show.journey_key, "contact": show.contact_id, "submitted": show.submitted_id,
        "token": show.token,
    }  # fmt: skip
    return live.url + path.format(**names)


@pytest.fixture
def visiting(live: Live) -> Iterator[Callable[..., Page]]:
    """Return a function that opens pages, closed after the test; an error or warning of the browser fails the test."""
    live.browser_errors.clear()
    opened: list[Page] = []

    def visit(who: str | None, path: str, **options: object) -> Page:
        page = live.open(who, **options)
        opened.append(page)
        page.goto(address(live, path), wait_until="load")
        return page

    yield visit
    for page in opened:
        page.context.close()
    allowed = [
        line for line in live.browser_errors if "404 (Not Found)" in line and ("/nothing-here" in line or "/password/unknown" in line)
    ]
    assert [line for line in live.browser_errors if line not in allowed] == []


@pytest.mark.parametrize("language", ["ja", "en"])
@pytest.mark.parametrize(("who", "path"), PAGES)
def test_page_is_readable_for_assistive_technology(visiting, who: str | None, path: str, language: str):
    """WCAG 2.2 AA by axe-core: nothing serious, in either language, light and dark."""
    page = visiting(who, path, language=language)
    assert page.locator("html").get_attribute("lang") == ("ja" if path.startswith("/u/") else language)
    page.evaluate(AXE.read_text(encoding="utf-8") + ";0")

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert serious(page) == [], scheme


def serious(page: Page) -> list[str]:
    """Return the serious and critical findings of axe on the page: the rule, the element and the remedy."""
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"], "iframes": False}
    found = page.evaluate(f"axe.run(document, {json.dumps(rules)})")
    return [
        f"{each['id']}: {node['html'][:140]} {node['failureSummary'][:160]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(("who", "path"), PAGES)
def test_page_fits_a_phone(visiting, who: str | None, path: str):
    page = visiting(who, path, size=NARROW)

    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    if who:
        assert page.locator("nav.tabs a").first.is_visible()


def test_walk_from_signing_in_to_enrolling(visiting, live: Live):
    page = visiting(None, "/campaigns/{campaign}")
    page.fill("#email", "partner@mirai.example")
    page.fill("#password", PASSWORD)
    page.click("button.main")
    page.wait_for_url("**/campaigns/*")
    live.set_language(page.context, "ja")  # an earlier test may have chosen English
    page.reload()

    # The preview beside the work: another person, their words.
    page.click('[aria-label="次の方"]')
    page.wait_for_selector("#preview .stepper:has-text('2 /')")
    page.click("tr[data-contact] th a >> nth=2")
    page.wait_for_selector("#preview .stepper:has-text('3 /')")
    assert page.locator("tr.chosen").count() == 1
    page.fill("textarea[name='block.personal_note']", "先日はありがとうございました。")
    page.click("text=この人だけに保存")
    page.wait_for_selector("#preview .chip:has-text('この人だけ')")
    assert "先日はありがとうございました。" in page.frame_locator("#preview iframe").locator("mark").first.inner_text()

    # Tick one person, check, send.
    page.check("tr[data-contact] >> nth=2 >> input[type=checkbox]")
    assert page.locator("[data-count]").inner_text() == "1"
    page.click(".bar >> text=確認して送る")
    page.wait_for_url("**/send?*")
    assert "1人がこのジャーニーを始めます" in page.inner_text("main")
    page.dblclick("button:has-text('1人に送る')")
    page.wait_for_url(f"**/campaigns/{live.show.campaign_id}")
    page.wait_for_selector(".notice")
    assert "進行中" in page.locator("tr[data-contact] >> nth=2").inner_text()


def test_typed_words_are_kept_while_one_steps_to_another_person_and_back(visiting):
    page = visiting("partner", "/campaigns/{campaign}")
    note = "textarea[name='block.personal_note']"

    page.fill(note, "書きかけの一言")
    with page.expect_response("**/draft"):
        page.click('[aria-label="次の方"]')
    page.wait_for_selector("#preview .stepper:has-text('2 /')")
    page.click('[aria-label="前の方"]')
    page.wait_for_selector("#preview .stepper:has-text('1 /')")

    assert page.input_value(note) == "書きかけの一言"
    assert "まだ保存されていません" in page.inner_text("#preview")


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_after_saving_the_focus_is_at_the_saved_words_and_every_link_beside_them_works(visiting, size: dict[str, int]):
    page = visiting("partner", "/campaigns/{campaign}?q=佐藤", size=size)

    page.fill("textarea[name='block.personal_note']", "キーボードで保存")
    page.focus("#save-one")
    page.keyboard.press("Enter")
    page.wait_for_selector("#preview .notice")

    page.wait_for_function("document.activeElement.closest('#words') !== null")
    links = page.eval_on_selector_all("#preview a[href]", "links => links.map(link => link.href)")
    assert links
    assert [link for link in links if not page.request.get(link).ok] == []
    assert "q=" in page.url


def test_search_narrows_the_list_while_typing(visiting):
    page = visiting("partner", "/campaigns/{campaign}")

    page.type("#members input[type=search]", "佐藤")
    expect(page.locator("tr[data-contact]")).to_have_count(1)

    assert "q=" in page.url


def test_finding_a_journey_from_a_phone_call(visiting):
    page = visiting("partner", "/")

    page.type("#q", "老後")
    expect(page.locator("#offers .tile")).to_have_count(1)

    assert "個人退職年金のご案内" in page.inner_text("#offers")


def test_task_is_done_with_one_tap(visiting):
    page = visiting("partner", "/", size=NARROW)
    before = page.locator("#tasks li").count()

    page.click("#tasks li >> nth=0 >> button")
    expect(page.locator("#tasks li")).to_have_count(before - 1)

    assert before >= 2


def test_everything_works_without_javascript(live: Live):
    context = live.browser.new_context(java_script_enabled=False, locale="ja-JP", viewport=WIDE)
    page = context.new_page()
    page.goto(live.url + "/sign-in")
    page.fill("#email", "partner@mirai.example")
    page.fill("#password", PASSWORD)
    page.click("button.main")
    live.set_language(context, "ja")

    page.goto(address(live, "/campaigns/{campaign}"))
    page.check("tr[data-contact] >> nth=3 >> input[type=checkbox]")
    page.click(".bar >> text=確認して送る")

    assert page.locator("h1").inner_text() == "確認して送る"
    context.close()


def test_mail_in_its_frame_runs_nothing(visiting):
    page = visiting("partner", "/campaigns/{campaign}")

    frame = page.locator("#preview iframe")

    assert "allow-scripts" not in frame.get_attribute("sandbox")
    assert page.frame_locator("#preview iframe").locator("body").inner_text() != ""


@pytest.mark.skipif(not os.environ.get("DISTMARK_SCREENSHOTS"), reason="pictures are made on demand: DISTMARK_SCREENSHOTS=folder")
@pytest.mark.parametrize(
    ("who", "path", "name"), [("partner", "/campaigns/{campaign}", "campaign"), ("marketer", "/journeys/{journey}", "journey")]
)
def test_pictures_for_the_readme(visiting, who: str, path: str, name: str):
    page = visiting(who, path)
    page.wait_for_load_state("networkidle")

    page.screenshot(path=PICTURES / f"{name}.png", clip={"x": 0, "y": 0, "width": WIDE["width"], "height": WIDE["height"]}, full_page=True)

    assert (PICTURES / f"{name}.png").stat().st_size > 10_000
