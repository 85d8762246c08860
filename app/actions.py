"""The actions of callers: each checks rights, idempotency and limits, then sends one command to a lane.

HTTP and sockets both use it, so that the same request has the same rights, codes and effect on either. `decision`, not
this module, decides by the state of a room.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from app.access import rights
from app.access.auth import Principal
from app.access.rate_limit import Quota, Taken
from app.domain import command as do
from app.domain import payment
from app.domain.command import Command
from app.domain.errors import (
    DuplicateIdempotencyKey,
    FieldError,
    InvalidRequest,
    InvalidTransition,
    NotFound,
    QueueError,
    RateLimitExceeded,
    Unavailable,
)
from app.domain.item import Item
from app.domain.operation import Operation, OperationStatus
from app.engine.deadline import Deadline
from app.engine.jobs import Idempotency, Outcome
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import reading, wallet_operations, writing
from app.store.records import Answer
from app.wallet.answers import Escrow, Rejected, Succeeded, classify_escrow
from app.wallet.dead_letters import retry_dead
from app.wallet.hold_checks import HoldChecks
from app.wallet.outbox import Outbox, confirmation
from app.wallet.resolving import resolution_command
from app.wire.commands import COMMANDS, Who
from app.wire.encoding import fingerprint
from app.wire.requests import IntakeRequest, RefundRequest, Request, ResolveRequest, is_identifier
from app.wire.shapes import WholeItem, whole_item

MOST_PROCESSES = 65_536
"""More processes than an order to disconnect can reach: its stored answer packs two numbers into one."""


class Actions:
    def __init__(
        self,
        *,
        lanes: Lanes,
        queries: Queries,
        outbox: Outbox,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        max_duration_seconds: int,
        quota: Quota | None,
        hold_checks: HoldChecks | None = None,
    ) -> None:
        """`quota`: limits each user's intakes; None: no limit. `hold_checks`: asks the wallet at intake whether it
        holds the escrow; None: no check."""
        self._lanes = lanes
        self._queries = queries
        self._outbox = outbox
        self._hold_checks = hold_checks
        self._clock = clock
        self._new_id = new_id
        self._max_duration = max_duration_seconds
        self._quota = quota

    async def intake(self, principal: Principal, request: IntakeRequest, header_key: str | None) -> Outcome:
        """Queue an item, or return the first outcome again for a known key."""
        deadline = self._deadline()
        rights.may_intake(principal, request.source_feature)
        key = _one_key(request.idempotency_key, header_key)
        if request.duration_seconds is not None and request.duration_seconds > self._max_duration:
            raise _invalid("durationSeconds", f"must be at most {self._max_duration}")
        body = request.model_dump(mode="json", exclude={"idempotency_key"})
        idempotency = Idempotency(
            scope=f"intake:{request.source_feature}", key=key, fingerprint=fingerprint("intake", body)
        )
        taken = await self._take_from_quota(request.user_id, idempotency, deadline)
        try:
            if self._hold_checks is not None and not await self._is_known(idempotency, deadline):
                await self._hold_checks.verify(
                    request.user_id,
                    request.escrow_transaction_id,
                    request.tokens,
                    seconds=self._wallet_seconds(deadline),
                )
            command = request.command(principal.actor, item_id=self._new_id(), key=key, at=self._clock())
            outcome = await self._lanes.send(request.performer_id, command, idempotency, deadline=deadline)
        except QueueError:
            await self._give_back_to_quota(taken)
            raise
        if outcome.replayed:
            await self._give_back_to_quota(taken)
        return outcome

    def _deadline(self) -> Deadline:
        """The deadline of a command that begins now."""
        return Deadline(self._lanes.seconds)

    def _wallet_seconds(self, deadline: Deadline) -> float:
        """The seconds for which a command can wait for the wallet and still be committed in time."""
        return deadline.left(keep=self._lanes.commit_seconds)

    async def _take_from_quota(self, user_id: str, idempotency: Idempotency, deadline: Deadline) -> Taken | None:
        if self._quota is None:
            return None
        try:
            return await self._quota.take(user_id)
        except RateLimitExceeded:
            # A repeated request gets its first answer even now: it queues nothing.
            if await self._is_known(idempotency, deadline):
                return None
            raise

    async def _give_back_to_quota(self, taken: Taken | None) -> None:
        if self._quota is not None and taken is not None:
            await self._quota.give_back(taken)

    async def _is_known(self, idempotency: Idempotency | None, deadline: Deadline) -> bool:
        """Whether the key has a stored answer."""
        return idempotency is not None and await self._answer_to(idempotency, deadline) is not None

    async def _answer_to(self, idempotency: Idempotency, deadline: Deadline) -> Answer | None:
        key = (idempotency.scope, idempotency.key)
        found = await self._queries.run(lambda connection: reading.find_answers(connection, [key]), deadline)
        return found.get(key)

    async def command(
        self, principal: Principal, name: str, target: str, request: Request, key: str | None = None
    ) -> Outcome:
        """Send one of COMMANDS. `target`: the id of the item, or of the performer for a command about the room.

        A known `key` gets the first outcome again; a different request with that key is refused.
        """
        spec, deadline = COMMANDS[name], self._deadline()
        item = (await self._queries.item(target, deadline))[0] if spec.is_about_item else None
        performer_id = item.performer_id if item is not None else target
        match spec.who, item, request:
            case Who.STAGE_OR_OWNER, Item(), RefundRequest():
                rights.may_refund(principal, performer_id, item.user_id, request.reason)
            case _:
                rights.may_drive(principal, performer_id)
        idempotency = _idempotency(principal, key, name, target, request.body())
        command = spec.command(principal.actor, item.item_id if item is not None else None, request)
        return await self._lanes.send(performer_id, command, idempotency, deadline=deadline)

    async def item_of(self, principal: Principal | None, refusal: QueueError) -> WholeItem | None:
        """The item that a refusal is about, if the caller may see it. None for Unavailable: the command's time is used
        up, and the item is not the reason."""
        if refusal.item_id is None or principal is None or isinstance(refusal, Unavailable):
            return None
        try:
            item, room = await self._queries.item(refusal.item_id)
            rights.may_read_item(principal, item.performer_id, item.user_id, item.source_feature)
        except QueueError:
            return None
        return whole_item(item, room.position(item.item_id))

    async def retry_operation(self, principal: Principal, operation_id: str, key: str | None) -> tuple[Operation, bool]:
        """Try a dead operation again, or a retrying one now; returns it and whether the key had been used before.

        For a dead operation the wallet is asked first: its escrow may have been resolved since.
        """
        rights.may_administer(principal)
        deadline = self._deadline()
        operation = await self._operation(operation_id, deadline)
        idempotency = _idempotency(principal, key, "retry-operation", operation_id, {})
        command: Command = do.RetryOperation(item_id=operation.item_id, actor=principal.actor)
        if operation.status is OperationStatus.DEAD and not await self._is_known(idempotency, deadline):
            found = await self._outbox.find_escrow(operation, seconds=self._wallet_seconds(deadline))
            answer = classify_escrow(operation, found) if isinstance(found, Escrow) else None
            if isinstance(answer, Rejected):
                raise InvalidTransition(
                    f"A retry cannot help: {answer.problem}. It can be resolved.", item_id=operation.item_id
                )
            if isinstance(answer, Succeeded):
                command = confirmation(operation, answer, self._clock(), actor=principal.actor)
        return await self._sent(operation, command, idempotency, deadline)

    async def retry_dead_operations(self, principal: Principal, key: str | None) -> tuple[int, bool]:
        """Try all dead operations again, at most dead_letters.MAX_OPERATIONS; returns their number, and whether the key
        had been used before."""
        rights.may_administer(principal)
        deadline = self._deadline()

        async def retry() -> int:
            return await retry_dead(
                self._queries, self._lanes, actor=principal.actor, rejected_too=True, deadline=deadline
            )

        return await self._once(_idempotency(principal, key, "retry-operations", "dead", {}), retry, deadline)

    async def disconnect(
        self,
        principal: Principal,
        sub: str | None,
        performer_id: str | None,
        key: str | None,
        carry_out: Callable[[str | None, str | None], Awaitable[tuple[int, int]]],
    ) -> tuple[int, int, bool]:
        """Close the connections of a `sub` or of a performer's room with `carry_out`. Returns its result, the numbers
        of connections closed in this process and of other processes that were sent the order, and whether the key had
        been used before."""
        rights.may_administer(principal)
        body = {"sub": sub, "performerId": performer_id}

        async def end() -> int:
            connections, processes = await carry_out(sub, performer_id)
            return connections * MOST_PROCESSES + processes

        idempotency = _idempotency(principal, key, "disconnect", "sockets", body)
        number, replayed = await self._once(idempotency, end, self._deadline())
        return *divmod(number, MOST_PROCESSES), replayed

    async def _once(
        self, idempotency: Idempotency | None, work: Callable[[], Awaitable[int]], deadline: Deadline
    ) -> tuple[int, bool]:
        """Do work that belongs to no room and has a number as its answer. Returns the number, and whether the key had
        been used before; then the work is not done again."""
        if idempotency is None:
            return await work(), False
        if (known := await self._answer_to(idempotency, deadline)) is not None:
            if known.fingerprint != idempotency.fingerprint:
                raise DuplicateIdempotencyKey(
                    "This idempotency key was used for a different request; use a new key for a new request."
                )
            return known.version, True
        number = await work()
        # There is no room's event to point to, so the number is stored in the column of the version.
        answer = Answer(
            scope=idempotency.scope,
            key=idempotency.key,
            fingerprint=idempotency.fingerprint,
            performer_id="",
            item_id="",
            version=number,
            at=self._clock(),
        )
        await self._lanes.run(lambda connection: writing.remember_answer(connection, answer), deadline=deadline)
        return number, False

    async def resolve_operation(
        self, principal: Principal, operation_id: str, request: ResolveRequest, key: str | None
    ) -> tuple[Operation, bool]:
        """Resolve a dead or retrying operation by hand, after asking the wallet; returns it and whether the key had
        been used before."""
        rights.may_administer(principal)
        deadline = self._deadline()
        operation = await self._operation(operation_id, deadline)
        idempotency = _idempotency(principal, key, "resolve-operation", operation_id, request.model_dump(mode="json"))
        command: Command = do.ResolveOperation(
            actor=principal.actor, item_id=operation.item_id, resolution=request.resolution, reason=request.reason
        )
        is_open = payment.is_resolvable(operation) and not operation.is_under_way(self._clock())
        # The room refuses an operation that is not open, unless the key is known.
        if is_open and not await self._is_known(idempotency, deadline):
            command = resolution_command(
                operation,
                await self._outbox.find_escrow(operation, seconds=self._wallet_seconds(deadline)),
                request.resolution,
                actor=principal.actor,
                reason=request.reason,
                now=self._clock(),
            )
        return await self._sent(operation, command, idempotency, deadline)

    async def _sent(
        self, operation: Operation, command: Command, idempotency: Idempotency | None, deadline: Deadline
    ) -> tuple[Operation, bool]:
        """Send a command about an operation; returns the operation after it, and whether the key had been used."""
        outcome = await self._lanes.send(operation.performer_id, command, idempotency, deadline=deadline)
        after = outcome.operation or await self._operation(operation.operation_id, deadline)
        return after, outcome.replayed

    async def _operation(self, operation_id: str, deadline: Deadline) -> Operation:
        if not is_identifier(operation_id):
            raise NotFound("There is no such wallet operation.")
        operation = await self._queries.run(
            lambda connection: wallet_operations.find_operation(connection, operation_id), deadline
        )
        if operation is None:
            raise NotFound("There is no such wallet operation.")
        return operation


def _one_key(in_body: str | None, in_header: str | None) -> str:
    """The idempotency key of an intake, from its body or its header. Raises InvalidRequest if both differ or neither
    is there."""
    if in_body is not None and in_header is not None and in_body != in_header:
        raise _invalid("idempotencyKey", "differs from the Idempotency-Key header")
    key = in_body or in_header
    if key is None:
        raise _invalid("idempotencyKey", "is required, here or as the Idempotency-Key header")
    return key


def _idempotency(
    principal: Principal, key: str | None, name: str, target: str, body: dict[str, Any]
) -> Idempotency | None:
    if key is None:
        return None
    return Idempotency(scope=f"{principal.role}:{principal.sub}", key=key, fingerprint=fingerprint(name, target, body))


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"The request is not valid: {field} {message}.", errors=[FieldError(field, message)])
