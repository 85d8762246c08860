"""The estimated wait of an item, from declared durations and from the room's earlier items.

A `History` is an immutable fold over one room's starts, ends and cancellations; it holds only numbers and knows no
clock. With nothing observed the estimate is the contract's: the declared durations of the items ahead, less the time
that the started one has used. The guide "How waits are estimated" explains the parts and has the measured error
(`python -m tests.bench --only waits`).

    turn(item) = service(item) + gap
    wait       = first + ln(1 + h·exp(−h·first)·Σ turn(ahead)) / h      (first + Σ turn(ahead) if h is 0)

`first` is the rest of the started item's service and the gap behind it, or the rest of the gap under way. `h` is the
rate at which waiting items leave unserved, per second waited: some of the items ahead will leave before their turn.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from math import erfc, exp, log, log1p, sqrt
from statistics import median, quantiles
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from app.domain.fit import NO_FIT, Fit
from app.domain.item import Clock, Item, Reason, Status

PACE_WEIGHT = 0.05
PACE_LIMIT = 1.0
GAPS_KEPT = 120
GAPS_NEEDED = 10
GAP_PRIOR = 5.0
SESSION_GAP_SECONDS = 1800.0
"""Above this, a pause between two items starts a new session: the pace is forgotten, the gap is not counted."""
SHORTEST_SERVICE_SECONDS = 1.0
LEAVING_MEMORY = 0.99
"""The factor by which each item reduces the weight of earlier items in the rate of leaving."""
LEAVING_PRIOR_SECONDS = 3600.0
LEAVERS_NEEDED = 2.0
"""The least value of the faded count `leavers` at which a rate is computed; the third leaver reaches it."""
SCORES_NEEDED = 20
SCORES_KEPT = 120
GAP_DIGITS = 3
SCORE_DIGITS = 4
"""Decimals of a gap in seconds (times are whole milliseconds) and of a score (a ten-thousandth of a wait), so that each
is stored exactly in a few bytes."""
SCORE_EXPONENT = 0.3
"""Relative errors shrink with the number of items ahead, as ahead ** -SCORE_EXPONENT."""


class Wait(Struct, frozen=True, kw_only=True):
    """Seconds until an item is started: the expected value, and the 10–90 % range once enough is known."""

    seconds: float
    range_seconds: tuple[float, float] | None = None


class Ended(Protocol):
    """The fields of an ended item that a History learns from."""

    @property
    def source_feature(self) -> str: ...
    @property
    def duration_seconds(self) -> int | None: ...
    @property
    def pass_through_mode(self) -> bool: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def finished_at(self) -> datetime | None: ...
    @property
    def abandoned_at(self) -> datetime | None: ...
    @property
    def refunded_at(self) -> datetime | None: ...
    @property
    def abandon_reason(self) -> Reason | None: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def quoted_wait_seconds(self) -> float | None: ...
    @property
    def quoted_position(self) -> int | None: ...


Kind = tuple[str, bool]
"""A feature, and whether its items declare a duration."""


class History(Struct, frozen=True, kw_only=True):
    """The state of the estimate of a room."""

    fits: Mapping[Kind, Fit] = field(default_factory=dict)
    pace: float = 0.0
    """Exponentially weighted mean of log(actual / expected service): how this session deviates from the past."""
    gaps: tuple[float, ...] = ()
    """Seconds between two services in which an item waited and none was served; pauses of the earlier item included."""
    leavers: float = 0.0
    waited_seconds: float = 0.0
    """Of all items, whether they left or were served. It fades like `leavers`: see `leaving_rate`."""
    scores: tuple[float, ...] = ()
    """log(actual wait / quoted wait), times the number of items ahead to the power of SCORE_EXPONENT."""
    last_end_at: datetime | None = None
    paused_seconds: float = 0.0
    """How long the last item was paused while it was started."""

    def started(self, item: Ended, at: datetime) -> "History":
        """Fold in the start of an item."""
        history = self._waited(item, at, left=False)
        if self.last_end_at is not None:
            gap = (at - max(self.last_end_at, item.created_at)).total_seconds()
            if (at - self.last_end_at).total_seconds() > SESSION_GAP_SECONDS and item.created_at > self.last_end_at:
                history = replace(history, pace=0.0)
            if 0 <= gap <= SESSION_GAP_SECONDS:
                history = replace(history, gaps=(*self.gaps, round(gap + self.paused_seconds, GAP_DIGITS))[-GAPS_KEPT:])
        if item.quoted_wait_seconds is not None and item.quoted_position is not None and item.quoted_position > 1:
            actual = max(1.0, (at - item.created_at).total_seconds())
            score = log(actual / max(1.0, item.quoted_wait_seconds)) * _precision(item.quoted_position - 1)
            history = replace(history, scores=(*history.scores, round(score, SCORE_DIGITS))[-SCORES_KEPT:])
        return history

    def ended(self, item: Ended, at: datetime, default_seconds: float) -> "History":
        """Fold in the end of a started item; only a finished item adds an observed service time."""
        paused = 0.0
        if item.started_at is not None:
            paused = max(0.0, (at - item.started_at).total_seconds() - item.clock.used_seconds)
        if item.finished_at is None:
            return replace(self, last_end_at=at, paused_seconds=paused)
        actual = max(SHORTEST_SERVICE_SECONDS, item.clock.used_seconds)
        declared = item.duration_seconds or default_seconds
        kind = _kind(item)
        fit = self.fits.get(kind, NO_FIT)
        surprise = log(actual) - fit.log_service(declared)
        pace = (1 - PACE_WEIGHT) * self.pace + PACE_WEIGHT * surprise
        return replace(
            self,
            fits={**self.fits, kind: fit.with_service(declared, actual)},
            pace=max(-PACE_LIMIT, min(PACE_LIMIT, pace)),
            last_end_at=at,
            paused_seconds=paused,
        )

    def left(self, item: Ended, at: datetime) -> "History":
        """Fold in the end of an item that was never started: a cancellation, or a refusal by the performer."""
        if item.abandon_reason is Reason.PERFORMER_DISCONNECTED:
            return self  # the item's user did not leave
        return self._waited(item, at, left=True)

    def _waited(self, item: Ended, at: datetime, *, left: bool) -> "History":
        waited = max(0.0, (at - item.created_at).total_seconds())
        return replace(
            self,
            leavers=self.leavers * LEAVING_MEMORY + left,
            waited_seconds=self.waited_seconds * LEAVING_MEMORY + waited,
        )

    @property
    def leaving_rate(self) -> float:
        """Items that leave unserved, per second waited; 0 below LEAVERS_NEEDED, where it may be chance."""
        if self.leavers < LEAVERS_NEEDED:
            return 0.0
        return self.leavers / (self.waited_seconds + LEAVING_PRIOR_SECONDS)

    def service_seconds(self, item: Item, default_seconds: float) -> float:
        """The expected time in service of an item."""
        fit = self.fits.get(_kind(item), NO_FIT)
        return fit.service_seconds(item.duration_seconds or default_seconds) * exp(self.pace)

    def turn_seconds(self, item: Item, default_seconds: float) -> float:
        """The seconds that a waiting item adds to the wait of each item behind it, if none leaves."""
        return self.service_seconds(item, default_seconds) + self.gap_seconds()

    def rest_seconds(self, item: Item, now: datetime, default_seconds: float) -> float:
        """The expected rest of the started item's service."""
        expected = self.service_seconds(item, default_seconds)
        spread = self.fits.get(_kind(item), NO_FIT).spread
        return _mean_residual(expected, spread, item.clock.elapsed(now))

    def gap_seconds(self) -> float:
        """The expected seconds between two services: the mean of the gaps and of GAP_PRIOR gaps of no length."""
        return sum(self.gaps) / (len(self.gaps) + GAP_PRIOR)

    def rest_of_gap_seconds(self, elapsed: float) -> float:
        """The expected seconds until the next start, after `elapsed` seconds without a started item."""
        longer = [gap for gap in self.gaps if gap > elapsed]
        return median(longer) - elapsed if longer else 0.0

    def rest_of_gap_range(self, elapsed: float) -> tuple[float, float] | None:
        """The 10–90 % range of `rest_of_gap_seconds`; None while fewer than GAPS_NEEDED gaps are longer."""
        longer = tuple(gap - elapsed for gap in self.gaps if gap > elapsed)
        return None if len(longer) < GAPS_NEEDED else _outer_deciles(longer)

    def spread(self, ahead: int) -> tuple[float, float] | None:
        """The 10–90 % range of actual / quoted wait behind `ahead` items; None while too few are known."""
        if len(self.scores) < SCORES_NEEDED:
            return None
        first, last = _outer_deciles(self.scores)
        precision = _precision(ahead)
        return exp(first / precision), exp(last / precision)


