"""A wallet that is slower than a command may be: the command ends in time and leaves a consistent state."""

import asyncio
from pathlib import Path
from time import monotonic

from app.sandbox.faults import FaultRates
from tests.support.server import Json, fresh, intake_body, ok, problem
from tests.support.stores import HandClock, locked_by_a_shell
from tests.support.wallet_harness import (  # noqa: F401 - fixtures
    AWAY,
    WELL,
    Money,
    WalletServer,
    clock_fixture,
    money,
    wallet_fixture,
)

ITEMS = "/v1/queue/items"
OPERATIONS = "/v1/admin/wallet-operations"
SLOW = FaultRates(latency_seconds=60)
"""Half a minute and more for each answer."""
COMMAND_SECONDS = 3.0
LONGEST_ANSWER = 15.0
"""Far more than a command has, and far less than such a wallet takes."""
RESOLUTION = {"resolution": "written_off", "reason": "the user has been told"}


async def held_intake(site: Money, performer_id: str) -> Json:
    user_id = fresh("user")
    return intake_body(performer_id, userId=user_id, escrowTransactionId=site.wallet.hold(user_id, 100))


async def dead(site: Money, performer_id: str) -> Json:
    """The operation of an item whose only attempt has met a wallet that was away."""
    async with site.watching(performer_id) as screen:
        site.wallet.faults.rates = AWAY
        item = await site.finished(performer_id)
        await screen.sees(item, walletStatus="dead")
    return await site.operation(item)


async def test_an_intake_whose_escrow_the_wallet_does_not_confirm_in_time_queues_nothing(
    tmp_path: Path, wallet: WalletServer, clock: HandClock
) -> None:
    settings = {
        "command_seconds": COMMAND_SECONDS,
        "wallet_timeout_seconds": 60,
        "wallet_verify_holds": True,
        "user_intakes_per_minute": 1,
    }
    async with money(tmp_path, wallet, clock, **settings) as site:
        body = await held_intake(site, "mira")
        wallet.faults.rates = SLOW
        began = monotonic()
        response = await site.api.post(ITEMS, site.server.feature(), body)
        assert monotonic() - began < LONGEST_ANSWER
        refusal = problem(response, 503, "UNAVAILABLE")
        assert response.headers["Retry-After"] == str(refusal["retryAfterSeconds"])
        assert await site.api.version("mira") == 0
        wallet.faults.rates = WELL
        # Neither its key nor the user's quota has been used up.
        assert ok(await site.api.post(ITEMS, site.server.feature(), body), 201)["status"] == "created"


async def test_the_time_used_by_the_wallet_is_not_given_to_the_commit_again(
    tmp_path: Path, wallet: WalletServer, clock: HandClock
) -> None:
    """Four seconds for the wallet, then a locked database: five seconds together, not nine."""
    settings = {"command_seconds": 5, "wallet_timeout_seconds": 60, "wallet_verify_holds": True}
    async with money(tmp_path, wallet, clock, **settings) as site:
        body = await held_intake(site, "mira")
        wallet.faults.delay_seconds = lambda: 4.0  # type: ignore[method-assign]
        with locked_by_a_shell(f"sqlite:///{tmp_path}/queue.db"):
            began = monotonic()
            problem(await site.api.post(ITEMS, site.server.feature(), body), 503, "UNAVAILABLE")
            assert monotonic() - began < 8
        site.server.expected_errors()


async def test_while_the_wallet_is_too_slow_a_dead_operation_is_tried_again_and_none_is_resolved(
    tmp_path: Path, wallet: WalletServer, clock: HandClock
) -> None:
    """The outbox makes the attempt with its own time limit; resolving by hand needs the wallet's answer within the
    command."""
    settings = {"command_seconds": COMMAND_SECONDS, "wallet_timeout_seconds": 60, "wallet_max_attempts": 1}
    async with money(tmp_path, wallet, clock, **settings) as site:
        one, other = [await dead(site, f"star-{number}") for number in range(2)]
        wallet.faults.rates = SLOW
        began, admin = monotonic(), site.server.admin
        refused, retried = await asyncio.gather(
            site.api.post(f"{OPERATIONS}/{one['id']}/resolve", admin, RESOLUTION),
            site.api.post(f"{OPERATIONS}/{other['id']}/retry", admin),
        )
        assert monotonic() - began < LONGEST_ANSWER
        problem(refused, 503, "UNAVAILABLE")
        assert refused.headers["Retry-After"]
        assert ok(retried)["status"] == "pending"
        listing = ok(await site.api.get(f"{OPERATIONS}?status=dead", admin))
        assert [each["id"] for each in listing["operations"]] == [one["id"]]
