"""`distmark journeys move`: those inside one version of a journey to another, and back."""

from collections.abc import Iterable
from typing import Annotated

import typer

from distmark.commands.acting import As, BrandKey, Json, brand_of_journey, viewer_for
from distmark.console import out, print_json, table
from distmark.db import get_database
from distmark.engine.version_moves import MovePlan
from distmark.errors import InvalidInput, Refused
from distmark.partners.model import Permission
from distmark.settings import get_settings


def move(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The journey's key.")],
    from_number: Annotated[int | None, typer.Option("--from", metavar="N", help="The version in which they are.")] = None,
    to_number: Annotated[int | None, typer.Option("--to", metavar="N", help="The registered version to which they go.")] = None,
    map_: Annotated[
        list[str] | None, typer.Option("--map", metavar="STEP=STEP", help="Where those at a step go; same names need none.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say who would move where and get a message at once; change nothing.")] = False,
    undo: Annotated[
        int | None, typer.Option("--undo", metavar="ID", help="Take this move back for those who have not woken since.")
    ] = None,
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Move everybody inside one version to another. Waits go on; those who have finished stay so. Can be undone until each next wake."""
    if undo is not None:
        _undo(key, undo, as_, brand, json_)
        return
    if from_number is None or to_number is None:
        raise InvalidInput("Say from which version to which; give --from N and --to N, or --undo ID.")
    _move(key, from_number, to_number, dict(_pair(each) for each in map_ or ()), dry_run, as_, brand, json_)


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = (part.strip() for part in text.partition("="))
    if not (old and equals and new):
        raise InvalidInput(f'"{text}" is not STEP=STEP; write the old step, an equals sign and the new one, such as rest=pause.')
    return old, new


def _move(
    key: str, from_number: int, to_number: int, mapping: dict[str, str], dry_run: bool, email: str, brand: str, as_json: bool
) -> None:
    from distmark.engine.facts import gather_for
    from distmark.engine.version_moves import move as act
    from distmark.engine.version_moves import plan_move

    now = get_settings().clock().now()
    with get_database().writing() as session:
        viewer = viewer_for(session, Permission.register_journeys, email=email, brand_id=brand_of_journey(session, key, brand))
        if dry_run:
            _show(plan_move(session, viewer, key, from_number, to_number, mapping, now, gather_for), None, as_json)
            return
        done, plan = act(session, viewer, key, from_number, to_number, mapping, now, gather_for)
        move_id = done.id
    _show(plan, move_id, as_json)


def _show(plan: MovePlan, move_id: int | None, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(plan, move_id))
    else:
        out.print(
            f"{plan.people:,} {'move' if move_id else 'would move'} from version {plan.from_number} of {plan.journey} to {plan.to_number}; "
            f"{plan.at_once:,} go on at once, {sum(plan.messages.values()):,} of them with a message."
        )
        rows = [(step.step_id or "start", step.to or "start", step.people, step.at_once) for step in plan.steps.values()]
        if rows:
            out.print(table(("From step", "To step", "People", "At once"), rows))
        for line in _remarks(plan, move_id):
            out.print(line)
    if plan.unmapped and move_id is None:
        raise Refused(f"Version {plan.to_number} has no place for those at {_counted(plan.unmapped.items())}; say it with --map STEP=STEP.")


def _remarks(plan: MovePlan, move_id: int | None) -> list[str]:
    said = [
        (plan.messages, f"Messages at once: {_counted(plan.messages.items())}."),
        (plan.leaving, f"{plan.leaving:,} end at once by the new version's goal or exit rules."),
        (plan.busy, f"{plan.busy:,} are on their way right now and stay; move them in a few minutes."),
        (plan.finished, f"{plan.finished:,} have finished and are not moved."),
        (move_id, f"Take it back with `distmark journeys move {plan.journey} --undo {move_id}`, until they wake."),
    ]
    return [text for holds, text in said if holds]


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{step} ({count})" for step, count in counts)


def _as_json(plan: MovePlan, move_id: int | None) -> dict[str, object]:
    return {
        "journey": plan.journey,
        "from": plan.from_number,
        "to": plan.to_number,
        "people": plan.people,
        "at_once": plan.at_once,
        "steps": [{"step": each.step_id, "to": each.to, "people": each.people, "at_once": each.at_once} for each in plan.steps.values()],
        "messages": dict(plan.messages),
        "unmapped": dict(plan.unmapped),
        "leaving": plan.leaving,
        "busy": plan.busy,
        "finished": plan.finished,
        "move": move_id,
        "dry_run": move_id is None,
    }


def _undo(key: str, move_id: int, email: str, brand: str, as_json: bool) -> None:
    from distmark.engine.version_moves import undo_move

    with get_database().writing() as session:
        viewer = viewer_for(session, Permission.register_journeys, email=email, brand_id=brand_of_journey(session, key, brand))
        undone = undo_move(session, viewer, move_id, get_settings().clock().now())
    if as_json:
        print_json({"move": move_id, "back": undone.back, "gone": undone.gone})
    else:
        gone = f"; {undone.gone:,} have gone on since and stay" if undone.gone else ""
        out.print(f"{undone.back:,} stand again where they stood before move {move_id}{gone}.")
