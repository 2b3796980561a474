"""The command line `distmark`: one group per subject, each in `distmark.commands`. Errors are translated here, once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from distmark.commands import (
    accounts,
    campaigns,
    contacts,
    control,
    decide,
    doctor,
    enroll,
    journeys,
    machine,
    move,
    rates,
    results,
    simulate,
    tokens,
    watch,
)
from distmark.console import guarded, use_running_machine
from distmark.demo import command as demo

app = typer.Typer(
    help="Customer journeys written once by a brand, sent by the people who know the customer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
journeys.app.command(epilog="Example: distmark journeys simulate journey_defs/gym-new-year --contacts 1000 --seed 7")(simulate.simulate)
journeys.app.command(epilog="Example: distmark journeys move retirement-onboarding --from 3 --to 4 --map rest=pause --dry-run")(move.move)
journeys.app.command(epilog="Example: distmark journeys decide gym-new-year subject --winner warm")(decide.decide)
app.add_typer(journeys.app, name="journeys")
app.add_typer(contacts.app, name="contacts")
app.add_typer(campaigns.app, name="campaigns")
app.add_typer(accounts.partners, name="partners")
app.add_typer(accounts.people, name="people")
app.add_typer(tokens.app, name="token")
app.add_typer(rates.app, name="rates")
for command, function, example in (
    *machine.COMMANDS,
    *demo.COMMANDS,
    *enroll.COMMANDS,
    *results.COMMANDS,
    *doctor.COMMANDS,
    *control.COMMANDS,
    *watch.COMMANDS,
):
    app.command(command, epilog=f"Example: {example}")(function)


@app.callback()
def settings(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", envvar="DISTMARK_DATA_DIR", help="Where everything is kept.")] = None,
) -> None:
    """Take settings from the environment, then from a machine that runs on the same data folder, then from .env."""
    use_running_machine(data_dir or Path(".distmark"))
    if data_dir is not None:
        import os

        os.environ["DISTMARK_DATA_DIR"] = str(data_dir)


def main() -> None:
    """Run the command line; exits with 0, 1 (what went wrong is on stderr) or 2 (it was called wrongly)."""
    sys.exit(guarded(app))


if __name__ == "__main__":
    main()
