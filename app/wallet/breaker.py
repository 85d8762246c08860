"""A circuit breaker: after several failures in a row it admits no calls for a while, then exactly one.

    closed ── `threshold` failures in a row ──▶ open ── pause over, one caller admitted ──▶ half open
       ▲                                         ▲                                             │
       │                                         └──────── the probe fails: a longer pause ────┤
       └──────────────────────────────── the probe succeeds ───────────────────────────────────┘

Owns the states and the pauses. Knows no clock and makes no calls: `now` is a parameter, and callers report the results
of their calls. It is synchronous code for one event loop, so that only one caller can get the probe.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Permit:
    """The permission to make one call. It must be given back by exactly one of `succeeded`, `failed`, `cancelled`."""

    era: int
    """Counts changes of state. Results of calls that were admitted in an earlier state are ignored."""


class Breaker:
    def __init__(
        self, *, threshold: int = 5, pause_seconds: float = 1.0, growth: float = 2.0, max_pause_seconds: float = 60.0
    ) -> None:
        self._threshold: Final = threshold
        self._first_pause: Final = timedelta(seconds=pause_seconds)
        self._longest_pause: Final = timedelta(seconds=max_pause_seconds)
        self._growth: Final = growth
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._pause = self._first_pause
        self._opened_at: datetime | None = None
        self._opened_count = 0
        self._era = 0

    @property
    def state(self) -> BreakerState:
        return self._state

    @property
    def failures(self) -> int:
        """The number of consecutive failures up to now."""
        return self._failures

    @property
    def opened_count(self) -> int:
        """How often it has opened since the process started, failed probes included."""
        return self._opened_count

    def admit(self, now: datetime) -> Permit | None:
        """A permit for one call, or None. While open, the first caller after the pause gets the probe."""
        if self._state is BreakerState.CLOSED:
            return Permit(self._era)
        if self._state is BreakerState.OPEN and self._pause_is_over(now):
            self._enter(BreakerState.HALF_OPEN)
            return Permit(self._era)
        return None

    def succeeded(self, permit: Permit) -> None:
        """The call had an answer. A probe closes the breaker."""
        if permit.era != self._era:
            return
        self._failures = 0
        if self._state is BreakerState.HALF_OPEN:
            self._pause = self._first_pause
            self._opened_at = None
            self._enter(BreakerState.CLOSED)

    def failed(self, permit: Permit, now: datetime) -> None:
        """The call had no usable answer. The `threshold`-th such call in a row, or a probe, opens the breaker."""
        if permit.era != self._era:
            return
        self._failures += 1
        if self._state is BreakerState.HALF_OPEN:
            self._pause = min(self._pause * self._growth, self._longest_pause)
        elif self._failures < self._threshold:
            return
        self._opened_at = now
        self._opened_count += 1
        self._enter(BreakerState.OPEN)

    def cancelled(self, permit: Permit) -> None:
        """The call ended without a result that counts. If it was the probe, another caller may probe at once."""
        if permit.era == self._era and self._state is BreakerState.HALF_OPEN:
            self._enter(BreakerState.OPEN)

    def _pause_is_over(self, now: datetime) -> bool:
        # A clock that was set back must not keep the breaker open until it reaches the old time again.
        return self._opened_at is None or not self._opened_at <= now < self._opened_at + self._pause

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._era += 1
