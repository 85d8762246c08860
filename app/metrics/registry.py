"""What is measured, under which names, and the Prometheus text it is read as.

One `Metrics` an application, with a registry of its own. Parts of the service count into it through the methods and
counters they were handed; what is only looked at (gauges, totals kept elsewhere) is read from `Readings` at a scrape.
Everything is counted on the event loop, without a lock. Where a process is one of several workers, its figures and the
others' are added up before they are `written`.
"""

import asyncio
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from app.domain.operation import OperationStatus
from app.metrics.workers import Figures

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
BATCH_COMMANDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

LONGEST_QUESTION_SECONDS = 1.0
"""How long a scrape waits for the database; then it does without."""

Labels = TypeVar("Labels", bound=tuple[object, ...])

METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
OTHER = "other"


class Traffic(Protocol):
    """What has gone out to sockets."""

    frames: int
    events: int
    lagged: int
    cut_off: int


class Breaker(Protocol):
    @property
    def state(self) -> StrEnum: ...

    @property
    def opened_count(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Where the numbers are that others keep."""

    waiting_commands: Callable[[], int]
    sockets: Callable[[], int]
    watched_rooms: Callable[[], int]
    lagging_sockets: Callable[[], int]
    event_streams: Callable[[], int]
    clock_skew_seconds: Callable[[], float]
    heartbeat_age_seconds: Callable[[], float]
    traffic: Traffic
    breaker: Breaker
    operations: Callable[[], Awaitable[Mapping[str, int]]]
    """Asks the database."""
    connections: Callable[[], int]
    silent_connections: Callable[[], int]
    connection_capacity: Callable[[], int]
    addresses: Callable[[], int]
    refusals: Mapping[str, int]
    """By cause."""


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
        """Cumulative, as Prometheus wants them."""
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))


class Metrics(Collector):
    def __init__(self, *, database: str, close_codes: Iterable[int], workers: Figures | None = None) -> None:
        """`close_codes`: the ones of the protocol; what else a connection ends with is not told apart. `workers`: where
        those of one machine leave their figures, if there are several."""
        self._workers = workers
        self.intakes: Counter[str] = Counter()
        """By result: queued, replayed or the code of the refusal."""
        self.closes: Counter[int] = Counter()
        """By the code a socket was closed with."""
        self._database = database
        self._close_codes = frozenset(close_codes)
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._commands: Counter[tuple[str, str]] = Counter()
        self._readings: Readings | None = None
        self._operations: Mapping[str, int] | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._request_seconds: defaultdict[tuple[str, str], _Distribution] = defaultdict(
            lambda: _Distribution(REQUEST_SECONDS)
        )
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
        """A lane's batch of `size`; `outcomes`: each of its commands' kind and what came of it."""
        self._batch_commands.add(size)
        self._batch_seconds.add(seconds)
        self._commands.update(outcomes)

    # Reading

    def watch(self, readings: Readings) -> None:
        """From now on show these as well."""
        self._readings = readings

    async def text(self) -> bytes:
        """What a Prometheus server gets."""
        await self._ask_the_database()
        families = list(self._registry.collect())
        if self._workers is not None:
            families = await asyncio.to_thread(self._workers.added_up, families)
        return await asyncio.to_thread(written, families)

    async def leave(self) -> None:
        """Have the other workers know this one's figures. Called regularly, and at the end."""
        if self._workers is not None:
            await asyncio.to_thread(self._workers.leave, list(self._registry.collect()))

    async def _ask_the_database(self) -> None:
        self._operations = None
        if self._readings is None:
            return
        try:
            async with asyncio.timeout(LONGEST_QUESTION_SECONDS):
                self._operations = await self._readings.operations()
        except Exception:
            # Whatever keeps the database from answering must not hide the rest: that is when it is looked at.
            return

    def collect(self) -> Iterator[Metric]:
        """Everything, for the registry."""
        info = {(self._database, VERSION): 1}
        yield _gauge("queue_info", "The database and the release of this process.", info, "database", "version")
        yield _counter("queue_http_requests_total", "Answered requests.", self._requests, "method", "route", "status")
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
        yield _counter("queue_commands_total", "Decided commands.", self._commands, "command", "outcome")
        yield _counter("queue_intakes_total", "Intakes over HTTP.", _by_one(self.intakes), "result")
        known = Counter[str]()
        for code, number in self.closes.items():
            known[str(code) if code in self._close_codes else OTHER] += number
        yield _counter("queue_socket_closes_total", "Sockets that have ended.", _by_one(known), "code")
        if self._readings is not None:
            yield from self._look(self._readings)

    def _look(self, readings: Readings) -> Iterator[Metric]:
        gauges: tuple[tuple[str, str, Callable[[], float]], ...] = (
            ("queue_lane_waiting_commands", "Commands in the lanes' mailboxes.", readings.waiting_commands),
            ("queue_sockets", "Sockets in a room.", readings.sockets),
            ("queue_watched_rooms", "Rooms with a socket.", readings.watched_rooms),
            ("queue_lagging_sockets", "Sockets skipped because they lag.", readings.lagging_sockets),
            ("queue_event_streams", "Live readers of the event log.", readings.event_streams),
            (
                "queue_clock_skew_seconds",
                "How far the clocks of the database and of each process differ, added up over the processes.",
                readings.clock_skew_seconds,
            ),
            (
                "queue_heartbeat_age_seconds",
                "Since the database last took a heartbeat, added up over the processes.",
                readings.heartbeat_age_seconds,
            ),
            ("queue_connections", "TCP connections of clients.", readings.connections),
            ("queue_silent_connections", "Of these, without a request.", readings.silent_connections),
            ("queue_connection_capacity", "TCP connections there are descriptors for.", readings.connection_capacity),
            ("queue_addresses", "Addresses of clients that are counted.", readings.addresses),
        )
        for name, meaning, read in gauges:
            yield GaugeMetricFamily(name, meaning, value=read())
        totals = (
            ("queue_socket_frames_total", "Frames written to sockets of rooms.", readings.traffic.frames),
            ("queue_room_events_total", "Events told to watched rooms, once a room.", readings.traffic.events),
            ("queue_sockets_lagged_total", "How often a socket fell behind.", readings.traffic.lagged),
            ("queue_sockets_cut_off_total", "Sockets cut off because they did not catch up.", readings.traffic.cut_off),
            (
                "queue_wallet_breaker_opened_total",
                "How often the wallet was left alone.",
                readings.breaker.opened_count,
            ),
        )
        for name, meaning, total in totals:
            yield CounterMetricFamily(name, meaning, value=total)
        meaning = "Connections, handshakes, requests and frames that were refused or ended, by cause."
        yield _counter("queue_refusals_total", meaning, _by_one(readings.refusals), "cause")
        state = readings.breaker.state
        states = {(str(other),): int(other is state) for other in type(state)}
        yield _gauge("queue_wallet_breaker", "1 for the state the wallet's breaker is in.", states, "state")
        if self._operations is not None:
            meaning = "Wallet operations, counted up to a bound; the same in every process."
            counts = {(str(status),): self._operations.get(status, 0) for status in OperationStatus}
            yield _gauge("queue_wallet_operations", meaning, counts, "status")


@dataclass(frozen=True, slots=True)
class _Collected(Collector):
    families: Sequence[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def written(families: Sequence[Metric]) -> bytes:
    """The text of what was collected; some milliseconds' work."""
    return generate_latest(_Collected(families))


def _by_one(numbers: Mapping[str, int]) -> dict[tuple[str], int]:
    return {(label,): number for label, number in numbers.items()}


def _counter(name: str, meaning: str, numbers: Mapping[Labels, int], *labels: str) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for values, number in numbers.items():
        family.add_metric([str(value) for value in values], number)
    return family


def _gauge(name: str, meaning: str, numbers: Mapping[Labels, int], *labels: str) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for values, number in numbers.items():
        family.add_metric([str(value) for value in values], number)
    return family
