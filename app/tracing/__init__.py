"""Tracing: the interface between the service and OpenTelemetry, which is an optional extra.

A span is named by its `traceparent` (W3C Trace Context), a text. Parts pass it to each other, to other processes, to
the outbox's rows and to the wallet. Without a tracer it is None everywhere. Spans hold ids, counts, names of routes and
codes; never a token, a body or a person's name.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import Protocol

HEADER = "traceparent"
_HEADER = HEADER.encode()
# Version 00 has these four parts; later versions may have more behind them.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_LENGTH = 55

Attribute = str | int | float | bool

current: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The span that the running task works for; None without a tracer."""


class Kind(StrEnum):
    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class Span(Protocol):
    """A piece of work under way. Safe from any thread."""

    @property
    def traceparent(self) -> str: ...

    def rename(self, name: str) -> None: ...

    def note(self, **attributes: Attribute | None) -> None:
        """Adds attributes. `__` in a name stands for a dot; an attribute that is None is left out."""

    def end(self, *, at: int | None = None, problem: str | None = None) -> None:
        """`at`: nanoseconds since 1970, by default now. `problem`: the code of the failure."""


class Tracer(Protocol):
    def begin(
        self,
        name: str,
        *,
        kind: Kind = Kind.INTERNAL,
        parent: str | None = None,
        links: Sequence[str] = (),
        at: int | None = None,
        **attributes: Attribute | None,
    ) -> Span:
        """`parent` and `links` are traceparents; without a parent a new trace begins. `at` and `attributes` as in
        Span."""


class ClosableTracer(Tracer, Protocol):
    def close(self) -> None:
        """Send the remaining spans, within seconds."""


@contextmanager
def within(traceparent: str | None) -> Iterator[None]:
    """Spans made inside the block are children of this one."""
    token = current.set(traceparent)
    try:
        yield
    finally:
        current.reset(token)


def traceparent_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The caller's traceparent. `headers`: of a request, with names in lower case. None if it is missing or invalid."""
    found = [value for name, value in headers if name == _HEADER]
    if len(found) != 1:
        return None
    text = found[0].decode("latin-1").strip()
    match = _TRACEPARENT.fullmatch(text)
    if match is None or (match[1] is not None and text.startswith("00")):
        return None
    return text[:_LENGTH]
