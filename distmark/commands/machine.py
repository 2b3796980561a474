"""`distmark up` and `init`: an installation on this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.prompt import Prompt
from rich.text import Text
from sqlmodel import col, func, select

from distmark.console import Board, addresses, err, out
from distmark.db import Database, get_database
from distmark.errors import InvalidInput
from distmark.machine.database import prepare_database
from distmark.machine.parts import answers
from distmark.machine.prefect import point_prefect_here
from distmark.machine.supervisor import Machine, MachineStopped
from distmark.partners.model import Role
from distmark.partners.table import Brand, User
from distmark.settings import Mode, Settings, get_settings


def up() -> None:
    """Run everything on this machine until Ctrl-C: Prefect with its dashboard, web, worker, results flow. Real time, no demo data.

    A port that is taken is not an error: the next free one is used and printed, and kept for the next start.
    """
    settings = get_settings()
    if settings.mode is Mode.demo:
        settings = Settings(mode=Mode.production)
    board = Board()
    machine = Machine(settings, report=board.show_status)
    with machine.obeying_signals():
        try:
            with board:
                machine.start(prepare_database)
                _say_where(machine, _how_to_begin(machine.settings))
                machine.wait()
        except MachineStopped:
            raise typer.Exit(128 + (machine.signal_received or 0)) from None
        finally:
            machine.stop()


def init(
    brand: Annotated[str, typer.Option("--brand", metavar="KEY", help="The brand's key, as journeys name it.")] = "",
    brand_name: Annotated[str, typer.Option("--brand-name", help="What the brand is called.")] = "",
    legal_name: Annotated[str, typer.Option("--legal-name", help="The company's full name, in every message's footer.")] = "",
    address: Annotated[str, typer.Option("--address", help="Its postal address, in every message's footer.")] = "",
    contact: Annotated[str, typer.Option("--contact", help="Where questions and complaints go: a phone number or address.")] = "",
    user: Annotated[str, typer.Option("--user", metavar="EMAIL", help="The first person who signs in.")] = "",
    name: Annotated[str, typer.Option("--name", help="That person's name.")] = "",
    role: Annotated[Role, typer.Option("--role", help="What that person does.")] = Role.ops,
    password_file: Annotated[Path | None, typer.Option("--password-file", help="A file with the password; - reads it from stdin.")] = None,
) -> None:
    """Make or update the tables, and a brand with its first user. On a terminal it asks for what was not given. Safe to repeat."""
    if role is Role.partner:
        raise InvalidInput("The first user is of the brand: marketer, approver or ops. Then make partners with `distmark partners add`.")
    settings = get_settings()
    prepare_database(settings)
    out.print(f"The tables are up to date in {_where(settings)}.")
    _register_system_flows(settings)
    asking = sys.stdin.isatty() and password_file != Path("-")
    if not brand and not user and (not asking or _has_users()):
        out.print(_how_to_begin(settings))
        return
    given = {"key": brand, "name": brand_name, "legal_name": legal_name, "address": address, "contact": contact}
    asked = {field: value or _ask(BRAND_QUESTIONS[field], asking) for field, value in given.items()}
    email, person = user or _ask("Mail address of the first user", asking), name or _ask("Name of that person", asking)
    password = _password(password_file, asking)
    from distmark.partners.service import ensure_brand, ensure_user

    with get_database().writing() as session:
        made = ensure_brand(session, **asked)
        ensure_user(
            session, email=email, password=password, now=settings.clock().now(), name=person, role=role, brand_id=made.id, partner_id=None
        )
    out.print(f"{person} may sign in as {role.value} of {asked['name']} with {email}. `distmark up` starts everything.")


BRAND_QUESTIONS = {
    "key": "Key of the brand (small letters, digits, -)",
    "name": "What the brand is called",
    "legal_name": "Its company's full name (in every message's footer)",
    "address": "Its postal address (in every message's footer)",
    "contact": "Where questions and complaints go (phone or address)",
}


def _register_system_flows(settings: Settings) -> None:
    if not answers(f"{settings.prefect_api_url}/health"):
        return  # `distmark up` does it when it starts the server
    point_prefect_here(settings)
    from deployments.register import register_system_flows

    register_system_flows()
    out.print("The results and upkeep flows are registered with Prefect.")


def _where(settings: Settings) -> str:
    from sqlalchemy import make_url

    return make_url(settings.database).render_as_string(hide_password=True)


def _has_users() -> bool:
    with get_database().reading() as session:
        return bool(session.exec(select(func.count(col(User.id)))).one())


def _ask(question: str, asking: bool) -> str:
    if not asking:
        raise InvalidInput(f"{question}: not given; see `distmark init --help` for the option.")
    return Prompt.ask(question, console=err)


def _password(file: Path | None, asking: bool) -> str:
    if file == Path("-"):
        return sys.stdin.readline().rstrip("\n")
    if file is not None:
        return file.read_text(encoding="utf-8").strip()
    if not asking:
        raise InvalidInput("The password was not given; name a file that holds it with --password-file, or - for stdin.")
    return Prompt.ask("Password", password=True, console=err)


def _how_to_begin(settings: Settings) -> str:
    database = Database(settings.database)
    try:
        with database.reading() as session:
            brands = session.exec(select(func.count(col(Brand.id)))).one()
            users = session.exec(select(func.count(col(User.id)))).one()
    finally:
        database.close()
    if users:
        return f"There are {brands} brands and {users} users."
    return "Nobody can sign in yet: make the first brand and user with `distmark init`."


def _say_where(machine: Machine, note: str) -> None:
    settings = machine.settings
    out.print(addresses(machine.settings))
    out.print(Text(note))
    out.print(f"Data and logs are in {settings.data_dir}. Ctrl-C stops everything.")


COMMANDS = (
    ("up", up, "distmark up"),
    ("init", init, "distmark init --brand mirai-securities --brand-name Mirai --user ops@mirai.example"),
)
