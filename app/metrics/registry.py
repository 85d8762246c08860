"""The metrics: names, counters, and their text in the format of Prometheus.

An application has one `Metrics` with its own registry. Parts of the service count through the methods and counters that
they were given; gauges and totals that other parts keep are read from `Readings` at a scrape. Everything is counted on
the event loop, without a lock. If the process is one of several workers, the text has the metrics of all of them.
"""

import asyncio
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from app.domain.event import Event, EventName
from app.domain.item import Status
from app.domain.operation import OperationKind
from app.metrics.families import by_label, counter, gauge
from app.metrics.readings import DatabaseReadings, Readings, metrics_of
from app.metrics.workers import WorkerMetrics

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def _version() -> str:
    try:
        return version("performance-queue")
    except PackageNotFoundError:
        return "source"


VERSION = _version()
"""The installed release; `source` for a source tree that is not installed."""

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
BATCH_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
WALLET_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_COMMANDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

LONGEST_QUERY_SECONDS = 1.0
"""How long a scrape waits for the database; after that its numbers are left out."""

METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
OTHER = "other"
ENDED = {
    EventName.ITEM_FINISHED: Status.FINISHED,
    EventName.ITEM_ABANDONED: Status.ABANDONED,
    EventName.ITEM_REFUNDED: Status.REFUNDED,
}
"""The events by which an item reaches a status that ends it."""
ESCROW = "escrow"
"""The kind of a wallet call that asks for an escrow; all other kinds are those of operations."""


class _Distribution:
    """How many values were at most as large as each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds and cumulative counts, as Prometheus expects them."""
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))


class Metrics(Collector):
    def __init__(
        self,
        *,
        database: str,
        close_codes: Iterable[int],
        workers: WorkerMetrics | None = None,
        database_seconds: float = LONGEST_QUERY_SECONDS,
    ) -> None:
        """`close_codes`: those of the protocol; all others are counted as one. `workers`: the place where several
        workers of one machine exchange their metrics; None: there is one. `database_seconds`: how long the database
        may take to answer; after that its numbers are left out."""
        self._workers = workers
        self._database_seconds = database_seconds
        self.intakes: Counter[str] = Counter()
        """By result: queued, replayed or the code of the refusal."""
        self.closes: Counter[int] = Counter()
        """Ended sockets by their close code."""
        self._database = database
        self._close_codes = frozenset(close_codes)
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._commands: Counter[tuple[str, str]] = Counter()
        self._ended: Counter[str] = Counter(dict.fromkeys(ENDED.values(), 0))
        self._readings: Readings | None = None
        self._database_readings: DatabaseReadings | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._request_seconds: defaultdict[tuple[str, str], _Distribution] = defaultdict(
            lambda: _Distribution(REQUEST_SECONDS)
        )
        self._wallet_calls: Counter[tuple[str, str]] = Counter()
        # Each kind from the start: a rate over a series that begins with its first call would miss that call.
        self._wallet_seconds = {kind: _Distribution(WALLET_SECONDS) for kind in (*map(str, OperationKind), ESCROW)}
        self._batch_commands = _Distribution(BATCH_COMMANDS)
        self._batch_seconds = _Distribution(BATCH_SECONDS)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    # Counting

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is the template of the path, never the path."""
        if method not in METHODS:
            method = OTHER
        self._requests[method, route, status] += 1
        self._request_seconds[method, route].add(seconds)

    def batch(self, size: int, seconds: float, outcomes: Sequence[tuple[str, str]]) -> None:
        """A lane's batch of `size`; `outcomes`: each of its commands' kind and result."""
        self._batch_commands.add(size)
        self._batch_seconds.add(seconds)
        self._commands.update(outcomes)

    def committed(self, events: Sequence[Event]) -> None:
        """Events that this process has committed."""
        for event in events:
            if (status := ENDED.get(event.name)) is not None:
                self._ended[status] += 1

    def wallet_call(self, kind: str, outcome: str, seconds: float) -> None:
        """A call to the wallet; `kind` is an operation's kind or ESCROW."""
        self._wallet_calls[kind, outcome] += 1
        self._wallet_seconds[kind].add(seconds)

    # Reading

    def watch(self, readings: Readings) -> None:
        """Add `readings` to the metrics."""
        self._readings = readings

    async def text(self) -> bytes:
        """The metrics in the text format of Prometheus."""
        await self._read_database()
        families = list(self._registry.collect())
        if self._workers is not None:
            families = await asyncio.to_thread(self._workers.merged, families)
        return await asyncio.to_thread(render, families)

    async def write(self) -> None:
        """Write this worker's metrics for the others. Called at intervals and once at shutdown."""
        if self._workers is not None:
            await asyncio.to_thread(self._workers.write, list(self._registry.collect()))

    async def _read_database(self) -> None:
        self._database_readings = None
        if self._readings is None:
            return
        try:
            async with asyncio.timeout(self._database_seconds):
                self._database_readings = await self._readings.database()
        except Exception:
            # The other metrics are needed most while the database does not answer.
            return

    def collect(self) -> Iterator[Metric]:
        """Every metric but the process's own; called by the registry."""
        info = {(self._database, VERSION): 1}
        yield gauge("queue_info", "The database and the release of this process.", info, "database", "version")
        yield counter("queue_http_requests_total", "Answered requests.", self._requests, "method", "route", "status")
        seconds = HistogramMetricFamily(
            "queue_http_request_seconds",
            "From a request's arrival until its answer begins.",
            labels=("method", "route"),
        )
        for labels, distribution in self._request_seconds.items():
            seconds.add_metric(labels, distribution.buckets(), distribution.total)
        yield seconds
        yield HistogramMetricFamily(
            "queue_lane_batch_commands",
            "Commands and database tasks that shared a transaction.",
            buckets=self._batch_commands.buckets(),
            sum_value=self._batch_commands.total,
        )
        yield HistogramMetricFamily(
            "queue_lane_batch_seconds",
            "From taking a batch out of the mailbox until it was committed.",
            buckets=self._batch_seconds.buckets(),
            sum_value=self._batch_seconds.total,
        )
        meaning = "Items that have reached this end status."
        yield counter("queue_items_ended_total", meaning, by_label(self._ended), "status")
        yield counter("queue_commands_total", "Decided commands.", self._commands, "command", "outcome")
        yield counter("queue_intakes_total", "Intakes over HTTP.", by_label(self.intakes), "result")
        known = Counter[str]()
        for code, number in self.closes.items():
            known[str(code) if code in self._close_codes else OTHER] += number
        yield counter("queue_socket_closes_total", "Sockets that have ended.", by_label(known), "code")
        yield counter("queue_wallet_calls_total", "Calls to the wallet.", self._wallet_calls, "kind", "outcome")
        calls = HistogramMetricFamily(
            "queue_wallet_call_seconds", "From a call to the wallet until its answer or failure.", labels=("kind",)
        )
        for kind, distribution in self._wallet_seconds.items():
            calls.add_metric((kind,), distribution.buckets(), distribution.total)
        yield calls
        if self._readings is not None:
            yield from metrics_of(self._readings, self._database_readings)


@dataclass(frozen=True, slots=True)
class _Collected(Collector):
    families: Sequence[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def render(families: Sequence[Metric]) -> bytes:
    """The collected metrics in the text format of Prometheus. Takes some milliseconds."""
    return generate_latest(_Collected(families))
