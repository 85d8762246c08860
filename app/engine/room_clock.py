"""The clock of the rooms: this process's own, or the database's where several processes share it."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

AGREEMENT = timedelta(seconds=2)
"""A smaller difference between two clocks is ignored: the order of a room's events is that of their commits anyway."""
MILLISECOND = timedelta(milliseconds=1)


def seconds_since_boot() -> float:
    """Seconds by a clock that cannot be set. It includes the machine's sleep if the system has CLOCK_BOOTTIME."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class RoomClock:
    def __init__(self, source: Callable[[], datetime], *, elapsed: Callable[[], float] = seconds_since_boot) -> None:
        """`source`: this process's clock. `elapsed`: seconds by a clock that cannot be set."""
        self._source = source
        self._elapsed = elapsed
        self._compared: tuple[datetime, float] | None = None
        """The right time at the last comparison of the clocks, and the value of `elapsed` then; None: none yet."""
        self.skew = timedelta()
        """How far the database's clock is ahead of this process's, when last compared. Zero on SQLite."""

    def __call__(self) -> datetime:
        """The current time. Between two comparisons only elapsed time counts, as this process's clock may be set."""
        if self._compared is None:
            return self._source()
        then, at = self._compared
        return then + _whole(timedelta(seconds=self._elapsed() - at))

    def asked(self) -> float:
        """The current moment by `elapsed`. Call it just before reading the database's time, for `compare`."""
        return self._elapsed()

    def compare(self, asked: float, database_time: datetime) -> None:
        """Compare with the database's time, which was requested at `asked` and has just arrived. The round trip is
        measured by elapsed time, as this process's clock may be set meanwhile.

        All processes of a cluster then agree, even if the clock of one of them is wrong.
        """
        answered_at, elapsed = self._source(), self._elapsed()
        uncertainty = timedelta(seconds=(elapsed - asked) / 2)
        self.skew = database_time - (answered_at - uncertainty)
        correction = _whole(self.skew) if abs(self.skew) > AGREEMENT + uncertainty else timedelta()
        self._compared = answered_at + correction, elapsed


def _whole(span: timedelta) -> timedelta:
    """Times are kept in whole milliseconds."""
    return MILLISECOND * round(span / MILLISECOND)
