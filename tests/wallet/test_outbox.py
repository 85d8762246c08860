"""The outbox with real lanes and a real database: the effect of every answer of the wallet on the item and its row."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, NoReturn

import httpx2
import pytest
from sqlalchemy.exc import OperationalError

from app.domain import command as do
from app.domain.errors import InvalidTransition, Unavailable
from app.domain.item import Item, Status, WalletStatus
from app.domain.operation import OperationKind, OperationStatus, Resolution
from app.store import Store, reading, wallet_operations, writing
from app.wallet import outbox
from app.wallet.breaker import Breaker, BreakerState
from tests.support.builders import ADMIN, NOON, moment
from tests.support.outbox_harness import (
    MAX_ATTEMPTS,
    RETRY_BASE_SECONDS,
    RETRY_MAX_SECONDS,
    TIMEOUT_SECONDS,
    Stage,
    stage_on,
    stopped,
)
from tests.support.scripted_wallet import Scripted, ScriptedWallet, answer, receipt
from tests.support.stores import (  # noqa: F401 - fixtures
    Database,
    HandClock,
    postgres_database_fixture,
    sqlite_database_fixture,
)

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 2 * TIMEOUT_SECONDS + outbox.LEASE_SLACK_SECONDS


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def wallet() -> ScriptedWallet:
    return ScriptedWallet()


@pytest.fixture
def store(sqlite_database: Database) -> Store:
    return sqlite_database.open()


@pytest.fixture
async def stage(store: Store, clock: HandClock, wallet: ScriptedWallet) -> AsyncIterator[Stage]:
    async with stage_on(store, clock, wallet) as stage:
        yield stage


def escrow(item_status: str, *, amount: int = 100, **fields: Any) -> dict[str, Any]:
    """The answer of a look-up; the escrow's id and user are filled in by `knows`."""
    return {"amount": amount, "status": item_status, **fields}


