"""Retries of many dead operations at once."""

import pytest

from app.domain.command import WALLET
from app.domain.operation import OperationStatus
from app.wallet.dead_letters import retry_dead
from tests.support.outbox_harness import stage_on
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
        statuses = sorted(stage.row(item).status for item in items)
    assert statuses == [OperationStatus.DEAD] * (3 - retried) + [OperationStatus.PENDING] * retried
