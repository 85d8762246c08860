"""The administrators of a simulation: they retry and resolve operations by hand, at any moment."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from app.domain.errors import QueueError
from app.domain.operation import Operation, OperationStatus, Resolution
from app.store import wallet_operations
from app.wire.requests import ResolveRequest, read
from tests.simulation.people import ADMIN, NO_ANSWER, PATIENCE
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.people import People
    from tests.simulation.world import World

OPEN_FOR_HANDS = (OperationStatus.DEAD, OperationStatus.RETRYING)

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Asked:
    """One requested resolution, perhaps requested several times with one key."""

    item_id: str
    resolution: Resolution
    is_acknowledged: bool = False


@dataclass(eq=False)
class Administrators:
    world: "World"
    people: "People"
    asked: dict[str, Asked] = field(default_factory=dict)
    """By its reason, which is another for each."""

    def __post_init__(self) -> None:
        self._random = self.world.random("administrators")

    async def retry(self) -> None:
        """Retry all dead and retrying operations; sometimes twice at once, of which only one can be first."""
        for operation in await self._wait_for(*OPEN_FOR_HANDS):
            times = self._random.choice((1, 2))
            await asyncio.gather(*(self._retry(operation) for _ in range(times)))

    async def retry_all(self) -> None:
        await self._wait_for(OperationStatus.DEAD)
        key = self._key()
        retried = await self._ask("retry all", lambda process: process.actions.retry_dead_operations(ADMIN, key), key)
        if retried is not None and retried[0]:
            self.world.count_by_hand("retry all")

    async def resolve(self) -> None:
        """Resolve a dead or retrying operation, whether or not an attempt is under way."""
        if operations := await self._wait_for(*OPEN_FOR_HANDS):
            operation, resolution = self._random.choice(operations), self._random.choice(list(Resolution))
            times = self._random.choice((1, 1, 2))
            await asyncio.gather(*(self._resolve(operation, resolution) for _ in range(times)))

    async def clear(self) -> None:
        """When all is calm, retry every dead operation that can be paid; if a retry is refused, resolve it."""
        for operation in self._find(OperationStatus.DEAD):
            is_payable = operation.escrow_transaction_id not in self.people.unpayable
            if is_payable and not await self._retry(operation):
                await self._resolve(operation, Resolution.REFUND)

    async def _wait_for(self, *statuses: OperationStatus) -> list[Operation]:
        """Wait until there are operations to look at, for a limited time."""
        for _ in range(PATIENCE):
            if found := self._find(*statuses):
                return found
            await asyncio.sleep(self._random.random())
        return []

    def _find(self, *statuses: OperationStatus) -> list[Operation]:
        with self.world.databases.queue.reader.begin() as connection:
            pages = [
                wallet_operations.operations_page(connection, status=status, limit=100, skip=0) for status in statuses
            ]
        return [operation for page in pages for operation in page.rows]

    async def _retry(self, operation: Operation) -> bool:
        """Retry an operation; returns whether that was acknowledged."""
        operation_id, key = operation.operation_id, self._key()
        what = "retry" if operation.status is OperationStatus.DEAD else "retry now"
        answer = await self._ask(
            f"{what} {operation_id[:8]}",
            lambda process: process.actions.retry_operation(ADMIN, operation_id, key),
            key,
        )
        if answer is not None:
            self.world.count_by_hand(what)
        return answer is not None

    async def _resolve(self, operation: Operation, resolution: Resolution) -> None:
        operation_id, key, reason = operation.operation_id, self._key(), f"decision {len(self.asked) + 1}"
        asked = self.asked[reason] = Asked(item_id=operation.item_id, resolution=resolution)
        request = read(ResolveRequest, {"resolution": resolution, "reason": reason})
        if await self._ask(
            f"resolve {operation_id[:8]} as {resolution}",
            lambda process: process.actions.resolve_operation(ADMIN, operation_id, request, key),
            key,
        ):
            asked.is_acknowledged = True
            self.world.count_by_hand(f"resolve: {resolution}")

    async def _ask(self, what: str, ask: Callable[[Process], Awaitable[T]], key: str | None) -> T | None:
        """Send a request, again with the same key if no answer comes; None: no answer, or a refusal."""
        for _ in range(PATIENCE if key else 1):
            process = await self.people.process()
            try:
                answer = await process.call(ask)
            except NO_ANSWER as problem:
                self.world.note(f"{what}: {problem!r}")
                await asyncio.sleep(self._random.random())
            except QueueError as refusal:
                self.world.note(f"{what} refused: {refusal}")
                return None
            else:
                self.world.note(f"{what} acknowledged")
                return answer
        return None

    def _key(self) -> str | None:
        return f"by-hand-{self._random.random()}" if self._random.random() < 0.6 else None
