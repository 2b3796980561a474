"""Every page that answers a post, after a mistake or a refusal, has links that work: none of them leads to the address of the post."""

import re
from html import unescape
from urllib.parse import urlsplit

import pytest
from fastapi.routing import APIRoute

from distmark.partners.model import PERMISSIONS, Role
from distmark.web.permissions import Needs
from tests.web.conftest import PartnerPair
from tests.web.routes import addresses, declared

# Posts with a mistake in each: (fields besides ids). None of them is what the page's own form would send.
MISTAKES = (
    {},
    {"block.personal_note": "あ" * 400, "step": "welcome", "for": "one"},
    {"action": "stop", "reason": ""},
    {"action": "save", "definition": "key: ["},
    {"name": "", "email": "x@@y", "last_name": "新井", "ground": ""},
)


def addresses_in(html: str) -> set[str]:
    """Return our own addresses to which the page links, or which it loads or goes back to after a change of language."""
    found = re.findall(r'(?:href|hx-get|src)="(/[^"]*)"', html) + re.findall(r'name="next" value="([^"]+)"', html)
    forms = re.findall(r"<form[^>]*>", html)
    found += [match[1] for form in forms if 'method="get"' in form and (match := re.search(r'action="([^"]+)"', form))]
    return {unescape(each).partition("#")[0] for each in found if not each.startswith("/static")}


def role_for(route: APIRoute) -> Role:
    needed = declared(route)[0]
    permission = needed.permission if isinstance(needed, Needs) else None
    order = (Role.partner, Role.marketer, Role.approver, Role.ops)
    return next(role for role in order if permission is None or permission in PERMISSIONS[role])


@pytest.mark.parametrize("fields", MISTAKES, ids=lambda fields: next(iter(fields), "nothing"))
@pytest.mark.parametrize("partial", [False, True], ids=["page", "part of a page"])
def test_links_of_the_answer_to_a_post_work(pair: PartnerPair, fields: dict[str, str], partial: bool):
    broken: dict[str, int] = {}
    clients = {role: pair.as_(role) for role in Role}
    headers = {"hx-request": "true", "hx-target": "aside#preview"} if partial else None
    answered = 0
    for route, address in addresses(pair, of_other=False):
        if "POST" not in route.methods or not isinstance(declared(route)[0], Needs):
            continue
        client = clients[role_for(route)]
        answer = client.post(address, data={"contact": str(pair.here.contact.id), **fields}, headers=headers)
        if answer.status_code >= 500 or "text/html" not in answer.headers.get("content-type", ""):
            continue
        answered += 1
        for link in addresses_in(answer.text):
            status = client.get(link).status_code
            if status in (404, 405, 500) and urlsplit(link).path != "/brand.css":
                broken[f"{route.path} -> {link}"] = status

    assert answered
    assert broken == {}


@pytest.mark.parametrize(
    ("referer", "back"),
    [
        ("http://testserver/campaigns/1?q=a", "/campaigns/1?q=a"),
        ("https://evil.example/campaigns/1", None),
        ("http://testserver//evil.example", None),
        ("", None),
    ],
)
def test_refused_act_leads_back_to_the_page_it_was_made_on_and_to_no_other_site(pair: PartnerPair, referer: str, back: str | None):
    client = pair.as_()

    page = client.post(f"/campaigns/{pair.campaign.id}/decide", data={}, headers={"referer": referer}).text

    assert (f'href="{back}"' in page) == (back is not None)
    assert "evil" not in page
