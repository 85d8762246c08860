"""How long an item will wait: an estimate that starts from declared durations and learns from what happened.

A `History` is an immutable fold over one room's starts and ends; it holds only numbers and knows no clock. With nothing
observed the estimate is the contract's: the declared durations of the items ahead, less what the started one has used.

The formula, its constants and its measured error against simpler ones are in the README ("Estimating the wait"):
    wait = rest(started) + Σ service(ahead) + gaps × gap
    service = (K·declared + Σ last n) / (K + n) × exp(pace)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import exp, log
from statistics import quantiles
from typing import Protocol

from app.domain.fast_replace import replacing
from app.domain.item import Clock, Item, Status

PRIOR_WEIGHT = 5
"""K: how many observations the declared duration is worth."""
WINDOW = 30
"""Observations kept per feature, of gaps, and (times four) of scores."""
PACE_WEIGHT = 0.15
PACE_LIMIT = 1.0
SESSION_GAP_SECONDS = 1800.0
"""A pause this long between two items starts a new session: the pace is forgotten, the gap is not counted."""
SHORTEST_SERVICE_SECONDS = 1.0
SCORES_NEEDED = 20
SCORES_KEPT = 4 * WINDOW
POSITION_BUCKETS = (1, 3, 8)
"""Upper ends of the position buckets scores are kept by: 1, 2–3, 4–8, 9 and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Seconds until an item is started: the expectation, and the 10–90 % range once enough is known."""

    seconds: float
    range_seconds: tuple[float, float] | None = None


class Performed(Protocol):
    """What is learnt from: an item, or as much of one as that takes."""

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
    def clock(self) -> Clock: ...
    @property
    def quoted_wait_seconds(self) -> float | None: ...
    @property
    def quoted_position(self) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a room has taught so far."""

    services: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Seconds in service of the last finished items, by feature."""
    gaps: tuple[float, ...] = ()
    """Seconds from an end to the next start while somebody was waiting."""
    pace: float = 0.0
    """EWMA of log(actual / expected service): how this session deviates from the past."""
    scores: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    """Actual wait divided by the quoted one, by position bucket."""
    last_end_at: datetime | None = None

    def started(self, item: Performed, at: datetime) -> "History":
        history = self
        if self.last_end_at is not None:
            gap = (at - self.last_end_at).total_seconds()
            if gap > SESSION_GAP_SECONDS:
                history = _changed(history, pace=0.0)
            elif item.created_at <= self.last_end_at and gap >= 0:
                history = _changed(history, gaps=(*self.gaps, gap)[-WINDOW:])
        if item.quoted_wait_seconds is not None and item.quoted_position is not None and item.quoted_position > 1:
            ratio = (at - item.created_at).total_seconds() / max(1.0, item.quoted_wait_seconds)
            bucket = _bucket(item.quoted_position)
            kept = (*history.scores.get(bucket, ()), ratio)[-SCORES_KEPT:]
            history = _changed(history, scores={**history.scores, bucket: kept})
        return history

    def ended(self, item: Performed, at: datetime, default_seconds: float) -> "History":
        """Fold in the end of an item that had been started; only a finished one teaches about service time."""
        if item.finished_at is None:
            return _changed(self, last_end_at=at)
        actual = max(SHORTEST_SERVICE_SECONDS, item.clock.used_seconds)
        surprise = log(actual / self._usual_service(item, default_seconds))
        pace = (1 - PACE_WEIGHT) * self.pace + PACE_WEIGHT * surprise
        kept = (*self.services.get(item.source_feature, ()), actual)[-WINDOW:]
        return _changed(
            self,
            services={**self.services, item.source_feature: kept},
            pace=max(-PACE_LIMIT, min(PACE_LIMIT, pace)),
            last_end_at=at,
        )

    def service_seconds(self, item: Item, default_seconds: float) -> float:
        """The expected time in service of an item."""
        return self._usual_service(item, default_seconds) * exp(self.pace)

    def turn_seconds(self, item: Item, default_seconds: float) -> float:
        """How much longer those behind an item that waits have to wait because of it."""
        return self.service_seconds(item, default_seconds) + self.gap_seconds()

    def rest_seconds(self, item: Item, now: datetime, default_seconds: float) -> float:
        """What is left of the started item's service."""
        elapsed = item.clock.elapsed(now)
        expected = self.service_seconds(item, default_seconds)
        observed = self.services.get(item.source_feature, ())
        longer = [seconds for seconds in observed if seconds > elapsed]
        if len(longer) >= PRIOR_WEIGHT:
            return max(sum(longer) / len(longer) - elapsed, expected / 4)
        return max(expected - elapsed, expected / 4 if observed else 0.0)

    def gap_seconds(self) -> float:
        return sum(self.gaps) / (len(self.gaps) + PRIOR_WEIGHT)

    def spread(self, bucket: int) -> tuple[float, float] | None:
        """The 10–90 % range of actual / quoted waits in a position bucket; None while too few are known."""
        scores = self.scores.get(bucket, ())
        if len(scores) < SCORES_NEEDED:
            return None
        deciles = quantiles(scores, n=10)
        return deciles[0], deciles[-1]

    def _usual_service(self, item: Performed, default_seconds: float) -> float:
        observed = self.services.get(item.source_feature, ())
        declared = item.duration_seconds or default_seconds
        return (PRIOR_WEIGHT * declared + sum(observed)) / (PRIOR_WEIGHT + len(observed))


