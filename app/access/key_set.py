"""The host site's public keys (a JWKS): fetched at start, refreshed in the background, and again for an unknown key.

Owns the requests to the host site and their bounds. A host site that is slow, broken or away delays only callers whose
key is unknown, all of them by one fetch of at most `fetch_seconds`; known keys are used for `KEYS_USABLE`.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import httpx2
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.domain.errors import Unauthorized, Unavailable

FETCH_SECONDS = 3.0
"""How long one fetch may take in all, however slowly the answer drips in."""
LARGEST_KEY_SET = 256 * 1024
"""Bytes; several hundred keys."""
LARGEST_RSA_BITS = 8192
"""Verifying takes time that grows with the square of this."""
REFRESH_CHECK_SECONDS = 5.0
"""Seconds between two calls of `refresh`."""
FETCHES_APART = timedelta(seconds=10)
"""The shortest time between the beginnings of two fetches."""
KEYS_FRESH = timedelta(minutes=5)
"""The age at which keys are fetched again."""
KEYS_USABLE = timedelta(hours=1)
"""How long known keys outlive a host site that cannot be reached."""

log = logging.getLogger(__name__)


class KeySetError(Exception):
    """The host site's answer is no key set; `str()` says why and repeats nothing of it."""


class KeySet:
    """The usable keys of one JWKS, by id. Use as `async with`, and call `refresh` regularly.

    All callers who wait share one fetch, and the next begins FETCHES_APART later at the earliest, even after a failure:
    neither made-up key ids nor a host in trouble lead to a flood of requests.
    """

    def __init__(self, url: str, clock: Callable[[], datetime], *, fetch_seconds: float = FETCH_SECONDS) -> None:
        self._url = url
        self._clock = clock
        self._fetch_seconds = fetch_seconds
        self._client = httpx2.AsyncClient(
            # Uncompressed: a small compressed answer could become a huge one.
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "performance-queue"},
            # A redirect could lead to a host, or to plain http, that nobody has configured.
            follow_redirects=False,
            timeout=fetch_seconds,
        )
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._is_failing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        await self._client.aclose()

    @property
    def is_current(self) -> bool:
        """Whether the keys were fetched lately; False before the first fetch and while the host site is in trouble."""
        return self._within(2 * KEYS_FRESH, self._fetched_at)

    async def refresh(self) -> None:
        """Fetch the keys if those at hand are not fresh; returns when that is done."""
        if not self._within(KEYS_FRESH, self._fetched_at):
            await self._fetch_unless_just_tried()

    async def find(self, kid: str) -> jwt.PyJWK:
        """The key of this id. Raises Unauthorized if there is none, Unavailable if the keys cannot be fetched now."""
        if kid not in self._keys or not self._within(KEYS_USABLE, self._fetched_at):
            await self._fetch_unless_just_tried()
        is_known = self._within(KEYS_USABLE, self._fetched_at)
        if is_known and kid in self._keys:
            return self._keys[kid]
        if is_known and self._tried_at == self._fetched_at:
            raise Unauthorized("The token is signed with an unknown key.")
        raise Unavailable(
            "The keys that tokens are checked with cannot be fetched at the moment.",
            retry_after_seconds=int(FETCHES_APART.total_seconds()),
        )

    def _within(self, period: timedelta, since: datetime | None) -> bool:
        # A negative age means that the clock was set back: then it is not known how old the keys are.
        return since is not None and timedelta(0) <= self._clock() - since < period

    async def _fetch_unless_just_tried(self) -> None:
        if self._fetching is None or self._fetching.done():
            if self._within(FETCHES_APART, self._tried_at):
                return
            self._fetching = asyncio.create_task(self._fetch(), name="fetch-jwks")
        # A caller that is cancelled must not cancel the fetch for the others.
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        self._tried_at = tried_at = self._clock()
        try:
            keys = _usable_keys(await self._answer())
        except (KeySetError, TimeoutError, OSError, httpx2.HTTPError, httpx2.InvalidURL) as problem:
            if not self._is_failing:
                reason = str(problem) if isinstance(problem, KeySetError) else type(problem).__name__
                log.warning("the keys that tokens are checked with were not fetched", extra={"problem": reason})
            self._is_failing = True
            return
        if self._is_failing:
            log.info("the keys that tokens are checked with are fetched again")
        self._is_failing = False
        self._keys, self._fetched_at = keys, tried_at

    async def _answer(self) -> bytes:
        body = bytearray()
        # httpx2 limits each read; an answer that drips in byte by byte is stopped only by a total.
        async with asyncio.timeout(self._fetch_seconds), self._client.stream("GET", self._url) as response:
            if response.status_code != 200:
                raise KeySetError(f"the host site answered {response.status_code}")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > LARGEST_KEY_SET:
                    raise KeySetError("the answer is too large")
        return bytes(body)


def _usable_keys(body: bytes) -> dict[str, jwt.PyJWK]:
    """The keys of a JWKS that tokens may be verified with, by their id; it may hold others. Raises KeySetError."""
    try:
        listed = orjson.loads(body)["keys"]
        keys = [key for key in map(_key, listed) if key is not None]
    except (ValueError, KeyError, TypeError):
        raise KeySetError("the answer is no JWKS") from None
    if not keys:
        raise KeySetError("the answer has no usable key")
    return {key.key_id: key for key in keys if key.key_id is not None}


def _key(listed: Any) -> jwt.PyJWK | None:
    """A JWKS entry as a key; None if no token may be verified with it: other kind or use, no id, or too large."""
    if not isinstance(listed, dict) or not isinstance(listed.get("kid"), str) or listed.get("use") not in (None, "sig"):
        return None
    try:
        key = jwt.PyJWK(listed)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    match key.key:
        case RSAPublicKey() as public if public.key_size <= LARGEST_RSA_BITS:
            return key
        case EllipticCurvePublicKey() as public if isinstance(public.curve, SECP256R1):
            return key
    return None
