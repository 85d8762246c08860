"""Sends one message to one endpoint, and says how it went. Keeps no state but its connections."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from types import TracebackType
from typing import Self

import httpcore2

from app.domain.webhook import Delivery, Endpoint
from app.webhooks import signing
from app.webhooks.targets import GuardedBackend, Targets

ATTEMPT_SECONDS = 10.0
"""For a whole attempt: resolving, connecting, sending and the head of the answer."""
CONNECTIONS = 200
USER_AGENT = "performance-queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A webhook as it is sent; `body` is JSON."""

    message_id: str
    event: str
    performer_id: str | None
    version: int | None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    delivery: Delivery
    retry_after_seconds: float | None = None
    is_gone: bool = False
    """410: the endpoint wants no more (Standard Webhooks)."""


class Sender:
    """`async with` closes its connections."""

    def __init__(self, targets: Targets, clock: Callable[[], datetime]) -> None:
        self._clock = clock
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

    async def send(self, endpoint: Endpoint, message: Message, *, seconds: float = ATTEMPT_SECONDS) -> Attempt:
        """One attempt. Anything but a 2xx within `seconds` is a failure; the body of the answer is not read."""
        at, began = self._clock(), perf_counter()
        status, retry_after, problem = None, None, None
        headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            **signing.headers(message.message_id, at, message.body, endpoint.secrets(at)),
        }
        try:
            async with (
                asyncio.timeout(seconds),
                self._pool.stream(
                    "POST",
                    endpoint.url,
                    headers=list(headers.items()),
                    content=message.body,
                ) as response,
            ):
                status = response.status
                retry_after = _retry_after(response.headers)
                if not 200 <= status < 300:
                    problem = f"the endpoint answered {status}"
        except TimeoutError:
            problem = f"no answer within {seconds:.2g} s"
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            # The class says what happened; its text may repeat what the endpoint has sent.
            problem = f"no answer ({type(error).__name__})"
        delivery = Delivery(
            message_id=message.message_id,
            event=message.event,
            performer_id=message.performer_id,
            version=message.version,
            at=at,
            milliseconds=round((perf_counter() - began) * 1000),
            status_code=status,
            problem=problem,
        )
        return Attempt(delivery=delivery, retry_after_seconds=retry_after, is_gone=status == 410)


def _retry_after(headers: list[tuple[bytes, bytes]]) -> float | None:
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit():
            return float(value[:9])
    return None
