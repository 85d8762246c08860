"""`check --wallet`: equal escrows pass, and each kind of difference is named."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import Result

from tests.support.builders import API_TOKEN
from tests.support.command_line import run
from tests.support.server import Json, fresh
from tests.support.stores import HandClock
from tests.support.wallet_harness import (  # noqa: F401 - fixtures
    Money,
    WalletServer,
    clock_fixture,
    money,
    wallet_fixture,
)

pytestmark = pytest.mark.anyio


async def test_the_wallets_status_is_compared_with_the_queues(
    tmp_path: Path, wallet: WalletServer, clock: HandClock
) -> None:
    performer_id = fresh("star")
    async with money(tmp_path, wallet, clock) as site, site.watching(performer_id) as screen:
        settled = await site.finished(performer_id)
        await screen.sees(settled, "queue.item.settled")
        split = await site.finished(performer_id, refund_tokens=30)
        await screen.sees(split, "queue.item.settled")
        waiting = await site.queued(performer_id)
        agreed = await check(tmp_path, wallet, "--wallet")
        assert agreed.exit_code == 0, agreed.output
        assert await differences(site) == 0
        assert ["wallet", "3", "0"] in [line.split() for line in agreed.stdout.splitlines()]
        wallet.resolve(waiting, settle=0, refund=100)
        differs = await check(tmp_path, wallet, "--wallet")
        assert differs.exit_code == 1
        assert await differences(site) == 1
        assert finding(differs.stdout, waiting).endswith("created, payment none here, refunded at the wallet")
        assert (await check(tmp_path, wallet)).exit_code == 0


async def differences(site: Money) -> float:
    """The difference metric of the running service."""
    text = (await site.api.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("queue_wallet_differences ")]
    return float(line.split()[1])


def finding(output: str, item: Json) -> str:
    (line,) = [line for line in output.splitlines() if item["itemId"] in line]
    return line


async def check(folder: Path, wallet: WalletServer, *options: str) -> Result:
    """Run the command in a thread, because it has an event loop of its own."""
    environ = {"WALLET_URL": wallet.url, "WALLET_API_TOKEN": API_TOKEN}
    words = " ".join(["check", *options])
    return await asyncio.to_thread(lambda: run(words, f"sqlite:///{folder}/queue.db", **environ))
