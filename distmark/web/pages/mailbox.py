"""The demo's mailbox: the mails and text messages that were caught on this machine, as their recipients would see them."""

from fastapi import APIRouter
from fastapi.responses import Response

from distmark.mailbox.store import MailboxStore, MessageKind
from distmark.web.ids import Id
from distmark.web.mail_frame import mail_document
from distmark.web.permissions import signed_in
from distmark.web.visit import Visit

router = APIRouter()
ROWS = 30


@router.get("/mailbox")
def mailbox_list(visit: Visit = signed_in, q: str = "", before: Id | None = None, kind: str = "") -> Response:
    """List the caught messages, newest first; the open page reloads the list by itself."""
    chosen = MessageKind(kind) if kind in set(MessageKind) else None
    store = _store(visit)
    try:
        items = store.page(before=before, limit=ROWS + 1, kind=chosen, text=q)
        total = store.count(kind=chosen, text=q)
    finally:
        store.close()
    older = items[ROWS - 1].id if len(items) > ROWS else None
    return visit.page("mailbox/list.html", items=items[:ROWS], older=older, total=total, q=q, before=before, kind=chosen or "")


@router.get("/mailbox/{item_id}")
def mailbox_page(item_id: Id, visit: Visit = signed_in, part: str = "html") -> Response:
    """Show one message: as HTML in a sandboxed frame, as text, or raw."""
    store = _store(visit)
    try:
        item = store.get(item_id)
        raw = store.raw(item_id) if part == "raw" else b""
    finally:
        store.close()
    shown = part if part in ("html", "text", "raw") else "html"
    if shown == "html" and not item.html:
        shown = "text"
    return visit.page("mailbox/page.html", item=item, part=shown, raw=raw.decode("utf-8", "replace"))


@router.get("/mailbox/{item_id}/message.html")
def mailbox_frame(item_id: Id, visit: Visit = signed_in, images: bool = False) -> Response:
    """Return the mail, for the sandboxed frame."""
    store = _store(visit)
    try:
        item = store.get(item_id)
    finally:
        store.close()
    return mail_document(item.html, item.text, remote_images=images)


def _store(visit: Visit) -> MailboxStore:
    return MailboxStore(visit.site.settings.data_dir / "mailbox.sqlite3")
