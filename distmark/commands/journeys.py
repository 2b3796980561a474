"""`distmark journeys`: from a file on the disk to a deployment, and questions about it on the way."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.text import Text
from rich.tree import Tree
from sqlmodel import Session

from distmark.commands.acting import As, BrandKey, Json, brand_named, brand_of_journey, viewer_for
from distmark.compliance.journey_check import check_journey, installation_of
from distmark.console import out, print_json, show
from distmark.db import get_database
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.journeys.definition import parse
from distmark.journeys.diagram import diagram, outline
from distmark.journeys.findings import Finding, Severity
from distmark.journeys.model import Facts
from distmark.journeys.program import Program, build_program
from distmark.journeys.source import DEFINITION_SUFFIXES, Source, load_source, scan
from distmark.journeys.table import Journey, JourneyVersion
from distmark.machine.prefect import point_prefect_here
from distmark.partners.model import Permission, Viewer
from distmark.settings import get_settings
from distmark.sql import id_of

app = typer.Typer(help="Check, show, submit, approve and register journeys.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(metavar="KEY", help="The journey's key, or the path of its folder or file.")]
VersionNumber = Annotated[int | None, typer.Option("--version", metavar="N", help="Which version; the newest when left out.")]
Lang = Annotated[str, typer.Option("--lang", help="Language of what is printed: en or ja.")]
SEVERITY_STYLE = {Severity.error: "bold red", Severity.warning: "yellow"}


@app.command(epilog="Example: distmark journeys check journey_defs/* --json")
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Folders with a journey.yaml, or single .yaml files.")],
    json_: Json = False,
    lang: Lang = "en",
) -> None:
    """Say everything that is wrong with journeys, by file, line, step and field. Exits with 1 when there is an error. Needs no database."""
    paths = [path for given in files for path in _journeys_in(given)]
    found = [(path, _check_one(path)) for path in paths]
    for path, findings in found:
        for finding in findings:
            _print_finding(path, finding, lang, json_)
    errors = sum(finding.severity is Severity.error for _, findings in found for finding in findings)
    if not json_:
        warnings = sum(len(findings) for _, findings in found) - errors
        out.print(f"{_count(len(paths), 'journey')} checked: {_count(errors, 'error')}, {_count(warnings, 'warning')}.")
    if errors:
        raise typer.Exit(1)


def _check_one(path: Path) -> list[Finding]:
    return check_journey(load_source(path), now=get_settings().clock().now(), installation=installation_of(get_settings()))


def _journeys_in(given: Path) -> list[Path]:
    """Return the journeys at `given`: itself, or those in it when it is a folder of journeys."""
    is_one = given.is_file() or any((given / f"journey{suffix}").is_file() for suffix in DEFINITION_SUFFIXES)
    if is_one or not given.is_dir():
        return [given]
    found = scan(given)
    if not found:
        raise InvalidInput(f"The folder {given} holds no journey; give a folder with a journey.yaml, or a folder of such folders.")
    return found


def _print_finding(path: Path, finding: Finding, lang: str, as_json: bool) -> None:
    file = str((path if path.is_dir() else path.parent) / finding.file)
    if as_json:
        print_json({**finding.to_json(lang), "file": file})
        return
    place = ".".join(part for part in (finding.step, finding.field) if part)
    out.print(
        Text.assemble(
            (f"{file}:{finding.line}: ", "bold"),
            (f"{finding.severity}: ", SEVERITY_STYLE[finding.severity]),
            f"[{place}] " if place else "",
            " ".join(part for part in (finding.message(lang), finding.hint(lang)) if part),
        )
    )


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


@app.command("list", epilog="Example: distmark journeys list")
def list_(brand: BrandKey = "", json_: Json = False) -> None:
    """List the journeys of every brand, with their newest version."""
    with get_database().reading() as session:
        rows = [_summary(session, journey, brand_key) for journey, brand_key in _journeys(session, brand)]
    headings = {
        "brand": "Brand",
        "key": "Journey",
        "name": "Name",
        "version": "Newest",
        "status": "Status",
        "registered": "Taking entrants",
    }
    show(rows, headings, as_json=json_, nothing="There are no journeys yet; submit one with `distmark journeys submit PATH`.")


def _journeys(session: Session, brand_key: str) -> list[tuple[Journey, str]]:
    from sqlmodel import col, select

    from distmark.partners.table import Brand

    query = select(Journey, Brand.key).join(Brand, col(Brand.id) == Journey.brand_id).order_by(Brand.key, Journey.key)
    return [(journey, key) for journey, key in session.exec(query) if brand_key in ("", key)]


def _summary(session: Session, journey: Journey, brand_key: str) -> dict[str, Any]:
    from distmark.journeys.service import newest_registered, versions_of

    newest = next(iter(versions_of(session, id_of(journey))), None)
    registered = newest_registered(session, id_of(journey))
    return {
        "brand": brand_key,
        "key": journey.key,
        "name": journey.name.get("ja") or journey.name.get("en") or "",
        "version": newest.number if newest else None,
        "status": newest.status.value if newest else None,
        "registered": registered.number if registered else None,
    }


@app.command("show", epilog="Example: distmark journeys show retirement-onboarding")
def show_(key: Key, version: VersionNumber = None, lang: Lang = "en", brand: BrandKey = "", json_: Json = False) -> None:
    """Show a journey: its versions and its steps in order."""
    program, versions = _program(key, version, brand), _versions(key, brand)
    shown = ("number", "kind", "arm", "title", "detail")
    steps = [{"id": item.step_id, **{name: getattr(item, name) for name in shown}} for item in outline(program, lang)]
    if json_:
        print_json({"key": program.definition.key, "brand": program.definition.brand, "versions": versions, "steps": steps})
        return
    out.print(Text(f"{program.definition.key} of {program.definition.brand}", "bold"))
    for each in versions:
        out.print(f"  version {each['number']}: {each['status']}" + (f", deployment {each['deployment']}" if each["deployment"] else ""))
    out.print(_tree(program, lang))


@app.command("diagram", epilog="Example: distmark journeys diagram journey_defs/seasonal-coupon --svg seasonal-coupon.svg")
def diagram_(
    key: Key,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Write the picture into this file instead of printing a tree.")
    ] = None,
    version: VersionNumber = None,
    lang: Lang = "en",
    brand: BrandKey = "",
) -> None:
    """Draw a journey's steps. KEY may be a path: then no database is needed."""
    program = _program(key, version, brand)
    if svg is None:
        out.print(_tree(program, lang))
        return
    svg.write_text(diagram(program, lang), encoding="utf-8")
    out.print(f"The picture is in {svg}.")


