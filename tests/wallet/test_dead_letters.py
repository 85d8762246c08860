"""Retries of many dead operations at once, on request and when the wallet is back."""

from collections.abc import AsyncIterator

import pytest

from app.domain.command import WALLET
from app.domain.item import Item
from app.domain.operation import OperationStatus
from app.wallet.breaker import Breaker, BreakerState
from app.wallet.dead_letters import retry_dead
from app.wallet.outbox import RETRY_DEAD_SECONDS
from tests.support.outbox_harness import Stage, stage_on
from tests.support.scripted_wallet import ScriptedWallet, answer
from tests.support.stores import (  # noqa: F401 - fixtures
    Database,
    HandClock,
    postgres_database_fixture,
    sqlite_database_fixture,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("at_most", "retried"), [(2, 2), (3, 3), (4, 3)])
async def test_no_more_operations_are_retried_than_asked_for(
    sqlite_database: Database, at_most: int, retried: int
) -> None:
    wallet = ScriptedWallet()
    async with stage_on(sqlite_database.open(), HandClock(), wallet, max_attempts=1) as stage:
        items = [await stage.finished() for _ in range(3)]
        wallet.script.extend(answer(500) for _ in items)
        async with stage.running():
            await stage.attempted(3)
        assert await retry_dead(stage.queries, stage.lanes, actor=WALLET, rejected_too=True, at_most=at_most) == retried
        found = sorted(stage.row(item).status for item in items)
    assert found == [OperationStatus.DEAD] * (3 - retried) + [OperationStatus.PENDING] * retried


class TestWhenTheWalletIsBack:
    """One attempt kills an operation here, and two failures in a row open the breaker for a second."""

    @pytest.fixture
    def wallet(self) -> ScriptedWallet:
        return ScriptedWallet()

    @pytest.fixture
    def breaker(self) -> Breaker:
        return Breaker(threshold=2, pause_seconds=1)

    @pytest.fixture
    async def stage(self, sqlite_database: Database, wallet: ScriptedWallet, breaker: Breaker) -> AsyncIterator[Stage]:
        async with stage_on(sqlite_database.open(), HandClock(), wallet, max_attempts=1, breaker=breaker) as stage:
            yield stage

    async def test_before_it_is_back_nothing_is_retried(self, stage: Stage, breaker: Breaker) -> None:
        async with stage.running():
            dead = await died(stage, 2)
            stage.wallet.hold_back()
            stage.later(1)
            await stage.finished()
            await stage.wallet.has_been_asked(3)
            assert breaker.state is BreakerState.HALF_OPEN
            assert statuses(stage, dead) == {OperationStatus.DEAD}
            stage.wallet.let_go()
            await stage.attempted(3)
        assert statuses(stage, dead) == {OperationStatus.DONE}

    async def test_the_log_says_how_many_are_retried(self, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "app.wallet.outbox")
        async with stage.running():
            await died(stage, 2)
            stage.later(1)
            await stage.finished()
            await stage.attempted(3)
        lines = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
        assert [line for line in lines if "the wallet is back" in line] == [
            "the wallet is back: 2 dead operations are retried"
        ]

    async def test_an_operation_that_dies_later_stays_dead(self, stage: Stage, breaker: Breaker) -> None:
        async with stage.running():
            dead = await died(stage, 2)
            stage.later(1)
            await stage.finished()
            await stage.attempted(3)
            assert statuses(stage, dead) == {OperationStatus.DONE}
            later = await died(stage, 1)
            await others_are_settled(stage)
        assert breaker.state is BreakerState.CLOSED
        assert statuses(stage, later) == {OperationStatus.DEAD}

    async def test_a_second_absence_within_the_minute_waits_for_its_end(self, stage: Stage, breaker: Breaker) -> None:
        async with stage.running():
            await died(stage, 2)
            stage.later(1)
            await stage.finished()
            await stage.attempted(3)
            dead = await died(stage, 2)
            stage.later(1)
            await others_are_settled(stage)
            assert breaker.state is BreakerState.CLOSED
            assert statuses(stage, dead) == {OperationStatus.DEAD}
            stage.later(RETRY_DEAD_SECONDS)
            await stage.attempted(2)
        assert statuses(stage, dead) == {OperationStatus.DONE}


async def died(stage: Stage, count: int) -> list[Item]:
    """Items whose operations the wallet has answered with 500."""
    stage.wallet.script.extend(answer(500) for _ in range(count))
    items = [await stage.finished() for _ in range(count)]
    await stage.attempted(count)
    return items


async def others_are_settled(stage: Stage) -> None:
    """The outbox looks for dead operations before each claim: meanwhile it has done so more than once."""
    for _ in range(3):
        item = await stage.finished()
        await stage.attempted()
        assert stage.item(item).settled


def statuses(stage: Stage, items: list[Item]) -> set[OperationStatus]:
    return {stage.row(item).status for item in items}
