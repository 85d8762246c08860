"""The actions of callers: rights, idempotency and limits are checked, then one command is sent to a lane.

HTTP and the socket both come through here, so that the same request has the same rights, codes and effect on either.
Nothing is decided about the state of a room; that is `decision`'s.
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
"""Processes that an order to disconnect can have reached: its answer keeps two numbers in one."""


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
        """`quota`: of every user; None: nobody is held back. `hold_checks`: ask the wallet at intake whether it holds
        the escrow; None: it is not asked."""
        self._lanes = lanes
        self._queries = queries
        self._outbox = outbox
        self._hold_checks = hold_checks
        self._clock = clock
        self._new_id = new_id
        self._max_duration = max_duration_seconds
        self._quota = quota

    async def intake(self, principal: Principal, request: IntakeRequest, header_key: str | None) -> Outcome:
        """Queue an item, or give the first answer again for a key that is known."""
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
        """Of a command that begins now."""
        return Deadline(self._lanes.seconds)

    def _wallet_seconds(self, deadline: Deadline) -> float:
        """How long a command that is to be committed in time can wait for the wallet."""
        return deadline.left(keep=self._lanes.commit_seconds)

    async def _take_from_quota(self, user_id: str, idempotency: Idempotency, deadline: Deadline) -> Taken | None:
        if self._quota is None:
            return None
        try:
            return await self._quota.take(user_id)
        except RateLimitExceeded:
            # A repeated request is answered as before even now: it queues nothing.
            if await self._is_known(idempotency, deadline):
                return None
            raise

    async def _give_back_to_quota(self, taken: Taken | None) -> None:
        if self._quota is not None and taken is not None:
            await self._quota.give_back(taken)

    async def _is_known(self, idempotency: Idempotency | None, deadline: Deadline) -> bool:
        """Whether this key has been answered before."""
        return idempotency is not None and await self._answer_to(idempotency, deadline) is not None

    async def _answer_to(self, idempotency: Idempotency, deadline: Deadline) -> Answer | None:
        key = (idempotency.scope, idempotency.key)
        found = await self._queries.run(lambda connection: reading.find_answers(connection, [key]), deadline)
        return found.get(key)

    async def command(
        self, principal: Principal, name: str, target: str, request: Request, key: str | None = None
    ) -> Outcome:
        """Send one of COMMANDS. `target` is the id of its item, or of the performer for a room's command.

        A known `key` gets the first outcome again; another request under it is refused.
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
        """The item a refusal is about, where the caller may see that. Unavailable has taken the command's time, and
        does not depend on the item."""
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

        About a dead one the wallet is asked first: its escrow may have been resolved since, one way or the other.
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
        """Try all dead operations again, at most dead_letters.MAX_OPERATIONS; returns how many, and whether the key
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
        """End the sockets of a `sub` or of a performer's room by `carry_out`; returns its result, the connections
        that it has ended here and the processes that it has told, and whether the key had been used before."""
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
        """Do work that belongs to no room and whose whole answer is a number; returns it, and whether the key had been
        used before, in which case nothing is done."""
        if idempotency is None:
            return await work(), False
        if (known := await self._answer_to(idempotency, deadline)) is not None:
            if known.fingerprint != idempotency.fingerprint:
                raise DuplicateIdempotencyKey(
                    "This idempotency key was used for a different request; use a new key for a new request."
                )
            return known.version, True
        number = await work()
        # No room has an event for this: the number stands where another answer has its room's version.
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
        """End a dead or retrying operation as an administrator wishes; the wallet is asked first. Returns the operation
        and whether the key had been used before."""
        rights.may_administer(principal)
        deadline = self._deadline()
        operation = await self._operation(operation_id, deadline)
        idempotency = _idempotency(principal, key, "resolve-operation", operation_id, request.model_dump(mode="json"))
        command: Command = do.ResolveOperation(
            actor=principal.actor, item_id=operation.item_id, resolution=request.resolution, reason=request.reason
        )
        is_open = payment.is_resolvable(operation) and not operation.is_under_way(self._clock())
        # One that is not will be refused by the room, unless the key is known.
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
    """The idempotency key of an intake, which may come either way."""
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
