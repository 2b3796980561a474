"""`distmark journeys`: from a file on the disk to a deployment, and questions about it on the way."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.text import Text
from rich.tree import Tree
from sqlmodel import Session

from distmark.commands.acting import As, BrandKey, Json, brand_named, brand_of_journey, viewer_for
from distmark.console import out, print_json, show
from distmark.db import get_database
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.journeys.check import check as check_source
from distmark.journeys.definition import parse
from distmark.journeys.findings import Finding, Severity
from distmark.journeys.model import Act, End, Facts, Go, Sleep
from distmark.journeys.program import Placed, Program, build_program
from distmark.journeys.source import DEFINITION_SUFFIXES, load_source, scan
from distmark.journeys.steps import KINDS
from distmark.journeys.table import Journey, JourneyVersion
from distmark.partners.model import Permission, Viewer
from distmark.settings import get_settings

app = typer.Typer(help="Check, show, submit, approve and register journeys.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(metavar="KEY", help="The journey's key, or the path of its folder or file.")]
VersionNumber = Annotated[int | None, typer.Option("--version", metavar="N", help="Which version; the newest when left out.")]
SEVERITY_STYLE = {Severity.error: "bold red", Severity.warning: "yellow"}


@app.command(epilog="Example: distmark journeys check journey_defs/* --json")
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Folders with a journey.yaml, or single .yaml files.")],
    json_: Json = False,
    lang: Annotated[str, typer.Option("--lang", help="Language of the messages: en or ja.")] = "en",
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
    return check_source(load_source(path), now=get_settings().clock().now())


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

    newest = next(iter(versions_of(session, journey.id or 0)), None)
    registered = newest_registered(session, journey.id or 0)
    return {
        "brand": brand_key,
        "key": journey.key,
        "name": journey.name.get("ja") or journey.name.get("en") or "",
        "version": newest.number if newest else None,
        "status": newest.status.value if newest else None,
        "registered": registered.number if registered else None,
    }


@app.command("show", epilog="Example: distmark journeys show retirement-onboarding")
def show_(key: Key, version: VersionNumber = None, brand: BrandKey = "", json_: Json = False) -> None:
    """Show a journey: its versions and its steps in order."""
    program, versions = _program(key, version, brand)
    steps = [{"id": placed.step_id, "depth": placed.depth, **_told(program, placed)} for placed in program.order]
    if json_:
        print_json({"key": program.definition.key, "brand": program.definition.brand, "versions": versions, "steps": steps})
        return
    out.print(Text(f"{_name(program)} ({program.definition.key}, {program.definition.brand})", "bold"))
    for each in versions:
        out.print(f"  version {each['number']}: {each['status']}" + (f", deployment {each['deployment']}" if each["deployment"] else ""))
    out.print(_tree(program))


@app.command(epilog="Example: distmark journeys diagram journey_defs/seasonal-coupon")
def diagram(key: Key, version: VersionNumber = None, brand: BrandKey = "") -> None:
    """Draw a journey's steps as a tree. KEY may be a path: then no database is needed."""
    out.print(_tree(_program(key, version, brand)[0]))


def _tree(program: Program) -> Tree:
    tree = Tree(Text(_name(program), "bold"), guide_style="dim")
    nodes: dict[str, Tree] = {}
    arms: dict[tuple[str, int], Tree] = {}
    for placed in program.order:
        parent = tree
        if placed.split is not None:
            place = (placed.split, placed.arm or 0)
            if place not in arms:
                arms[place] = nodes[placed.split].add(Text(placed.label or f"way {(placed.arm or 0) + 1}", "italic"))
            parent = arms[place]
        told = _told(program, placed)
        nodes[placed.step_id] = parent.add(
            Text.assemble((placed.step_id, "bold"), "  ", (told["kind"], "cyan"), "  ", (told["text"], "dim"))
        )
    return tree


def _told(program: Program, placed: Placed) -> dict[str, str]:
    step = program.steps[placed.step_id]
    fields = step.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"id"})
    return {"kind": KINDS[step.kind].label["en"], "text": _brief(fields.get(step.kind))}