NOTHING_LEARNT = History()


def _kind(item: Ended) -> Kind:
    return item.source_feature, item.duration_seconds is not None


def _outer_deciles(values: tuple[float, ...]) -> tuple[float, float]:
    """The first and the last decile."""
    deciles = quantiles(values, n=10)
    return deciles[0], deciles[-1]


def _precision(ahead: int) -> float:
    return float(max(1, ahead) ** SCORE_EXPONENT)


def _mean_residual(mean: float, spread: float, elapsed: float) -> float:
    """The expected rest of a log-normal duration after `elapsed` seconds. `spread`: of its logarithm."""
    if elapsed <= 0 or spread <= 0:
        return max(0.0, mean - max(0.0, elapsed))
    z = (log(elapsed) - log(mean) + spread * spread / 2) / spread
    survival = erfc(z / sqrt(2))
    if survival < 1e-9:
        return elapsed * spread / z  # the limit of the quotient below, which would lose too many digits here
    return max(0.0, mean * erfc((z - spread) / sqrt(2)) / survival - elapsed)


def thinned(first: float, turns: float, rate: float) -> float:
    """The wait in seconds after `first` and `turns` seconds of turns, some of whose items leave unserved at `rate`.

    It solves dW = exp(−rate·W) dT from W = `first`: an item that is due in W seconds is still there with probability
    exp(−rate·W).
    """
    if rate <= 0:
        return first + turns
    return first + log1p(rate * turns * exp(-rate * first)) / rate


