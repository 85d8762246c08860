"""The deadline of a command: one for all its steps, the questions to the database and to the wallet and the commit."""

from asyncio import get_running_loop


class Deadline:
    """So many seconds from now, by the clock of the running event loop."""

    def __init__(self, seconds: float) -> None:
        self.at = get_running_loop().time() + seconds
        """Also by `time.monotonic`, which the service's loops go by."""

    def left(self, keep: float = 0.0) -> float:
        """Seconds until then, of which `keep` are for later steps; 0 if there are none."""
        return max(0.0, self.at - keep - get_running_loop().time())
