"""A circuit breaker: after a run of failures nobody calls for a while, then exactly one caller tries.

    closed ── `threshold` failures in a row ──▶ open ── pause over, one caller admitted ──▶ half open
       ▲                                         ▲                                             │
       │                                         └──────── the probe fails: a longer pause ────┤
       └──────────────────────────────── the probe succeeds ───────────────────────────────────┘

Owns the states and the pauses. Knows no clock and no calls: `now` is a parameter, callers report what happened. It is
plain synchronous code for one event loop: nothing in it awaits, which is what makes the one probe one.
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
    """Leave to make one call. Give it back with exactly one of `succeeded`, `failed` or `cancelled`."""

    era: int
    """Calls outlive states: the result of a call of an earlier era says nothing about this one."""


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
        """Failures in a row, up to now."""
        return self._failures

    @property
    def opened_count(self) -> int:
        """How often it has opened, failed probes included, since the process began."""
        return self._opened_count

    def admit(self, now: datetime) -> Permit | None:
        """Leave to call, or None: not now. While open, the first caller after the pause gets the one probe."""
        if self._state is BreakerState.CLOSED:
            return Permit(self._era)
        if self._state is BreakerState.OPEN and self._pause_is_over(now):
            self._enter(BreakerState.HALF_OPEN)
            return Permit(self._era)
        return None

    def succeeded(self, permit: Permit) -> None:
        if permit.era != self._era:
            return
        self._failures = 0
        if self._state is BreakerState.HALF_OPEN:
            self._pause = self._first_pause
            self._opened_at = None
            self._enter(BreakerState.CLOSED)

    def failed(self, permit: Permit, now: datetime) -> None:
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
        """The call ended and says nothing about the wallet. A probe's place is free again at once."""
        if permit.era == self._era and self._state is BreakerState.HALF_OPEN:
            self._enter(BreakerState.OPEN)

    def _pause_is_over(self, now: datetime) -> bool:
        # A clock that was set back must not keep the breaker open until it has caught up.
        return self._opened_at is None or not self._opened_at <= now < self._opened_at + self._pause

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._era += 1