def _brief(value: object) -> str:
    """Return a step's own field in few words; the steps of its ways are drawn by themselves."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_brief(item)}" for name, item in value.items() if name != "steps" and item is not None)
    if isinstance(value, list):
        return f"{len(value)} ways" if any(isinstance(item, dict) for item in value) else " ".join(map(str, value))
    return str(value)


def _name(program: Program) -> str:
    return program.definition.name.text("en")


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
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Say when a contact who reaches STEP at that time would go on, and which rules decided it. Knows no clicks and no events."""
    from distmark.journeys.walk import Position, decide

    program, _ = _program(key, version, brand)
    if step not in program.steps:
        raise NotFound(f'The journey "{program.definition.key}" has no step "{step}"; it has {", ".join(program.steps)}.')
    there, arrived = _zone(zone), _moment(at, _zone(zone))
    facts = Facts(contact={**dict(_pair(each) for each in contact or ()), "zone": zone})
    decision = decide(program, Position(step, arrived, {step: 1}), facts, arrived, there)
    due, rules = _due(decision, arrived)
    answer = {
        "due_at": due.astimezone(UTC).isoformat() if due else None,
        "local": due.astimezone(there).isoformat() if due else None,
        "rules": list(rules),
    }
    if json_:
        print_json(answer)
        return
    out.print(f"{due.astimezone(there):%a %Y-%m-%d %H:%M %Z} ({answer['due_at']})" if due else "Only an event wakes this contact.")
    for rule in rules:
        out.print(f"  {rule}")


def _due(decision: Go | Sleep | Act | End, arrived: datetime) -> tuple[datetime | None, Sequence[str]]:
    if isinstance(decision, Sleep):
        return decision.until, decision.rules
    return arrived, ("ends here",) if isinstance(decision, End) else ("at once",)


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
        submitted = submit_version(session, viewer, version.id or 0, get_settings().clock().now())
        _report(session, submitted, "was submitted; somebody else must approve it", json_)


def _to_submit(session: Session, path: str, email: str, brand_key: str) -> tuple[Viewer, JourneyVersion]:
    from distmark.journeys.service import save_draft

    if not Path(path).exists():
        brand_id = brand_of_journey(session, path, brand_key)
        viewer = viewer_for(session, Permission.write_journeys, email=email, brand_id=brand_id)
        return viewer, _version(session, viewer, path, None)
    source = load_source(Path(path))
    errors = [finding for finding in check_source(source) if finding.severity is Severity.error]
    if errors:
        raise Refused(f"The journey {path} has {_count(len(errors), 'error')}; `distmark journeys check {path}` lists what to correct.")
    brand = brand_named(session, brand_key or parse(source).brand)
    viewer = viewer_for(session, Permission.write_journeys, email=email, brand_id=brand.id)
    return viewer, save_draft(session, brand.id or 0, source, viewer.user_id, get_settings().clock().now())


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
        decided = decide(session, viewer, found.id or 0, note, get_settings().clock().now())
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
    from deployments.register import register_version

    db = get_database()
    with db.reading() as session:
        brand_id = brand_of_journey(session, key, brand)
        viewer = viewer_for(session, Permission.register_journeys, email=as_, brand_id=brand_id)
        found = _version(session, viewer, key, version)
    register_version(db, found.id or 0, viewer)
    with db.reading() as session:
        _report(session, session.get_one(JourneyVersion, found.id), "takes entrants", json_)


def _version(session: Session, viewer: Viewer, key: str, number: int | None) -> JourneyVersion:
    from distmark.journeys.service import get_journey, versions_of

    versions = versions_of(session, get_journey(session, viewer, key).id or 0)
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


def _program(key: str, number: int | None, brand_key: str) -> tuple[Program, list[dict[str, Any]]]:
    """Return the program of a journey in the database, or of the file at that path, with the versions there are."""
    if Path(key).exists():
        return build_program(parse(load_source(Path(key)))), []
    from distmark.journeys.service import program_of, versions_of

    with get_database().reading() as session:
        viewer = viewer_for(session, Permission.see_journeys, brand_id=brand_of_journey(session, key, brand_key))
        version = _version(session, viewer, key, number)
        told = [
            {"number": each.number, "status": each.status.value, "deployment": each.deployment_id}
            for each in versions_of(session, version.journey_id)
        ]
        return program_of(session, version.id or 0), told
