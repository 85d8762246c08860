"""The numbers that other parts keep, and the metrics that are read from them at a scrape."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from app.domain.operation import OperationStatus
from app.domain.webhook import EndpointStatus
from app.metrics.families import by_label, counter, gauge


class Traffic(Protocol):
    """Counters of frames, events and slow sockets (`live.watched_room.Traffic`)."""

    frames: int
    events: int
    lagged: int
    cut_off: int


class Breaker(Protocol):
    @property
    def state(self) -> StrEnum: ...

    @property
    def opened_count(self) -> int: ...


class Deliveries(Protocol):
    """Attempts to deliver events to webhook endpoints."""

    delivered: int
    failed: int


class Disk(Protocol):
    """Bytes of the database's files, and bytes free beside them."""

    @property
    def used(self) -> int: ...

    @property
    def free(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseReadings:
    """The numbers that are read from the database."""

    operations: Mapping[str, int]
    """Wallet operations by status."""
    oldest_open_operation_seconds: float
    """Age of the oldest operation that is neither done nor dead; 0 if there is none."""
    webhook_endpoints: Mapping[str, int]
    """By status."""
    push_subscriptions: int
    wallet_differences: float
    """Differences in the last comparison with the wallet; NaN: there has been none."""
    wallet_check_age_seconds: float
    """Since the end of that comparison; NaN: there has been none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """The sources of the numbers that other parts keep."""

    waiting_commands: Callable[[], int]
    lane_wait_seconds: Callable[[], float]
    event_loop_lag_seconds: Callable[[], float]
    sockets: Callable[[], int]
    watched_rooms: Callable[[], int]
    lagging_sockets: Callable[[], int]
    event_streams: Callable[[], int]
    items: Callable[[], Mapping[str, float]]
    """In the queues, by status; the same in every process. NaN: not counted yet."""
    clock_skew_seconds: Callable[[], float]
    heartbeat_age_seconds: Callable[[], float]
    traffic: Traffic
    breaker: Breaker
    deliveries: Deliveries
    pushes: Mapping[str, int]
    """Push notifications by outcome; empty: none are sent."""
    database: Callable[[], Awaitable[DatabaseReadings]]
    disk: Callable[[], Disk | None]
    """None: the database is on another machine, or its files cannot be read."""
    connections: Callable[[], int]
    silent_connections: Callable[[], int]
    connection_capacity: Callable[[], int]
    addresses: Callable[[], int]
    refusals: Mapping[str, int]
    """By cause."""


def metrics_of(readings: Readings, database: DatabaseReadings | None) -> Iterator[Metric]:
    """The metrics of all readings. `database` is None if the database did not answer."""
    yield from _gauges(readings)
    yield from _totals(readings)
    state = readings.breaker.state
    states = {(str(other),): int(other is state) for other in type(state)}
    yield gauge("queue_wallet_breaker", "1 for the state the wallet's breaker is in.", states, "state")
    yield gauge("queue_items", "Items in the queues; the same in every process.", by_label(readings.items()), "status")
    if database is not None:
        yield from _of_database(database)
    if (disk := readings.disk()) is not None:
        yield GaugeMetricFamily("queue_database_bytes", "Size of the database's files on SQLite.", value=disk.used)
        yield GaugeMetricFamily("queue_disk_free_bytes", "Free on the disk of these files.", value=disk.free)


def _gauges(readings: Readings) -> Iterator[Metric]:
    gauges: tuple[tuple[str, str, Callable[[], float]], ...] = (
        ("queue_lane_waiting_commands", "Commands in the lanes' mailboxes.", readings.waiting_commands),
        (
            "queue_lane_wait_seconds",
            "How long the oldest unanswered command has waited.",
            readings.lane_wait_seconds,
        ),
        (
            "queue_event_loop_lag_seconds",
            "The longest delay of the event loop within the last minute.",
            readings.event_loop_lag_seconds,
        ),
        ("queue_sockets", "Sockets in a room.", readings.sockets),
        ("queue_watched_rooms", "Rooms with a socket.", readings.watched_rooms),
        ("queue_lagging_sockets", "Sockets skipped because they lag.", readings.lagging_sockets),
        ("queue_event_streams", "Live readers of the event log.", readings.event_streams),
        (
            "queue_clock_skew_seconds",
            "How far the clocks of the database and of a process differ.",
            readings.clock_skew_seconds,
        ),
        (
            "queue_heartbeat_age_seconds",
            "Since the last heartbeat of a process that the database accepted.",
            readings.heartbeat_age_seconds,
        ),
        ("queue_connections", "TCP connections of clients.", readings.connections),
        (
            "queue_silent_connections",
            "TCP connections of clients that are open without a request.",
            readings.silent_connections,
        ),
        ("queue_connection_capacity", "TCP connections that the descriptors allow.", readings.connection_capacity),
        ("queue_addresses", "Client addresses with a connection or a recent request.", readings.addresses),
    )
    for name, meaning, read in gauges:
        yield GaugeMetricFamily(name, meaning, value=read())


def _totals(readings: Readings) -> Iterator[Metric]:
    totals = (
        ("queue_socket_frames_total", "Frames written to sockets of rooms.", readings.traffic.frames),
        ("queue_room_events_total", "Events sent to watched rooms, each counted once.", readings.traffic.events),
        ("queue_sockets_lagged_total", "How often a socket fell behind.", readings.traffic.lagged),
        ("queue_sockets_cut_off_total", "Sockets cut off because they did not catch up.", readings.traffic.cut_off),
        ("queue_wallet_breaker_opened_total", "How often the wallet's breaker opened.", readings.breaker.opened_count),
    )
    for name, meaning, total in totals:
        yield CounterMetricFamily(name, meaning, value=total)
    meaning = "Connections, handshakes, requests and frames that were refused or ended, by cause."
    yield counter("queue_refusals_total", meaning, by_label(readings.refusals), "cause")
    attempts = {"delivered": readings.deliveries.delivered, "failed": readings.deliveries.failed}
    yield counter("queue_webhook_deliveries_total", "Attempts to deliver an event.", by_label(attempts), "outcome")
    meaning = "Push notifications and attempts to send them, by outcome."
    yield counter("queue_push_total", meaning, by_label(readings.pushes), "outcome")


def _of_database(database: DatabaseReadings) -> Iterator[Metric]:
    meaning = "Wallet operations, counted up to a bound; the same in every process."
    operations = {(str(status),): database.operations.get(status, 0) for status in OperationStatus}
    yield gauge("queue_wallet_operations", meaning, operations, "status")
    yield GaugeMetricFamily(
        "queue_wallet_oldest_open_operation_seconds",
        "Since the oldest open wallet operation was ordered; the same in every process.",
        value=database.oldest_open_operation_seconds,
    )
    yield GaugeMetricFamily(
        "queue_wallet_differences",
        "Escrows on which the last comparison found queue and wallet to differ; NaN before the first one.",
        value=database.wallet_differences,
    )
    yield GaugeMetricFamily(
        "queue_wallet_check_age_seconds",
        "Since the last comparison with the wallet ended; NaN before the first one.",
        value=database.wallet_check_age_seconds,
    )
    meaning = "Webhook endpoints; the same in every process."
    endpoints = {(str(status),): database.webhook_endpoints.get(status, 0) for status in EndpointStatus}
    yield gauge("queue_webhook_endpoints", meaning, endpoints, "status")
    yield GaugeMetricFamily(
        "queue_push_subscriptions",
        "Browsers with push notifications; the same in every process.",
        value=database.push_subscriptions,
    )
