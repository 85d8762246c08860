"""Breaks one rule of the service at a time: if a simulation does not find a broken rule, its checks are worthless."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import update

from app.domain.command import AboutItem, ResolveOperation
from app.domain.event import Event
from app.domain.item import Item
from app.domain.operation import Operation, OperationStatus, Receipt, Resolution
from app.engine.heartbeat import Heartbeat
from app.engine.jobs import Envelope, Job, Outcome
from app.engine.writer import Writer
from app.store import Store
from app.store.tables import OPERATIONS
from app.wallet.answers import Escrow, EscrowStatus, Rejected, Retry, Succeeded
from app.wallet.outbox import Outbox
from app.wallet.resolving import confirmation_of

if TYPE_CHECKING:
    from app.wallet.breaker import Permit
    from tests.simulation.world import World

Missed = Callable[[str, int], Awaitable[Sequence[Event]]]


class Sabotage:
    """Makes the parts of a process. This class makes the real ones; subclasses break one of them."""

    without_uniqueness = False
    """Whether the database lacks the constraints that keep escrows and keys from being used twice."""

    def writer(self, world: "World", store: Store, clock: Callable[[], datetime], new_id: Callable[[], str]) -> Writer:
        return Writer(store, clock, new_id)

    def outbox(self, **parts: Any) -> Outbox:
        return Outbox(**parts)

    def heartbeat(self, **parts: Any) -> Heartbeat:
        return Heartbeat(**parts)

    def missed(self, read: Missed) -> Missed:
        return read


HONEST = Sabotage()


class SendBeforeCommit(Sabotage):
    """The order is sent to the wallet before the transaction is committed."""

    def writer(self, world: "World", store: Store, clock: Callable[[], datetime], new_id: Callable[[], str]) -> Writer:
        class Hasty(Writer):
            def _decide(self, batch: Any, envelope: Envelope) -> Outcome:
                outcome = super()._decide(batch, envelope)
                if outcome.operation is not None and outcome.operation.status is OperationStatus.PENDING:
                    world.wallet.carry_out(outcome.operation)
                return outcome

        return Hasty(store, clock, new_id)


class ForgetEscrows(Sabotage):
    """Neither the lane nor the tables prevent an escrow from being queued twice."""

    without_uniqueness = True

    def writer(self, world: "World", store: Store, clock: Callable[[], datetime], new_id: Callable[[], str]) -> Writer:
        class Forgetful(Writer):
            def _decide(self, batch: Any, envelope: Envelope) -> Outcome:
                batch.held_escrows.clear()
                return super()._decide(batch, envelope)

        return Forgetful(store, clock, new_id)


class ForgetKeys(Sabotage):
    """A repeated request counts as a new one."""

    def writer(self, world: "World", store: Store, clock: Callable[[], datetime], new_id: Callable[[], str]) -> Writer:
        class Forgetful(Writer):
            def _decide(self, batch: Any, envelope: Envelope) -> Outcome:
                envelope.idempotency = None
                return super()._decide(batch, envelope)

        return Forgetful(store, clock, new_id)


class RefundWhatIsClaimed(Sabotage):
    """A refund replaces a settlement that may be under way."""

    def writer(self, world: "World", store: Store, clock: Callable[[], datetime], new_id: Callable[[], str]) -> Writer:
        class Rash(Writer):
            def _load_ended(self, batch: Any, command: AboutItem) -> tuple[Item | None, Operation | None, bool]:
                item, operation, _ = super()._load_ended(batch, command)
                return item, operation, False

        return Rash(store, clock, new_id)


class TakeDecisionsForPayments(Sabotage):
    """An administrator's decision counts as done, and the wallet gets no order."""

    def writer(self, world: "World", store: Store, clock: Callable[[], datetime], new_id: Callable[[], str]) -> Writer:
        class Credulous(Writer):
            def _decide(self, batch: Any, envelope: Envelope) -> Outcome:
                command = envelope.command
                if isinstance(command, ResolveOperation) and command.resolution is not Resolution.WRITTEN_OFF:
                    _, operation, _ = self._load_ended(batch, command)
                    assert operation is not None
                    is_settled = command.resolution is Resolution.SETTLE
                    escrow = Escrow(
                        escrow_id=operation.escrow_transaction_id,
                        user_id=operation.user_id,
                        amount=operation.tokens,
                        status=EscrowStatus.SETTLED if is_settled else EscrowStatus.REFUNDED,
                    )
                    envelope.command = confirmation_of(
                        operation, escrow, actor=command.actor, reason=command.reason, now=self.clock()
                    )
                return super()._decide(batch, envelope)

        return Credulous(store, clock, new_id)


class LoseLeases(Sabotage):
    """An operation that one process has claimed is free for the next one at once."""

    def writer(self, world: "World", store: Store, clock: Callable[[], datetime], new_id: Callable[[], str]) -> Writer:
        class Careless(Writer):
            def process(self, batch: Sequence[Job]) -> list[Any]:
                results = super().process(batch)
                if any(isinstance(result, list) and result and isinstance(result[0], Operation) for result in results):
                    with store.engines.writer.begin() as connection:
                        connection.execute(update(OPERATIONS).values(lease_until=None))
                return results

        return Careless(store, clock, new_id)


class TakeSilenceForSuccess(Sabotage):
    """An attempt without an answer counts as done."""

    def outbox(self, **parts: Any) -> Outbox:
        class Credulous(Outbox):
            async def _ask_wallet(self, operation: Operation, permit: "Permit") -> Succeeded | Retry | Rejected:
                answer = await super()._ask_wallet(operation, permit)
                if not isinstance(answer, Retry):
                    return answer
                receipt = Receipt(
                    transaction_id=None,
                    settled_tokens=operation.settle_tokens,
                    refunded_tokens=operation.refund_tokens,
                )
                return Succeeded(receipt=receipt)

        return Credulous(**parts)


class TrustTheBus(Sabotage):
    """Gaps in the events from the bus are never filled from the database."""

    def missed(self, read: Missed) -> Missed:
        async def nothing(performer_id: str, after: int) -> Sequence[Event]:
            return ()

        return nothing


class CountDowntime(Sabotage):
    """Clocks run on while no process runs."""

    def heartbeat(self, **parts: Any) -> Heartbeat:
        clock: Callable[[], datetime] = parts["clock"]

        class Silent(Heartbeat):
            async def start(self) -> None:
                pass

            async def keep(self, standstill: timedelta = timedelta()) -> datetime:
                return clock()

        return Silent(**parts)


SABOTAGES: tuple[Sabotage, ...] = (
    SendBeforeCommit(),
    ForgetEscrows(),
    ForgetKeys(),
    RefundWhatIsClaimed(),
    TakeDecisionsForPayments(),
    LoseLeases(),
    TakeSilenceForSuccess(),
    TrustTheBus(),
    CountDowntime(),
)