class TestOutcomes:
    async def test_a_settlement_is_confirmed(self, stage: Stage) -> None:
        item = await stage.finished()
        async with stage.running():
            await stage.attempted()
        settled, row = stage.item(item), stage.row(item)
        assert (settled.status, settled.wallet_status) == (Status.FINISHED, WalletStatus.DONE)
        assert (settled.settled, settled.settled_tokens, settled.refunded_tokens) == (True, 100, None)
        assert settled.settlement_transaction_id == f"tx-{item.escrow_transaction_id}"
        assert settled.settled_at == NOON
        assert (row.status, row.attempts, row.last_problem) == (OperationStatus.DONE, 1, None)
        assert [event.name for event in stage.events(item)][-1] == "queue.item.settled"

    async def test_an_abandoned_item_is_refunded_only_by_the_confirmation(self, stage: Stage) -> None:
        item = await stage.abandoned()
        assert stage.item(item).status is Status.ABANDONED
        async with stage.running():
            await stage.attempted()
        refunded = stage.item(item)
        assert (refunded.status, refunded.wallet_status) == (Status.REFUNDED, WalletStatus.DONE)
        assert (refunded.settled, refunded.settled_tokens, refunded.refunded_tokens) == (False, None, 100)
        assert refunded.refund_transaction_id == f"tx-{item.escrow_transaction_id}"
        assert stage.row(item).status is OperationStatus.DONE

    async def test_a_split_is_confirmed_with_both_amounts(self, stage: Stage, wallet: ScriptedWallet) -> None:
        item = await stage.finished(refund_tokens=30)
        async with stage.running():
            await stage.attempted()
        split = stage.item(item)
        assert (split.settled, split.settled_tokens, split.refunded_tokens) == (True, 70, 30)
        assert split.settlement_transaction_id == split.refund_transaction_id == f"tx-{item.escrow_transaction_id}"
        assert wallet.orders[0].path.endswith("/partial-settle")
        assert stage.row(item).kind is OperationKind.PARTIAL

    @pytest.mark.parametrize(
        ("scripted", "problem"),
        [
            (answer(500), "the wallet answered 500"),
            (answer(503), "the wallet answered 503"),
            (answer(429), "the wallet answered 429"),
            (answer(302), "the wallet answered 302"),
            (answer(200, {"error": "no"}), "with an error in it"),
            (answer(200), "without a transaction id"),
            (lambda asked: receipt(asked, settledAmount=99), "another amount"),
            (lambda asked: receipt(asked, transactionId=None), "without a transaction id"),
            (httpx2.ReadTimeout("slow"), "did not answer in time"),
        ],
    )
    async def test_temporary_failures_are_tried_again(
        self, stage: Stage, wallet: ScriptedWallet, scripted: Scripted, problem: str
    ) -> None:
        item = await stage.finished()
        wallet.script.append(scripted)
        async with stage.running():
            await stage.attempted()
            assert stage.item(item).wallet_status is WalletStatus.RETRYING
            row = stage.row(item)
            assert (row.status, row.attempts) == (OperationStatus.RETRYING, 1)
            assert problem in (row.last_problem or "")
            stage.later(RETRY_BASE_SECONDS)
            await stage.attempted()
        assert stage.item(item).settled
        assert stage.row(item).last_problem is None
        first, second = wallet.orders
        assert (first.key, first.body, first.path) == (second.key, second.body, second.path)
        assert first.key == f"queue-{item.item_id}-settle"

    async def test_an_attempt_that_cannot_have_reached_the_wallet_does_not_count(
        self, stage: Stage, wallet: ScriptedWallet, clock: HandClock
    ) -> None:
        item = await stage.finished()
        pauses = [RETRY_BASE_SECONDS, RETRY_BASE_SECONDS, 4, 8, 16, 32, RETRY_MAX_SECONDS]
        wallet.script.extend(httpx2.ConnectError("refused") for _ in pauses)
        async with stage.running():
            for pause in pauses:
                await stage.attempted()
                row = stage.row(item)
                assert (row.status, row.attempts) == (OperationStatus.RETRYING, 0)
                assert row.last_problem == "the wallet could not be reached"
                assert row.next_attempt_at == clock.now + timedelta(seconds=pause)
                stage.later(pause)
            await stage.attempted()
        assert stage.item(item).settled

    async def test_a_wallet_that_cannot_be_reached_for_days_is_given_up(
        self, stage: Stage, wallet: ScriptedWallet
    ) -> None:
        item = await stage.finished()
        wallet.script.extend(httpx2.ConnectError("refused") for _ in range(2))
        async with stage.running():
            await stage.attempted()
            stage.later(7 * 24 * 3600)
            await stage.attempted()
        row = stage.row(item)
        assert (row.status, row.attempts, row.rejected) == (OperationStatus.DEAD, 0, False)

    async def test_orders_signed_by_a_wrong_clock_are_tried_again_until_it_is_set(
        self, stage: Stage, wallet: ScriptedWallet, clock: HandClock
    ) -> None:
        item = await stage.finished()
        an_hour_behind = format_datetime(clock.now - timedelta(hours=1), usegmt=True)
        wallet.script.extend(answer(401, Date=an_hour_behind) for _ in range(2 * MAX_ATTEMPTS))
        async with stage.running():
            for _ in range(2 * MAX_ATTEMPTS):
                await stage.attempted()
                row = stage.row(item)
                assert (row.status, row.attempts, row.rejected) == (OperationStatus.RETRYING, 0, False)
                assert "its clock and ours differ by" in (row.last_problem or "")
                stage.later(RETRY_MAX_SECONDS)
            await stage.attempted()
        assert stage.item(item).settled

    async def test_a_day_long_retry_after_parks_nothing_for_a_day(self, stage: Stage, wallet: ScriptedWallet) -> None:
        item = await stage.finished()
        wallet.script.append(answer(503, Retry_After="86400"))
        async with stage.running():
            await stage.attempted()
            stage.later(3600)
            await stage.attempted()
        assert stage.item(item).settled

    async def test_a_connection_that_breaks_twice_is_tried_again_later(
        self, stage: Stage, wallet: ScriptedWallet
    ) -> None:
        item = await stage.finished()
        wallet.script.extend(httpx2.ReadError("reset") for _ in range(2))
        async with stage.running():
            await stage.attempted()
            assert (stage.row(item).status, stage.row(item).attempts) == (OperationStatus.RETRYING, 1)
            assert "broke before it answered" in (stage.row(item).last_problem or "")
            stage.later(RETRY_BASE_SECONDS)
            await stage.attempted()
        assert stage.item(item).settled
        assert len({(asked.key, asked.body) for asked in wallet.orders}) == 1

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 410, 422])
    async def test_an_order_that_cannot_succeed_is_dead_at_once(
        self, stage: Stage, wallet: ScriptedWallet, status: int
    ) -> None:
        item = await stage.finished()
        wallet.script.append(answer(status))
        async with stage.running():
            await stage.attempted()
            stage.later(3600)
            other = await stage.finished()
            await stage.attempted()
        assert stage.item(item).wallet_status is WalletStatus.DEAD
        row = stage.row(item)
        assert (row.status, row.attempts) == (OperationStatus.DEAD, 1)
        assert f"({status})" in (row.last_problem or "")
        assert [asked.escrow_id for asked in wallet.orders] == [
            item.escrow_transaction_id,
            other.escrow_transaction_id,
        ]

    @pytest.mark.parametrize(
        ("found", "expected"),
        [
            (escrow("settled"), WalletStatus.DONE),
            (escrow("settled", settledAmount=100, refundedAmount=0), WalletStatus.DONE),
            (escrow("settled", settledAmount=60, refundedAmount=40), WalletStatus.DEAD),
            (escrow("refunded"), WalletStatus.DEAD),
            (escrow("settled", amount=99), WalletStatus.DEAD),
            (escrow("held"), WalletStatus.RETRYING),
            (escrow("settling"), WalletStatus.RETRYING),
            (None, WalletStatus.DEAD),
            (httpx2.ConnectError("refused"), WalletStatus.RETRYING),
        ],
        ids=repr,
    )
    async def test_after_a_conflict_the_escrow_s_status_decides(
        self, stage: Stage, wallet: ScriptedWallet, found: dict[str, Any] | Exception | None, expected: WalletStatus
    ) -> None:
        item = await stage.finished()
        knows(wallet, item.escrow_transaction_id, item.user_id, found)
        wallet.script.append(answer(409))
        async with stage.running():
            await stage.attempted()
        after = stage.item(item)
        assert after.wallet_status is expected
        assert str(stage.row(item).status) == expected
        assert after.settled is (expected is WalletStatus.DONE)
        # The status does not tell under which transaction.
        assert after.settlement_transaction_id is None
        order, look = wallet.asked
        assert (order.method, look.method) == ("POST", "GET")

    async def test_a_surprise_counts_as_an_attempt(self, stage: Stage, wallet: ScriptedWallet) -> None:
        item = await stage.finished()
        wallet.script.append(ValueError("a bug"))
        async with stage.running():
            await stage.attempted()
            assert (stage.row(item).status, stage.row(item).attempts) == (OperationStatus.RETRYING, 1)
            stage.later(RETRY_BASE_SECONDS)
            await stage.attempted()
        assert stage.item(item).settled