def _tree(program: Program, lang: str) -> Tree:
    """Return the steps as a tree: below a split its arms, below an arm its steps."""
    tree = Tree(Text(program.definition.name.text(lang), "bold"), guide_style="dim")
    nodes = {"": tree}
    for item in outline(program, lang):
        above = item.number.rpartition(".")[0]
        if above not in nodes:  # the first step of an arm
            nodes[above] = nodes[above.rpartition(".")[0]].add(Text(item.arm or "", "italic"))
        jumps = f"  → {', '.join(item.jumps_to)}" if item.jumps_to else ""
        nodes[item.number] = nodes[above].add(
            Text.assemble((item.step_id, "bold"), "  ", item.title, (f"  {item.detail}" if item.detail else "", "dim"), (jumps, "cyan"))
        )
    return tree


@app.command(epilog="Example: distmark journeys schema > journey.schema.json")
def schema() -> None:
    """Print the JSON Schema of journey.yaml, for editors that complete and check while one writes."""
    from distmark.journeys.schema import json_schema

    out.print(json.dumps(json_schema(), ensure_ascii=False, indent=2), markup=False)


@app.command(epilog="Example: distmark journeys when retirement-onboarding time-to-read --at 2026-11-24T10:00 --zone Asia/Tokyo")
def when(
    key: Key,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The step's id.")],
    at: Annotated[
        str, typer.Option("--at", metavar="TIME", help="When the contact reaches the step, ISO 8601; without a zone: in --zone.")
    ],
    zone: Annotated[str, typer.Option("--zone", metavar="ZONE", help="The contact's time zone, such as Asia/Tokyo.")],
    contact: Annotated[list[str] | None, typer.Option("--contact", metavar="NAME=VALUE", help="What is known of the contact.")] = None,
    version: VersionNumber = None,
    lang: Lang = "en",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Say when a contact who reaches STEP at that time would go on, and which rules decided it. Knows no clicks and no events."""
    from distmark.journeys.when import when as when_is

    program, there = _program(key, version, brand), _zone(zone)
    facts = Facts(contact={**dict(_pair(each) for each in contact or ()), "zone": zone})
    answer = when_is(program, step, _moment(at, there), there, facts)
    if json_:
        due, local = (each.isoformat() if each else None for each in (answer.due_at, answer.local))
        print_json({"due_at": due, "local": local, "rules": list(answer.rules), "why": answer.why(lang)})
        return
    if answer.due_at and answer.local:
        out.print(f"{answer.local:%a %Y-%m-%d %H:%M %Z} ({answer.due_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC)")
    for reason in answer.why(lang):
        out.print(f"  {reason}")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidInput(f'The time zone "{name}" is not known; give a name such as Asia/Tokyo.') from error


def _moment(text: str, zone: ZoneInfo) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f'The time "{text}" cannot be read; write it as 2026-11-24T10:00 or 2026-11-24T01:00:00Z.') from error
    return at if at.tzinfo else at.replace(tzinfo=zone)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f'"{text}" is not NAME=VALUE; write it as renewal_date=2026-12-24.')
    return name, value


@app.command(epilog="Example: distmark journeys submit journey_defs/gym-new-year")
def submit(
    path: Annotated[str, typer.Argument(metavar="PATH|KEY", help="A journey's folder or file, or the key of one whose draft is stored.")],
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Store a journey as a version and hand it to the approvers. Its text is frozen from here on."""
    from distmark.compliance.service import submit as submit_version

    with get_database().writing() as session:
        viewer, version = _to_submit(session, path, as_, brand)
        submitted = submit_version(session, viewer, id_of(version), get_settings().clock().now(), installation_of(get_settings()))
        _report(session, submitted, "was submitted; somebody else must approve it", json_)


def _to_submit(session: Session, path: str, email: str, brand_key: str) -> tuple[Viewer, JourneyVersion]:
    from distmark.journeys.service import save_draft

    if not Path(path).exists():
        brand_id = brand_of_journey(session, path, brand_key)
        viewer = viewer_for(session, Permission.write_journeys, email=email, brand_id=brand_id)
        return viewer, _version(session, viewer, path, None)
    source = load_source(Path(path))
    errors = [finding for finding in check_journey(source) if finding.severity is Severity.error]
    if errors:
        raise Refused(f"The journey {path} has {_count(len(errors), 'error')}; `distmark journeys check {path}` lists what to correct.")
    brand = brand_named(session, brand_key or parse(source).brand)
    viewer = viewer_for(session, Permission.write_journeys, email=email, brand_id=brand.id)
    return viewer, save_draft(session, id_of(brand), source, viewer.user_id, get_settings().clock().now())


@app.command(epilog='Example: distmark journeys approve gym-new-year --note "checked with legal"')
def approve(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The journey's key.")],
    note: Annotated[str, typer.Option("--note", help="What the approver wants remembered; the reason with --send-back.")] = "",
    back: Annotated[bool, typer.Option("--send-back", help="Send the version back to its author instead; needs --note.")] = False,
    version: VersionNumber = None,
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Agree to a submitted version, or send it back. The approver is another person than the author."""
    from distmark.compliance.service import approve as approve_version
    from distmark.compliance.service import send_back

    with get_database().writing() as session:
        brand_id = brand_of_journey(session, key, brand)
        found = _version(session, viewer_for(session, Permission.see_journeys, brand_id=brand_id), key, version)
        author = [found.author_id] if found.author_id else []
        viewer = viewer_for(session, Permission.approve_journeys, email=as_, brand_id=brand_id, but_not=author)
        decide = send_back if back else approve_version
        decided = decide(session, viewer, id_of(found), note, get_settings().clock().now())
        _report(session, decided, "was sent back" if back else "was approved", json_)


@app.command(epilog="Example: distmark journeys register gym-new-year")
def register(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The journey's key.")],
    version: VersionNumber = None,
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Give an approved version its Prefect deployment and open it for entrants. Safe to repeat."""
    point_prefect_here(get_settings())
    from deployments.register import register_version

    db = get_database()
    with db.reading() as session:
        brand_id = brand_of_journey(session, key, brand)
        viewer = viewer_for(session, Permission.register_journeys, email=as_, brand_id=brand_id)
        found = _version(session, viewer, key, version)
    register_version(db, id_of(found), viewer)
    with db.reading() as session:
        _report(session, session.get_one(JourneyVersion, found.id), "takes entrants", json_)


def _version(session: Session, viewer: Viewer, key: str, number: int | None) -> JourneyVersion:
    from distmark.journeys.service import get_journey, versions_of

    versions = versions_of(session, id_of(get_journey(session, viewer, key)))
    chosen = [version for version in versions if number in (None, version.number)]
    if not chosen:
        raise NotFound(f"Journey {key} has no version {number}; it has {', '.join(str(version.number) for version in versions) or 'none'}.")
    return chosen[0]


def _report(session: Session, version: JourneyVersion, done: str, as_json: bool) -> None:
    journey = session.get_one(Journey, version.journey_id)
    if as_json:
        print_json(
            {
                "key": journey.key,
                "version": version.number,
                "status": version.status.value,
                "deployment": version.deployment_id,
                "id": version.id,
            }
        )
    else:
        out.print(f"Version {version.number} of {journey.key} {done}.")


def source_named(key: str, number: int | None, brand_key: str) -> Source:
    """Return the text of a journey: of the file at that path, else of the version in the database. NotFound."""
    if Path(key).exists():
        return load_source(Path(key))
    from distmark.journeys.service import source_of

    with get_database().reading() as session:
        return source_of(_stored(session, key, number, brand_key))


def _stored(session: Session, key: str, number: int | None, brand_key: str) -> JourneyVersion:
    viewer = viewer_for(session, Permission.see_journeys, brand_id=brand_of_journey(session, key, brand_key))
    return _version(session, viewer, key, number)


def _program(key: str, number: int | None, brand_key: str) -> Program:
    return build_program(parse(source_named(key, number, brand_key)))


def _versions(key: str, brand_key: str) -> list[dict[str, Any]]:
    """Return the versions there are of a journey in the database, newest first; none of a file."""
    if Path(key).exists():
        return []
    from distmark.journeys.service import versions_of

    with get_database().reading() as session:
        journey_id = _stored(session, key, None, brand_key).journey_id
        return [
            {"number": each.number, "status": each.status.value, "deployment": each.deployment_id}
            for each in versions_of(session, journey_id)
        ]
