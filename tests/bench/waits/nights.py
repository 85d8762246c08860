"""Nights of performers of ten kinds: arrivals, services, breaks and cancellations, decided by the real room.

A night is a list of moments: a room's event and the room after it. Everything random comes from one seed. Durations
are in seconds. The kinds differ in one thing each from a usual night, so that a table by kind says which thing an
estimator handles badly.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from math import exp
from random import Random

from app.domain import command as do
from app.domain.command import Actor, Command, Role
from app.domain.decision import decide
from app.domain.event import Event
from app.domain.item import Item, Reason, Status
from app.domain.room import Policy, Room

BEGIN = datetime(2026, 1, 31, 20, tzinfo=UTC)
NIGHT_SECONDS = 5 * 3600.0
_POLICY = Policy(rope_drop_seconds=0, started_timeout_seconds=0, disconnect_grace_seconds=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One thing viewers can buy. Services are log-normal."""

    name: str
    share: float = 1.0
    typical: float = 90.0
    """The median of the true service time."""
    variety: float = 0.0
    """Standard deviation of log(true median) from item to item: songs differ in length."""
    noise: float = 0.35
    """Standard deviation of log(actual / true median) of one item."""
    declares: bool = True
    declared_bias: float = 1.0
    """Declared duration divided by the true median."""
    declared_noise: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    name: str
    features: tuple[Feature, ...] = (
        Feature(name="wheel", share=0.5, typical=60, variety=0.3),
        Feature(name="song", share=0.5, typical=180, variety=0.4),
    )
    load: float = 0.95
    """Arriving work divided by the time there is for it."""
    gap: float = 12.0
    """The median pause between an end and the next start; log-normal with spread 0.8."""
    patience: float | None = 14_400.0
    """The mean of the exponential time after which a waiting viewer cancels; None: nobody cancels."""
    declined: float = 0.02
    """The share of items that the performer abandons on stage."""
    breaks: float = 0.0
    """Breaks of five to twenty minutes an hour of show, taken between two items."""
    pauses: float = 0.0
    """The share of items that are paused on stage for a while."""
    drift: float = 0.0
    """By how much log(service) moves over the night."""
    waves: float = 0.0
    """How strongly arrivals come in waves: 0 evenly, 1 all in the first third of each hour."""
    skips: float = 0.0
    """The share of starts that take another item than the head."""


