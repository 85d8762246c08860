"""Labelled counters and gauges from numbers that are kept in mappings."""

from collections.abc import Mapping
from typing import TypeVar

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

Labels = TypeVar("Labels", bound=tuple[object, ...])
N = TypeVar("N", int, float)


def by_label(numbers: Mapping[str, N]) -> dict[tuple[str], N]:
    """`numbers` in the form of families with one label."""
    return {(label,): number for label, number in numbers.items()}


def counter(name: str, meaning: str, numbers: Mapping[Labels, int], *labels: str) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for values, number in numbers.items():
        family.add_metric([str(value) for value in values], number)
    return family


def gauge(name: str, meaning: str, numbers: Mapping[Labels, float], *labels: str) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for values, number in numbers.items():
        family.add_metric([str(value) for value in values], number)
    return family
