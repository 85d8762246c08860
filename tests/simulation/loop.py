"""An event loop without a clock, threads and sockets: when nothing is ready, time jumps to the next timer.

What would run in a thread runs in the loop, after a delay that the seed chooses: that is where interleavings come from.
"""

import asyncio
from collections.abc import Callable
from typing import Any


class ProcessDiedError(BaseException):
    """Ends the code that a process was running when it died. Not an Exception, so that no handler continues."""


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self, delay: Callable[[], float]) -> None:
        """`delay` draws how long the next piece of work in a "thread" takes."""
        super().__init__()
        self._delay = delay
        self._virtual_seconds = 0.0
        # The base class asks it for I/O, of which there is none.
        self._selector = self

    def time(self) -> float:
        return self._virtual_seconds

    def select(self, timeout: float | None) -> tuple[()]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen again in this loop")
        self._virtual_seconds += max(0.0, timeout)
        return ()

    def _process_events(self, event_list: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        future = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except ProcessDiedError:
                # No caller is left for the result.
                return
            except Exception as error:  # the caller's, as from a thread
                future.set_exception(error)

        self.call_later(self._delay(), run)
        return future
