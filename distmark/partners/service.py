"""Sign-in, users, brands and partners. Permissions of roles are in `model`, the rows that a viewer sees in `scope`."""

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from typing import Any, TypeVar

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pwdlib import PasswordHash
from sqlalchemy import delete, func, update
from sqlmodel import Session, col, select

from distmark.errors import InvalidInput, NotAllowed, NotFound
from distmark.partners.model import Permission, Role, Viewer
from distmark.partners.scope import visible
from distmark.partners.table import ApiToken, Brand, Partner, SignIn, User
from distmark.sql import id_of, row_count

SIGNED_IN_FOR = timedelta(days=30)
TOKEN_BYTES = 32  # 256 bits
SHORTEST_PASSWORD = 10  # of a person's account
LONGEST_PASSWORD = 1024  # longer ones would only serve to keep the server busy with hashing
LANGUAGES = ("ja", "en")
SIGN_IN_REFUSED = "The mail address or the password is wrong; check both and try again."
FAILURES = parse("1000 per 15 minutes")  # how far failed sign-ins are counted
FREE_OF_ACCOUNT, FREE_OF_ADDRESS = 5, 20  # failures that cost no wait
MANY_FAILURES = 200
USUAL_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 2.0, 10.0
MOST_WAITING = 4  # tries from one network address at a time

_Row = TypeVar("_Row", Brand, Partner, User)
_passwords = PasswordHash.recommended()


def hash_password(password: str) -> str:
    """Return the argon2id hash of the password, with a salt of its own; InvalidInput for a bad length."""
    if not 0 < len(password) <= LONGEST_PASSWORD:
        raise InvalidInput(f"The password has {len(password)} characters; choose one of 1 to {LONGEST_PASSWORD}.")
    return _passwords.hash(password)


def verify_password(password: str, password_hash: str) -> bool:
    """Return whether this is the password of the hash."""
    return len(password) <= LONGEST_PASSWORD and _passwords.verify(password, password_hash)


@cache
def _hash_of_nobody() -> str:
    return hash_password(secrets.token_urlsafe(TOKEN_BYTES))


def user_with_email(session: Session, email: str) -> User | None:
    """Return the user with this mail address, in any letter case."""
    return session.exec(select(User).where(User.email == _email_key(email))).first()


def sign_in(session: Session, email: str, password: str, now: datetime) -> tuple[str, Viewer]:
    """Open a session of 30 days and return its cookie token (256 random bits, kept only as a hash) and its viewer.

    NotAllowed when address or password is wrong or the person is no longer active; neither text nor response time shows the reason.
    """
    nobody = _hash_of_nobody()
    user = session.exec(select(User).where(User.email == _email_key(email))).first()
    tried = password if len(password) <= LONGEST_PASSWORD else ""
    right, better_hash = _passwords.verify_and_update(tried, user.password_hash if user else nobody)
    if user is None or user.id is None or not right or not _is_active(session, user):
        raise NotAllowed(SIGN_IN_REFUSED)
    if better_hash:
        user.password_hash = better_hash
    return open_session(session, user, now), _viewer(user)


def open_session(session: Session, user: User, now: datetime) -> str:
    """Open a session of this person and return its cookie token; their expired sessions are deleted."""
    session.execute(delete(SignIn).where(col(SignIn.user_id) == user.id, col(SignIn.expires_at) <= now))
    token = secrets.token_urlsafe(TOKEN_BYTES)
    session.add(SignIn(user_id=id_of(user), token_hash=hash_token(token), created_at=now, expires_at=now + SIGNED_IN_FOR))
    session.flush()
    return token


def sessions_of(session: Session, viewer: Viewer, now: datetime) -> list[SignIn]:
    """Return the viewer's own open sessions, newest first."""
    own = select(SignIn).where(SignIn.user_id == viewer.user_id, col(SignIn.expires_at) > now)
    return list(session.exec(own.order_by(col(SignIn.created_at).desc(), col(SignIn.id).desc())))


def end_other_sessions(session: Session, viewer: Viewer, token: str) -> int:
    """End the viewer's sessions but the one of this cookie token, and return how many."""
    others = delete(SignIn).where(col(SignIn.user_id) == viewer.user_id, col(SignIn.token_hash) != hash_token(token))
    return row_count(session.execute(others))


