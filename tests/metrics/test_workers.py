"""The metrics of several workers, merged."""

from collections.abc import Sequence
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from app.metrics.registry import render
from app.metrics.workers import WorkerMetrics


def metrics_of(number: int) -> list[Metric]:
    """A metric of each kind, with `number` as a worker's value."""
    counter = CounterMetricFamily("queue_intakes_total", "Intakes.", labels=["result"])
    counter.add_metric(["queued"], number)
    counter.add_metric([f"only-{number}"], 1)
    info = GaugeMetricFamily("queue_info", "What it runs on.", labels=["database"])
    info.add_metric(["postgresql"], 1)
    started = GaugeMetricFamily("process_start_time_seconds", "Start.", value=1000 + number)
    operations = GaugeMetricFamily("queue_wallet_operations", "Operations.", labels=["status"])
    operations.add_metric(["done"], number)
    seconds = HistogramMetricFamily(
        "queue_seconds", "Seconds.", buckets=[("1.0", number), ("+Inf", 2 * number)], sum_value=number / 2
    )
    sockets = GaugeMetricFamily("queue_sockets", "Sockets.", value=number)
    lag = GaugeMetricFamily("queue_event_loop_lag_seconds", "Lag.", value=number / 4)
    age = GaugeMetricFamily("queue_wallet_oldest_open_operation_seconds", "Age.", value=number)
    skew = GaugeMetricFamily("queue_clock_skew_seconds", "Skew.", value=number / 2)
    return [counter, info, started, operations, seconds, sockets, lag, age, skew]


def lines(families: Sequence[Metric]) -> dict[str, float]:
    text = render(families).decode()
    pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def test_metrics_of_living_workers_are_merged_by_their_kind(tmp_path: Path) -> None:
    with WorkerMetrics(tmp_path) as one, WorkerMetrics(tmp_path) as other:
        other.write(metrics_of(5))
        one.write(metrics_of(99))  # its own as it was is not counted on top of what it is
        assert lines(one.merged(metrics_of(2))) == {
            'queue_intakes_total{result="queued"}': 7,
            'queue_intakes_total{result="only-2"}': 1,
            'queue_intakes_total{result="only-5"}': 1,
            'queue_info{database="postgresql"}': 1,
            "process_start_time_seconds": 1002,
            'queue_wallet_operations{status="done"}': 2,
            'queue_seconds_bucket{le="1.0"}': 7,
            'queue_seconds_bucket{le="+Inf"}': 14,
            "queue_seconds_count": 14,
            "queue_seconds_sum": 3.5,
            "queue_sockets": 7,
            "queue_event_loop_lag_seconds": 1.25,
            "queue_wallet_oldest_open_operation_seconds": 2,
            "queue_clock_skew_seconds": 2.5,
        }


def test_of_a_dead_worker_only_counters_are_kept(tmp_path: Path) -> None:
    with WorkerMetrics(tmp_path) as one:
        with WorkerMetrics(tmp_path) as other:
            other.write(metrics_of(5))
        merged = lines(one.merged(metrics_of(2)))
        assert merged['queue_intakes_total{result="queued"}'] == 7
        assert merged["queue_seconds_count"] == 14
        assert merged["queue_sockets"] == 2
        assert merged["process_start_time_seconds"] == 1002


def test_a_second_write_replaces_the_first(tmp_path: Path) -> None:
    with WorkerMetrics(tmp_path) as one, WorkerMetrics(tmp_path) as other:
        for number in (3, 4, 5):
            other.write(metrics_of(number))
        assert lines(one.merged(metrics_of(0)))["queue_sockets"] == 5
        assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".lock", ".lock"]
