"""`distmark journeys decide`: how a test stands, and its winner by hand."""

from typing import Annotated

import typer

from distmark.commands.acting import As, BrandKey, Json, brand_of_journey, viewer_for
from distmark.console import out, print_json, table
from distmark.db import get_database
from distmark.experiments.service import ExperimentShown
from distmark.experiments.statistics import Confidence
from distmark.journeys.steps.branch import METRICS
from distmark.partners.model import Permission
from distmark.settings import get_settings

SAID = {
    Confidence.clear: '"{arm}" leads clearly: {sure} sure.',
    Confidence.likely: '"{arm}" leads: {sure} sure.',
    Confidence.chance: '"{arm}" leads, but that may be chance: {sure} sure.',
    Confidence.tie: "The arms that lead are equal.",
    Confidence.nothing: "There is nothing to compare yet.",
}


def decide(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The journey's key.")],
    step: Annotated[str, typer.Argument(metavar="STEP", help="The id of the test's step.")],
    winner: Annotated[
        str, typer.Option("--winner", metavar="ARM", help="Make this arm the winner, for good; only show how the test stands without.")
    ] = "",
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", help="Which version; the one that contacts enter when left out.")
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Roll up what is new first, instead of waiting for the results flow.")] = False,
    as_: As = "",
    brand: BrandKey = "",
    json_: Json = False,
) -> None:
    """Show what came of each arm of a test and how sure that is; with --winner, send everybody who comes or waits down that arm."""
    from distmark.experiments.service import decide_experiment, experiment_of
    from distmark.metrics.service import roll_up

    db, now = get_database(), get_settings().clock().now()
    if refresh:
        roll_up(db, now)
    with db.writing() as session:
        permission = Permission.register_journeys if winner else Permission.see_results
        viewer = viewer_for(session, permission, email=as_, brand_id=brand_of_journey(session, key, brand))
        if winner:
            decide_experiment(session, viewer, key, version, step, winner, now)
        split = experiment_of(session, viewer, key, version, step)
    print_json(_as_json(split)) if json_ else _show(split)


def _show(split: ExperimentShown) -> None:
    measured = METRICS[split.test.metric]["en"]
    rows = [
        (
            arm.arm,
            f"{arm.contacts:,}",
            f"{arm.hits:,}",
            f"{arm.per_contact(True):,.2f}" if split.by_money else f"{arm.per_contact(False):.1%}",
        )
        for arm in split.arms
    ]
    headings = ("Arm", "Entered", "Who paid" if split.by_money else "Who did", f"{measured.capitalize()} per contact")
    out.print(table(headings, rows, title=f"Test {split.step.id}", numbers=True))
    sure = "" if split.judgement.sure is None else f"{split.judgement.sure:.1%}"
    out.print(SAID[split.judgement.confidence].format(arm=split.judgement.arm, sure=sure))
    out.print(_decision(split))


def _decision(split: ExperimentShown) -> str:
    waiting = f"{split.waiting:,} {'waits' if split.waiting == 1 else 'wait'} for the winner"
    if split.winner is not None and split.decided_at is not None:
        return (
            f'"{split.winner}" won on {split.decided_at:%Y-%m-%d %H:%M} UTC, {"by the rule" if split.decided_by_id is None else "by hand"}.'
        )
    if split.due_at is None:
        return f"Nobody has entered an arm yet; {waiting}."
    who = "The rule decides" if split.test.winner == "auto" else "The results are complete; a person decides"
    return f"{who} on {split.due_at:%Y-%m-%d %H:%M} UTC; {waiting}."


def _as_json(split: ExperimentShown) -> dict[str, object]:
    return {
        "step": split.step.id,
        "metric": split.test.metric,
        "arms": [{"arm": arm.arm, "contacts": arm.contacts, "hits": arm.hits, "money": arm.money} for arm in split.arms],
        "leads": split.judgement.arm,
        "sureness": split.judgement.confidence.value,
        "sure": split.judgement.sure,
        "waiting": split.waiting,
        "began_at": split.began_at,
        "due_at": split.due_at,
        "winner": split.winner,
        "decided_at": split.decided_at,
        "by": None if split.winner is None else "rule" if split.decided_by_id is None else "hand",
    }