def _email_key(email: str) -> str:
    return email.strip().lower()


def viewer_of(session: Session, token: str, now: datetime) -> Viewer | None:
    """Return the viewer of the cookie's token; None when it is unknown or expired, or its person is no longer active."""
    statement = select(User).join(SignIn, col(SignIn.user_id) == col(User.id))
    user = session.exec(statement.where(SignIn.token_hash == hash_token(token), col(SignIn.expires_at) > now)).first()
    return _viewer(user) if user and _is_active(session, user) else None


def sign_out(session: Session, token: str) -> None:
    """End the token's session; an unknown token changes nothing."""
    session.execute(delete(SignIn).where(col(SignIn.token_hash) == hash_token(token)))


def hash_token(token: str) -> str:
    """Return the form in which a random token is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def _is_active(session: Session, user: User) -> bool:
    if not user.active:
        return False
    if user.partner_id is None:
        return user.role is not Role.partner  # nobody can say whose rows a partner's person without a partner may see
    partner = session.get(Partner, user.partner_id)
    return partner is not None and partner.active


def active_viewer(session: Session, user: User) -> Viewer | None:
    """Return the viewer of this user; None when the user or its partner is no longer active, or a partner's person has no partner."""
    return _viewer(user) if _is_active(session, user) else None


def _viewer(user: User) -> Viewer:
    if user.id is None:
        raise ValueError(f"User {user.name} has not been stored yet.")
    return Viewer(user.id, user.role, user.brand_id, user.partner_id, user.name, user.language)


class SignInPace:
    """The pace of sign-ins: each failure makes the next try for the account, and from the network address, wait longer.

    Nobody is locked out: the right password works after the wait, however many wrong ones somebody else tries. Kept in this process's
    memory.
    """

    def __init__(self) -> None:
        self._window = MovingWindowRateLimiter(MemoryStorage())
        self._waiting: Counter[str] = Counter()

    def wait_seconds(self, address: str, email: str) -> float:
        """Return how long a try is to wait, by the failures of the last quarter of an hour: 0 for the first few."""
        return max(_wait_after(self._failures(key), free) for key, free in self._keys(address, email))

    def failures_of(self, email: str) -> int:
        """Return the failures of the account in the last quarter of an hour."""
        return self._failures(_pace_key("email", email))

    def note_failure(self, address: str, email: str) -> None:
        """Count a failed try for the account and from the address."""
        for key, _free in self._keys(address, email):
            self._window.hit(FAILURES, key)

    def forget(self, email: str) -> None:
        """Clear the failures of the account, since its owner signed in."""
        self._window.clear(FAILURES, _pace_key("email", email))

    @contextmanager
    def one_of_few(self, address: str) -> Iterator[bool]:
        """Tell whether a try from the address may wait now: of one address, only a few do at a time."""
        self._waiting[address] += 1
        try:
            yield self._waiting[address] <= MOST_WAITING
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]

    def _failures(self, key: str) -> int:
        return FAILURES.amount - self._window.get_window_stats(FAILURES, key).remaining

    def _keys(self, address: str, email: str) -> tuple[tuple[str, int], ...]:
        return (_pace_key("email", email), FREE_OF_ACCOUNT), (_pace_key("address", address), FREE_OF_ADDRESS)


def _wait_after(failures: int, free: int) -> float:
    """Return the seconds to wait: none up to `free` failures, then a quarter of a second, doubled with each, up to two; ten after many."""
    if failures < free:
        return 0.0
    if failures >= MANY_FAILURES:
        return LONGEST_WAIT_SECONDS
    return min(0.25 * 2.0 ** min(failures - free, 10), USUAL_WAIT_SECONDS)


def _pace_key(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}:{_email_key(value)}".encode()).hexdigest()


def require(viewer: Viewer, permission: Permission) -> None:
    """Require that the viewer's role has the permission; NotAllowed otherwise."""
    if not viewer.may(permission):
        raise NotAllowed(f"A {viewer.role} may not {permission.replace('_', ' ')}; ask someone of your brand who may.")


def set_language(session: Session, viewer: Viewer, lang: str) -> None:
    """Set the language of this person's pages; InvalidInput for an unknown language."""
    if lang not in LANGUAGES:
        raise InvalidInput(f"The language {lang!r} is not one of {', '.join(LANGUAGES)}.")
    session.get_one(User, viewer.user_id).language = lang


