"""Mail: MIME messages handed to a mail server over SMTP."""

import asyncio
from typing import TYPE_CHECKING

from distmark.channels.kind import Addressed, AddressForm, ChannelKind, Probe
from distmark.errors import SettingsError, TemporaryDeliveryError
from distmark.settings import Settings

if TYPE_CHECKING:
    from distmark.channels.email.smtp import SmtpChannel

PROBE_SECONDS = 10.0
REFUSED_LOGIN = frozenset({"454", "530", "534", "535", "538"})  # RFC 4954
NO_TLS = "no_tls"


def _make(settings: Settings) -> "SmtpChannel":
    from distmark.channels.email.smtp import SmtpChannel  # aiosmtplib is loaded where mail is sent

    return SmtpChannel(
        host=settings.smtp_host,
        port=settings.smtp_port,
        username=settings.smtp_username,
        password=settings.smtp_password.get_secret_value(),
        tls=settings.smtp_tls,
        connections=settings.smtp_connections,
        timeout_seconds=settings.smtp_timeout_seconds,
    )


def _probe(settings: Settings) -> Probe:
    """Sign in to the mail server as for a message, and ask for nothing (NOOP)."""
    subject, server = "Mail server", f"{settings.smtp_host}:{settings.smtp_port}"
    bounded = settings.model_copy(update={"smtp_timeout_seconds": min(settings.smtp_timeout_seconds, PROBE_SECONDS)})
    try:
        receipt = asyncio.run(_make(bounded).ping())
    except SettingsError as error:
        return Probe(subject, str(error), "Correct DISTMARK_SMTP_TLS.")
    except TemporaryDeliveryError as error:
        return Probe(subject, str(error), _what_to_do(error, settings))
    login = f"signed in as {settings.smtp_username}" if settings.smtp_username else "without a login"
    return Probe(subject, f"{server} answers NOOP with {receipt.code}, {login}")


def _what_to_do(error: TemporaryDeliveryError, settings: Settings) -> str:
    """Return the setting to look at, by the server's answer."""
    words = str(error).lower()
    if error.code in REFUSED_LOGIN or "smtp auth" in words:
        return "Correct DISTMARK_SMTP_USERNAME and DISTMARK_SMTP_PASSWORD: the server is there and refuses this login."
    if error.code == NO_TLS:
        return "Set DISTMARK_SMTP_TLS=starttls or on with a server that offers TLS; off sends the password in the clear."
    if any(word in words for word in ("ssl", "tls", "certificate")):
        chosen = f"Correct DISTMARK_SMTP_TLS, now {settings.smtp_tls} (port 465 wants on, 587 starttls)"
        return f"{chosen}, and see that the certificate is that of DISTMARK_SMTP_HOST."
    return (
        "Start the mail server or correct DISTMARK_SMTP_HOST and DISTMARK_SMTP_PORT, and DISTMARK_SMTP_TLS (port 465 wants on); mail waits "
        "meanwhile and nothing is lost."
    )


def _address(person: Addressed) -> str | None:
    return person.email


KIND = ChannelKind(
    key="email",
    labels={"ja": "メール", "en": "Mail"},
    subject="subject.txt",
    text="text.txt",
    html="mjml",
    address=_address,
    form=AddressForm.email,
    short_footer=False,
    rate_scopes=frozenset({"sending_domain", "destination_domain"}),
    lacks=lambda settings: {},
    make=_make,
    probe=_probe,
)
