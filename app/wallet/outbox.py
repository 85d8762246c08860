"""The outbox: carries wallet operations out, one attempt at a time, until the wallet has confirmed or nobody can help.

It claims due operations as leases (a process that dies releases its work by time), calls the wallet, and sends what
came of it to the room as a command; it changes nothing by itself. What an answer means is `answer`'s, when to leave
the wallet alone is `breaker`'s. While the breaker is open operations wait without using up attempts, and the queue
goes on.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

from app.domain.command import Command, Confirm, Report
from app.domain.errors import QueueError
from app.domain.operation import Operation, OperationStatus
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import reading, writing
from app.wallet.answers import Conflict, Rejected, Retry, Succeeded, classify_escrow
from app.wallet.breaker import Breaker, Permit
from app.wallet.client import Wallet

CONCURRENT_ATTEMPTS = 16
POLL_SECONDS = 0.5
"""How soon an operation is noticed that became due by time or that another process wrote."""
LEASE_SLACK_SECONDS = 10.0
"""What a lease lasts beyond the two calls an attempt may make."""

LAST_MOMENT_SECONDS = 2.0
"""How long a stopping process waits for attempts under way."""

log = logging.getLogger(__name__)


class Outbox:
    def __init__(
        self,
        *,
        lanes: Lanes,
        queries: Queries,
        wallet: Wallet,
        breaker: Breaker,
        clock: Callable[[], datetime],
        random: Random,
        max_attempts: int,
        retry_base_seconds: float,
        retry_max_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._lanes = lanes
        self._queries = queries
        self._wallet = wallet
        self.breaker = breaker
        self._clock = clock
        self._random = random
        self._max_attempts = max_attempts
        self._retry_base = retry_base_seconds
        self._retry_max = retry_max_seconds
        self._lease = timedelta(seconds=2 * timeout_seconds + LEASE_SLACK_SECONDS)
        self._wake = asyncio.Event()
        self._attempts: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """A hint that an operation may be due; a missed one costs at most a poll."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; attempts under way then get a moment to end. What is cut short, its lease returns.

        Raises what keeps it from claiming (the database away); call it again after a pause.
        """
        try:
            while True:
                self._wake.clear()
                if not await self._take_up():
                    # Not wait_for: up to Python 3.11 it forgets that it was cancelled if it is woken just then.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_SECONDS):
                            await self._wake.wait()
        finally:
            if self._attempts:
                _, late = await asyncio.wait(self._attempts, timeout=LAST_MOMENT_SECONDS)
                for task in late:
                    task.cancel()

    async def _take_up(self) -> int:
        """Claim what is due, as much as may run at once, and begin on it; returns how many."""
        now = self._clock()
        if len(self._attempts) >= CONCURRENT_ATTEMPTS or not await self._queries.run(
            lambda connection: reading.is_operation_due(connection, now)
        ):
            return 0
        permits: list[Permit] = []
        while len(permits) < CONCURRENT_ATTEMPTS - len(self._attempts):
            if (permit := self.breaker.admit(now)) is None:
                break
            permits.append(permit)
        operations: list[Operation] = []
        try:
            if permits:
                operations = await self._lanes.run(
                    lambda connection: writing.claim_operations(
                        connection, now=now, lease_until=now + self._lease, limit=len(permits)
                    )
                )
        finally:
            for unused in permits[len(operations) :]:
                self.breaker.cancelled(unused)
        for operation, permit in zip(operations, permits, strict=False):
            task = asyncio.create_task(self._attempt(operation, permit), name=f"wallet {operation.operation_id}")
            self._attempts.add(task)
            task.add_done_callback(self._finished)
        return len(operations)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._attempts.discard(task)
        self._wake.set()

    async def _attempt(self, operation: Operation, permit: Permit) -> None:
        """One attempt, its outcome told to the room. If that cannot be told, the lease lapses and all is repeated."""
        try:
            answer = await self._ask_wallet(operation, permit)
        except asyncio.CancelledError:
            self.breaker.cancelled(permit)
            raise
        except Exception:
            # A bug, or a wallet of a kind never seen: it counts as an attempt, so that it cannot go on for ever.
            self.breaker.cancelled(permit)
            log.exception("operation %s: the attempt failed", operation.operation_id)
            answer = Retry(problem="the attempt failed unexpectedly")
        try:
            await self._lanes.send(operation.performer_id, self._outcome(operation, answer))
        except QueueError as refusal:
            log.warning("operation %s: outcome not kept (%s)", operation.operation_id, refusal.code)

    async def _ask_wallet(self, operation: Operation, permit: Permit) -> Succeeded | Retry | Rejected:
        outcome = await self._wallet.execute(operation)
        if isinstance(outcome, Retry):
            self.breaker.failed(permit, self._clock())
            if operation.attempts + 1 < self._max_attempts:
                return outcome
            # Before it is given up: an attempt whose answer was lost may have had its effect.
            found = await self.find_out(operation)
            return outcome if isinstance(found, Retry) else found
        # Whatever else it answered, the wallet is alive.
        self.breaker.succeeded(permit)
        return await self.find_out(operation) if isinstance(outcome, Conflict) else outcome

    async def find_out(self, operation: Operation) -> Succeeded | Retry | Rejected:
        """What the escrow's own status says about an operation whose outcome is not known."""
        escrow = await self._wallet.escrow(
            operation.user_id, operation.escrow_transaction_id, idempotency_key=operation.idempotency_key
        )
        return classify_escrow(operation, escrow)

    def _outcome(self, operation: Operation, answer: Succeeded | Retry | Rejected) -> Command:
        now = self._clock()
        attempted = replace(operation, attempts=operation.attempts + 1, updated_at=now)
        match answer:
            case Succeeded():
                return confirmation(attempted, answer, now)
            case Retry() if attempted.attempts < self._max_attempts:
                pause = max(self._backoff(attempted.attempts), answer.retry_after_seconds or 0.0)
                retrying = replace(
                    attempted,
                    status=OperationStatus.RETRYING,
                    last_problem=answer.problem,
                    next_attempt_at=now + timedelta(seconds=pause),
                )
                return Report(item_id=operation.item_id, operation=retrying)
            case Retry() | Rejected():
                log.warning("operation %s is dead-lettered: %s", operation.operation_id, answer.problem)
                dead = replace(attempted, status=OperationStatus.DEAD, last_problem=answer.problem)
                return Report(item_id=operation.item_id, operation=dead)

    def _backoff(self, attempts: int) -> float:
        """Seconds to wait after so many failures: doubling, capped, with full jitter, so that what failed together
        does not come back together (Brooker, "Exponential Backoff And Jitter", AWS 2015)."""
        ceiling = min(self._retry_max, self._retry_base * 2 ** min(attempts - 1, 62))
        return self._random.uniform(0, ceiling)


def confirmation(operation: Operation, done: Succeeded, now: datetime) -> Confirm:
    kept = replace(operation, status=OperationStatus.DONE, last_problem=None, updated_at=now)
    return Confirm(item_id=operation.item_id, operation=kept, receipt=done.receipt)
