"""The sandbox wallet's ledger: a double-entry ledger of tokens, and the escrows held in it.

Owns every rule about the `sandbox_` tables: each transfer is two postings that sum to zero, no balance but the
mint's is ever negative, an escrow is resolved once and in full, an idempotency key stands for one request. Every public
method is one synchronous transaction. HTTP is in `site`, authorisation in `wallet_handlers`, faults are in `faults`,
and sums in `ledger_audit`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from types import ModuleType
from typing import Any, ClassVar, Final, TypeVar, cast

import orjson
import uuid_utils
from sqlalchemy import Connection, Engine, Executable, Row, bindparam, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from app.sandbox.tables import ACCOUNT, ANSWER, ESCROW, MINT, POSTING

Result = TypeVar("Result")

UNKNOWN_USER: Final = "sandbox:unknown-user"
"""The owner of an adopted escrow if the order that adopts it names no user, as a settlement does."""

MAX_AMOUNT: Final = 2**53 - 1
"""The largest integer that JSON numbers carry exactly everywhere; sums of a few such amounts still fit 64 bits."""


_FIND_ESCROW: Final = select(ESCROW).where(ESCROW.c.escrow_id == bindparam("of"))
_LOCK_ESCROW: Final = _FIND_ESCROW.with_for_update()
_HELD_OF_USER: Final = select(func.coalesce(func.sum(ESCROW.c.amount), 0)).where(
    ESCROW.c.user_id == bindparam("of"), text("status = 'held'")
)
_ADD_ESCROW: Final = insert(ESCROW)
_RESOLVE_ESCROW: Final = (
    update(ESCROW)
    .where(ESCROW.c.escrow_id == bindparam("of"))
    .values(
        {
            name: bindparam(name)
            for name in ("status", "settled_amount", "refunded_amount", "queue_item_id", "resolved_ms")
        }
    )
)
_FIND_ANSWER: Final = select(ANSWER.c.request, ANSWER.c.answer).where(ANSWER.c.idempotency_key == bindparam("of"))
_ADD_ANSWER: Final = insert(ANSWER)
_POST: Final = insert(POSTING)
_BALANCE: Final = select(ACCOUNT.c.balance).where(ACCOUNT.c.account == bindparam("of"))
_DEBIT: Final = (
    update(ACCOUNT)
    .where(ACCOUNT.c.account == bindparam("of"), ACCOUNT.c.balance >= bindparam("debit"))
    .values(balance=ACCOUNT.c.balance - bindparam("debit"))
)


def _credit(dialect: ModuleType) -> Executable:
    statement = dialect.insert(ACCOUNT)
    grown = {"balance": ACCOUNT.c.balance + statement.excluded.balance}
    return cast(Executable, statement.on_conflict_do_update(index_elements=[ACCOUNT.c.account], set_=grown))


class LedgerRefusal(Exception):
    """The ledger refuses a request and changes nothing. `status` is the HTTP status of the wallet's interface."""

    status: ClassVar[int]


class WrongRequest(LedgerRefusal):
    """The amounts or parties do not fit the escrow."""

    status = 422


class KeyReused(LedgerRefusal):
    """The idempotency key was used before, with another request."""

    status = 422


class BalanceTooLow(LedgerRefusal):
    status = 402


class NoSuchEscrow(LedgerRefusal):
    status = 404


class AlreadyResolved(LedgerRefusal):
    status = 409


class HoldStatus(StrEnum):
    """The statuses of an escrow. There is none for work in progress, because each change is one transaction."""

    HELD = "held"
    SETTLED = "settled"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    user_id: str
    amount: int
    reason: str
    queue_item_id: str | None
    feature_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    transaction_id: str
    escrow_id: str
    user_available: int
    at_ms: int
    user_escrow: int = 0
    """All held tokens of the user, this hold included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The order to empty an escrow: tokens go to the model, back to the user, or some to each."""

    escrow_id: str
    model_id: str | None
    """None: all tokens go back."""
    user_id: str | None
    """None: the caller did not say whose escrow it is."""
    settle: int
    refund: int
    queue_item_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    transaction_id: str
    user_available: int
    model_earned: int
    """0 where nothing went to a model."""
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    transaction_id: str
    user_available: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEscrow:
    escrow_id: str
    user_id: str
    amount: int
    status: HoldStatus
    queue_item_id: str | None
    feature_type: str
    reason: str
    settled_amount: int
    refunded_amount: int
    created_ms: int
    resolved_ms: int | None


