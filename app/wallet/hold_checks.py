"""Checks at intake that the wallet holds the escrow, with separate connections and behind the breaker.

The outbox has other connections, so that intakes cannot delay settlements. An intake never waits for another one: above
CHECKS_AT_ONCE, and while the breaker is open, it is refused at once and may be repeated with the same key.
"""

from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from app.domain.errors import EscrowNotFound, Unavailable
from app.wallet.answers import Escrow, NoEscrow, Rejected, Retry, is_held
from app.wallet.breaker import Breaker
from app.wallet.client import Wallet

CHECKS_AT_ONCE = 256
"""The most checks under way, each with a connection: 50 intakes a second with a wallet that takes 5 s."""


class HoldChecks:
    """`async with` opens and closes the wallet's client, which should allow `at_once` connections."""

    def __init__(
        self, wallet: Wallet, breaker: Breaker, clock: Callable[[], datetime], *, at_once: int = CHECKS_AT_ONCE
    ) -> None:
        self._wallet = wallet
        self._breaker = breaker
        self._clock = clock
        self._at_once = at_once
        self._under_way = 0

    async def __aenter__(self) -> Self:
        await self._wallet.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._wallet.__aexit__(kind, error, trace)

    async def verify(self, user_id: str, escrow_id: str, tokens: int, *, seconds: float | None = None) -> None:
        """Ask the wallet. `seconds`: a time limit below WALLET_TIMEOUT_SECONDS.

        Raises EscrowNotFound unless the wallet holds this escrow for this user and amount, Unavailable if it cannot be
        asked now.
        """
        if self._under_way >= self._at_once or seconds == 0:
            raise _unavailable()
        permit = self._breaker.admit(self._clock())
        if permit is None:
            raise _unavailable()
        self._under_way += 1
        try:
            found = await self._wallet.escrow(user_id, escrow_id, seconds=seconds)
        except BaseException:
            self._breaker.cancelled(permit)
            raise
        finally:
            self._under_way -= 1
        if isinstance(found, Retry):
            self._breaker.failed(permit, self._clock())
        else:
            self._breaker.succeeded(permit)
        match found:
            case Escrow() as escrow if is_held(escrow, tokens=tokens):
                return
            case Escrow() | NoEscrow() | Rejected(concerns_credentials=False):
                raise EscrowNotFound("The wallet holds no such escrow for this user and amount.")
            case _:
                raise _unavailable()


def _unavailable() -> Unavailable:
    return Unavailable("The wallet cannot confirm the escrow right now; try again.", retry_after_seconds=1)
