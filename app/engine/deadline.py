"""The deadline of a command, which all its steps share: queries, requests to the wallet, and the commit."""

from asyncio import get_running_loop


class Deadline:
    """A moment `seconds` from now, by the clock of the running event loop."""

    def __init__(self, seconds: float) -> None:
        self.at = get_running_loop().time() + seconds
        """In seconds by `time.monotonic`, which is the loop's clock."""

    def left(self, keep: float = 0.0) -> float:
        """The seconds that are left, less `keep` for later steps; at least 0."""
        return max(0.0, self.at - keep - get_running_loop().time())
