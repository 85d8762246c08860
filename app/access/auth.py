"""Authentication: tokens (JWT) verified into principals, and signed for the command line, the demo and tests.

Owns keys, algorithms, claims and their times. It never decides what a principal may do (`rights`), and never logs,
repeats or keeps a token.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import jwt

from app.access.key_set import KeySet
from app.domain.command import Actor, Role
from app.domain.errors import TokenExpired, Unauthorized

TOKEN_ROLES = frozenset(Role) - {Role.SYSTEM}
SHARED_KEY_ALGORITHMS = ("HS256",)
PUBLIC_KEY_ALGORITHMS = ("RS256", "ES256")
"""Never both kinds at once: a public key must not be usable as a shared one."""

MAXIMUM_TOKEN_LENGTH = 8192
LEEWAY = timedelta(seconds=5)
"""How far the issuer's clock may differ from ours."""
VERIFIED_FOR = timedelta(minutes=5)
"""How long a verified token is accepted without being verified again: a withdrawn key takes effect within this time."""
VERIFIED_LIMIT = 20_000
"""How many verified tokens are remembered; about 400 bytes each."""

NOT_VALID = "The token is not valid."
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller that a token names. `sub` is a feature's sourceFeature, a viewer's userId, a performer's performerId,
    or a moderator's or administrator's own id."""

    role: Role
    sub: str
    performer_id: str | None
    """The one room that a performer or moderator works in; None for every other role."""
    expires_at: datetime

    @property
    def actor(self) -> Actor:
        return Actor(role=self.role, id=self.sub)


class _WrongKey(Unauthorized):
    """The token is signed with another key."""


class Authenticator:
    """Verifies tokens by shared keys, or, where there is a key set, by the host site's public keys alone."""

    def __init__(
        self,
        *,
        secret: str,
        clock: Callable[[], datetime],
        previous_secret: str | None = None,
        key_set: KeySet | None = None,
        issuer: str | None = None,
        audience: str | None = None,
        max_token_seconds: int = 0,
        remembered_tokens: int = VERIFIED_LIMIT,
    ) -> None:
        """`previous_secret`: the key that `secret` has replaced, still accepted. `max_token_seconds`: the longest life
        of a token; 0: any. `remembered_tokens`: verified tokens kept in memory."""
        self._secrets = (secret,) if previous_secret is None else (secret, previous_secret)
        self._clock = clock
        self._key_set = key_set
        self._algorithms = SHARED_KEY_ALGORITHMS if key_set is None else PUBLIC_KEY_ALGORITHMS
        self._issuer = issuer
        self._max_token_seconds = max_token_seconds
        self._audience = audience
        self._remembered_tokens = remembered_tokens
        self._verified: OrderedDict[bytes, tuple[Principal, datetime]] = OrderedDict()
        """By the token's SHA-256: its principal, and until when it is accepted. The oldest entry is dropped first.
        Saves a third of an intake's CPU (`bench --without tokens`)."""

    async def principal(self, token: str) -> Principal:
        """The principal of a token. Raises Unauthorized; TokenExpired for a valid token after its time; Unavailable if
        the host site's keys are needed and cannot be fetched."""
        if not token:
            raise Unauthorized("A bearer token is needed.")
        if len(token) > MAXIMUM_TOKEN_LENGTH or not token.isascii():
            raise Unauthorized(NOT_VALID)
        now = self._clock()
        digest = sha256(token.encode()).digest()
        principal, until = self._verified.get(digest, (None, now))
        if principal is None or until <= now:
            claims = await self._claims(token)
            principal = _principal(claims, now)
            _check_life(claims, now, self._max_token_seconds)
            self._remember(digest, principal, now)
        return principal

    async def _claims(self, token: str) -> Mapping[str, Any]:
        if self._key_set is not None:
            return self._decode(token, await self._key_set.find(self._key_id(token)))
        for secret in self._secrets[:-1]:
            try:
                return self._decode(token, secret)
            except _WrongKey:
                continue
        return self._decode(token, self._secrets[-1])

    def _key_id(self, token: str) -> str:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise Unauthorized(NOT_VALID) from None
        if header.get("alg") not in self._algorithms:
            raise Unauthorized(NOT_VALID)
        if not header.get("kid"):
            raise Unauthorized("The token does not name its key (kid).")
        return str(header["kid"])

    def _decode(self, token: str, key: jwt.PyJWK | str) -> Mapping[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                options={
                    "require": ["exp", "sub", "role"],
                    "enforce_minimum_key_length": True,
                    # The times are checked against our own clock, and `sub` more strictly, in `_principal`.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_sub": False,
                },
            )
        except jwt.InvalidSignatureError:
            raise _WrongKey(NOT_VALID) from None
        except jwt.MissingRequiredClaimError as problem:
            raise Unauthorized(f'The token lacks the claim "{problem.claim}".') from None
        except jwt.InvalidIssuerError:
            raise Unauthorized("The token comes from another issuer.") from None
        except jwt.InvalidAudienceError:
            raise Unauthorized("The token is meant for another audience.") from None
        except jwt.PyJWTError:
            raise Unauthorized(NOT_VALID) from None

    def _remember(self, digest: bytes, principal: Principal, now: datetime) -> None:
        if len(self._verified) >= self._remembered_tokens:
            self._verified.popitem(last=False)
        self._verified[digest] = principal, min(principal.expires_at, now + VERIFIED_FOR)


