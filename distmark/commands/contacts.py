"""`distmark contacts`: a partner's book."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from distmark.commands.acting import As, BrandKey, Json, partner_named, viewer_for
from distmark.console import err, out, print_json, table
from distmark.db import get_database
from distmark.errors import InvalidInput
from distmark.partners.model import Permission
from distmark.settings import get_settings

app = typer.Typer(help="Bring contacts into a partner's book.", no_args_is_help=True)


@app.callback()
def contacts() -> None:
    """Bring contacts into a partner's book."""


@app.command("import", epilog="Example: distmark contacts import people.csv --partner nagoya --dry-run")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV file (UTF-8 or Shift_JIS) or an Excel workbook (.xlsx).")],
    partner: Annotated[str, typer.Option("--partner", metavar="KEY", help="Whose book; not needed when acting as a partner's user.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    ground: Annotated[
        str | None,
        typer.Option(
            "--ground", help="Why those never asked may be written to: opt_in, business_card, existing_customer, published_address."
        ),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option("--channel", help="For what the ground counts: email (as without this option), sms. May be repeated."),
    ] = None,
    lang: Annotated[str, typer.Option("--lang", help="Language of the messages: en or ja.")] = "en",
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Take the good lines of a file into a partner's book and say what is wrong with the others. Exits with 1 when nothing was taken."""
    from distmark.contacts.imports import import_file

    data = _read(file)
    with get_database().reading() as session:
        found = partner_named(session, partner, brand) if partner else None
        viewer = viewer_for(
            session,
            Permission.write_contacts,
            email=as_,
            brand_id=found.brand_id if found else None,
            partner_id=found.id if found else None,
        )
    partner_id = found.id if found else viewer.partner_id
    if partner_id is None:
        raise InvalidInput(f"{viewer.name} works for the whole brand; say whose book it is with --partner.")
    with Progress(console=err, transient=True, disable=json_) as progress:
        bar = progress.add_task("Importing", total=None)
        report = import_file(
            get_database(), viewer, partner_id, data, file.name, get_settings().clock().now(), dry_run, ground=ground,
            channels=channel or ["email"], progress=lambda done, of: progress.update(bar, completed=done, total=of),
        )  # fmt: skip
    if json_:
        print_json(asdict(report))
    else:
        out.print(f"{file.name}, only looked at:" if dry_run else f"{file.name}:")
        out.print(
            f"{report.created:,} added, {report.updated:,} changed, {report.unchanged:,} as before, {len(report.rejected):,} not taken, "
            f"{report.refusals:,} refusals recorded."
        )
        if report.omitted:
            cells = [(each.line, each.field, each.message_ja if lang == "ja" else each.message_en) for each in report.omitted]
            out.print(table(("Line", "Field", "What was left out"), cells))
        if report.rejected:
            rows = [(each.line, each.field, each.message_ja if lang == "ja" else each.message_en) for each in report.rejected]
            out.print(table(("Line", "Field", "What is wrong"), rows))
    if report.rejected and not report.created + report.updated + report.unchanged:
        raise typer.Exit(1)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"The file {file} cannot be read: {error.strerror}; check its name.") from error
