"""Passes committed outcomes from the lanes to the parts of this process that act on them."""

from collections.abc import Callable, Sequence

from app.engine.jobs import Outcome
from app.tracing import within


class Commits:
    """The subscribers to committed outcomes. Used on the event loop only."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Outcome], None]] = []

    def subscribe(self, subscriber: Callable[[Outcome], None]) -> None:
        self._subscribers.append(subscriber)

    def publish(self, outcomes: Sequence[Outcome]) -> None:
        """Pass each outcome to every subscriber, in the order in which they subscribed."""
        for outcome in outcomes:
            if outcome.traceparent is None:
                self._pass_on(outcome)
            else:
                with within(outcome.traceparent):
                    self._pass_on(outcome)

    def _pass_on(self, outcome: Outcome) -> None:
        for subscriber in self._subscribers:
            subscriber(outcome)