class TestResolvedByHand:
    async def test_a_settlement_that_the_wallet_refuses_for_good_can_be_refunded_under_a_key_of_its_own(
        self, stage: Stage, wallet: ScriptedWallet
    ) -> None:
        item = await stage.finished()
        wallet.script.append(answer(422))
        async with stage.running():
            await stage.attempted()
            assert (stage.item(item).wallet_status, stage.row(item).rejected) == (WalletStatus.DEAD, True)
            await stage.lanes.send(item.performer_id, resolve(item, Resolution.REFUND))
            await stage.attempted()
        refunded, row = stage.item(item), stage.row(item)
        assert (refunded.status, refunded.refunded_tokens, refunded.settled) == (Status.REFUNDED, 100, False)
        assert (row.kind, row.status, row.reason) == (OperationKind.REFUND, OperationStatus.DONE, "admin_refund")
        assert [asked.key for asked in wallet.orders] == [
            f"queue-{item.item_id}-settle",
            f"queue-{item.item_id}-refund",
        ]

    async def test_an_order_is_the_same_to_the_byte_however_often_its_resolution_was_changed(
        self, stage: Stage, wallet: ScriptedWallet
    ) -> None:
        item = await stage.abandoned()
        wallet.script.extend(answer(422) for _ in range(3))
        async with stage.running():
            for resolution in (Resolution.SETTLE, Resolution.REFUND, Resolution.SETTLE):
                await stage.attempted()
                await stage.lanes.send(item.performer_id, resolve(item, resolution))
            await stage.attempted()
        first, second, third, fourth = wallet.orders
        assert (first.key, first.body) == (third.key, third.body)
        assert (second.key, second.body) == (fourth.key, fourth.body)
        assert stage.item(item).settled

    @pytest.mark.parametrize("scripted", [receipt, answer(500), answer(422)])
    async def test_a_late_answer_to_a_written_off_operation_counts_only_if_it_is_a_receipt(
        self, stage: Stage, wallet: ScriptedWallet, scripted: Scripted
    ) -> None:
        item = await stage.finished()
        wallet.script.extend([answer(500), scripted])
        async with stage.running():
            await stage.attempted()
            wallet.hold_back()
            stage.later(RETRY_BASE_SECONDS)
            await wallet.has_been_asked(2)
            with pytest.raises(InvalidTransition):
                await stage.lanes.send(item.performer_id, resolve(item, Resolution.WRITTEN_OFF))
            stage.clock.wait(LEASE_SECONDS)
            await stage.lanes.send(item.performer_id, resolve(item, Resolution.WRITTEN_OFF))
            wallet.let_go()
            await stage.attempted()
        expected = WalletStatus.DONE if scripted is receipt else WalletStatus.WRITTEN_OFF
        assert stage.item(item).wallet_status is expected
        assert stage.item(item).settled is (scripted is receipt)
        assert stage.row(item).status is OperationStatus.DONE


