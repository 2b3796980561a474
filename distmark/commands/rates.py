"""`distmark rates`: how fast messages may go out, for a partner, a campaign, or a domain they are sent from or to."""

from typing import Annotated, Any

import typer
from sqlmodel import Session

from distmark.commands.acting import As, BrandKey, Json, brand_named, viewer_for
from distmark.console import out, print_json, table
from distmark.db import get_database
from distmark.delivery import send_rates
from distmark.delivery.send_rate_spacing import EACH, RateScope
from distmark.delivery.send_rates import RateShown
from distmark.errors import InvalidInput
from distmark.partners.model import Permission, Viewer
from distmark.settings import get_settings

Of = Annotated[str, typer.Argument(metavar="SCOPE", help="partner, campaign, sending-domain or destination-domain.")]
Key = Annotated[
    str, typer.Argument(metavar="KEY", help='The key of the partner or campaign, or the domain; "*": each that has none of its own.')
]

app = typer.Typer(help="Set how fast messages may go out, and see how many wait for their turn.", no_args_is_help=True)


@app.command("list", epilog="Example: distmark rates list --json")
def list_(as_: As = "", brand: BrandKey = "", json_: Json = False) -> None:
    """Show every rate with the number of messages that wait for their turn under it now."""
    with get_database().reading() as session:
        shown = send_rates.shown_rates(session, _viewer(session, as_, brand))
    if json_:
        for each in shown:
            print_json(_as_json(each))
        return
    if not shown:
        out.print("There is no rate: every message goes when it is due.")
        return
    rows = [(_word(each.rate.scope), each.rate.key, f"{each.rate.per_hour:,}", each.rate.burst, f"{each.waiting:,}") for each in shown]
    out.print(table(("Scope", "Key", "Per hour", "At once", "Waiting"), rows))


@app.command("set", epilog="Example: distmark rates set destination-domain docomo.ne.jp 1000 --burst 20")
def set_(
    scope: Of,
    key: Key,
    per_hour: Annotated[int, typer.Argument(metavar="PER_HOUR", help="At most so many messages an hour, evenly spaced; from 1.")],
    burst: Annotated[int, typer.Option("--burst", metavar="N", help="So many may go at once after a silence.")] = 1,
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Let at most so many messages an hour go out. Those that wait already line up again at the new rate; nothing is lost."""
    with get_database().writing() as session:
        viewer, now = _viewer(session, as_, brand), get_settings().clock().now()
        row = send_rates.set_rate(session, viewer, _scope(scope), key, per_hour, now, burst=burst)
        answer = {"scope": _word(row.scope), "key": row.key, "per_hour": row.per_hour, "burst": row.burst}
    if json_:
        print_json(answer)
    else:
        out.print(f"{answer['scope']} {answer['key']}: at most {row.per_hour:,} an hour, {row.burst:,} at once after a silence.")


@app.command("remove", epilog="Example: distmark rates remove destination-domain docomo.ne.jp")
def remove(scope: Of, key: Key, as_: As = "", brand: BrandKey = "", json_: Json = False) -> None:
    """Take a rate away; what waited for its turn under it goes at once."""
    with get_database().writing() as session:
        send_rates.remove_rate(session, _viewer(session, as_, brand), _scope(scope), key, get_settings().clock().now())
    if json_:
        print_json({"removed": _word(_scope(scope)), "key": key.strip().lower()})
    else:
        out.print(f"The rate of {_word(_scope(scope))} {key} is gone; what waited for its turn goes now.")


def _viewer(session: Session, email: str, brand: str) -> Viewer:
    brand_id = None if email and not brand else brand_named(session, brand).id
    return viewer_for(session, Permission.run_operations, email=email, brand_id=brand_id)


def _scope(word: str) -> RateScope:
    name = word.strip().lower().replace("-", "_")
    if name not in set(RateScope):
        raise InvalidInput(f'The scope "{word}" is not known; write one of {", ".join(_word(scope) for scope in RateScope)}.')
    return RateScope(name)


def _word(scope: RateScope) -> str:
    return scope.value.replace("_", "-")


def _as_json(each: RateShown) -> dict[str, Any]:
    rate = each.rate
    shown = {"scope": _word(rate.scope), "key": rate.key, "each": rate.key == EACH, "per_hour": rate.per_hour, "burst": rate.burst}
    return {**shown, "waiting": each.waiting, "last_turn_at": each.last_at.isoformat() if each.last_at else None}
