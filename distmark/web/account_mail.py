"""Mail about an account: an invitation, or a link for a forgotten password. Sent at once, since its reader waits for it."""

import asyncio
import logging
import secrets

from distmark.channels.base import OutgoingMessage
from distmark.channels.email.mime import make_message_id
from distmark.channels.registry import make_channels
from distmark.compliance.accounts import Invitation
from distmark.errors import DeliveryError
from distmark.partners.passwords import link_of
from distmark.web.i18n import N_, Translator
from distmark.web.visit import Guest

log = logging.getLogger("distmark.web")

INVITED = (
    N_("%(brand)s invites you"),
    N_(
        "%(name)s,\n\n%(brand)s has made an account for you. With this link you choose a password and are signed in; it works once, "
        "for seven days:\n\n%(link)s\n\nIf you did not expect this, leave the link alone: without it nobody can sign in as you."
    ),
)
FORGOTTEN = (
    N_("A new password for %(brand)s"),
    N_(
        "%(name)s,\n\nwith this link you choose a new password; it works once, for an hour:\n\n%(link)s\n\n"
        "If you did not ask for it, you need do nothing: your password stays as it is."
    ),
)


def send_account_mail(guest: Guest, invitation: Invitation, words: tuple[str, str]) -> bool:
    """Send the link in the person's language; return whether the mail server took it."""
    user, brand, settings = invitation.user, invitation.brand, guest.site.settings
    translator = Translator(user.language, guest.zone)
    brand_name = (brand.translations.get(user.language) or {}).get("name") or brand.name
    values = {"brand": brand_name, "name": user.name, "link": link_of(settings.base_url, invitation.token)}
    message = OutgoingMessage(
        message_id=make_message_id(secrets.token_hex(16), settings.mail_domain),
        from_name=brand_name,
        from_address=brand.mail_from or settings.mail_from,
        to_name=user.name,
        to_address=user.email,
        subject=translator.gettext(words[0], **values),
        text=translator.gettext(words[1], **values) + "\n",
        sent_at=guest.now,
        language=user.language,
        marketing=False,
    )
    try:
        asyncio.run(_deliver(guest, message))
    except DeliveryError:
        log.warning("Mail about account %s could not be sent.", user.id)
        return False
    return True


async def _deliver(guest: Guest, message: OutgoingMessage) -> None:
    channel = make_channels(guest.site.settings)["email"]
    try:
        await asyncio.wait_for(channel.deliver(message), timeout=20)
    except TimeoutError as error:
        raise DeliveryError("The mail server did not answer in time.") from error
    finally:
        await channel.close()
