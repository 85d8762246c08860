"""The parts that all others use: the database, its lanes and its readers, the clocks and the metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from app.domain.room import Policy
from app.engine.commits import Commits
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.engine.room_clock import RoomClock
from app.metrics.registry import Metrics
from app.metrics.workers import WorkerMetrics
from app.parts import new_id
from app.parts.extras import open_tracing
from app.settings import Settings
from app.store import Store
from app.store.engines import LANE_BUSY_TIMEOUT_MS, Engines, open_engines
from app.store.migrating import migrate, refuse_other_schema
from app.tracing import ClosableTracer
from app.wire.websocket import CloseCode

POSTGRESQL_LANES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    settings: Settings
    clock: RoomClock
    """The time of the rooms: the database's where several processes share it."""
    own_clock: Callable[[], datetime]
    """This process's own time, for tokens, the wallet's clients and webhooks."""
    engines: Engines
    store: Store
    metrics: Metrics
    commits: Commits
    lanes: Lanes
    queries: Queries
    tracer: ClosableTracer | None


def open_foundation(
    settings: Settings, clock: Callable[[], datetime], workers: WorkerMetrics | None, tracer: ClosableTracer | None
) -> Foundation:
    """`clock`: this process's own. Raises the errors of `app.parts.assembly.assemble`."""
    tracer = tracer or open_tracing(settings)
    engines, store = open_store(settings)
    metrics = Metrics(database=engines.writer.dialect.name, close_codes=CloseCode, workers=workers)
    commits, room_clock = Commits(), RoomClock(clock)
    lanes = Lanes(
        store,
        room_clock,
        new_id,
        commits.publish,
        count=lane_count(settings),
        measure=metrics.batch,
        seconds=settings.command_seconds,
        tracer=tracer,
    )
    return Foundation(
        settings=settings,
        clock=room_clock,
        own_clock=clock,
        engines=engines,
        store=store,
        metrics=metrics,
        commits=commits,
        lanes=lanes,
        queries=Queries(store, lanes, seconds=settings.command_seconds),
        tracer=tracer,
    )


def lane_count(settings: Settings) -> int:
    return 1 if settings.uses_sqlite else POSTGRESQL_LANES


def open_store(settings: Settings) -> tuple[Engines, Store]:
    """The open database. SQLite is migrated to the newest schema; PostgreSQL must have been migrated before."""
    engines = open_engines(settings.database_url, lanes=lane_count(settings), busy_timeout_ms=LANE_BUSY_TIMEOUT_MS)
    if settings.uses_sqlite:
        migrate(engines.patient_writer)
    else:
        refuse_other_schema(engines.writer)
    return engines, Store(engines, _policy(settings))


def _policy(settings: Settings) -> Policy:
    return Policy(
        max_depth=settings.max_queue_depth,
        default_duration_seconds=settings.default_duration_seconds,
        notify_positions=settings.notify_positions,
        rope_drop_seconds=settings.rope_drop_seconds,
        started_timeout_seconds=settings.started_timeout_seconds,
        disconnect_grace_seconds=settings.disconnect_grace_seconds,
        settle_delay_seconds=settings.settle_delay_seconds,
    )
