"""The way of committed outcomes from the lanes to all that act on them in this process."""

from collections.abc import Callable, Sequence

from app.engine.jobs import Outcome
from app.tracing import within


class Commits:
    """Passes each outcome to every subscriber, in the order in which they subscribed. Runs on the event loop."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Outcome], None]] = []

    def subscribe(self, subscriber: Callable[[Outcome], None]) -> None:
        self._subscribers.append(subscriber)

    def publish(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.traceparent is None:
                self._pass_on(outcome)
            else:
                with within(outcome.traceparent):
                    self._pass_on(outcome)

    def _pass_on(self, outcome: Outcome) -> None:
        for subscriber in self._subscribers:
            subscriber(outcome)
