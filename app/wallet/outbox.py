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
from datetime import datetime, timedelta
from random import Random

from msgspec.structs import replace

from app.domain.command import WALLET, Actor, Command, Confirm, Report
from app.domain.errors import QueueError
from app.domain.operation import Operation, OperationStatus
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import wallet_operations, writing
from app.tracing import Kind, Tracer, within
from app.wallet.answers import Conflict, Escrow, EscrowAnswer, Rejected, Retry, Succeeded, classify_escrow
from app.wallet.breaker import Breaker, BreakerState, Permit
from app.wallet.client import Wallet
from app.wallet.dead_letters import retry_dead

CONCURRENT_ATTEMPTS = 16
POLL_SECONDS = 0.5
"""How soon an operation is noticed that became due by time or that another process wrote."""
LEASE_SLACK_SECONDS = 10.0
"""Seconds of a lease beyond the two calls that an attempt may make."""

UNCOUNTED_DAYS = 7
"""The age at which an operation is given up whose attempts do not count, because none can have had an effect."""
RETRY_DEAD_SECONDS = 60.0
"""The least time between two times that dead operations are retried because the wallet has come back."""

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
        tracer: Tracer | None = None,
        poll_seconds: float = POLL_SECONDS,
        lease_slack_seconds: float = LEASE_SLACK_SECONDS,
        last_moment_seconds: float = LAST_MOMENT_SECONDS,
    ) -> None:
        self._lanes = lanes
        self._queries = queries
        self._wallet = wallet
        self.breaker = breaker
        self._clock = clock
        self._random = random
        self._tracer = tracer
        self._max_attempts = max_attempts
        self._retry_base = retry_base_seconds
        self._retry_max = retry_max_seconds
        self.lease = timedelta(seconds=2 * timeout_seconds + lease_slack_seconds)
        """How long a claimed operation is left to the process that has claimed it."""
        self._poll_seconds = poll_seconds
        self._last_moment_seconds = last_moment_seconds
        self._wake = asyncio.Event()
        self._attempts: set[asyncio.Task[None]] = set()
        self._absences_seen = breaker.opened_count
        self._retried_dead_at: datetime | None = None

    @property
    def attempts(self) -> int:
        """Attempts under way."""
        return len(self._attempts)

    def wake(self) -> None:
        """A hint that an operation may be due; a missed one costs at most a poll."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; attempts under way then get a moment to end. The lease of one that is cut short lapses.

        Raises the error that keeps it from claiming (the database is away); call it again after a pause.
        """
        try:
            while True:
                self._wake.clear()
                await self._retry_dead()
                if not await self.claim():
                    # Not wait_for: up to Python 3.11 it forgets that it was cancelled if it is woken just then.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._poll_seconds):
                            await self._wake.wait()
        finally:
            if self._attempts:
                _, late = await asyncio.wait(self._attempts, timeout=self._last_moment_seconds)
                for task in late:
                    task.cancel()

    async def _retry_dead(self) -> None:
        """Once the wallet is back: retry the operations that died while it was away."""
        now, last = self._clock(), self._retried_dead_at
        recently = last is not None and last <= now < last + timedelta(seconds=RETRY_DEAD_SECONDS)
        # Others use the breaker as well, and any of their calls may have closed it.
        absences = self.breaker.opened_count
        if absences == self._absences_seen or self.breaker.state is not BreakerState.CLOSED or recently:
            return
        self._absences_seen, self._retried_dead_at = absences, now
        retried = await retry_dead(self._queries, self._lanes, actor=WALLET, rejected_too=False)
        if retried:
            log.info("the wallet is back: %s dead operations are tried again", retried)

    async def claim(self) -> int:
        """Claim operations that are due, as many as may run at once, and begin on them; returns how many."""
        now = self._clock()
        if len(self._attempts) >= CONCURRENT_ATTEMPTS or not await self._queries.run(
            lambda connection: wallet_operations.is_operation_due(connection, now)
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
                        connection, now=now, lease_until=now + self.lease, limit=len(permits)
                    )
                )
        finally:
            for unused in permits[len(operations) :]:
                self.breaker.cancelled(unused)
        for operation, permit in zip(operations, permits, strict=False):
            attempt = self._attempt if self._tracer is None else self._traced_attempt
            task = asyncio.create_task(attempt(operation, permit), name=f"wallet {operation.operation_id}")
            self._attempts.add(task)
            task.add_done_callback(self._finished)
        return len(operations)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._attempts.discard(task)
        self._wake.set()

    async def _attempt(self, operation: Operation, permit: Permit) -> None:
        """One attempt, and its outcome sent to the room. If that fails, the lease lapses and all is repeated."""
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

    async def _traced_attempt(self, operation: Operation, permit: Permit) -> None:
        """In the trace of the request that has ordered the operation, however long ago."""
        assert self._tracer is not None  # noqa: S101 - the caller has looked
        span = self._tracer.begin(
            f"wallet {operation.kind}",
            kind=Kind.CLIENT,
            parent=operation.traceparent,
            queue__performer_id=operation.performer_id,
            queue__item_id=operation.item_id,
            queue__operation_id=operation.operation_id,
            queue__attempt=operation.attempts + 1,
        )
        try:
            with within(span.traceparent):
                await self._attempt(operation, permit)
        finally:
            span.end()

    async def _ask_wallet(self, operation: Operation, permit: Permit) -> Succeeded | Retry | Rejected:
        answer = await self._wallet.execute(operation)
        if isinstance(answer, Retry):
            self.breaker.failed(permit, self._clock())
            if not answer.may_have_acted or operation.attempts + 1 < self._max_attempts:
                return answer
            # Before it is given up: an attempt whose answer was lost may have had its effect.
            found = await self.find_escrow(operation)
            final = classify_escrow(operation, found) if isinstance(found, Escrow) else answer
            return answer if isinstance(final, Retry) else final
        # With any other answer the wallet is alive.
        self.breaker.succeeded(permit)
        if isinstance(answer, Conflict):
            return classify_escrow(operation, await self.find_escrow(operation))
        return answer

    async def find_escrow(self, operation: Operation, *, seconds: float | None = None) -> EscrowAnswer:
        """The wallet's own word about the escrow of an operation. `seconds`: in which it must come, where that is less
        than WALLET_TIMEOUT_SECONDS."""
        return await self._wallet.escrow(
            operation.user_id,
            operation.escrow_transaction_id,
            idempotency_key=operation.idempotency_key,
            seconds=seconds,
        )

    def _outcome(self, operation: Operation, answer: Succeeded | Retry | Rejected) -> Command:
        now = self._clock()
        counts = not isinstance(answer, Retry) or answer.may_have_acted
        attempted = replace(operation, attempts=operation.attempts + counts, updated_at=now)
        match answer:
            case Succeeded():
                return confirmation(attempted, answer, now)
            case Retry(may_have_acted=True) if attempted.attempts < self._max_attempts:
                pause = max(self._backoff(attempted.attempts), answer.retry_after_seconds or 0.0)
            case Retry(may_have_acted=False) if now - operation.created_at < timedelta(days=UNCOUNTED_DAYS):
                # The pause grows with the age: that doubles it, too, without counting.
                age = (now - operation.created_at).total_seconds()
                pause = self._random.uniform(0, min(self._retry_max, max(self._retry_base, age)))
            case Retry() | Rejected():
                log.warning("operation %s is dead-lettered: %s", operation.operation_id, answer.problem)
                dead = replace(
                    attempted,
                    status=OperationStatus.DEAD,
                    last_problem=answer.problem,
                    rejected=isinstance(answer, Rejected),
                )
                return Report(item_id=operation.item_id, operation=dead)
        retrying = replace(
            attempted,
            status=OperationStatus.RETRYING,
            last_problem=answer.problem,
            next_attempt_at=now + timedelta(seconds=pause),
        )
        return Report(item_id=operation.item_id, operation=retrying)

    def _backoff(self, attempts: int) -> float:
        """Seconds to wait after so many failures: doubling, capped, with full jitter, so that operations that failed
        together do not come back together (Brooker, "Exponential Backoff And Jitter", AWS 2015)."""
        ceiling = min(self._retry_max, self._retry_base * 2 ** min(attempts - 1, 62))
        return self._random.uniform(0, ceiling)


def confirmation(operation: Operation, done: Succeeded, now: datetime, *, actor: Actor = WALLET) -> Confirm:
    kept = replace(operation, status=OperationStatus.DONE, last_problem=None, updated_at=now)
    return Confirm(item_id=operation.item_id, operation=kept, receipt=done.receipt, actor=actor)
