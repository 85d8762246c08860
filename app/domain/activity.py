"""The amounts that analytics count in an item's life, each with the time that it belongs to.

An amount has one kind and one feature. Amounts are added up, over the items of a room or over the log. Times are
milliseconds since 1970 UTC, durations milliseconds.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from math import expm1, log, log1p
from typing import Final, NamedTuple

from app.domain.event import EventName

CREATED: Final = "created"
STARTED: Final = "started"
FINISHED: Final = "finished"
ABANDONED: Final = "abandoned"
REFUNDED: Final = "refunded"
SETTLED: Final = "settled"
LEFT_FINISHED: Final = "left_finished"
LEFT_ABANDONED: Final = "left_abandoned"
LEFT_REFUNDED: Final = "left_refunded"
"""How an item left the queue: counted once an item, whatever happens to it later."""
SETTLED_TOKENS: Final = "settled_tokens"
REFUNDED_TOKENS: Final = "refunded_tokens"
ESTIMATES: Final = "estimates"
ESTIMATE_ERROR: Final = "estimate_error"
ESTIMATE_ERROR_SIZE: Final = "estimate_error_size"
"""Milliseconds by which waits were longer than estimated on arrival: summed with their sign, and without."""
RANGED: Final = "ranged"
INSIDE: Final = "inside"
"""Waits that were estimated with a 10–90 % range, and the number of them that lay within it."""
BY_PLACE = (ESTIMATES, ESTIMATE_ERROR, ESTIMATE_ERROR_SIZE, RANGED, INSIDE)
"""The kinds whose amounts have as their number an index into PLACES_AHEAD, the item's place on arrival, or
NOT_KNOWN."""
PLACES_AHEAD = ((0, 0), (1, 1), (2, 3), (4, 6), (7, 10), (11, None))
"""Ranges of the number of items ahead, both ends included; the last range has no end."""
NOT_KNOWN = -1
_LAST_AHEAD = tuple(last for _, last in PLACES_AHEAD if last is not None)
WAIT: Final = "wait"
SERVICE: Final = "service"
DURATIONS = (WAIT, SERVICE)
"""The kinds whose amounts have a duration as their number, and count the items that had it."""

SMALLEST_MS = 500.0
STEP = log(1.02)
"""The logarithmic width of a bucket. Stored durations are rounded to 1 % of their length plus 5 ms."""


class Life(NamedTuple):
    """The fields of an item from which its amounts follow."""

    source_feature: str
    pass_through_mode: bool
    created_at: int
    started_at: int | None
    finished_at: int | None
    abandoned_at: int | None
    refunded_at: int | None
    settled_at: int | None
    settled_tokens: int | None
    refunded_tokens: int | None
    clock_used_seconds: float
    quoted_wait_seconds: float | None
    quoted_position: int | None
    quoted_low_seconds: float | None
    quoted_high_seconds: float | None


Amount = tuple[int, str, int, int]
"""Time, kind, number, value."""
Amounts = tuple[Amount, ...]


def _created(life: Life) -> Amounts:
    return ((life.created_at, CREATED, 0, 1),)


def _started(life: Life) -> Amounts:
    at = life.started_at
    if at is None:
        return ()
    if life.pass_through_mode:
        return ((at, STARTED, 0, 1),)
    wait = at - life.created_at
    if life.quoted_wait_seconds is None:
        return (at, STARTED, 0, 1), (at, WAIT, wait, 1)
    error = wait - round(life.quoted_wait_seconds * 1000)
    place = NOT_KNOWN if life.quoted_position is None else bisect_left(_LAST_AHEAD, life.quoted_position - 1)
    return (
        (at, STARTED, 0, 1),
        (at, WAIT, wait, 1),
        (at, ESTIMATES, place, 1),
        (at, ESTIMATE_ERROR, place, error),
        (at, ESTIMATE_ERROR_SIZE, place, abs(error)),
        *_ranged(life, at, wait, place),
    )


def _ranged(life: Life, at: int, wait: int, place: int) -> Amounts:
    low, high = life.quoted_low_seconds, life.quoted_high_seconds
    if low is None or high is None:
        return ()
    if low <= wait / 1000 <= high:
        return (at, RANGED, place, 1), (at, INSIDE, place, 1)
    return ((at, RANGED, place, 1),)


def _finished(life: Life) -> Amounts:
    at = life.finished_at
    if at is None:
        return ()
    # An item that has finished was started before, and cannot be abandoned.
    if life.pass_through_mode:
        return (at, FINISHED, 0, 1), (at, LEFT_FINISHED, 0, 1)
    service = round(life.clock_used_seconds * 1000)
    return (at, FINISHED, 0, 1), (at, LEFT_FINISHED, 0, 1), (at, SERVICE, service, 1)


def _abandoned(life: Life) -> Amounts:
    at = life.abandoned_at
    return () if at is None else ((at, ABANDONED, 0, 1), (at, LEFT_ABANDONED, 0, 1))


def _refunded(life: Life) -> Amounts:
    at = life.refunded_at
    if at is None:
        return ()
    if life.abandoned_at is None and life.finished_at is None:
        return (at, REFUNDED, 0, 1), (at, LEFT_REFUNDED, 0, 1)
    return ((at, REFUNDED, 0, 1),)


def _settled(life: Life) -> Amounts:
    at = life.settled_at
    if at is None:
        return ()
    amounts: Amounts = ((at, SETTLED, 0, 1),)
    if life.settled_tokens:
        amounts += ((at, SETTLED_TOKENS, 0, life.settled_tokens),)
    # A split refunds the user's part when it settles.
    if life.refunded_tokens:
        amounts += ((at, REFUNDED_TOKENS, 0, life.refunded_tokens),)
    return amounts


def _returned(life: Life) -> Amounts:
    """Tokens that the wallet has refunded, at the time of the refund: the wallet's confirmation may come later."""
    at = life.refunded_at
    if at is None or life.settled_at is not None or not life.refunded_tokens:
        return ()
    return ((at, REFUNDED_TOKENS, 0, life.refunded_tokens),)