def resolve(item: Item, resolution: Resolution) -> do.ResolveOperation:
    return do.ResolveOperation(actor=ADMIN, item_id=item.item_id, resolution=resolution, reason="by hand")


class TestWhenItIsTried:
    async def test_an_order_is_claimed_at_once_without_waiting_for_a_poll(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet
    ) -> None:
        async with stage_on(store, clock, wallet, poll_seconds=3600) as stage, stage.running():
            await stage.finished()
            await wallet.has_been_asked(1)

    async def test_an_order_with_a_delay_waits_for_its_time(
        self, stage: Stage, sqlite_database: Database, clock: HandClock, wallet: ScriptedWallet
    ) -> None:
        item = await stage.finished()
        with stage.store.writing() as connection:
            connection.exec_driver_sql("UPDATE wallet_operations SET next_attempt_at = next_attempt_at + 3000")
        async with stage.running():
            stage.later(2.999)
            other = await stage.finished()
            await stage.attempted()
            assert [asked.escrow_id for asked in wallet.orders] == [other.escrow_transaction_id]
            stage.later(0.001)
            await stage.attempted()
        assert stage.item(item).settled

    async def test_pauses_double_up_to_their_cap_with_full_jitter(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet
    ) -> None:
        pauses = [2.0, 4.0, 8.0, 16.0, 32.0, RETRY_MAX_SECONDS, RETRY_MAX_SECONDS]
        async with stage_on(store, clock, wallet, max_attempts=100) as stage:
            item = await stage.finished()
            wallet.script.extend([answer(500) for _ in pauses])
            async with stage.running():
                for attempts, pause in enumerate(pauses, start=1):
                    await stage.attempted()
                    row = stage.row(item)
                    assert row.attempts == attempts
                    assert row.next_attempt_at == clock.now + timedelta(seconds=pause)
                    stage.later(pause)
                await stage.attempted()
        assert stage.jitter.bounds == [(0, pause) for pause in pauses]
        assert stage.item(item).settled

    @pytest.mark.parametrize("failure", [answer(500), httpx2.ConnectError("refused")], ids=repr)
    async def test_a_pause_may_be_a_part_of_a_second(
        self, stage: Stage, wallet: ScriptedWallet, failure: Scripted
    ) -> None:
        item = await stage.finished()
        stage.jitter.share = 0.25
        wallet.script.append(failure)
        async with stage.running():
            await stage.attempted()
        assert stage.row(item).next_attempt_at == moment(0.25 * RETRY_BASE_SECONDS)

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [("30", 30), ("1", RETRY_BASE_SECONDS), ("Sat, 31 Jan 2026 12:01:30 GMT", 90), ("soon", RETRY_BASE_SECONDS)],
    )
    async def test_the_wallet_s_retry_after_is_honoured_if_it_is_longer(
        self, stage: Stage, wallet: ScriptedWallet, header: str, seconds: float
    ) -> None:
        item = await stage.finished()
        wallet.script.append(answer(503, Retry_After=header))
        async with stage.running():
            await stage.attempted()
        assert stage.row(item).next_attempt_at == moment(seconds)

    async def test_after_the_attempts_allowed_it_is_dead_and_left_alone(
        self, stage: Stage, wallet: ScriptedWallet
    ) -> None:
        item = await stage.finished()
        knows(wallet, item.escrow_transaction_id, item.user_id, escrow("held"))
        wallet.script.extend([answer(500) for _ in range(MAX_ATTEMPTS)])
        async with stage.running():
            for _ in range(MAX_ATTEMPTS):
                await stage.attempted()
                stage.later(RETRY_MAX_SECONDS)
            other = await stage.finished()
            await stage.attempted()
        assert stage.item(item).wallet_status is WalletStatus.DEAD
        assert (stage.row(item).status, stage.row(item).attempts) == (OperationStatus.DEAD, MAX_ATTEMPTS)
        assert stage.item(other).settled
        # Before it was given up the escrow was looked at, once.
        assert [asked.method for asked in wallet.asked] == ["POST"] * MAX_ATTEMPTS + ["GET", "POST"]

    @pytest.mark.parametrize(
        ("found", "expected"),
        [
            (escrow("settled"), WalletStatus.DONE),
            (escrow("refunded"), WalletStatus.DEAD),
            (httpx2.ConnectError("refused"), WalletStatus.DEAD),
        ],
        ids=repr,
    )
    async def test_before_it_is_given_up_the_escrow_is_looked_at(
        self,
        store: Store,
        clock: HandClock,
        wallet: ScriptedWallet,
        found: dict[str, Any] | Exception,
        expected: WalletStatus,
    ) -> None:
        async with stage_on(store, clock, wallet, max_attempts=1) as stage:
            item = await stage.finished()
            knows(wallet, item.escrow_transaction_id, item.user_id, found)
            wallet.script.append(answer(502))
            async with stage.running():
                await stage.attempted()
        assert stage.item(item).wallet_status is expected
        if isinstance(found, Exception):
            # The problem is that of the attempt, not that of the look-up.
            assert stage.row(item).last_problem == "the wallet answered 502"