class Ledger:
    """Safe to call from several threads and processes: the database orders them."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], str] = lambda: uuid_utils.uuid7().hex,
        adopts_unknown_escrows: bool = False,
    ) -> None:
        """`adopts_unknown_escrows`: an order for an unknown escrow mints its tokens and holds them first."""
        self._engine = engine
        self._clock = clock
        self._new_id = new_id
        self._adopts_unknown_escrows = adopts_unknown_escrows
        self._credit = _credit(postgresql if engine.dialect.name == "postgresql" else sqlite)

    def grant(self, user_id: str, amount: int, *, key: str) -> Granted:
        def work(connection: Connection) -> Granted:
            before = _answered(connection, key, request)
            if before is not None:
                return Granted(**before)
            transaction_id, at_ms = self._new_id(), self._now_ms()
            self._transfer(connection, transaction_id, at_ms, [(MINT, _available(user_id), amount)])
            granted = Granted(
                transaction_id=transaction_id, user_available=_balance(connection, _available(user_id)), at_ms=at_ms
            )
            return _remember(connection, key, request, granted, at_ms)

        request = _request("grant", user_id=user_id, amount=amount)
        return self._transact(work)

    def hold(self, order: Hold, *, key: str) -> Held:
        """Moves available tokens into a new escrow. Raises BalanceTooLow, KeyReused."""

        def work(connection: Connection) -> Held:
            before = _answered(connection, key, request)
            if before is not None:
                return Held(**before)
            transaction_id, escrow_id, at_ms = self._new_id(), self._new_id(), self._now_ms()
            available = _available(order.user_id)
            self._hold(connection, transaction_id, at_ms, escrow_id, order)
            held = Held(
                transaction_id=transaction_id,
                escrow_id=escrow_id,
                user_available=_balance(connection, available),
                at_ms=at_ms,
                user_escrow=int(connection.execute(_HELD_OF_USER, {"of": order.user_id}).scalar_one()),
            )
            return _remember(connection, key, request, held, at_ms)

        request = _request("hold", **asdict(order))
        return self._transact(work)

    def resolve(self, order: Resolution, *, key: str) -> Resolved:
        """Empties an escrow. Raises NoSuchEscrow, KeyReused, WrongRequest, AlreadyResolved."""

        def work(connection: Connection) -> Resolved:
            # The row lock comes first, so that the second of two simultaneous deliveries finds the first one's answer.
            this = {"of": order.escrow_id}
            held = connection.execute(_LOCK_ESCROW, this).one_or_none()
            if held is None:
                if not self._adopts_unknown_escrows:
                    raise NoSuchEscrow("no such escrow")
                self._adopt(connection, order)
                held = connection.execute(_LOCK_ESCROW, this).one()
            before = _answered(connection, key, request)
            if before is not None:
                return Resolved(**before)
            _check(held, order)
            transaction_id, at_ms = self._new_id(), self._now_ms()
            source, available = _escrow(order.escrow_id), _available(held.user_id)
            transfers = []
            if order.refund:
                transfers.append((source, available, order.refund))
            if order.settle:
                transfers.append((source, _earned(order.model_id or ""), order.settle))
            self._transfer(connection, transaction_id, at_ms, transfers)
            connection.execute(
                _RESOLVE_ESCROW,
                {
                    "of": order.escrow_id,
                    # The interface has no status for a split: it ends settled.
                    "status": (HoldStatus.SETTLED if order.settle else HoldStatus.REFUNDED).value,
                    "settled_amount": order.settle,
                    "refunded_amount": order.refund,
                    "queue_item_id": order.queue_item_id,
                    "resolved_ms": at_ms,
                },
            )
            resolved = Resolved(
                transaction_id=transaction_id,
                user_available=_balance(connection, available),
                model_earned=_balance(connection, _earned(order.model_id)) if order.model_id else 0,
                at_ms=at_ms,
            )
            return _remember(connection, key, request, resolved, at_ms)

        request = _request("resolve", **asdict(order))
        return self._transact(work)

    def escrow(self, user_id: str, escrow_id: str) -> LedgerEscrow | None:
        with self._engine.begin() as connection:
            row = connection.execute(_FIND_ESCROW, {"of": escrow_id}).one_or_none()
        if row is None or row.user_id != user_id:
            return None
        fields = dict(row._mapping)
        return LedgerEscrow(**fields | {"status": HoldStatus(fields["status"])})

    def available(self, user_id: str) -> int:
        with self._engine.begin() as connection:
            return _balance(connection, _available(user_id))

    def earned(self, model_id: str) -> int:
        with self._engine.begin() as connection:
            return _balance(connection, _earned(model_id))

    def _transact(self, work: Callable[[Connection], Result]) -> Result:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except IntegrityError:
            # Another transaction with the same key has just committed; the second attempt finds its answer.
            with self._engine.begin() as connection:
                return work(connection)

    def _hold(self, connection: Connection, transaction_id: str, at_ms: int, escrow_id: str, order: Hold) -> None:
        source, target = _available(order.user_id), _escrow(escrow_id)
        self._transfer(connection, transaction_id, at_ms, [(source, target, order.amount)])
        held = {"status": HoldStatus.HELD.value, "settled_amount": 0, "refunded_amount": 0, "created_ms": at_ms}
        connection.execute(_ADD_ESCROW, {"escrow_id": escrow_id, **asdict(order), **held})

    def _adopt(self, connection: Connection, order: Resolution) -> None:
        """Make the state that a hold would have left: the user has got the tokens, and the escrow holds them."""
        user_id, amount, at_ms = order.user_id or UNKNOWN_USER, order.settle + order.refund, self._now_ms()
        self._transfer(connection, self._new_id(), at_ms, [(MINT, _available(user_id), amount)])
        adopted = Hold(
            user_id=user_id,
            amount=amount,
            reason="adopted by the sandbox",
            queue_item_id=order.queue_item_id,
            feature_type="unknown",
        )
        self._hold(connection, self._new_id(), at_ms, order.escrow_id, adopted)

    def _transfer(
        self, connection: Connection, transaction_id: str, at_ms: int, transfers: Sequence[tuple[str, str, int]]
    ) -> None:
        """Posts each (from, to, amount). Raises BalanceTooLow; the caller's transaction is then rolled back."""
        postings = []
        changes: dict[str, int] = {}
        for number, (source, target, amount) in enumerate(transfers):
            for account, change in ((source, -amount), (target, amount)):
                changes[account] = changes.get(account, 0) + change
                postings.append(
                    {
                        "transaction_id": transaction_id,
                        "transfer": number,
                        "account": account,
                        "amount": change,
                        "at_ms": at_ms,
                    }
                )
        # Always in the same order, so that two transactions cannot deadlock on each other's accounts.
        for account in sorted(changes):
            self._change(connection, account, changes[account])
        connection.execute(_POST, postings)

    def _change(self, connection: Connection, account: str, change: int) -> None:
        if change < 0 and account != MINT:
            # Not an upsert: the database checks the constraint on the new, negative row before it finds the old one.
            if connection.execute(_DEBIT, {"of": account, "debit": -change}).rowcount != 1:
                raise BalanceTooLow("the balance is too low")
            return
        kind = account.partition(":")[0]
        connection.execute(self._credit, {"account": account, "kind": kind, "balance": change})

    def _now_ms(self) -> int:
        return round(self._clock().timestamp() * 1000)


