"""Makes the escrow for a request: held at a wallet over its published interface, or with an invented id.

Users first get tokens by `POST /grants`, which only the sandbox wallet has; at any other wallet they must have tokens.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self
from urllib.parse import quote
from uuid import uuid4

import httpx2
import orjson

from app.simulate.catalogue import Request
from app.simulate.tally import Tally

GRANT = 50_000
ATTEMPTS = 3
PAUSE_SECONDS = 0.3
TIMEOUT_SECONDS = 5.0

Hold = Callable[[Request], Awaitable[str | None]]
"""An escrow id for a request; None if no tokens could be held for it."""


async def made_up(request: Request) -> str | None:
    return f"made-up-{uuid4().hex}"


class EscrowClient:
    """Holds tokens at a wallet, and grants them to users who have too few. Use as `async with`."""

    def __init__(self, wallet_url: str, api_token: str | None, tally: Tally) -> None:
        self._tally = tally
        self._known: set[str] = set()
        self._client = httpx2.AsyncClient(
            base_url=wallet_url,
            headers={} if api_token is None else {"Authorization": f"Bearer {api_token}"},
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def hold(self, request: Request) -> str | None:
        if request.user_id not in self._known:
            await self._grant(request.user_id)
        # One key for all attempts: if an answer was lost, the next attempt gets the same hold.
        key = f"hold-{uuid4().hex}"
        body = {
            "amount": request.tokens,
            "reason": request.title,
            # The wallet requires an item id, which does not exist before the intake.
            "queueItemId": key,
            "featureType": request.catalogue.feature,
        }
        for attempt in range(1, ATTEMPTS + 1):
            status, escrow_id = await self._post(f"/wallets/{quote(request.user_id, safe='')}/escrow/hold", key, body)
            if escrow_id is not None:
                self._tally.holds["held"] += 1
                return escrow_id
            if status is None or status >= 429 or status in (200, 201, 409):
                await asyncio.sleep(PAUSE_SECONDS * attempt)
            else:
                await self._grant(request.user_id)
        self._tally.holds["refused"] += 1
        return None

    async def _grant(self, user_id: str) -> None:
        self._known.add(user_id)
        await self._post("/grants", f"grant-{uuid4().hex}", {"userId": user_id, "amount": GRANT})

    async def _post(self, path: str, key: str, body: dict[str, object]) -> tuple[int | None, str | None]:
        """The response's status (None: there was none) and the escrow id in it, if any."""
        try:
            response = await self._client.post(path, json=body, headers={"X-Idempotency-Key": key})
            fields = orjson.loads(response.content)
        except (httpx2.RequestError, orjson.JSONDecodeError):
            return None, None
        escrow_id = fields.get("escrowId") if isinstance(fields, dict) and response.is_success else None
        return response.status_code, escrow_id if isinstance(escrow_id, str) and escrow_id else None
