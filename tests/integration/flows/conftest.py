"""The fixture of tests beside a Prefect server."""

from tests.shop import shop  # noqa: F401
