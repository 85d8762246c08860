"""The spans of a room's broadcasts: from a commit to the moment at which its frames have gone to the last socket."""

from collections.abc import Sequence

from app.domain.event import Event
from app.tracing import Span, Tracer, current


class BroadcastTrace:
    """The spans of one watched room. Events that are sent together share one, in the trace of their first cause and
    linked to those of the others."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._causes: list[str] = []
        """The `traceparent` of each trace in which a pending event was published."""
        self._under_way: list[Span] = []

    def published(self) -> None:
        """Note the current trace as a cause of the pending events."""
        if (traceparent := current.get()) is not None:
            self._causes.append(traceparent)

    def taken(self, performer_id: str, events: Sequence[Event], sockets: int) -> None:
        """Begin the span of the pending events, which are about to be sent."""
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
        """End the spans: the frames have gone to the last socket."""
        for span in self._under_way:
            span.end()
        self._under_way = []
