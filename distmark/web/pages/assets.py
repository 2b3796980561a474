"""The stylesheet of a brand, and the probes of this process: is it alive, and is it ready."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from sqlmodel import select

from distmark.operations.readiness import readiness
from distmark.partners.table import Brand
from distmark.web import brand as colours
from distmark.web.permissions import anyone
from distmark.web.visit import Guest

router = APIRouter()


@router.get("/brand.css")
def brand_css(guest: Guest = anyone, brand: str = "") -> Response:
    """Return the colours of the brand with this key, else of the reader's brand; the product's own colours for an unknown key."""
    found = guest.brand if not brand or (guest.brand and guest.brand.key == brand) else _brand(guest, brand)
    css = colours.stylesheet(found.tokens if found else {})
    return Response(css, media_type="text/css", headers={"cache-control": "private, max-age=300"})


def _brand(guest: Guest, key: str) -> Brand | None:
    with guest.reading() as session:
        return session.exec(select(Brand).where(Brand.key == key)).first()


@router.get("/healthz")
def healthz(guest: Guest = anyone) -> Response:
    """Answer ok: this process is alive."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
def readyz(guest: Guest = anyone) -> Response:
    """Answer ok when the database can be read and written and the data folder has room, else 503 with the part that fails."""
    parts = readiness(guest.site.db, guest.site.settings.data_dir, guest.now)
    ready = all(answer == "ok" for answer in parts.values())
    return JSONResponse({"status": "ok" if ready else "not ready", **parts}, status_code=200 if ready else 503)
