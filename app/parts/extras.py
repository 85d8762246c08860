"""The parts whose libraries are optional extras: Redis, the bus over it, and traces. Each is None if it is not set."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from app.domain.event import Event
from app.redis_link import RedisLink
from app.settings import InvalidSettings, Settings
from app.specs.openapi import CONTRACT_VERSION
from app.tracing import ClosableTracer

if TYPE_CHECKING:
    from app.live.bus import Bus


def check_extras(settings: Settings) -> None:
    """Raises InvalidSettings if a setting needs a library that is not installed."""
    _check_redis_driver(settings)
    _check_opentelemetry(settings)


def open_redis(settings: Settings, epoch: str) -> RedisLink | None:
    """The connection to Redis; None without REDIS_URL."""
    if settings.redis_url is None:
        return None
    _check_redis_driver(settings)
    return RedisLink(settings.redis_url, epoch=epoch)


def open_bus(
    redis: RedisLink | None,
    receive: Callable[[str, Sequence[Event]], None],
    receive_announcement: Callable[[bytes], None],
) -> "Bus | None":
    """The bus to the other processes; None without Redis."""
    if redis is None:
        return None
    from app.live.bus import Bus  # its driver is an extra, which a single process does not need

    return Bus(redis, receive, receive_announcement)


def open_tracing(settings: Settings) -> ClosableTracer | None:
    """The tracer; None without TRACES_URL."""
    if settings.traces_url is None:
        return None
    _check_opentelemetry(settings)
    from app.tracing.otel import open_tracer  # its libraries are an extra

    return open_tracer(settings.traces_url, version=CONTRACT_VERSION)


def _check_redis_driver(settings: Settings) -> None:
    """Raises InvalidSettings if REDIS_URL is set and the driver is not installed."""
    if settings.redis_url is None:
        return
    try:
        import_module("redis.asyncio")
    except ImportError:
        raise InvalidSettings("REDIS_URL needs the package redis; install performance-queue[cluster]") from None


def _check_opentelemetry(settings: Settings) -> None:
    """Raises InvalidSettings if TRACES_URL is set and OpenTelemetry is not installed."""
    if settings.traces_url is None:
        return
    try:
        import_module("app.tracing.otel")
    except ImportError:
        raise InvalidSettings("TRACES_URL needs OpenTelemetry; install performance-queue[otel]") from None
