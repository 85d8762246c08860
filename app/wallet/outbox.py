"""The outbox: attempts each wallet operation until the wallet confirms it or it is dead-lettered.

It claims due operations as leases, so that those of a process that dies become free by time. It calls the wallet and
sends the outcome to the room as a command; it changes no row itself except by claiming. `answers` classifies responses.
`breaker` decides when the wallet is called: while it is open, operations wait and use up no attempts.
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
"""Between two searches for operations that became due by time, or that another process wrote."""
LEASE_SLACK_SECONDS = 10.0
"""Seconds of a lease beyond the time-outs of the two calls that an attempt may make."""

UNCOUNTED_DAYS = 7
"""The age at which an operation is dead-lettered after an attempt that does not count, as it had no effect."""
RETRY_DEAD_SECONDS = 60.0
"""The shortest time between two retries of all dead operations after the wallet has come back."""

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
        """How long a process has a claimed operation for itself."""
        self._poll_seconds = poll_seconds
        self._last_moment_seconds = last_moment_seconds
        self._wake = asyncio.Event()
        self._attempts: set[asyncio.Task[None]] = set()
        self._absences_seen = breaker.opened_count
        self._retried_dead_at: datetime | None = None

    def wake(self) -> None:
        """Look for due operations now. Without this hint they are found after POLL_SECONDS at most."""
        self._wake.set()

    async def run(self) -> None:
        """Claim and attempt operations until cancelled, then wait LAST_MOMENT_SECONDS for attempts under way. Those
        still running are cancelled, and their leases run out.

        Raises the errors of claiming, for example while the database is away; call it again after a pause.
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
        """Retry dead operations once the breaker has closed again: they may have died while the wallet was away."""
        now, last = self._clock(), self._retried_dead_at
        recently = last is not None and last <= now < last + timedelta(seconds=RETRY_DEAD_SECONDS)
        # A call of the breaker's other users may have closed it.
        absences = self.breaker.opened_count
        if absences == self._absences_seen or self.breaker.state is not BreakerState.CLOSED or recently:
            return
        self._absences_seen, self._retried_dead_at = absences, now
        retried = await retry_dead(self._queries, self._lanes, actor=WALLET, rejected_too=False)
        if retried:
            log.info("the wallet is back: %s dead operations are retried", retried)

    async def claim(self) -> int:
        """Claim due operations, as many as may run at once, and start an attempt at each; returns their number."""
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
        """Make one attempt and send its outcome to the room. If sending fails, the lease runs out and the attempt is
        repeated."""
        try:
            answer = await self._ask_wallet(operation, permit)
        except asyncio.CancelledError:
            self.breaker.cancelled(permit)
            raise
        except Exception:
            # A bug, or an unforeseen error of the connection. It counts as an attempt, so that attempts are limited.
            self.breaker.cancelled(permit)
            log.exception("operation %s: the attempt failed", operation.operation_id)
            answer = Retry(problem="the attempt failed unexpectedly")
        try:
            await self._lanes.send(operation.performer_id, self._outcome(operation, answer))
        except QueueError as refusal:
            log.warning("operation %s: the outcome was not stored (%s)", operation.operation_id, refusal.code)

    async def _traced_attempt(self, operation: Operation, permit: Permit) -> None:
        """Make an attempt with a span in the trace of the request that ordered the operation."""
        assert self._tracer is not None  # noqa: S101 - the caller has checked it
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
            # Before the operation is given up: an attempt whose answer was lost may have had its effect.
            found = await self.find_escrow(operation)
            final = classify_escrow(operation, found) if isinstance(found, Escrow) else answer
            return answer if isinstance(final, Retry) else final
        # Any other answer shows that the wallet works.
        self.breaker.succeeded(permit)
        if isinstance(answer, Conflict):
            return classify_escrow(operation, await self.find_escrow(operation))
        return answer

    async def find_escrow(self, operation: Operation, *, seconds: float | None = None) -> EscrowAnswer:
        """The state of an operation's escrow at the wallet. `seconds`: a time limit below WALLET_TIMEOUT_SECONDS."""
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
                # A ceiling that grows with the age also doubles the pause, without a count of attempts.
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
        """The pause in seconds after so many attempts: doubling, capped, with full jitter, so that operations that
        failed together are not retried together (Brooker, "Exponential Backoff And Jitter", AWS 2015)."""
        ceiling = min(self._retry_max, self._retry_base * 2 ** min(attempts - 1, 62))
        return self._random.uniform(0, ceiling)


def confirmation(operation: Operation, done: Succeeded, now: datetime, *, actor: Actor = WALLET) -> Confirm:
    """The command that records that the wallet has carried out an operation."""
    kept = replace(operation, status=OperationStatus.DONE, last_problem=None, updated_at=now)
    return Confirm(item_id=operation.item_id, operation=kept, receipt=done.receipt, actor=actor)