class TestLeases:
    @pytest.fixture
    async def processes(
        self, postgres_database: Database, clock: HandClock, wallet: ScriptedWallet
    ) -> AsyncIterator[tuple[Stage, Stage]]:
        """Two processes on one database, with one wallet."""
        async with (
            stage_on(postgres_database.open(), clock, wallet) as first,
            stage_on(postgres_database.open(), clock, wallet) as second,
        ):
            yield first, second

    async def test_an_operation_claimed_by_one_process_is_skipped_by_the_other(
        self, processes: tuple[Stage, Stage], wallet: ScriptedWallet
    ) -> None:
        first, second = processes
        wallet.hold_back()
        item = await first.finished()
        async with first.running(), second.running():
            await wallet.has_been_asked(1)
            first.later(LEASE_SECONDS - 0.001)
            second.outbox.wake()
            other = await second.finished()
            await wallet.has_been_asked(2)
            assert {asked.escrow_id for asked in wallet.orders} == {
                item.escrow_transaction_id,
                other.escrow_transaction_id,
            }
            wallet.let_go()
            await first.until(lambda: first.item(item).settled and first.item(other).settled)

    @pytest.mark.parametrize("late_is_first", [True, False])
    @pytest.mark.parametrize(
        "late",
        [lambda: answer(500), lambda: answer(400), lambda: answer(200), lambda: receipt],
        ids=["500", "400", "no receipt", "receipt"],
    )
    async def test_the_first_one_s_late_answer_does_no_harm(
        self,
        processes: tuple[Stage, Stage],
        wallet: ScriptedWallet,
        late: Callable[[], Scripted],
        late_is_first: bool,
    ) -> None:
        first, second = processes
        item = await first.finished()
        wallet.hold_back()
        wallet.script.append(late())
        async with first.running():
            await wallet.has_been_asked(1)
            first.clock.wait(LEASE_SECONDS)
            async with second.running():
                await wallet.has_been_asked(2)
                for number in (0, 1) if late_is_first else (1, 0):
                    wallet.let_go(number)
                    await (first, second)[number].attempted()
        settled = first.item(item)
        assert (settled.settled, settled.wallet_status) == (True, WalletStatus.DONE)
        assert first.row(item).status is OperationStatus.DONE
        assert [str(event.name) for event in first.events(item)].count("queue.item.settled") == 1
        assert len(wallet.orders) == 2

    @pytest.mark.parametrize("status", [500, 400])
    async def test_a_late_failure_does_not_end_the_lease_of_who_took_over(
        self, processes: tuple[Stage, Stage], wallet: ScriptedWallet, status: int
    ) -> None:
        first, second = processes
        item = await first.finished()
        wallet.hold_back()
        wallet.script.append(answer(status))
        async with first.running():
            await wallet.has_been_asked(1)
            first.clock.wait(LEASE_SECONDS)
            async with second.running():
                await wallet.has_been_asked(2)
                taken_over = second.row(item)
                assert taken_over.lease_until == moment(2 * LEASE_SECONDS)
                wallet.let_go(0)
                await first.attempted()
                assert second.row(item) == taken_over
                assert second.item(item).wallet_status is WalletStatus.PENDING
                wallet.let_go(1)
                await second.attempted()
        assert second.item(item).settled

    async def test_a_process_that_owns_the_database_alone_claims_its_predecessors_operations_at_its_start(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet
    ) -> None:
        async with stage_on(store, clock, wallet) as before:
            item = await before.finished()
            with store.writing() as connection:
                writing.claim_operations(connection, now=moment(), lease_until=moment(LEASE_SECONDS), limit=1)
        async with stage_on(store, clock, wallet) as after:
            assert not await after.queries.run(
                lambda connection: wallet_operations.is_operation_due(connection, clock.now)
            )
            await after.lanes.run(writing.release_claims)
            async with after.running():
                await after.attempted()
        assert after.item(item).settled


