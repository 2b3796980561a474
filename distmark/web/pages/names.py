"""Names of brands, partners and campaigns in other languages, as their messages and pages show them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.campaigns import service as campaigns
from distmark.compliance.names import BRAND_TEXTS, LONGEST_ADDRESS, LONGEST_NAME, PARTNER_TEXTS, translate_brand, translate_partner
from distmark.errors import InvalidInput
from distmark.partners.model import Permission
from distmark.partners.service import brand_of, get_partner
from distmark.partners.translations import of_language
from distmark.web import errors
from distmark.web.forms import posted_form, text
from distmark.web.i18n import N_
from distmark.web.ids import Id
from distmark.web.pages.campaigns import other_languages
from distmark.web.permissions import needs
from distmark.web.visit import Visit

router = APIRouter()
LABELS: Mapping[str, str] = {
    "name": N_("Name"),
    "title": N_("Title"),
    "office": N_("Office"),
    "city": N_("City"),
    "legal_name": N_("Legal name"),
    "address": N_("Address"),
    "contact": N_("Where to ask and complain"),
}


@dataclass(frozen=True, slots=True)
class Named:
    """A brand, partner or campaign: its own names, those in other languages, the address of their page, and of the page to go back to."""

    own: Mapping[str, str]
    others: Mapping[str, Mapping[str, str]]
    path: str
    back: str
    back_name: str = N_("Campaigns")
    longest: int = LONGEST_NAME


FindNamed = Callable[[Session], Named]


def _partner(visit: Visit, partner_id: int) -> FindNamed:
    def find(session: Session) -> Named:
        row = get_partner(session, visit.viewer, partner_id)
        others = {lang: of_language(row, lang) for lang in other_languages(visit, row.language)}
        own = {name: getattr(row, name) for name in PARTNER_TEXTS}
        return Named(own, others, f"/partners/{partner_id}/names", "/campaigns")

    return find


def _campaign(visit: Visit, campaign_id: int) -> FindNamed:
    def find(session: Session) -> Named:
        row = campaigns.get_campaign(session, visit.viewer, campaign_id)
        others = {lang: of_language(row, lang) for lang in other_languages(visit)}
        return Named({"name": row.name}, others, f"/campaigns/{campaign_id}/names", f"/campaigns/{campaign_id}")

    return find


def _brand(visit: Visit) -> FindNamed:
    def find(session: Session) -> Named:
        row = brand_of(session, visit.viewer)
        others = {lang: of_language(row, lang) for lang in other_languages(visit, row.language)}
        return Named(
            {name: getattr(row, name) for name in BRAND_TEXTS}, others, "/brand/names", "/partners", N_("Partners"), LONGEST_ADDRESS
        )

    return find


@router.get("/brand/names")
def brand_names(visit: Visit = needs(Permission.publish_campaigns)) -> Response:
    """Show the brand's names and address, and the form with them in the other languages."""
    return _page(visit, _brand(visit))


@router.post("/brand/names")
def store_brand_names(visit: Visit = needs(Permission.publish_campaigns), form: FormData = posted_form) -> Response:
    """Set the brand's names and address in the other languages."""

    def store(session: Session, lang: str, texts: Mapping[str, str]) -> None:
        translate_brand(session, visit.viewer, lang, texts, visit.now)

    return _store(visit, _brand(visit), form, store)


@router.get("/partners/{partner_id}/names")
def partner_names(partner_id: Id, visit: Visit = needs(Permission.see_campaigns)) -> Response:
    """Show the partner's name, title, office and city, and the form with them in the other languages."""
    return _page(visit, _partner(visit, partner_id))


@router.post("/partners/{partner_id}/names")
def store_partner_names(partner_id: Id, visit: Visit = needs(Permission.see_campaigns), form: FormData = posted_form) -> Response:
    """Set them; a partner's users set those of their own partner."""

    def store(session: Session, lang: str, texts: Mapping[str, str]) -> None:
        translate_partner(session, visit.viewer, partner_id, lang, texts, visit.now)

    return _store(visit, _partner(visit, partner_id), form, store)


@router.get("/campaigns/{campaign_id}/names")
def campaign_names(campaign_id: Id, visit: Visit = needs(Permission.publish_campaigns)) -> Response:
    """Show the campaign's name, and the form with it in the other languages."""
    return _page(visit, _campaign(visit, campaign_id))


@router.post("/campaigns/{campaign_id}/names")
def store_campaign_names(campaign_id: Id, visit: Visit = needs(Permission.publish_campaigns), form: FormData = posted_form) -> Response:
    """Set the campaign's name in the other languages."""

    def store(session: Session, lang: str, texts: Mapping[str, str]) -> None:
        campaigns.translate_campaign(session, visit.viewer, campaign_id, lang, texts["name"], visit.now)

    return _store(visit, _campaign(visit, campaign_id), form, store)


def _store(visit: Visit, find: FindNamed, form: FormData, store: Callable[[Session, str, Mapping[str, str]], None]) -> Response:
    written: dict[str, dict[str, str]] = {}
    try:
        with visit.writing() as session:
            named = find(session)
            written = {lang: {name: text(form, f"{lang}.{name}") for name in named.own} for lang in named.others}
            for lang, texts in written.items():
                store(session, lang, texts)
    except InvalidInput as error:
        return _page(visit, find, written=written, wrong=errors.explain(error, visit.language), status=422)
    return visit.go(named.path, N_("Saved. Messages and pages in that language show it from now on."))


def _page(
    visit: Visit, find: FindNamed, *, written: Mapping[str, Mapping[str, str]] | None = None, wrong: str = "", status: int = 200
) -> Response:
    with visit.reading() as session:
        named = find(session)
    return visit.page("names.html", status=status, named=named, written=written or named.others, labels=LABELS, wrong=wrong)
