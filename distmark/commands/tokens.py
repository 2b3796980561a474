"""`distmark token`: keys for programs that use the REST API."""

from typing import Annotated

import typer
from sqlmodel import Session, col, select

from distmark.commands.acting import Json
from distmark.console import out, print_json, show
from distmark.db import get_database
from distmark.errors import NotFound
from distmark.partners.model import Viewer
from distmark.partners.service import active_viewer
from distmark.partners.table import ApiToken, Brand, Partner, User
from distmark.partners.tokens import expires_at, gives_access
from distmark.settings import get_settings

app = typer.Typer(help="Keys with which programs use the REST API.", no_args_is_help=True)
Email = Annotated[str, typer.Option("--as", metavar="EMAIL", help="The person as whom programs with this token act.")]


@app.command(epilog='Example: distmark token create "booking system" --as kenta@mirai.example')
def create(name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")], as_: Email, json_: Json = False) -> None:
    """Make a token and print it: it cannot be shown again."""
    from distmark.compliance.access import create_token

    with get_database().writing() as session:
        viewer = _person(session, as_)
        token, row = create_token(session, viewer, name, get_settings().clock().now())
        made = {"id": row.id, "name": row.name, "as": as_.strip().lower(), "token": token}
    if json_:
        print_json(made)
    else:
        out.print(f"Token {made['id']} ({made['name']}) acts as {made['as']}. Keep it like a password; it is shown this once:")
        print(token)  # plain, so that it can be piped and no word of it is taken for markup


def _person(session: Session, email: str) -> Viewer:
    user = session.exec(select(User).where(User.email == email.strip().lower())).first()
    viewer = active_viewer(session, user) if user else None
    if viewer is None:
        raise NotFound(f"There is no active user {email}; check the address given with --as.")
    return viewer


@app.command("list", epilog="Example: distmark token list --json")
def list_(json_: Json = False) -> None:
    """List the tokens of every brand, never what they are."""
    query = (
        select(ApiToken, User.email, Brand.key, Partner.key)
        .join(User, col(User.id) == ApiToken.user_id)
        .join(Brand, col(Brand.id) == ApiToken.brand_id)
        .outerjoin(Partner, col(Partner.id) == ApiToken.partner_id)
        .order_by(col(ApiToken.id))
    )
    now = get_settings().clock().now()
    with get_database().reading() as session:
        rows = [
            {
                "id": token.id,
                "name": token.name,
                "ending": f"…{token.ending}",
                "as": email,
                "brand": brand,
                "partner": partner,
                "created_at": token.created_at,
                "last_used_at": token.last_used_at,
                "expires_at": expires_at(token),
                "state": "revoked" if token.revoked_at else "in use" if gives_access(token, now) else "expired",
            }
            for token, email, brand, partner in session.exec(query)
        ]
    headings = {
        "id": "Id", "name": "Name", "ending": "Ends in", "as": "Acts as", "brand": "Brand", "partner": "Partner", "created_at": "Made",
        "last_used_at": "Last used", "expires_at": "Ends", "state": "State",
    }  # fmt: skip
    show(rows, headings, as_json=json_, nothing="There are no tokens yet; make one with `distmark token create`.")


@app.command(epilog="Example: distmark token revoke 3")
def revoke(token_id: Annotated[int, typer.Argument(metavar="ID", help="As `distmark token list` shows it.")], json_: Json = False) -> None:
    """Let a token open nothing any more."""
    from distmark.compliance.access import revoke_token

    with get_database().writing() as session:
        row = session.get(ApiToken, token_id)
        if row is None:
            raise NotFound(f"There is no token {token_id}; `distmark token list` shows those there are.")
        user = session.get_one(User, row.user_id)
        # The local operator takes the key back as its maker would, who may no longer work here.
        viewer = Viewer(row.user_id, user.role, row.brand_id, row.partner_id, user.name, user.language)
        revoked = revoke_token(session, viewer, token_id, get_settings().clock().now())
        answer = {"id": revoked.id, "name": revoked.name, "revoked_at": revoked.revoked_at}
    print_json(answer) if json_ else out.print(f"Token {answer['id']} ({answer['name']}) opens nothing any more.")
