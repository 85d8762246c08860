"""Retries many dead operations, in batches, so that other commands are committed in between."""

import asyncio

from app.domain.command import Actor, RetryOperation
from app.domain.errors import InvalidTransition
from app.domain.operation import Operation
from app.engine.deadline import Deadline
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import wallet_operations

BATCH = 200
MAX_OPERATIONS = 10_000
"""The most operations that one call retries. A caller that gets this number should call again."""


async def retry_dead(
    queries: Queries,
    lanes: Lanes,
    *,
    actor: Actor,
    rejected_too: bool,
    deadline: Deadline | None = None,
    at_most: int = MAX_OPERATIONS,
) -> int:
    """Retries dead operations, each once; returns their number, at most `at_most`.

    `rejected_too`: also those that the wallet refused for good. `deadline`: no batch begins in the last quarter of the
    time for a command. Raises Unavailable if the database cannot be used; operations retried before stay retried.
    """
    retried, after = 0, ""
    while retried < at_most and (deadline is None or deadline.left(keep=lanes.seconds / 4)):
        wanted = min(BATCH, at_most - retried)
        batch = await queries.run(
            lambda connection, after=after, wanted=wanted: wallet_operations.dead_operations(  # type: ignore[misc]
                connection, after=after, at_most=wanted, rejected_too=rejected_too
            ),
            deadline,
        )
        retried += sum(await asyncio.gather(*(_retry(lanes, operation, actor, deadline) for operation in batch)))
        if len(batch) < wanted:
            break
        after = batch[-1].operation_id
    return retried


async def _retry(lanes: Lanes, operation: Operation, actor: Actor, deadline: Deadline | None) -> bool:
    command = RetryOperation(item_id=operation.item_id, actor=actor)
    try:
        await lanes.send(operation.performer_id, command, deadline=deadline)
    except InvalidTransition:
        return False  # another command was first
    return True
