"""`distmark demo`: sample brands, partners and contacts on this machine, with time that runs faster."""

from typing import Annotated

import typer

DEMO_SECONDS_PER_DAY = 60.0


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Without a person: enrol, wait until all have ended, print the results, stop.")
    ] = False,
    day: Annotated[
        float | None, typer.Option("--day", metavar="SECONDS", help="How long a day of the journeys lasts; 60 when left out.")
    ] = None,
    audience: Annotated[bool, typer.Option("--audience", help="Enrol some contacts and simulate those who read the mail.")] = False,
) -> None:
    """Run everything with sample brands, partners, contacts, a mailbox that catches all mail, and time that runs faster.

    With --once nobody is needed: a simulated audience reads the mail; the last line is one JSON object, and the exit code is 0 only if
    nothing was lost or doubled.
    """
    from distmark.demo.run import run_demo, run_once  # the pages are loaded only when they are served

    code = run_once(day) if once else run_demo(day or DEMO_SECONDS_PER_DAY, audience=audience)
    if code:
        raise typer.Exit(code)


COMMANDS = (("demo", demo, "distmark demo --once"),)