class TestBreaker:
    async def test_while_it_is_open_operations_wait_and_the_queue_goes_on(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet
    ) -> None:
        breaker = Breaker(threshold=3, pause_seconds=20)
        async with stage_on(store, clock, wallet, breaker=breaker) as stage:
            items = [await stage.finished() for _ in range(3)]
            wallet.script.extend([answer(500) for _ in items])
            async with stage.running():
                await stage.attempted(3)
                assert breaker.state is BreakerState.OPEN
                stage.later(10)  # all three are due again, and nobody asks
                more = await stage.finished()
                assert (await stage.intake()).status is Status.CREATED
                assert await stage.outbox.claim() == 0
                assert len(wallet.orders) == 3
                assert [stage.row(item).attempts for item in (*items, more)] == [1, 1, 1, 0]

                wallet.hold_back()
                stage.later(10)  # one may try
                await wallet.has_been_asked(4)
                assert str(breaker.state) == "half_open"
                assert await stage.outbox.claim() == 0
                assert len(wallet.orders) == 4
                wallet.let_go()
                await stage.attempted(4)
        assert str(breaker.state) == "closed"
        assert all(stage.item(item).settled for item in (*items, more))

    async def test_a_probe_that_fails_uses_one_attempt_and_lengthens_the_pause(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet
    ) -> None:
        breaker = Breaker(threshold=1, pause_seconds=20, growth=2)
        async with stage_on(store, clock, wallet, breaker=breaker) as stage:
            items = [await stage.finished() for _ in range(2)]
            wallet.script.extend([answer(500) for _ in range(3)])
            async with stage.running():
                await stage.attempted(2)
                stage.later(20)
                await stage.attempted()
                assert sorted(stage.row(item).attempts for item in items) == [1, 2]
                stage.later(39.999)
                assert await stage.outbox.claim() == 0
                stage.later(0.001)
                await stage.attempted(2)
        assert all(stage.item(item).settled for item in items)

    async def test_when_the_wallet_is_back_dead_operations_are_tried_again_except_refused_ones(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet
    ) -> None:
        breaker = Breaker(threshold=2, pause_seconds=20)
        async with stage_on(store, clock, wallet, max_attempts=1, breaker=breaker) as stage:
            refused = await stage.finished()
            wallet.script.append(answer(422))
            async with stage.running():
                await stage.attempted()
                wallet.script.extend(answer(500) for _ in range(2))
                items = [await stage.finished() for _ in range(2)]
                await stage.attempted(2)
                assert [stage.row(item).status for item in (refused, *items)] == [OperationStatus.DEAD] * 3
                assert breaker.state is BreakerState.OPEN
                stage.later(20)
                probe = await stage.finished()
                await stage.attempted(3)
        assert str(breaker.state) == "closed"
        assert all(stage.item(item).settled for item in (probe, *items))
        assert (stage.row(refused).status, stage.row(refused).rejected) == (OperationStatus.DEAD, True)

    async def test_a_probe_that_fails_unexpectedly_makes_room_for_the_next(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet
    ) -> None:
        breaker = _opened()
        async with stage_on(store, clock, wallet, breaker=breaker) as stage:
            item = await stage.finished()
            wallet.script.append(ValueError("a bug"))
            clock.wait(1)
            async with stage.running():
                await stage.attempted()
                stage.later(RETRY_BASE_SECONDS)
                await stage.attempted()
        assert str(breaker.state) == "closed"
        assert stage.item(item).settled

    @pytest.mark.parametrize("scripted", [answer(400), answer(409), answer(404)], ids=repr)
    async def test_a_wallet_that_refuses_is_alive(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet, scripted: Scripted
    ) -> None:
        breaker = Breaker(threshold=1)
        async with stage_on(store, clock, wallet, breaker=breaker) as stage:
            await stage.finished()
            wallet.script.append(scripted)
            async with stage.running():
                await stage.attempted()
        assert breaker.state is BreakerState.CLOSED