_BY_EVENT: Mapping[str, Callable[[Life], Amounts]] = {
    str(EventName.ITEM_CREATED): _created,
    str(EventName.ITEM_STARTED): _started,
    str(EventName.ITEM_FINISHED): _finished,
    str(EventName.ITEM_ABANDONED): _abandoned,
    str(EventName.ITEM_REFUNDED): _refunded,
    str(EventName.ITEM_SETTLED): _settled,
}
KIND_OF_EVENT: Mapping[str, str] = dict(
    zip(_BY_EVENT, (CREATED, STARTED, FINISHED, ABANDONED, REFUNDED, SETTLED), strict=True)
)
"""The kind that each of these events counts, with the value 1."""
COUNTED_EVENTS = (*_BY_EVENT, str(EventName.ITEM_WALLET_CHANGED))
CONFIRMING_EVENTS = (str(EventName.ITEM_REFUNDED), str(EventName.ITEM_WALLET_CHANGED))
"""The events that can confirm a refund by the wallet."""


OF_ITEM = (*_BY_EVENT.values(), _returned)
"""The functions that together give all amounts of an item so far."""


def of_event(name: str, life: Life, *, with_returned: bool) -> Amounts:
    """The amounts that one event adds. `life` may be of a later time, since past times and amounts never change.

    `with_returned`: also the tokens that the wallet has refunded; set it for the one of CONFIRMING_EVENTS that confirms
    the refund. The sum over all events of an item equals the sum over OF_ITEM.
    """
    counted = _BY_EVENT.get(name)
    amounts = counted(life) if counted is not None else ()
    return amounts + _returned(life) if with_returned else amounts


def bucket(milliseconds: int) -> int:
    """The number of the bucket in which a duration is stored."""
    return int(log1p(max(0, milliseconds) / SMALLEST_MS) / STEP)


def duration(bucket_number: int) -> int:
    """Milliseconds in the middle of a bucket."""
    return round(SMALLEST_MS * expm1((bucket_number + 0.5) * STEP))
