"""The HTML document of one mail, for a sandboxed frame on a page."""

import re
from html import escape

from fastapi.responses import HTMLResponse, Response

from distmark.web.security import mail_policy

_HEAD = re.compile(r"<head[^>]*>", re.IGNORECASE)
FIRST_BLOCK = "words"  # id of the first editable block, so that an address can point at it
# Links open beside the frame, never in it: the frame may show nothing but this mail.
BASE = f'<base target="_blank"><style>#{FIRST_BLOCK}{{scroll-margin-top:96px}}</style>'


def mail_document(html: str, text: str, *, remote_images: bool = False) -> Response:
    """Return the mail's HTML, or its text when it has no HTML, with a content security policy that forbids everything but showing it."""
    document = html or f'<!doctype html><html><head><meta charset="utf-8"></head><body><pre>{escape(text)}</pre></body></html>'
    document = document.replace("<mark", f'<mark id="{FIRST_BLOCK}"', 1)
    found = _HEAD.search(document)
    document = document[: found.end()] + BASE + document[found.end() :] if found else BASE + document
    return HTMLResponse(document, headers={"content-security-policy": mail_policy(remote_images), "x-robots-tag": "noindex"})
