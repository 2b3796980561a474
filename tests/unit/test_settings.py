"""Settings that an installation needs to be safe, and the words with which a bad one is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from distmark.settings import Settings


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


@pytest.mark.parametrize("secret", ["x", "secret", "s" * 31])
def test_short_secret_is_refused_without_being_told(secret: str):
    with pytest.raises(ValidationError, match="DISTMARK_SECRET_KEY has") as caught:
        settings(secret_key=secret)

    assert f"'{secret}'" not in str(caught.value)


def test_long_secret_and_none_are_taken():
    assert settings(secret_key="s" * 32).secret_key.get_secret_value() == "s" * 32
    assert settings().secret_key.get_secret_value() == ""


@pytest.mark.parametrize(
    ("given", "secure"),
    [
        ({}, False),
        ({"public_url": "http://mail.example"}, False),
        ({"public_url": "https://mail.example"}, True),
        ({"public_url": "https://mail.example", "secure_cookies": False}, False),
        ({"secure_cookies": True}, True),
    ],
)
def test_cookies_are_secure_where_the_public_address_is(given: dict[str, Any], secure: bool):
    assert settings(**given).secure_cookies is secure
