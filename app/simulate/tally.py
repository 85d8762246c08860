"""The counters of a run: counts, latencies, acknowledged requests and violations, and the report of them.

Only acknowledged items take memory in proportion to the length of a run. Latencies are histograms.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

BUCKET_GROWTH = 1.04
"""The factor between the bounds of two buckets of a histogram: percentiles are right to 4 %."""
DIFFERENCES_KEPT = 50


class Latency:
    """A histogram of durations."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        self._buckets[math.ceil(math.log(max(seconds, 1e-6), BUCKET_GROWTH))] += 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def percentile(self, share: float) -> float | None:
        """In seconds; None when nothing was measured."""
        rank, seen = share * self.count, 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(BUCKET_GROWTH**bucket, self.longest)
        return None

    def summary(self) -> dict[str, float | int | None]:
        def milliseconds(seconds: float | None) -> float | None:
            return None if seconds is None else round(seconds * 1000, 2)

        return {
            "count": self.count,
            "p50Ms": milliseconds(self.percentile(0.5)),
            "p99Ms": milliseconds(self.percentile(0.99)),
            "maxMs": milliseconds(self.longest if self.count else None),
        }


class ServerClock:
    """Estimates how far the server's clock is from ours, from the answer with the shortest round trip."""

    def __init__(self) -> None:
        self._best = math.inf
        self._offset: float | None = None

    def observe(self, sent: float, received: float, server_time: str) -> None:
        """`sent` and `received` are seconds since 1970 by our clock."""
        if received - sent < self._best:
            self._best = received - sent
            self._offset = _seconds(server_time) - (sent + received) / 2

    def age(self, at: str, now: float) -> float | None:
        """Seconds from a server's time to our `now`; None while the offset is unknown."""
        return None if self._offset is None else max(0.0, now + self._offset - _seconds(at))


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """An item that the server has acknowledged, and its request."""

    item_id: str
    source_feature: str
    body: Mapping[str, Any]


@dataclass(slots=True)
class Tally:
    remembers: bool = True
    """Whether acknowledged items are kept for the checks; the demo, which runs without an end, only counts."""
    clock: ServerClock = field(default_factory=ServerClock)

    intakes: Counter[str] = field(default_factory=Counter)
    """accepted, replayed, failed (no answer), or the code of the refusal."""
    intake_latency: Latency = field(default_factory=Latency)
    commands: Counter[str] = field(default_factory=Counter)
    """Acknowledged commands by type."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Refused commands by code. A refusal is not a violation: the command may have been outdated."""
    command_latency: Latency = field(default_factory=Latency)
    holds: Counter[str] = field(default_factory=Counter)

    sockets_open: int = 0
    sockets_opened: int = 0
    resumed: int = 0
    closes: Counter[int] = field(default_factory=Counter)
    """Closed connections by code, without those that the client has closed."""
    frames: Counter[str] = field(default_factory=Counter)
    events: int = 0
    gaps: int = 0
    update_latency: Latency = field(default_factory=Latency)
    """From an event's time to its arrival at a client."""
    position_latency: Latency = field(default_factory=Latency)

    acknowledged: dict[str, Acknowledged] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    """Items whose end was acknowledged."""
    comparisons: int = 0
    differences: list[str] = field(default_factory=list)
    different: int = 0
    missing: list[str] = field(default_factory=list)
    verified: int = 0
    """Acknowledged items that were read again."""
    unverified: int = 0
    """Views and items that could not be checked, because the server did not answer."""

    def acknowledge(self, item: Acknowledged) -> None:
        if self.remembers:
            self.acknowledged[item.item_id] = item

    def acknowledge_end(self, item_id: str) -> None:
        if self.remembers:
            self.ended.add(item_id)

    def compared(self, who: str, differences: list[str]) -> None:
        self.comparisons += 1
        if differences:
            self.different += 1
            self.differences += [f"{who}: {difference}" for difference in differences]
            del self.differences[DIFFERENCES_KEPT:]

    @property
    def consistent(self) -> bool:
        return not self.different and not self.missing

    def report(self, *, seconds: float) -> dict[str, Any]:
        """Everything as JSON values; `seconds` is how long the load lasted."""
        accepted = self.intakes["accepted"]
        return {
            "consistent": self.consistent,
            "seconds": round(seconds, 2),
            "intake": {
                "outcomes": dict(self.intakes),
                "acceptedPerSecond": round(accepted / seconds, 2) if seconds else None,
                "latency": self.intake_latency.summary(),
            },
            "commands": {
                "acknowledged": dict(self.commands),
                "refused": dict(self.refusals),
                "latency": self.command_latency.summary(),
            },
            "sockets": {
                "opened": self.sockets_opened,
                "resumed": self.resumed,
                "closed": {str(code): count for code, count in self.closes.items()},
                "frames": dict(self.frames),
                "events": self.events,
                "gaps": self.gaps,
            },
            "updateLatency": self.update_latency.summary(),
            "positionLatency": self.position_latency.summary(),
            "holds": dict(self.holds),
            "checks": {
                "viewsCompared": self.comparisons,
                "viewsDifferent": self.different,
                "differences": self.differences,
                "itemsAcknowledged": len(self.acknowledged),
                "itemsVerified": self.verified,
                "itemsMissing": self.missing,
                "unverified": self.unverified,
            },
        }