USUAL = Kind(name="usual")
KINDS = (
    USUAL,
    replace(
        USUAL,
        name="exact declarations",
        features=tuple(replace(each, noise=0.05, declared_noise=0.0) for each in USUAL.features),
        gap=5.0,
    ),
    replace(
        USUAL,
        name="declares half",
        features=tuple(replace(each, declared_bias=0.5) for each in USUAL.features),
    ),
    replace(
        USUAL,
        name="declares nothing",
        features=tuple(replace(each, declares=False) for each in USUAL.features),
    ),
    replace(USUAL, name="many cancel", patience=1_200.0, load=1.4),
    replace(USUAL, name="long gaps", gap=70.0),
    replace(USUAL, name="takes breaks", breaks=1.0),
    replace(USUAL, name="pauses on stage", pauses=0.25),
    replace(USUAL, name="slows down", drift=0.8, load=0.8),
    replace(
        USUAL,
        name="a crowd",
        load=1.25,
        waves=0.7,
        skips=0.03,
        features=(
            Feature(name="wheel", share=0.6, typical=30, noise=0.5, declares=False),
            Feature(name="dare", share=0.25, typical=120, noise=0.7, declared_bias=0.7, declared_noise=0.3),
            Feature(name="song", share=0.15, typical=210, variety=0.3, noise=0.1),
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    event: Event
    room: Room
    """The room after the event."""


@dataclass(slots=True)
class _Night:
    """The running of one night: a heap of what is to happen, and the room."""

    kind: Kind
    random: Random
    room: Room
    begin: datetime
    seconds: float = 0.0
    count: int = 0
    agenda: list[tuple[float, int, Callable[[], Iterator[Moment]]]] = field(default_factory=list)
    true_medians: dict[str, float] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        return self.begin + timedelta(milliseconds=round(self.seconds * 1000))

    def later(self, seconds: float, what: Callable[[], Iterator[Moment]]) -> None:
        self.count += 1
        heappush(self.agenda, (self.seconds + max(0.0, seconds), self.count, what))

    def run(self) -> Iterator[Moment]:
        self.later(0, self.arrive)
        self.later(self.random.expovariate(1 / 30), self.start)
        while self.agenda:
            self.seconds, _, what = heappop(self.agenda)
            yield from what()

    def send(self, command: Command, item: Item | None = None) -> Iterator[Moment]:
        decision = decide(self.room, command, self.now, item=item, new_id=lambda: "operation")
        self.room = decision.room
        yield from (Moment(event=event, room=decision.room) for event in decision.events)

    # Arrivals

    def arrive(self) -> Iterator[Moment]:
        kind = self.kind
        if self.seconds > NIGHT_SECONDS:
            return
        self.later(self.random.expovariate(self.rate()), self.arrive)
        if self.room.depth >= self.room.max_depth:
            return
        feature = self.random.choices(kind.features, [each.share for each in kind.features])[0]
        median = feature.typical * exp(self.random.gauss(0, feature.variety))
        declared = median * feature.declared_bias * exp(self.random.gauss(0, feature.declared_noise))
        item = self._item(feature, declared)
        self.true_medians[item.item_id] = median * exp(self.random.gauss(0, feature.noise))
        yield from self.send(do.Intake(actor=_FEATURE, item=item))
        if kind.patience is not None:
            self.later(self.random.expovariate(1 / kind.patience), lambda: self.leave(item.item_id))

    def _item(self, feature: Feature, declared: float) -> Item:
        self.count += 1
        now = self.now
        name = f"{self.begin:%d}-{self.count:08x}"
        return Item(
            item_id=name,
            performer_id=self.room.performer_id,
            user_id=name,
            source_feature=feature.name,
            source_event_id=name,
            escrow_transaction_id=name,
            idempotency_key=name,
            tokens=100,
            title=feature.name,
            description=feature.name,
            duration_seconds=max(5, round(declared)) if feature.declares else None,
            created_at=now,
            updated_at=now,
        )

    def rate(self) -> float:
        """Arrivals a second."""
        kind = self.kind
        work = sum(each.share * each.typical * exp((each.noise**2 + each.variety**2) / 2) for each in kind.features)
        a_second = kind.load / (work / sum(each.share for each in kind.features) + 1.4 * kind.gap)
        in_wave = (self.seconds % 3600) < 1200
        return a_second * ((1 + 2 * kind.waves) if in_wave else max(0.02, 1 - kind.waves))

    def leave(self, item_id: str) -> Iterator[Moment]:
        item = self.room.find(item_id)
        if item is not None and item.status is Status.CREATED:
            actor = Actor(role=Role.VIEWER, id=item.user_id)
            yield from self.send(do.Refund(actor=actor, item_id=item_id, reason=Reason.USER_CANCELLED))

    # The performer

    def start(self) -> Iterator[Moment]:
        waiting = [item for item in self.room.items if item.status is Status.CREATED]
        if not waiting:
            if self.seconds < NIGHT_SECONDS:
                # An item in an empty room is noticed after about a pause.
                self.later(5.0, self.start)
            return
        head = waiting[0]
        if (self.now - head.created_at).total_seconds() < 5.0:
            self.later(self.gap(), lambda: self.start_now())
            return
        yield from self.start_now()

    def start_now(self) -> Iterator[Moment]:
        waiting = [item for item in self.room.items if item.status is Status.CREATED]
        if not waiting:
            self.later(5.0, self.start)
            return
        index = self.random.randrange(len(waiting)) if self.random.random() < self.kind.skips else 0
        item = waiting[index]
        yield from self.send(do.Start(actor=_PERFORMER, item_id=item.item_id))
        service = self.true_medians.pop(item.item_id) * exp(self.kind.drift * (self.seconds / NIGHT_SECONDS - 0.5))
        if self.random.random() < self.kind.pauses:
            before, length = self.random.uniform(0, service), self.random.uniform(20, 240)
            self.later(before, lambda: self.send(do.Pause(actor=_PERFORMER, item_id=item.item_id)))
            self.later(before + length, lambda: self.send(do.Resume(actor=_PERFORMER, item_id=item.item_id)))
            service += length
        self.later(service + 0.001, lambda: self.end(item.item_id))

    def end(self, item_id: str) -> Iterator[Moment]:
        if self.random.random() < self.kind.declined:
            yield from self.send(do.Abandon(actor=_PERFORMER, item_id=item_id))
        else:
            yield from self.send(do.Complete(actor=_PERFORMER, item_id=item_id))
        pause = self.gap()
        if self.random.random() < self.kind.breaks * 180 / 3600:
            pause += self.random.uniform(300, 1200)
        self.later(pause, self.start)

    def gap(self) -> float:
        return self.kind.gap * exp(self.random.gauss(0, 0.8))


_FEATURE = Actor(role=Role.FEATURE, id="bench")
_PERFORMER = Actor(role=Role.PERFORMER, id="performer")


def nights(kind: Kind, seed: int, count: int) -> Iterator[Moment]:
    """Consecutive nights of one performer, each from the first arrival until the queue is empty again."""
    random = Random(f"{kind.name}:{seed}")
    room = Room(performer_id="performer", policy=_POLICY)
    for number in range(count):
        night = _Night(kind, random, room, begin=BEGIN + timedelta(days=number))
        yield from night.run()
        room = night.room
