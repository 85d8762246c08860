"""A client of the tested server's public HTTP interface, with tokens signed for each caller."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit, urlunsplit

import httpx2
import orjson

from app.domain.command import Role

TIMEOUT_SECONDS = 10.0

Sign = Callable[[Role, str], str]
"""Signs a token for (role, sub) that outlives the run."""


class Unreachable(Exception):
    """The server could not be reached, or the connection broke before it answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: Mapping[str, Any]
    seconds: float
    replayed: bool = False

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def code(self) -> str:
        """The error code of a refusal; its status if the body has none."""
        return str(self.body.get("code", self.status))


class Site:
    """One pool of connections to one server. Use as `async with`."""

    def __init__(self, url: str, sign: Sign, *, connections: int = 64) -> None:
        self.url = url.rstrip("/")
        self._sign = sign
        self._tokens: dict[tuple[Role, str], str] = {}
        self._client = httpx2.AsyncClient(
            base_url=self.url,
            timeout=TIMEOUT_SECONDS,
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    def token(self, role: Role, sub: str) -> str:
        if (role, sub) not in self._tokens:
            self._tokens[role, sub] = self._sign(role, sub)
        return self._tokens[role, sub]

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Answer:
        """Send a request and return the answer, refusals included. Raises Unreachable."""
        headers = {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        if body is not None:
            headers["Content-Type"] = "application/json"
        began = time.perf_counter()
        try:
            response = await self._client.request(
                method, path, headers=headers, content=None if body is None else orjson.dumps(body)
            )
        except (httpx2.RequestError, httpx2.InvalidURL) as problem:
            raise Unreachable(f"{type(problem).__name__}") from None
        seconds = time.perf_counter() - began
        try:
            answer = orjson.loads(response.content or b"{}")
        except orjson.JSONDecodeError:
            answer = {}
        return Answer(
            status=response.status_code,
            body=answer if isinstance(answer, dict) else {},
            seconds=seconds,
            replayed=response.headers.get("Idempotent-Replayed") == "true",
        )

    def live_url(self, performer_id: str, *, epoch: str | None = None, since: int | None = None) -> str:
        parts = urlsplit(self.url)
        query = f"epoch={quote(epoch, safe='')}&since={since}" if epoch is not None else ""
        scheme = "wss" if parts.scheme == "https" else "ws"
        path = f"{parts.path}{room_path(performer_id)}/live"
        return urlunsplit((scheme, parts.netloc, path, query, ""))


def room_path(performer_id: str) -> str:
    return f"/v1/performers/{quote(performer_id, safe='')}/queue"


def item_path(item_id: str) -> str:
    return f"/v1/queue/items/{quote(item_id, safe='')}"
