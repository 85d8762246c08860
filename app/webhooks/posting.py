"""Sends POST requests to addresses that others have given. Keeps no state but its connections."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpcore2

from app.webhooks.targets import GuardedBackend, Targets

ATTEMPT_SECONDS = 10.0
"""For a whole attempt: resolving, connecting, sending and the head of the answer."""
CONNECTIONS = 200
USER_AGENT = "performance-queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int | None = None
    """None: there was no answer."""
    problem: str | None = None
    """None: it was a 2xx."""
    retry_after_seconds: float | None = None


class Posting:
    """`async with` closes its connections, which go to checked addresses only."""

    def __init__(self, targets: Targets) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=CONNECTIONS,
            max_keepalive_connections=CONNECTIONS // 4,
            keepalive_expiry=30.0,
            network_backend=GuardedBackend(targets),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, seconds: float = ATTEMPT_SECONDS
    ) -> Answer:
        """One attempt. Anything but a 2xx within `seconds` is a failure; the body of the answer is not read."""
        sent = [("user-agent", USER_AGENT), *headers.items()]
        status, retry_after, problem = None, None, None
        try:
            async with (
                asyncio.timeout(seconds),
                self._pool.stream("POST", url, headers=sent, content=body) as response,
            ):
                status = response.status
                retry_after = _retry_after(response.headers)
                if not 200 <= status < 300:
                    problem = f"the endpoint answered {status}"
        except TimeoutError:
            problem = f"no answer within {seconds:.2g} s"
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            # Only the class of the error: its text may repeat data that the endpoint has sent.
            problem = f"no answer ({type(error).__name__})"
        return Answer(status=status, problem=problem, retry_after_seconds=retry_after)


def _retry_after(headers: list[tuple[bytes, bytes]]) -> float | None:
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit():
            return float(value[:9])
    return None
