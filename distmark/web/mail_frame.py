"""Somebody's mail, as a document of its own for a sandboxed frame."""

import re
from html import escape

from fastapi.responses import HTMLResponse, Response

from distmark.web.security import mail_policy

_HEAD = re.compile(r"<head[^>]*>", re.IGNORECASE)
WORDS = "words"  # the first editable part, so that an address can point at it
# Links open beside the frame, never in it: the frame may show nothing but this mail.
BASE = f'<base target="_blank"><style>#{WORDS}{{scroll-margin-top:96px}}</style>'


def mail_document(html: str, text: str, *, remote_images: bool = False) -> Response:
    """Return the mail's HTML, or its text where it has none, with a policy that lets it do nothing but be looked at."""
    document = html or f'<!doctype html><html><head><meta charset="utf-8"></head><body><pre>{escape(text)}</pre></body></html>'
    document = document.replace("<mark", f'<mark id="{WORDS}"', 1)
    found = _HEAD.search(document)
    document = document[: found.end()] + BASE + document[found.end() :] if found else BASE + document
    return HTMLResponse(document, headers={"content-security-policy": mail_policy(remote_images), "x-robots-tag": "noindex"})
