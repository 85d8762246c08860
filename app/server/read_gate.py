"""Pauses the reading of a connection as long as there is a reason to."""

import asyncio
from collections.abc import Callable
from enum import StrEnum


class Hold(StrEnum):
    """Why a connection is not read."""

    APPLICATION = "application"
    """The application has yet to take the bytes that have come."""
    HANDSHAKE = "handshake"
    """A WebSocket handshake has yet to be answered."""
    LAG = "lag"
    """The peer does not read: too much waits in the write buffer."""
    PIPELINE = "pipeline"
    """Requests that have come wait for the answer to the one before."""
    UNPARSED = "unparsed"
    """Received bytes are parsed in slices, and some are left."""


class ReadGate:
    """Pauses a transport's reading while there is a hold. uvicorn's pause and resume are the application's hold."""

    def __init__(self, transport: asyncio.Transport, on_release: Callable[[], None]) -> None:
        """`on_release` is called when a hold is released."""
        self._transport = transport
        self._on_release = on_release
        self._holds: set[Hold] = set()

    @property
    def may_parse(self) -> bool:
        """Whether the bytes that have come may be parsed."""
        return self._holds <= {Hold.UNPARSED}

    def hold(self, reason: Hold) -> None:
        if not self._holds and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds.add(reason)

    def release(self, reason: Hold) -> None:
        if reason in self._holds:
            self._holds.discard(reason)
            if not self._holds and not self._transport.is_closing():
                self._transport.resume_reading()
            self._on_release()

    def open(self) -> None:
        """Release every hold."""
        for reason in tuple(self._holds):
            self.release(reason)

    def pause_reading(self) -> None:
        self.hold(Hold.APPLICATION)

    def resume_reading(self) -> None:
        self.release(Hold.APPLICATION)
