"""The fixture of tests that run commands."""

from tests.command_line import run  # noqa: F401