_changed = replacing(History)
NOTHING_LEARNT = History()


def wait_seconds(items: Sequence[Item], history: History, now: datetime, default_seconds: float) -> list[float]:
    """The expected wait of each item of a queue, given in queue order."""
    result = []
    total = 0.0
    waiting = items
    if items and items[0].status is Status.STARTED:
        result.append(0.0)
        total = history.rest_seconds(items[0], now, default_seconds) + history.gap_seconds()
        waiting = items[1:]
    for turn in _turns(waiting, history, default_seconds):
        result.append(total)
        total += turn
    return result


def backlog_seconds(waiting: Sequence[Item], history: History, default_seconds: float) -> float:
    """What items that wait are expected to take together."""
    return sum(_turns(waiting, history, default_seconds), 0.0)


def _turns(waiting: Iterable[Item], history: History, default_seconds: float) -> Iterator[float]:
    # What a queue is full of are a few kinds.
    known: dict[tuple[str, int | None], float] = {}
    for item in waiting:
        kind = (item.source_feature, item.duration_seconds)
        if (turn := known.get(kind)) is None:
            turn = known[kind] = history.turn_seconds(item, default_seconds)
        yield turn


class Waits:
    """The wait of each item of a queue, given in queue order; the started item's is zero.

    Most who ask want to know of one item among many, so a wait's range is only found when it is looked at.
    """

    def __init__(self, items: Sequence[Item], history: History, now: datetime, default_seconds: float) -> None:
        self._items = items
        self._history = history
        self._seconds = wait_seconds(items, history, now, default_seconds)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Wait:
        item, seconds = self._items[index], self._seconds[index]
        spread = None if item.status is Status.STARTED else self._history.spread(_bucket(index + 1))
        return Wait(seconds=seconds, range_seconds=spread and (seconds * spread[0], seconds * spread[1]))

    def __iter__(self) -> Iterator[Wait]:
        return (self[index] for index in range(len(self)))


def learn(ended: Iterable[Performed], default_seconds: float) -> History:
    """The history that a room's ended items, oldest end first, have taught."""
    history = NOTHING_LEARNT
    for item in ended:
        end = item.finished_at or item.abandoned_at or item.refunded_at
        if item.started_at is None or end is None or item.pass_through_mode:
            continue
        history = history.started(item, item.started_at).ended(item, end, default_seconds)
    return history


def _bucket(position: int) -> int:
    return next((index for index, upper in enumerate(POSITION_BUCKETS) if position <= upper), len(POSITION_BUCKETS))
