"""Mail: MIME messages handed to a mail server over SMTP."""

import socket

from distmark.channels.base import Channel
from distmark.channels.kind import Addressed, AddressForm, ChannelKind, Probe
from distmark.settings import Settings


def _make(settings: Settings) -> Channel:
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
    address = f"{settings.smtp_host}:{settings.smtp_port}"
    mend = "Start the mail server or correct DISTMARK_SMTP_HOST and DISTMARK_SMTP_PORT; mail waits meanwhile and nothing is lost."
    try:
        with socket.create_connection((settings.smtp_host, settings.smtp_port), timeout=5) as connection:
            greeting = b"" if settings.smtp_tls == "on" else connection.recv(512)
    except OSError as error:
        return Probe("Mail server", f"{address} does not answer ({error.strerror or error})", mend)
    if settings.smtp_tls != "on" and not greeting.startswith(b"220"):
        return Probe("Mail server", f"{address} does not greet as a mail server does", mend)
    return Probe("Mail server", f"{address} greets")


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
