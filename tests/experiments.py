"""Journeys with an experiment, and what their contacts do."""

from collections.abc import Sequence

from sqlmodel import select

from distmark.campaigns.table import Campaign
from distmark.contacts.table import Contact
from distmark.engagement.service import click
from distmark.enrollments.table import Enrollment
from distmark.journeys.steps.branch import draw
from tests.driver import PHONE, Stage

STEPS = """
  - id: subject
    branch: {test: {TEST}}
    arms:
      - {name: plain, share: 50%, steps: [{id: in-plain, send: email, message: one}]}
      - {name: warm, share: 50%, steps: [{id: in-warm, send: email, message: two}]}
  - {id: rest, wait: {for: 40 days}}
"""


def experiment_steps(
    stage: Stage, test: str, head: str = "", *, steps: str = STEPS, plain: int = 3, warm: int = 3, held: int = 0
) -> tuple[Campaign, dict[str, list[Contact]]]:
    """A journey with this test that so many contacts entered just now, drawn for these arms; those of "held" wait for the winner."""
    campaign = stage.journey(steps.replace("TEST", test), head)
    arms = {name: [stage.contact() for _number in range(many)] for name, many in (("plain", plain), ("warm", warm), ("held", held))}
    everybody = [(name, contact) for name, contacts in arms.items() for contact in contacts]
    stage.enrol(campaign, *(contact for _name, contact in everybody))
    with stage.db.writing() as session:
        for name, contact in everybody:
            row = session.exec(select(Enrollment).where(Enrollment.contact_id == contact.id)).one()
            keys = (f"run-{contact.id}-{number}" for number in range(1000))
            row.run_key = next(key for key in keys if _drawn(f"{key}:{contact.id}", 0.5 if held else 0.0) == name)
    return campaign, arms


def _drawn(random_key: str, hold_out: float) -> str:
    if draw(random_key, "subject:hold_out") < hold_out:
        return "held"
    return "plain" if draw(random_key, "subject") < 0.5 else "warm"


def click_message(stage: Stage, contacts: Sequence[Contact], link: str = "link-1", agent: str = PHONE) -> None:
    for contact in contacts:
        with stage.db.writing() as session:
            click(session, stage.messages(contact)[-1].token, link, agent, stage.clock.now())
