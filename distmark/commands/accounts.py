"""`distmark partners` and `distmark people`: partners, and the accounts of their people and the brand's."""

from typing import Annotated

import typer
from sqlmodel import Session

from distmark.commands.acting import As, BrandKey, Json, brand_named, partner_named, viewer_for
from distmark.console import out, print_json, show
from distmark.db import get_database
from distmark.errors import InvalidInput, NotFound
from distmark.partners.model import Permission, Role, Viewer
from distmark.partners.passwords import link_of
from distmark.partners.service import get_partner, partners_of, user_with_email
from distmark.partners.table import User
from distmark.settings import get_settings
from distmark.sql import id_of

partners = typer.Typer(help="Partners of a brand: advisers, franchise owners, dealers, agents.", no_args_is_help=True)
people = typer.Typer(help="Accounts of partners' people and of the brand's own.", no_args_is_help=True)
Key = Annotated[str, typer.Argument(metavar="KEY", help="As `distmark partners list` shows it.")]
PersonEmail = Annotated[str, typer.Argument(metavar="EMAIL", help="The mail address with which the person signs in.")]


@partners.command(epilog='Example: distmark partners add --name "Kato Insurance" --phone 03-1234-5678 --invite megumi@kato.example')
def add(
    name: Annotated[str, typer.Option("--name", help="It signs the partner's messages.")],
    key: Annotated[str, typer.Option("--key", help="Short name for links and files; made from the name without it.")] = "",
    title: Annotated[str, typer.Option("--title")] = "",
    office: Annotated[str, typer.Option("--office")] = "",
    city: Annotated[str, typer.Option("--city")] = "",
    phone: Annotated[str, typer.Option("--phone")] = "",
    email: Annotated[str, typer.Option("--email", help="Where answers to the partner's messages go.")] = "",
    code: Annotated[str, typer.Option("--code", help="Licence or shop number.")] = "",
    language: Annotated[str, typer.Option("--language", help="ja or en.")] = "ja",
    zone: Annotated[str, typer.Option("--zone", help="Such as Asia/Tokyo; the brand's without it.")] = "",
    invite: Annotated[str, typer.Option("--invite", metavar="EMAIL", help="Make an account for this person, and print its link.")] = "",
    person: Annotated[str, typer.Option("--person", help="That person's name; the partner's without it.")] = "",
    brand: BrandKey = "",
    as_: As = "",
    json_: Json = False,
) -> None:
    """Make a partner, and an account for its first person when one is named."""
    from distmark.compliance import accounts

    fields = {"name": name, "title": title, "office": office, "city": city, "phone": phone, "email": email, "code": code}
    now = get_settings().clock().now()
    with get_database().writing() as session:
        viewer = viewer_for(session, Permission.manage_partners, email=as_, brand_id=brand_named(session, brand).id)
        key = key or accounts.partner_key_for(session, viewer, name)
        made = accounts.create_partner(session, viewer, key, fields | {"language": language, "zone": zone}, now)
        answer = {"key": made.key, "name": made.name, "link": ""}
        if invite:
            invitation = accounts.invite(session, viewer, invite, person or name, Role.partner, id_of(made), language, now)
            answer["link"] = link_of(get_settings().base_url, invitation.token)
    if json_:
        print_json(answer)
        return
    out.print(f"{answer['name']} is a partner now; its key is {answer['key']}.")
    _print_link(invite, str(answer["link"]))


@partners.command("list", epilog="Example: distmark partners list --brand mirai-securities")
def list_partners(brand: BrandKey = "", as_: As = "", json_: Json = False) -> None:
    """List the partners of a brand."""
    with get_database().reading() as session:
        viewer = viewer_for(session, Permission.manage_partners, email=as_, brand_id=brand_named(session, brand).id)
        rows = [
            {"key": row.key, "name": row.name, "office": row.office, "phone": row.phone, "state": "active" if row.active else "suspended"}
            for row in partners_of(session, viewer)
        ]
    headings = {"key": "Key", "name": "Name", "office": "Office", "phone": "Phone", "state": "State"}
    show(rows, headings, as_json=json_, nothing="There is no partner yet; make one with `distmark partners add`.")


@partners.command(epilog="Example: distmark partners suspend kato-insurance")
def suspend(key: Key, brand: BrandKey = "", as_: As = "") -> None:
    """Suspend a partner: its people are signed out. Journeys under way go on until they are paused (`distmark pause --partner`)."""
    _set_partner_active(key, brand, as_, active=False)


@partners.command(epilog="Example: distmark partners reopen kato-insurance")
def reopen(key: Key, brand: BrandKey = "", as_: As = "") -> None:
    """Open a suspended partner again."""
    _set_partner_active(key, brand, as_, active=True)


def _set_partner_active(key: str, brand: str, as_: str, *, active: bool) -> None:
    from distmark.compliance.accounts import set_partner_active

    with get_database().writing() as session:
        partner = partner_named(session, key, brand)
        viewer = viewer_for(session, Permission.manage_partners, email=as_, brand_id=partner.brand_id)
        get_partner(session, viewer, id_of(partner))
        set_partner_active(session, viewer, id_of(partner), active, get_settings().clock().now())
    out.print(f"{key} is {'active' if active else 'suspended'}.")


