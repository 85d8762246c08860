"""The spans of a room's broadcasts: from a commit to the moment at which its frames have gone to the last socket."""

from collections.abc import Sequence

from app.domain.event import Event
from app.tracing import Span, Tracer, current


class BroadcastTrace:
    """Of one watched room. What is sent together is one span, in the trace of the first of its causes and linked to the
    others."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._causes: list[str] = []
        """Of the pending events."""
        self._under_way: list[Span] = []

    def published(self) -> None:
        if (traceparent := current.get()) is not None:
            self._causes.append(traceparent)

    def taken(self, performer_id: str, events: Sequence[Event], sockets: int) -> None:
        """The pending events are about to be sent."""
        if not self._causes:
            return
        parent, *links = dict.fromkeys(self._causes)
        self._causes = []
        self._under_way.append(
            self._tracer.begin(
                "broadcast",
                parent=parent,
                links=links,
                queue__performer_id=performer_id,
                queue__version=events[-1].version if events else None,
                queue__events=len(events),
                queue__sockets=sockets,
            )
        )

    def sent(self) -> None:
        """To the last socket."""
        for span in self._under_way:
            span.end()
        self._under_way = []
