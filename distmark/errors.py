"""One error tree. Translated once, at the edges: to HTTP status in `web`, to message and exit code in `cli`."""


class DistmarkError(Exception):
    """Something a person can understand and mend; the text says what is wrong, where, and what to do."""


class NotFound(DistmarkError):
    """There is no such thing, or this person may not know that there is."""


class NotAllowed(DistmarkError):
    """The person may not do this."""


class Refused(DistmarkError):
    """The thing exists and the person may act, but not now or not like this (wrong status, broken rule)."""


class SelectionChanged(Refused):
    """The people or numbers that a person agreed to are not those of now. Nothing was changed; the person looks again."""


class InvalidInput(DistmarkError):
    """An input that cannot be read; the text names the place."""


class SettingsError(DistmarkError):
    """The installation is configured in a way that cannot work."""


class DeliveryError(DistmarkError):
    """A hand-over to a channel did not succeed. `code` is the peer's own (SMTP reply, HTTP status), when it gave one."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class TemporaryDeliveryError(DeliveryError):
    """Nothing was accepted and trying again later may succeed."""


class PermanentDeliveryError(DeliveryError):
    """Nothing was accepted and trying again will not help."""


class UncertainDelivery(DeliveryError):
    """The peer may or may not have accepted: the connection ended between the end of the data and the reply."""
