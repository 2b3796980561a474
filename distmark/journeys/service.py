"""Journeys and their versions as rows: storing drafts, finding versions, and the program of a version ready to walk."""

import threading
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, true
from sqlmodel import Session, col, select

from distmark.errors import InvalidInput, NotFound
from distmark.journeys.definition import JourneyDefinition, parse
from distmark.journeys.diff import SourceDiff, diff
from distmark.journeys.program import Program, build_program
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.partners.model import Role, Viewer
from distmark.partners.scope import visible
from distmark.partners.table import Brand
from distmark.sql import id_of, insert_into

PROGRAMS_KEPT = 256
PUBLISHED = (VersionStatus.registered, VersionStatus.retired)

_programs: dict[tuple[int, str], Program] = {}
_programs_lock = threading.Lock()


def save_draft(session: Session, brand_id: int, source: Source, author_id: int | None, now: datetime) -> JourneyVersion:
    """Store the journey's text and return its version: the newest one if it says the same, else the open draft, else the next number.

    DefinitionError when the text cannot be read, InvalidInput when it is written for another brand or no database could keep it.
    """
    if odd := next(
        (name for name, content in {source.file: source.definition, **source.templates}.items() if "\0" in name + content), None
    ):
        raise InvalidInput(f"The file {odd!r} holds a null character, which cannot be kept; remove it.")
    definition = parse(source)
    brand = session.get_one(Brand, brand_id)
    if definition.brand != brand.key:
        raise InvalidInput(f'Journey "{definition.key}" has the brand {definition.brand}, but this is {brand.key}; change its "brand".')
    journey = _journey_of(session, brand_id, definition, now)
    newest = _newest(session, id_of(journey))
    if newest is not None and newest.content_hash == source.content_hash:
        return newest
    if newest is None or newest.status is not VersionStatus.draft:
        newest = JourneyVersion(journey_id=id_of(journey), number=newest.number + 1 if newest else 1, content_hash="", created_at=now)
    newest.source, newest.content_hash = source.to_json(), source.content_hash
    newest.author_id, newest.created_at = author_id, now
    session.add(newest)
    if newest_registered(session, id_of(journey)) is None:
        name_journey(journey, definition)
    session.flush()
    return newest


def _journey_of(session: Session, brand_id: int, definition: JourneyDefinition, now: datetime) -> Journey:
    """Return the brand's journey of this key, locked: two people storing at once get two numbers, one after the other."""
    values = {"brand_id": brand_id, "key": definition.key, "name": {}, "description": {}, "created_at": now}
    session.execute(insert_into(session, Journey).values(values).on_conflict_do_nothing())
    return session.exec(select(Journey).where(Journey.brand_id == brand_id, Journey.key == definition.key).with_for_update()).one()


def name_journey(journey: Journey, definition: JourneyDefinition) -> None:
    """Show the journey to people under the name and description that `definition` gives it."""
    description = definition.description
    journey.name = {lang: definition.name.text(lang) for lang in definition.languages}
    journey.description = {lang: description.text(lang) for lang in definition.languages} if description else {}


def _newest(session: Session, journey_id: int) -> JourneyVersion | None:
    versions = select(JourneyVersion).where(JourneyVersion.journey_id == journey_id)
    return session.exec(versions.order_by(col(JourneyVersion.number).desc())).first()


def list_journeys(session: Session, viewer: Viewer) -> list[Journey]:
    """Return the brand's journeys by key; a partner's people know of those that have a registered version."""
    statement = visible(select(Journey), Journey, viewer)
    return list(session.exec(statement.where(_known_to(viewer)).order_by(col(Journey.key))))


def get_journey(session: Session, viewer: Viewer, key: str) -> Journey:
    """Return the journey of this key; NotFound outside the viewer's sight."""
    statement = visible(select(Journey), Journey, viewer)
    journey = session.exec(statement.where(Journey.key == key, _known_to(viewer))).first()
    if journey is None:
        raise NotFound(f'There is no journey "{key}" among yours.')
    return journey


