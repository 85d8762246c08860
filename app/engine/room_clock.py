"""The clock by which rooms are timed: this process's own, or the database's where several processes share one."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

AGREEMENT = timedelta(seconds=2)
"""Clocks that differ by less count as one: two processes then order a room's events by their commits."""
MILLISECOND = timedelta(milliseconds=1)


def seconds_since_boot() -> float:
    """A clock that setting the time does not move; it counts the machine's sleep where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class RoomClock:
    def __init__(self, source: Callable[[], datetime], *, elapsed: Callable[[], float] = seconds_since_boot) -> None:
        """`elapsed`: seconds that no setting of the clock moves."""
        self._source = source
        self._elapsed = elapsed
        self._compared: tuple[datetime, float] | None = None
        """The right time when the clocks were last compared, and the value of `elapsed` then; None: they never were."""
        self.skew = timedelta()
        """How far the database's clock is ahead of this process's, when last compared. Zero on SQLite."""

    def __call__(self) -> datetime:
        """The own clock may be set between two comparisons: from one to the next only elapsed time counts."""
        if self._compared is None:
            return self._source()
        then, at = self._compared
        return then + _whole(timedelta(seconds=self._elapsed() - at))

    def asked(self) -> float:
        """The moment at which the database is asked for its time, to be given to `compare`."""
        return self._elapsed()

    def compare(self, asked: float, database_time: datetime) -> None:
        """Take the database's time, which was asked for at `asked` and has come just now. The way there and back is
        measured by elapsed time: the own clock may be set meanwhile.

        All processes of a cluster then agree, even if the clock of one of them has jumped.
        """
        answered_at, elapsed = self._source(), self._elapsed()
        uncertainty = timedelta(seconds=(elapsed - asked) / 2)
        self.skew = database_time - (answered_at - uncertainty)
        correction = _whole(self.skew) if abs(self.skew) > AGREEMENT + uncertainty else timedelta()
        self._compared = answered_at + correction, elapsed


def _whole(span: timedelta) -> timedelta:
    """Times are kept in whole milliseconds."""
    return MILLISECOND * round(span / MILLISECOND)