def _check(held: Row[Any], order: Resolution) -> None:
    if order.user_id not in (None, held.user_id):
        raise WrongRequest("the escrow is another user's")
    if order.settle + order.refund != held.amount:
        raise WrongRequest("the amounts do not add up to the hold")
    if held.status != HoldStatus.HELD:
        raise AlreadyResolved(f"the escrow is {held.status} already")


def _request(verb: str, **fields: object) -> str:
    return orjson.dumps({"verb": verb, **fields}, option=orjson.OPT_SORT_KEYS).decode()


def _answered(connection: Connection, key: str, request: str) -> dict[str, Any] | None:
    row = connection.execute(_FIND_ANSWER, {"of": key}).one_or_none()
    if row is None:
        return None
    if row.request != request:
        raise KeyReused("the idempotency key stands for another request")
    answer: dict[str, Any] = orjson.loads(row.answer)
    return answer


def _remember(connection: Connection, key: str, request: str, answer: Result, at_ms: int) -> Result:
    text = orjson.dumps(answer).decode()
    connection.execute(_ADD_ANSWER, {"idempotency_key": key, "request": request, "answer": text, "created_ms": at_ms})
    return answer


def _balance(connection: Connection, account: str) -> int:
    return connection.scalar(_BALANCE, {"of": account}) or 0


def _available(user_id: str) -> str:
    return f"available:{user_id}"


def _escrow(escrow_id: str) -> str:
    return f"escrow:{escrow_id}"


def _earned(model_id: str) -> str:
    return f"earned:{model_id}"