def _principal(claims: Mapping[str, Any], now: datetime) -> Principal:
    expires_at = _time(claims, "exp")
    if expires_at <= now - LEEWAY:
        raise TokenExpired("The token has expired.")
    if "nbf" in claims and _time(claims, "nbf") > now + LEEWAY:
        raise Unauthorized("The token is not valid yet.")
    role, sub = claims["role"], claims["sub"]
    if not isinstance(role, str) or role not in TOKEN_ROLES:
        raise Unauthorized("The token's role is not one that may ask for anything here.")
    if role == Role.FEATURE:
        # A sourceFeature may be any text of this length.
        if not isinstance(sub, str) or not 1 <= len(sub) <= 64:
            raise Unauthorized("The token's sub is not a sourceFeature of 1 to 64 characters.")
    elif not _is_id(sub):
        raise Unauthorized("The token's sub is not 1 to 64 letters, digits or any of _ . : -")
    performer_id = {Role.PERFORMER: sub, Role.MODERATOR: claims.get("performerId")}.get(Role(role))
    if role == Role.MODERATOR and not _is_id(performer_id):
        raise Unauthorized("A moderator's token needs the performerId of a room.")
    return Principal(role=Role(role), sub=sub, performer_id=performer_id, expires_at=expires_at)


def _check_life(claims: Mapping[str, Any], now: datetime, max_seconds: int) -> None:
    """Raises Unauthorized if more than `max_seconds` lie between `iat` and `exp`; 0: no limit.

    A missing or future `iat` counts as now.
    """
    if not max_seconds:
        return
    issued_at = min(now, _time(claims, "iat")) if "iat" in claims else now
    if _time(claims, "exp") - issued_at > timedelta(seconds=max_seconds):
        raise Unauthorized(f"The token's life is longer than {max_seconds} seconds.")


def _time(claims: Mapping[str, Any], name: str) -> datetime:
    value = claims[name]
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):  # NaN, infinite, or beyond the calendar
        pass
    raise Unauthorized(f'The token\'s claim "{name}" is not a time in seconds.')


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def sign(
    secret: str,
    role: Role,
    sub: str,
    *,
    now: datetime,
    performer_id: str | None = None,
    ttl_seconds: float = 3600,
    issuer: str | None = None,
    audience: str | None = None,
    max_token_seconds: int = 0,
) -> str:
    """A token that an Authenticator with the same secret, issuer, audience and longest life accepts.

    Raises ValueError, with the reason as a sentence, if the Authenticator would refuse the token.
    """
    claims = {"sub": sub, "role": str(role), "iat": int(now.timestamp()), "exp": int(now.timestamp() + ttl_seconds)}
    optional = {"performerId": performer_id, "iss": issuer, "aud": audience}
    claims |= {name: value for name, value in optional.items() if value is not None}
    try:
        _principal(claims, now)
        _check_life(claims, now, max_token_seconds)
    except Unauthorized as refusal:
        raise ValueError(refusal.detail) from None
    return jwt.encode(claims, secret, algorithm=SHARED_KEY_ALGORITHMS[0])