class TestManyAtOnce:
    async def test_a_bounded_number_run_at_once_and_each_escrow_is_ordered_once(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet
    ) -> None:
        # A place that becomes free is taken at once, not at the next poll.
        async with stage_on(store, clock, wallet, poll_seconds=3600) as stage:
            items = [await stage.finished() for _ in range(40)]
            wallet.hold_back()
            async with stage.running():
                await wallet.has_been_asked(outbox.CONCURRENT_ATTEMPTS)
                assert await stage.outbox.claim() == 0
                assert len(wallet.orders) == outbox.CONCURRENT_ATTEMPTS
                wallet.let_go()
                await stage.attempted(40)
            assert wallet.most_at_once == outbox.CONCURRENT_ATTEMPTS
            assert sorted(asked.escrow_id for asked in wallet.orders) == sorted(
                item.escrow_transaction_id for item in items
            )
            assert all(stage.item(item).settled for item in items)

    async def test_no_more_are_claimed_than_places_are_left(self, stage: Stage, wallet: ScriptedWallet) -> None:
        wallet.hold_back()
        places = outbox.CONCURRENT_ATTEMPTS
        for _ in range(places - 3):
            await stage.finished()
        assert await stage.outbox.claim() == places - 3
        items = [await stage.finished() for _ in range(5)]
        assert await stage.outbox.claim() == 3
        wallet.let_go()
        async with stage.running():
            await stage.attempted(places + 2)
        assert all(stage.item(item).settled for item in items)