@people.command("invite", epilog="Example: distmark people invite megumi@kato.example --name 加藤恵 --partner kato-insurance")
def invite_person(
    email: PersonEmail,
    name: Annotated[str, typer.Option("--name", help="The person's name.")],
    partner: Annotated[str, typer.Option("--partner", metavar="KEY", help="The partner where the person works.")] = "",
    role: Annotated[Role | None, typer.Option("--role", help="Without --partner: marketer, approver or ops.")] = None,
    language: Annotated[str, typer.Option("--language", help="ja or en.")] = "ja",
    brand: BrandKey = "",
    as_: As = "",
    json_: Json = False,
) -> None:
    """Make an account, and print the link with which its person sets a password; for somebody invited before, a new link."""
    from distmark.compliance import accounts

    now = get_settings().clock().now()
    with get_database().writing() as session:
        at = partner_named(session, partner, brand) if partner else None
        brand_id = at.brand_id if at else id_of(brand_named(session, brand))
        needed = Permission.manage_partners if at else Permission.manage_people
        viewer = viewer_for(session, needed, email=as_, brand_id=brand_id)
        known = user_with_email(session, email)
        if known is not None and known.password_set_at is None and known.brand_id == brand_id:
            invitation = accounts.invite_again(session, viewer, id_of(known), now)
        else:
            chosen = Role.partner if at else role
            if chosen is None:
                raise InvalidInput("The role is missing; give --role marketer, approver or ops, or --partner KEY for a partner's person.")
            invitation = accounts.invite(session, viewer, email, name, chosen, at.id if at else None, language, now)
        answer = {"email": invitation.user.email, "link": link_of(get_settings().base_url, invitation.token)}
    print_json(answer) if json_ else _print_link(answer["email"], answer["link"])


@people.command("list", epilog="Example: distmark people list --partner kato-insurance")
def list_people(
    partner: Annotated[str, typer.Option("--partner", metavar="KEY", help="The people of this partner; the brand's own without it.")] = "",
    brand: BrandKey = "",
    as_: As = "",
    json_: Json = False,
) -> None:
    """List accounts."""
    from distmark.compliance.accounts import people_of

    with get_database().reading() as session:
        at = partner_named(session, partner, brand) if partner else None
        brand_id = at.brand_id if at else id_of(brand_named(session, brand))
        viewer = viewer_for(session, Permission.manage_partners if at else Permission.manage_people, email=as_, brand_id=brand_id)
        rows = [
            {
                "email": each.user.email,
                "name": each.user.name,
                "role": each.user.role.value,
                "state": "closed" if not each.user.active else "invited" if each.invited else "active",
                "signed_in_at": each.signed_in_at,
            }
            for each in people_of(session, viewer, at.id if at else None)
        ]
    headings = {"email": "Mail address", "name": "Name", "role": "Role", "state": "State", "signed_in_at": "Signed in"}
    show(rows, headings, as_json=json_, nothing="Nobody has an account here yet; make one with `distmark people invite`.")


@people.command(epilog="Example: distmark people close megumi@kato.example")
def close(email: PersonEmail, as_: As = "") -> None:
    """Close an account: its person is signed out and cannot sign in."""
    _set_user_active(email, as_, active=False)


@people.command("reopen", epilog="Example: distmark people reopen megumi@kato.example")
def reopen_account(email: PersonEmail, as_: As = "") -> None:
    """Open a closed account again."""
    _set_user_active(email, as_, active=True)


@people.command(epilog="Example: distmark people reset megumi@kato.example")
def reset(email: PersonEmail, json_: Json = False) -> None:
    """Print a link of one hour with which the person sets a new password. Their present one works until then."""
    from distmark.compliance.accounts import ask_for_reset

    with get_database().writing() as session:
        invitation = ask_for_reset(session, email, get_settings().clock().now())
        if invitation is None:
            raise NotFound(f"There is no active user {email}; `distmark people list` shows those there are.")
        answer = {"email": invitation.user.email, "link": link_of(get_settings().base_url, invitation.token)}
    print_json(answer) if json_ else _print_link(answer["email"], answer["link"])


def _set_user_active(email: str, as_: str, *, active: bool) -> None:
    from distmark.compliance.accounts import set_user_active

    with get_database().writing() as session:
        user = user_with_email(session, email)
        if user is None:
            raise NotFound(f"There is no user {email}; `distmark people list` shows those there are.")
        set_user_active(session, _viewer_over(session, user, as_), id_of(user), active, get_settings().clock().now())
    out.print(f"{email} {'can sign in again' if active else 'can no longer sign in'}.")


def _viewer_over(session: Session, user: User, as_: str) -> Viewer:
    """Return a viewer with the right to manage this account, of the brand and not its own person."""
    needed = Permission.manage_people if user.partner_id is None else Permission.manage_partners
    return viewer_for(session, needed, email=as_, brand_id=user.brand_id, but_not=[] if as_ else [id_of(user)])


def _print_link(email: str, link: str) -> None:
    if link:
        out.print(f"With this link {email} sets a password and is signed in; it works once:")
        print(link)  # plain, so that it can be piped and no word of it is taken for markup