def _known_to(viewer: Viewer) -> ColumnElement[bool]:
    if viewer.role is not Role.partner:
        return true()
    return exists().where(and_(col(JourneyVersion.journey_id) == col(Journey.id), col(JourneyVersion.status).in_(PUBLISHED)))


def versions_of(session: Session, journey_id: int) -> list[JourneyVersion]:
    """Return the journey's versions, newest first."""
    versions = select(JourneyVersion).where(JourneyVersion.journey_id == journey_id)
    return list(session.exec(versions.order_by(col(JourneyVersion.number).desc())))


def get_version(session: Session, viewer: Viewer, version_id: int, *, lock: bool = False) -> JourneyVersion:
    """Return the version; NotFound outside the viewer's sight. A partner's people know of registered and retired ones.

    With `lock` nobody else may change it until the unit of work ends.
    """
    of_brand = visible(select(JourneyVersion).join(Journey, col(Journey.id) == col(JourneyVersion.journey_id)), Journey, viewer)
    statement = of_brand.where(JourneyVersion.id == version_id)
    if viewer.role is Role.partner:
        statement = statement.where(col(JourneyVersion.status).in_(PUBLISHED))
    if lock:
        statement = statement.with_for_update(of=JourneyVersion).execution_options(populate_existing=True)
    version = session.exec(statement).first()
    if version is None:
        raise NotFound(f"There is no journey version {version_id} among yours.")
    return version


def journeys_by_id(session: Session, viewer: Viewer) -> dict[int, Journey]:
    """Return all journeys of the viewer's brand by id."""
    return {id_of(row): row for row in session.exec(select(Journey).where(Journey.brand_id == viewer.brand_id))}


def newest_by_journey(session: Session, viewer: Viewer, statuses: Sequence[VersionStatus]) -> dict[int, JourneyVersion]:
    """Return each journey's newest version in one of `statuses`, by the id of the journey."""
    statement = (
        select(JourneyVersion)
        .join(Journey, col(Journey.id) == col(JourneyVersion.journey_id))
        .where(Journey.brand_id == viewer.brand_id, col(JourneyVersion.status).in_(list(statuses)))
        .order_by(col(JourneyVersion.number))
    )
    return {row.journey_id: row for row in session.exec(statement)}


def source_of(version: JourneyVersion) -> Source:
    """Return the version's text."""
    return Source.from_json(version.source)


def program_of(session: Session, version_id: int) -> Program:
    """Return the version ready to walk; built once per process and content. NotFound for an unknown version."""
    content_hash = session.exec(select(JourneyVersion.content_hash).where(JourneyVersion.id == version_id)).first()
    if content_hash is None:
        raise NotFound(f"There is no journey version {version_id}.")
    known = _programs.get((version_id, content_hash))
    return known or _build(session.get_one(JourneyVersion, version_id))


def _build(version: JourneyVersion) -> Program:
    program = build_program(parse(source_of(version)))
    with _programs_lock:
        if len(_programs) >= PROGRAMS_KEPT:
            _programs.clear()
        _programs[id_of(version), version.content_hash] = program
    return program


def newest_registered(session: Session, journey_id: int) -> JourneyVersion | None:
    """Return the version that contacts enter now: the registered one of the highest number."""
    statement = select(JourneyVersion).where(JourneyVersion.journey_id == journey_id, JourneyVersion.status == VersionStatus.registered)
    return session.exec(statement.order_by(col(JourneyVersion.number).desc())).first()


def diff_of(session: Session, viewer: Viewer, old_id: int, new_id: int) -> SourceDiff:
    """Return what changed from one version to another; NotFound when either is outside the viewer's sight."""
    old, new = get_version(session, viewer, old_id), get_version(session, viewer, new_id)
    return diff(source_of(old), source_of(new))