class TestTheEnd:
    async def test_an_attempt_under_way_may_end(self, stage: Stage, wallet: ScriptedWallet) -> None:
        item = await stage.finished()
        wallet.hold_back()
        async with stage.running() as task:
            await wallet.has_been_asked(1)
            task.cancel()
            wallet.let_go()
            await stage.attempted()
        assert stage.item(item).settled

    async def test_an_attempt_that_takes_too_long_is_cut_short_and_its_lease_returns_it(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet
    ) -> None:
        async with stage_on(store, clock, wallet, last_moment_seconds=0.01) as stage:
            item = await stage.finished()
            wallet.hold_back()
            async with stage.running():
                await wallet.has_been_asked(1)
            assert (stage.row(item).status, stage.row(item).attempts) == (OperationStatus.PENDING, 0)
            assert stage.row(item).lease_until == moment(LEASE_SECONDS)
            await stage.idle()
            wallet.let_go()
            clock.wait(LEASE_SECONDS)
            async with stage.running():
                await stage.attempted()
            assert stage.item(item).settled

    async def test_a_probe_that_is_cut_short_makes_room_for_the_next(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet
    ) -> None:
        breaker = _opened()
        async with stage_on(store, clock, wallet, breaker=breaker, last_moment_seconds=0.01) as stage:
            item = await stage.finished()
            wallet.hold_back()
            clock.wait(1)
            async with stage.running():
                await wallet.has_been_asked(1)
                assert breaker.state is BreakerState.HALF_OPEN
            await stage.idle()
            wallet.let_go()
            clock.wait(LEASE_SECONDS)
            async with stage.running():
                await stage.attempted()
            assert stage.item(item).settled

    @pytest.mark.parametrize("turns", range(8))
    async def test_being_woken_and_stopped_in_one_moment_it_stops(self, stage: Stage, turns: int) -> None:
        async with stage.running() as task:
            for _ in range(3):
                # It has looked for operations that are due, and waits.
                await stage.queries.run(reading.epoch)
            stage.outbox.wake()
            # Of the loop: in one of them the outbox has been woken and has not run yet.
            for _ in range(turns):
                await asyncio.sleep(0)
            await stopped(task)


class TestTrouble:
    async def test_without_its_database_it_ends_and_says_so_and_works_again_later(
        self, stage: Stage, wallet: ScriptedWallet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        item = await stage.finished()
        with _away(stage, monkeypatch, "reading"), pytest.raises(Unavailable):
            await stage.outbox.run()
        with _away(stage, monkeypatch, "writing"), pytest.raises(Unavailable):
            await stage.outbox.run()
        assert wallet.asked == []
        async with stage.running():
            await stage.attempted()
        assert stage.item(item).settled

    async def test_a_claim_that_failed_gives_the_probe_s_place_back(
        self, store: Store, clock: HandClock, wallet: ScriptedWallet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        breaker = _opened()
        async with stage_on(store, clock, wallet, breaker=breaker) as stage:
            item = await stage.finished()
            clock.wait(1)
            with _away(stage, monkeypatch, "writing"), pytest.raises(Unavailable):
                await stage.outbox.run()
            async with stage.running():
                await stage.attempted()
        assert stage.item(item).settled

    async def test_an_outcome_that_cannot_be_kept_is_asked_for_again_with_the_same_key(
        self, stage: Stage, wallet: ScriptedWallet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        item = await stage.finished()
        wallet.hold_back()
        async with stage.running():
            await wallet.has_been_asked(1)
            with _away(stage, monkeypatch, "writing"):
                wallet.let_go()
                await stage.idle()
            assert not stage.item(item).settled
            stage.later(LEASE_SECONDS)
            await stage.attempted()
        assert stage.item(item).settled
        assert len({(asked.key, asked.body) for asked in wallet.orders}) == 1


@contextmanager
def _away(stage: Stage, monkeypatch: pytest.MonkeyPatch, what: str) -> Iterator[None]:
    """Inside the block the store fails for `what`: "reading" or "writing"."""

    def fail() -> NoReturn:
        raise OperationalError("", None, Exception("away"))

    with monkeypatch.context() as patched:
        patched.setattr(stage.store, what, fail)
        yield


def _opened() -> Breaker:
    """A breaker that is open, and admits a probe after a second."""
    breaker = Breaker(threshold=1, pause_seconds=1)
    permit = breaker.admit(moment())
    assert permit is not None
    breaker.failed(permit, moment())
    return breaker


def knows(wallet: ScriptedWallet, escrow_id: str, user_id: str, found: dict[str, Any] | Exception | None) -> None:
    if isinstance(found, dict):
        wallet.escrows[escrow_id] = {"escrowId": escrow_id, "userId": user_id, **found}
    elif found is not None:
        wallet.escrows[escrow_id] = found
