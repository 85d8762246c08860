"""Merges the metrics of several workers on one machine: each writes its own into a folder that all of them know.

A scrape reaches one of the workers and returns the metrics of all. Counters of a worker that has died are kept, so that
no total falls; gauges are those of living workers. A worker lives as long as it holds the lock on its file; the kernel
releases the lock however the process ends.
"""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from prometheus_client import Metric

FOLDER = "PERFORMANCE_QUEUE_WORKER_METRICS"
"""The environment variable with the folder's path, set by the parent for its workers."""

OWN_ONLY = frozenset(
    {
        "queue_items",
        "queue_wallet_operations",
        "queue_wallet_oldest_open_operation_seconds",
        "queue_wallet_differences",
        "queue_wallet_check_age_seconds",
        "queue_webhook_endpoints",
        "queue_push_subscriptions",
    }
)
"""The same in every process: a worker takes its own, which is the newest."""
_NOT_ADDED: dict[str, Callable[[float, float], float]] = {
    "queue_info": max,
    "queue_lane_wait_seconds": max,
    "queue_event_loop_lag_seconds": max,
    "queue_clock_skew_seconds": max,
    "queue_heartbeat_age_seconds": max,
    "process_start_time_seconds": min,
}
"""Gauges whose sum has no meaning, and the function that merges two of their values."""


class WorkerMetrics:
    """One worker's files in the folder; `with` holds the lock. `write` and `merged` block: call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._lock = -1

    def __enter__(self) -> Self:
        self._lock = os.open(self._folder / f"{self._name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def write(self, families: Iterable[Metric]) -> None:
        """Replace this worker's file of metrics."""
        path = self._folder / f"{self._name}.json"
        draft = path.with_suffix(".draft")
        draft.write_bytes(orjson.dumps([_values(family) for family in families]))
        draft.replace(path)  # atomic, so that nobody reads half of it

    def merged(self, families: Sequence[Metric]) -> list[Metric]:
        """This worker's metrics with those of all others, dead or alive."""
        total = {family.name: _copy(family) for family in families}
        for path in sorted(self._folder.glob("*.json")):
            if path.stem != self._name:
                is_alive = _is_locked(path.with_suffix(".lock"))
                for values in orjson.loads(path.read_bytes()):
                    if is_alive or values["type"] != "gauge":
                        _add(total, values)
        return list(total.values())


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _values(family: Metric) -> dict[str, Any]:
    samples = [(sample.name, sample.labels, sample.value) for sample in family.samples]
    return {"name": family.name, "documentation": family.documentation, "type": family.type, "samples": samples}


def _copy(family: Metric) -> Metric:
    copy = Metric(family.name, family.documentation, family.type)
    copy.samples = list(family.samples)
    return copy


def _add(total: dict[str, Metric], values: dict[str, Any]) -> None:
    name = values["name"]
    if name in OWN_ONLY:
        return
    family = total.setdefault(name, Metric(name, values["documentation"], values["type"]))
    combine = _NOT_ADDED.get(name, float.__add__)
    known = {(sample.name, tuple(sorted(sample.labels.items()))): sample for sample in family.samples}
    for sample_name, labels, value in values["samples"]:
        key = (sample_name, tuple(sorted(labels.items())))
        if (sample := known.get(key)) is not None:
            known[key] = sample._replace(value=combine(float(sample.value), float(value)))
        else:
            family.add_sample(sample_name, labels, value)
            known[key] = family.samples[-1]
    family.samples = list(known.values())
