"""Bearer tokens of the REST API: making one, which is shown once, listing them with their last use, and revoking one."""

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.datastructures import FormData

from distmark.compliance.access import LONGEST_NAME, create_token, revoke_token
from distmark.errors import InvalidInput, Refused
from distmark.partners.model import Permission
from distmark.partners.tokens import expires_at, gives_access, tokens_of
from distmark.sql import id_of
from distmark.web import errors
from distmark.web.forms import posted_form, text
from distmark.web.i18n import N_
from distmark.web.ids import Id
from distmark.web.permissions import needs
from distmark.web.visit import Visit

router = APIRouter()
SAMPLE = """curl -X POST {base}/api/v1/events \\
  -H "Authorization: Bearer {token}" \\
  -H "Content-Type: application/json" \\
  -d '{{"name": "visit_booked", "email": "hanako@example.com", "key": "booking-4711"}}'"""


@router.get("/access")
def access_page(visit: Visit = needs(Permission.use_api)) -> Response:
    """Show the user's tokens, and a sample call with one."""
    return _page(visit)


@router.post("/access")
def create_access(visit: Visit = needs(Permission.use_api), form: FormData = posted_form) -> Response:
    """Make a token and show it. Only its hash is stored, so it is never shown again."""
    name = text(form, "name")
    try:
        with visit.writing() as session:
            token, row = create_token(session, visit.viewer, name, visit.now)
            made_id = id_of(row)
    except (InvalidInput, Refused) as error:
        return _page(visit, name=name, wrong=errors.explain(error, visit.language), status=422)
    return _page(visit, token=token, made_id=made_id)


@router.post("/access/{token_id}/revoke")
def revoke_access(token_id: Id, visit: Visit = needs(Permission.use_api)) -> Response:
    """Revoke a token."""
    with visit.writing() as session:
        name = revoke_token(session, visit.viewer, token_id, visit.now).name
    return visit.go("/access", N_("“%(name)s” opens nothing any more."), name=name)


def _page(visit: Visit, *, token: str = "", made_id: int = 0, name: str = "", wrong: str = "", status: int = 200) -> Response:
    with visit.reading() as session:
        tokens = tokens_of(session, visit.viewer)
    sample = SAMPLE.format(base=visit.site.settings.base_url, token=token or "dmk_…")
    return visit.page(
        "access.html",
        status=status,
        tokens=tokens,
        gives_access=gives_access,
        expires_at=expires_at,
        token=token,
        made_id=made_id,
        name=name,
        wrong=wrong,
        sample=sample,
        longest=LONGEST_NAME,
        others=any(user.id != visit.viewer.user_id for _token, user in tokens),
    )
