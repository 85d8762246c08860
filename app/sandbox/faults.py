"""Injects faults into the sandbox wallet, of the kinds that real wallets and networks have.

Owns the rates, the random choice, and the effect of each fault on one request. It never sleeps: for a request without
an answer it returns None, and its caller (`site`, or a simulation) leaves the request open.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from http import HTTPStatus
from random import Random
from typing import Final, TypeVar

import orjson

Choice = TypeVar("Choice")


class FaultKind(StrEnum):
    ERROR = "error"
    """429, 500 or 503; the request was not executed."""
    CONFLICT = "conflict"
    """409 for a lock that is held; the request was not executed."""
    TIMEOUT_BEFORE = "timeout_before"
    """No answer; the request was not executed."""
    TIMEOUT_AFTER = "timeout_after"
    """No answer; the request was executed."""
    LOST_ANSWER = "lost_answer"
    """A gateway's 502 in place of the answer; the request was executed."""
    DUPLICATE = "duplicate"
    """The request is executed twice; the second answer is returned."""
    WRONG_ANSWER = "wrong_answer"
    """The request was executed, and the answer is a 200 that is not a valid receipt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRates:
    """Each rate is the share of requests that meet this fault, 0 to 1; a request meets at most one fault."""

    latency_seconds: float = 0.0
    error: float = 0.0
    conflict: float = 0.0
    timeout_before: float = 0.0
    timeout_after: float = 0.0
    lost_answer: float = 0.0
    duplicate: float = 0.0
    wrong_answer: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for field in fields(self):
            value, limit = getattr(self, field.name), 60 if field.name == "latency_seconds" else 1
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
                raise ValueError(f"{field.name} must be a number from 0 to {limit}")
        if sum(getattr(self, kind) for kind in FaultKind) > 1:
            raise ValueError("the rates add up to more than 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    body: bytes
    content_type: str = "application/json"
    retry_after_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    dice: float
    """0 ≤ dice < 1; chooses the variant of the fault."""


class Faults:
    """Draws the fault of each request; `rates` may be replaced while requests run."""

    def __init__(self, random: Random, rates: FaultRates | None = None) -> None:
        self._random = random
        self.rates = rates or FaultRates()
        self.injected: Counter[FaultKind] = Counter()

    def delay_seconds(self) -> float:
        return self.rates.latency_seconds * self._random.uniform(0.5, 1.5) if self.rates.latency_seconds else 0.0

    def draw(self) -> Fault | None:
        """The fault of the next request. Every call takes two random values, whatever the rates are."""
        point, dice = self._random.random(), self._random.random()
        for kind in FaultKind:
            rate: float = getattr(self.rates, kind)
            if point < rate:
                self.injected[kind] += 1
                return Fault(kind, dice)
            point -= rate
        return None


def deliver(work: Callable[[], Reply], fault: Fault | None) -> Reply | None:
    """Execute `work` with a fault, that is never, once or twice, and return the answer; None: there is no answer."""
    if fault is None:
        return work()
    match fault.kind:
        case FaultKind.ERROR:
            return _pick(_ERRORS, fault)
        case FaultKind.CONFLICT:
            return _CONFLICT
        case FaultKind.TIMEOUT_BEFORE:
            return None
        case FaultKind.TIMEOUT_AFTER:
            work()
            return None
        case FaultKind.LOST_ANSWER:
            work()
            return _BAD_GATEWAY
        case FaultKind.DUPLICATE:
            work()
            return work()
        case FaultKind.WRONG_ANSWER:
            return _spoil(work(), fault)


def error_reply(status: int, message: str, *, retry_after_seconds: int | None = None) -> Reply:
    """An error in the shape of the published interface; `message` is for people."""
    return Reply(
        status=status,
        body=orjson.dumps({"error": HTTPStatus(status).phrase, "message": message}),
        retry_after_seconds=retry_after_seconds,
    )


_ERRORS: Final = (
    error_reply(500, "sandbox fault"),
    error_reply(503, "sandbox fault", retry_after_seconds=1),
    error_reply(429, "sandbox fault", retry_after_seconds=2),
)
_CONFLICT: Final = error_reply(409, "sandbox fault: the escrow is locked")
_BAD_GATEWAY: Final = Reply(status=502, body=b"<html><h1>502 Bad Gateway</h1></html>", content_type="text/html")


_AMOUNTS: Final = frozenset({"amount", "settledAmount", "refundedAmount"})


def _one_more(amount: int | None) -> int:
    return (amount or 0) + 1


def _spoil(reply: Reply, fault: Fault) -> Reply:
    """Turn a success into an answer that is not a valid receipt; any other reply is unchanged."""
    if reply.status >= 300:
        return reply
    honest = orjson.loads(reply.body)
    bodies = (
        b"<html>Welcome to the hotel's network. Please log in.</html>",
        b"",
        orjson.dumps({name: value for name, value in honest.items() if name not in ("transactionId", "escrowId")}),
        orjson.dumps({name: _one_more(value) if name in _AMOUNTS else value for name, value in honest.items()}),
        orjson.dumps({"error": "something went wrong"}),
    )
    return Reply(status=200, body=_pick(bodies, fault))


def _pick(choices: tuple[Choice, ...], fault: Fault) -> Choice:
    return choices[int(fault.dice * len(choices))]
