"""Checks at intake that the tokens are held: many at once with a slow wallet, none with a wallet that is down."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.domain.errors import EscrowNotFound, Unavailable
from app.wallet.breaker import Breaker, BreakerState
from app.wallet.client import Wallet
from app.wallet.hold_checks import HoldChecks
from tests.support.server import intake_body, serving
from tests.support.stream_server import listening, port_of

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@dataclass
class SlowWallet:
    """A wallet service that answers look-ups when the test allows it."""

    url: str = ""
    status: int = 200
    amount: int = 100
    asked: int = 0
    at_once: int = 0
    most_at_once: int = 0
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    all_here: asyncio.Event = field(default_factory=asyncio.Event)
    expected: int = 1

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            self.asked += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            if self.asked >= self.expected:
                self.all_here.set()
            await self.may_answer.wait()
            self.at_once -= 1
            found = re.match(r"GET /wallets/([^/]+)/escrow/([^/ ]+) ", head)
            assert found, head
            user, escrow = found.groups()
            body = json.dumps({"userId": user, "escrowId": escrow, "amount": self.amount, "status": "held"})
            head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write((head + body).encode())


@asynccontextmanager
async def slow_wallet() -> AsyncIterator[SlowWallet]:
    wallet = SlowWallet()
    async with listening(wallet.answer, backlog=1000) as server:
        wallet.url = f"http://127.0.0.1:{port_of(server)}"
        yield wallet


def checks(wallet: SlowWallet, breaker: Breaker, *, at_once: int = 200, timeout_seconds: float = 10) -> HoldChecks:
    client = Wallet(
        base_url=wallet.url,
        api_token=None,
        queue_secret="a-key-of-the-tests-of-32-bytes-or-more",
        timeout_seconds=timeout_seconds,
        clock=lambda: NOW,
        connections=at_once,
    )
    return HoldChecks(client, breaker, lambda: NOW, at_once=at_once)


async def test_a_slow_wallet_is_asked_by_all_callers_at_once(tmp_path: Path) -> None:
    """120 callers, almost four times as many as the outbox's pool has connections."""
    async with slow_wallet() as wallet:
        wallet.expected = 120
        with serving(tmp_path, wallet_verify_holds=True, wallet_url=wallet.url, wallet_timeout_seconds=30) as server:
            # One client has a hundred connections.
            async with server.api() as one, server.api() as other:
                feature = server.feature()
                intakes = [
                    asyncio.create_task(api.post("/v1/queue/items", feature, intake_body(f"star-{number % 7}")))
                    for api in (one, other)
                    for number in range(60)
                ]
                await asyncio.wait_for(wallet.all_here.wait(), 30)
                wallet.may_answer.set()
                answers = await asyncio.gather(*intakes)
    assert [answer.status_code for answer in answers] == [201] * 120
    assert wallet.most_at_once == 120


async def test_beyond_the_bound_a_check_is_refused_at_once() -> None:
    async with slow_wallet() as wallet, checks(wallet, Breaker(), at_once=3) as holds:
        wallet.expected = 3
        waiting = [asyncio.create_task(holds.verify("ada", f"escrow-{number}", 100)) for number in range(3)]
        await wallet.all_here.wait()
        with pytest.raises(Unavailable) as refused:
            await holds.verify("ada", "one-too-many", 100)
        assert refused.value.retry_after_seconds == 1
        wallet.may_answer.set()
        await asyncio.gather(*waiting)
        await holds.verify("ada", "now-there-is-room", 100)


async def test_a_wallet_that_is_down_is_asked_until_the_breaker_opens_and_not_again() -> None:
    breaker = Breaker(threshold=3)
    async with slow_wallet() as wallet, checks(wallet, breaker) as holds:
        wallet.status = 503
        wallet.may_answer.set()
        for _ in range(10):
            with pytest.raises(Unavailable):
                await holds.verify("ada", "escrow", 100)
        assert wallet.asked == 3
        assert breaker.state is BreakerState.OPEN


async def test_a_caller_who_goes_away_says_nothing_of_the_wallet_and_leaves_the_place() -> None:
    breaker = Breaker(threshold=1)
    async with slow_wallet() as wallet, checks(wallet, breaker, at_once=1) as holds:
        waiting = asyncio.create_task(holds.verify("ada", "escrow", 100))
        await wallet.all_here.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        wallet.may_answer.set()
        await holds.verify("ada", "escrow", 100)
        assert breaker.state is BreakerState.CLOSED


async def test_a_check_lasts_as_long_as_its_caller_has_time_and_then_the_wallet_has_failed() -> None:
    breaker = Breaker()
    async with slow_wallet() as wallet, checks(wallet, breaker, timeout_seconds=60) as holds:
        with pytest.raises(Unavailable):
            await holds.verify("ada", "escrow", 100, seconds=0.05)
        assert breaker.failures == 1
        with pytest.raises(Unavailable):
            await holds.verify("ada", "escrow", 100, seconds=0)
        assert breaker.failures == 1, "without time the wallet is not asked"


async def test_a_hold_of_another_amount_is_none() -> None:
    async with slow_wallet() as wallet, checks(wallet, Breaker()) as holds:
        wallet.may_answer.set()
        with pytest.raises(EscrowNotFound):
            await holds.verify("ada", "escrow", 101)


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_wallet_that_refuses_the_user_or_the_escrow_is_no_reason_to_try_again(status: int) -> None:
    async with slow_wallet() as wallet, checks(wallet, Breaker()) as holds:
        wallet.status = status
        wallet.may_answer.set()
        with pytest.raises(EscrowNotFound):
            await holds.verify("ada@example", "escrow", 100)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_wallet_that_refuses_our_own_credentials_says_nothing_of_the_escrow(status: int) -> None:
    async with slow_wallet() as wallet, checks(wallet, Breaker()) as holds:
        wallet.status = status
        wallet.may_answer.set()
        with pytest.raises(Unavailable):
            await holds.verify("ada", "escrow", 100)
