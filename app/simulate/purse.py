"""Where features get an escrow for a request: held at a wallet over its published interface, or made up.

The wallet is reached by the queue's own client. A sandbox wallet is asked to give users tokens first; a wallet that
knows no such thing is taken to have users with tokens of their own.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from types import TracebackType
from typing import Self
from uuid import uuid4

import httpx2

from app.simulate.catalogue import Request
from app.simulate.tally import Tally
from app.wallet.answers import Escrow, TryAgain
from app.wallet.client import Wallet

GRANT = 50_000
ATTEMPTS = 3
PAUSE_SECONDS = 0.3
TIMEOUT_SECONDS = 5.0

Hold = Callable[[Request], Awaitable[str | None]]
"""An escrow id for a request; None if no tokens could be held for it."""


async def made_up(request: Request) -> str | None:
    return f"made-up-{uuid4().hex}"


class Purse:
    """Holds at a wallet, for users who are granted tokens as they need them. Use as `async with`."""

    @classmethod
    def at(cls, wallet_url: str, api_token: str | None, clock: Callable[[], datetime], tally: Tally) -> Self:
        # The queue's own key signs orders to settle and refund; whoever only holds needs none.
        wallet = Wallet(
            base_url=wallet_url, api_token=api_token, queue_secret="", timeout_seconds=TIMEOUT_SECONDS, clock=clock
        )
        return cls(wallet, wallet_url, api_token, tally)

    def __init__(self, wallet: Wallet, wallet_url: str, api_token: str | None, tally: Tally) -> None:
        self._wallet = wallet
        self._tally = tally
        self._known: set[str] = set()
        self._grants = httpx2.AsyncClient(
            base_url=wallet_url,
            headers={} if api_token is None else {"Authorization": f"Bearer {api_token}"},
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        await self._wallet.__aenter__()
        await self._grants.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._grants.__aexit__(kind, error, trace)
        await self._wallet.__aexit__(kind, error, trace)

    async def hold(self, request: Request) -> str | None:
        if request.user_id not in self._known:
            await self._grant(request.user_id)
        # With one key: a hold whose answer was lost is found again.
        key = f"hold-{uuid4().hex}"
        for attempt in range(1, ATTEMPTS + 1):
            held = await self._wallet.hold(
                request.user_id,
                amount=request.tokens,
                reason=request.title,
                queue_item_id=None,
                feature_type=request.catalogue.feature,
                metadata={},
                idempotency_key=key,
            )
            if isinstance(held, Escrow):
                self._tally.holds["held"] += 1
                return held.escrow_id
            if isinstance(held, TryAgain):
                await asyncio.sleep(PAUSE_SECONDS * attempt)
            else:
                await self._grant(request.user_id)
        self._tally.holds["refused"] += 1
        return None

    async def _grant(self, user_id: str) -> None:
        self._known.add(user_id)
        try:
            await self._grants.post(
                "/grants",
                json={"userId": user_id, "amount": GRANT},
                headers={"X-Idempotency-Key": f"grant-{uuid4().hex}"},
            )
        except httpx2.RequestError:
            return  # the hold that follows meets the same trouble and counts it
