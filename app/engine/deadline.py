"""The deadline of a command: one for all its steps, the questions to the database and to the wallet and the commit."""

from time import monotonic


class Deadline:
    """So many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.at = monotonic() + seconds
        """By `time.monotonic`."""

    def left(self, keep: float = 0.0) -> float:
        """Seconds until then, of which `keep` are for later steps; 0 if there are none."""
        return max(0.0, self.at - keep - monotonic())
