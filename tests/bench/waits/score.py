"""Scoring estimates of waits: every number told, beside what then came, and what simpler predictors would have told.

A number is told on arrival and whenever the place of a waiting item changes. The truth is known once the item is
started; numbers told to items that never are do not count. A predictor sees only what was known when it was asked.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean

from app.domain.event import EventName
from app.domain.item import Item, Status
from app.domain.room import Room
from tests.bench.waits.nights import Moment

BASELINES = ("declared sum", "mean of ten waits", "ten services", "ten cycles", "head-of-line delay")
OURS = "this service"
BUCKETS = ((0, 0), (1, 1), (2, 3), (4, 6), (7, 10), (11, 1000))
"""Places ahead, from and to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One number, in seconds, with its truth."""

    item_id: str
    ahead: int
    actual: float
    predicted: dict[str, float]
    range_seconds: tuple[float, float] | None
    first: bool
    rose: bool
    """More than a fifth above the number told to the same item before."""


@dataclass(slots=True)
class _Known:
    """The observations of the baselines so far; the last ten of each."""

    waits: deque[float] = field(default_factory=lambda: deque(maxlen=10))
    services: deque[float] = field(default_factory=lambda: deque(maxlen=10))
    cycles: deque[float] = field(default_factory=lambda: deque(maxlen=10))
    last_start: datetime | None = None

    def see(self, moment: Moment, default: float) -> None:
        event, item = moment.event, moment.event.item
        if item is None:
            return
        if event.name is EventName.ITEM_STARTED:
            self.waits.append((event.at - item.created_at).total_seconds())
            if self.last_start is not None and item.created_at <= self.last_start:
                self.cycles.append((event.at - self.last_start).total_seconds())
            self.last_start = event.at
        elif event.name is EventName.ITEM_FINISHED:
            self.services.append(item.clock.used_seconds)

    def predict(self, room: Room, index: int, at: datetime) -> dict[str, float]:
        item, ahead = room.items[index], room.items[:index]
        default = room.policy.default_duration_seconds
        waited = (at - item.created_at).total_seconds()
        declared = sum(
            max(0.0, (each.duration_seconds or default) - each.clock.elapsed(at))
            if each.status is Status.STARTED
            else each.duration_seconds or default
            for each in ahead
        )
        service = fmean(self.services) if self.services else default
        cycle = fmean(self.cycles) if self.cycles else default
        used = ahead[0].clock.elapsed(at) if ahead and ahead[0].status is Status.STARTED else 0.0
        head = next((each for each in room.items if each.status is Status.CREATED), item)
        return {
            "declared sum": declared,
            "mean of ten waits": max(0.0, (fmean(self.waits) if self.waits else declared) - waited),
            "ten services": max(0.0, index * service - min(used, service)),
            "ten cycles": max(0.0, index * cycle - min(used, cycle)),
            "head-of-line delay": max(0.0, (at - head.created_at).total_seconds() - waited),
        }


@dataclass(slots=True)
class _Pending:
    at: datetime
    ahead: int
    predicted: dict[str, float]
    range_seconds: tuple[float, float] | None
    first: bool
    rose: bool


def told(moments: Iterable[Moment]) -> Iterator[Told]:
    """The numbers told over one night, as their truth becomes known."""
    known = _Known()
    places: dict[str, int] = {}
    last: dict[str, float] = {}
    pending: defaultdict[str, list[_Pending]] = defaultdict(list)
    for moment in moments:
        room, event = moment.room, moment.event
        known.see(moment, room.policy.default_duration_seconds)
        if event.name is EventName.ITEM_STARTED and event.item is not None:
            yield from _resolved(event.item, event.at, pending.pop(event.item.item_id, []))
        if event.version != room.version:
            continue  # more events of the same command follow
        waits = None
        for index, item in enumerate(room.items):
            if item.status is Status.STARTED or places.get(item.item_id) == index:
                places[item.item_id] = index
                continue
            waits = waits or room.waits(event.at)
            wait = waits[index]
            before = last.get(item.item_id)
            pending[item.item_id].append(
                _Pending(
                    at=event.at,
                    ahead=index,
                    predicted={OURS: wait.seconds, **known.predict(room, index, event.at)},
                    range_seconds=wait.range_seconds,
                    first=before is None,
                    rose=before is not None and wait.seconds > 1.2 * before,
                )
            )
            places[item.item_id], last[item.item_id] = index, wait.seconds


def _resolved(item: Item, started_at: datetime, numbers: list[_Pending]) -> Iterator[Told]:
    for each in numbers:
        yield Told(
            item_id=item.item_id,
            ahead=each.ahead,
            actual=(started_at - each.at).total_seconds(),
            predicted=each.predicted,
            range_seconds=each.range_seconds,
            first=each.first,
            rose=each.rose,
        )


@dataclass(slots=True)
class Score:
    """Sums over numbers told; seconds."""

    numbers: int = 0
    errors: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    bias: float = 0.0
    ranged: int = 0
    inside: int = 0
    width: float = 0.0
    items: set[object] = field(default_factory=set)
    risen: set[object] = field(default_factory=set)

    def add(self, number: Told, night: object) -> None:
        self.numbers += 1
        for name, value in number.predicted.items():
            self.errors[name] += abs(value - number.actual)
        self.bias += number.predicted[OURS] - number.actual
        self.items.add((night, number.item_id))
        if number.rose:
            self.risen.add((night, number.item_id))
        if number.range_seconds is not None:
            low, high = number.range_seconds
            self.ranged += 1
            self.inside += low <= number.actual <= high
            self.width += high - low

    @property
    def best(self) -> tuple[str, float]:
        """The best single baseline and its mean absolute error."""
        name = min(BASELINES, key=lambda each: self.errors[each])
        return name, self.errors[name] / max(1, self.numbers)

    @property
    def ratio(self) -> float:
        """Our mean absolute error, divided by the best baseline's."""
        return self.errors[OURS] / max(1e-9, self.errors[self.best[0]])

    @property
    def coverage(self) -> float:
        return self.inside / self.ranged if self.ranged else float("nan")

    @property
    def with_range(self) -> float:
        return self.ranged / self.numbers if self.numbers else float("nan")

    @property
    def rising(self) -> float:
        return len(self.risen) / len(self.items) if self.items else float("nan")


def bucket_of(ahead: int) -> int:
    return next(index for index, (low, high) in enumerate(BUCKETS) if ahead <= high)
