"""Send rates: the list of rates with the messages that wait under each, and the form that sets one."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.campaigns import service as campaigns
from distmark.delivery import send_rates
from distmark.delivery.send_rate_spacing import EACH, Rate, RateScope
from distmark.delivery.send_rates import MOST_PER_HOUR, RateShown
from distmark.errors import InvalidInput, NotFound
from distmark.partners.model import Permission
from distmark.partners.service import partners_of
from distmark.web import errors
from distmark.web.forms import posted_form, text
from distmark.web.i18n import N_
from distmark.web.ids import LONGEST_SHOWN, read_whole
from distmark.web.permissions import needs
from distmark.web.visit import Visit

router = APIRouter()

# scope -> the text for one of its kind, the text for each of its kind
SCOPES: Mapping[RateScope, tuple[str, str]] = {
    RateScope.partner: (N_("One partner"), N_("Each partner")),
    RateScope.campaign: (N_("One campaign"), N_("Each campaign")),
    RateScope.sending_domain: (N_("From one domain"), N_("From each domain")),
    RateScope.destination_domain: (N_("To one domain"), N_("To each domain")),
}
EMPTY = {"scope": RateScope.destination_domain.value, "key": "", "per_hour": "", "burst": "1"}


@dataclass(frozen=True, slots=True)
class RateRow:
    """One rate in the table: the kind and name of its scope, and the interval between two messages in words."""

    shown: RateShown
    what: str
    name: str
    apart: str


@router.get("/rates")
def rates_page(visit: Visit = needs(Permission.run_operations), scope: str = "", key: str = "") -> Response:
    """Show the rates with the number of messages that wait under each, and the form, filled with the named rate."""
    values = dict(EMPTY)
    with visit.reading() as session:
        for rate in send_rates.list_rates(session, visit.viewer):
            if (rate.scope, rate.key) == (scope, key):
                numbers = {"per_hour": str(rate.per_hour), "burst": str(rate.burst)}
                values = {"scope": rate.scope.value, "key": "" if rate.key == EACH else rate.key, **numbers}
    return _page(visit, values)


@router.post("/rates")
def store_rate(visit: Visit = needs(Permission.run_operations), form: FormData = posted_form) -> Response:
    """Set a rate; messages that wait already get new times."""
    values = {name: text(form, name) for name in EMPTY}
    try:
        scope, per_hour, burst = _scope(values["scope"]), _number(values["per_hour"]), _number(values["burst"] or "1")
        with visit.writing() as session:
            send_rates.set_rate(session, visit.viewer, scope, values["key"] or EACH, per_hour, visit.now, burst=burst)
    except (InvalidInput, NotFound) as error:
        return _page(visit, values, wrong=errors.explain(error, visit.language), status=422)
    return visit.go("/rates", N_("Saved. What waits already lines up again at this rate."))


@router.post("/rates/remove")
def remove_rate(visit: Visit = needs(Permission.run_operations), form: FormData = posted_form) -> Response:
    """Remove a rate; messages that wait under it go out now."""
    with visit.writing() as session:
        send_rates.remove_rate(session, visit.viewer, _scope(text(form, "scope")), text(form, "key"), visit.now)
    return visit.go("/rates", N_("Removed. What waited for its turn goes now."))


def _page(visit: Visit, values: Mapping[str, str], *, wrong: str = "", status: int = 200) -> Response:
    with visit.reading() as session:
        names = _names(session, visit)
        rows = [_rate_row(visit, shown, names) for shown in send_rates.shown_rates(session, visit.viewer)]
    return visit.page(
        "rates/page.html",
        status=status,
        rows=rows,
        waiting=sum(row.shown.waiting for row in rows),
        values=values,
        wrong=wrong,
        scopes=SCOPES,
        names=sorted(names.items(), key=lambda pair: (pair[0][0], pair[1])),
        each=EACH,
        most=MOST_PER_HOUR,
    )


def _names(session: Session, visit: Visit) -> dict[tuple[RateScope, str], str]:
    """Return the names of the brand's partners and campaigns by rate scope and key."""
    of_partners = {(RateScope.partner, partner.key.lower()): partner.name for partner in partners_of(session, visit.viewer)}
    found = campaigns.list_campaigns(session, visit.viewer)
    return of_partners | {(RateScope.campaign, campaign.key.lower()): campaign.name for campaign in found}


def _rate_row(visit: Visit, shown: RateShown, names: Mapping[tuple[RateScope, str], str]) -> RateRow:
    one, each = SCOPES[shown.rate.scope]
    is_each = shown.rate.key == EACH
    return RateRow(
        shown=shown,
        what=visit.gettext(each if is_each else one),
        name=visit.gettext(N_("without a rate of its own")) if is_each else names.get((shown.rate.scope, shown.rate.key), shown.rate.key),
        apart=_interval_text(visit, Rate(shown.rate.per_hour).interval.total_seconds()),
    )


def _interval_text(visit: Visit, seconds: float) -> str:
    if seconds >= 90:
        return visit.gettext(N_("one every %(n)s minutes"), n=visit.translator.number(round(seconds / 60, 1)))
    if seconds >= 1:
        return visit.gettext(N_("one every %(n)s seconds"), n=visit.translator.number(round(seconds, 1)))
    return visit.gettext(N_("%(n)s a second"), n=visit.translator.number(round(1 / seconds, 1)))


def _scope(value: str) -> RateScope:
    if value not in set(RateScope):
        raise InvalidInput("The kind of rate is missing; choose what the rate is for.")
    return RateScope(value)


def _number(value: str) -> int:
    found = read_whole(value.replace(",", "").strip())
    if found is None:
        raise InvalidInput(f'The number "{value[:LONGEST_SHOWN]}" cannot be read; write a whole number such as 1000.')
    return found