def brand_of(session: Session, viewer: Viewer) -> Brand:
    """Return the viewer's brand."""
    return session.exec(visible(select(Brand), Brand, viewer)).one()


def get_partner(session: Session, viewer: Viewer, partner_id: int) -> Partner:
    """Return the partner; NotFound outside the viewer's sight."""
    partner = session.exec(visible(select(Partner), Partner, viewer).where(Partner.id == partner_id)).first()
    if partner is None:
        raise NotFound(f"There is no partner {partner_id} among yours.")
    return partner


def partners_of(session: Session, viewer: Viewer) -> list[Partner]:
    """Return the partners within the viewer's sight, by name: all of the brand for its people, their own partner for a partner's."""
    return list(session.exec(visible(select(Partner), Partner, viewer).order_by(Partner.name, col(Partner.id))))


def names_of_users(session: Session, viewer: Viewer, ids: Sequence[int | None]) -> dict[int, str]:
    """Return the names of these users, by id: people of the brand, and of the viewer's own partner; an id of any other is left out."""
    known_ids = [user_id for user_id in ids if user_id is not None]
    rows = session.exec(visible(select(User), User, viewer).where(col(User.id).in_(known_ids)))
    return {id_of(row): row.name for row in rows}


def ensure_brand(session: Session, *, key: str, **fields: Any) -> Brand:
    """Return the brand with this key, created or updated with `fields`."""
    brand = session.exec(select(Brand).where(Brand.key == key)).first()
    return _ensured(session, brand or Brand(key=key, **fields), fields)


def ensure_partner(session: Session, *, brand_id: int, key: str, **fields: Any) -> Partner:
    """Return the brand's partner with this key, created or updated with `fields`."""
    partner = session.exec(select(Partner).where(Partner.brand_id == brand_id, Partner.key == key)).first()
    return _ensured(session, partner or Partner(brand_id=brand_id, key=key, **fields), fields)


def ensure_user(session: Session, *, email: str, password: str, now: datetime, **fields: Any) -> User:
    """Return the user with this mail address, created or updated with `fields` and `password`.

    A new password ends the user's sessions and tokens: whoever knew the former one is out. InvalidInput for one that is easily guessed.
    """
    email = _email_key(email)
    user = session.exec(select(User).where(User.email == email)).first()
    if user is not None and _passwords.verify(password, user.password_hash):
        return _ensured(session, user, fields)
    if len(password) < SHORTEST_PASSWORD:
        raise InvalidInput(f"The password has {len(password)} characters; choose one of {SHORTEST_PASSWORD} to {LONGEST_PASSWORD}.")
    if user is None:
        user = User(email=email, password_hash=hash_password(password), created_at=now, password_set_at=now, **fields)
    else:
        user.password_hash = hash_password(password)
        end_access(session, id_of(user), now)
    return _ensured(session, user, fields)


def end_access(session: Session, user_id: int, now: datetime, keep_session: str = "") -> None:
    """End all sessions of the user but the one of cookie token `keep_session`, and revoke all its API tokens."""
    session.execute(delete(SignIn).where(col(SignIn.user_id) == user_id, col(SignIn.token_hash) != hash_token(keep_session)))
    in_use = update(ApiToken).where(col(ApiToken.user_id) == user_id, col(ApiToken.revoked_at).is_(None))
    session.execute(in_use.values(revoked_at=now))


def _ensured(session: Session, row: _Row, fields: dict[str, Any]) -> _Row:
    for name, value in fields.items():
        setattr(row, name, value)
    session.add(row)
    session.flush()
    return row


def apply_zones(session: Session) -> list[int]:
    """Note the present zones as applied, and return the ids of the partners whose contacts' times are to be computed again by them."""
    zone = func.coalesce(func.nullif(col(Partner.zone), ""), select(Brand.zone).where(Brand.id == Partner.brand_id).scalar_subquery())
    changed = update(Partner).where(col(Partner.zone_applied).is_distinct_from(zone)).values(zone_applied=zone).returning(col(Partner.id))
    return list(session.execute(changed, execution_options={"synchronize_session": False}).scalars())