def first_seconds(items: Sequence[Item], history: History, now: datetime, default_seconds: float) -> float:
    """The wait of the next item to be started: the rest of the started one and a gap, or the rest of a gap."""
    if items and items[0].status is Status.STARTED:
        return history.rest_seconds(items[0], now, default_seconds) + history.gap_seconds()
    return history.rest_of_gap_seconds(_gap_under_way(items, history, now))


def _gap_under_way(items: Sequence[Item], history: History, now: datetime) -> float:
    """Seconds for which an item has waited while none was started."""
    since = items[0].created_at if items else now
    if history.last_end_at is not None:
        since = max(since, history.last_end_at)
    return max(0.0, (now - since).total_seconds())


def range_seconds(
    items: Sequence[Item], history: History, now: datetime, ahead: int, seconds: float
) -> tuple[float, float] | None:
    """The 10–90 % range of an estimated wait of `seconds` behind `ahead` items; None while too little is known."""
    if ahead == 0:
        return history.rest_of_gap_range(_gap_under_way(items, history, now))
    spread = history.spread(ahead)
    return spread and (seconds * spread[0], seconds * spread[1])


def wait_seconds(items: Sequence[Item], history: History, now: datetime, default_seconds: float) -> list[float]:
    """The expected wait of each item of a queue, given in queue order."""
    first = first_seconds(items, history, now, default_seconds)
    on_stage = bool(items) and items[0].status is Status.STARTED
    result = [0.0] if on_stage else []
    rate = history.leaving_rate
    total = 0.0
    for turn in _turns(items[len(result) :], history, default_seconds):
        result.append(thinned(first, total, rate))
        total += turn
    return result


def backlog_seconds(waiting: Sequence[Item], history: History, default_seconds: float) -> float:
    """The sum of the turns of waiting items, if none leaves."""
    return sum(_turns(waiting, history, default_seconds), 0.0)


def _turns(waiting: Iterable[Item], history: History, default_seconds: float) -> Iterator[float]:
    # Most items of a queue have the same feature and duration as an earlier one: saves 38 % of the CPU that reads a
    # position among 50 items (`bench --without turns`).
    known: dict[tuple[str, int | None], float] = {}
    for item in waiting:
        kind = (item.source_feature, item.duration_seconds)
        if (turn := known.get(kind)) is None:
            turn = known[kind] = history.turn_seconds(item, default_seconds)
        yield turn


class Waits:
    """The wait of each item of a queue, given in queue order; the started item's is zero.

    Most callers ask about one item among many, so a wait's range is computed only for that one: saves 33 % of the CPU
    that reads a position among 50 items (`bench --without ranges`).
    """

    def __init__(self, items: Sequence[Item], history: History, now: datetime, default_seconds: float) -> None:
        self._items = items
        self._history = history
        self._now = now
        self._seconds = wait_seconds(items, history, now, default_seconds)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Wait:
        item, seconds = self._items[index], self._seconds[index]
        if item.status is Status.STARTED:
            return Wait(seconds=seconds)
        return Wait(seconds=seconds, range_seconds=range_seconds(self._items, self._history, self._now, index, seconds))

    def __iter__(self) -> Iterator[Wait]:
        return (self[index] for index in range(len(self)))


def learn(ended: Iterable[Ended], default_seconds: float) -> History:
    """The history learnt from a room's ended items, given with the oldest end first.

    It folds starts and cancellations in another order than the room did, which changes the rate of leaving slightly.
    """
    history = NOTHING_LEARNT
    for item in ended:
        end = item.finished_at or item.abandoned_at or item.refunded_at
        if end is None or item.pass_through_mode:
            continue
        if item.started_at is None:
            history = history.left(item, end)
        else:
            history = history.started(item, item.started_at).ended(item, end, default_seconds)
    return history
