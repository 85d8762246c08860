"""Figures over a span of time, for one performer or for all: what came, what became of it, and how long it took.

A moment counts where it lies: an item that came before the span and ended in it counts as an end only. Pure arithmetic
over the rows that `store.reading` has picked; reads nothing itself and changes nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import fmean, quantiles

from app.store.estimates import ToldWaits
from app.store.records import AnalysedItem
from app.wire.shapes import EstimateByAhead, EstimateError, FeatureFigures, Percentiles, SpanFigures


def analyse(items: Iterable[AnalysedItem], start: datetime, end: datetime, performer_id: str | None) -> SpanFigures:
    """The figures of the span from `start` up to but not including `end`."""
    counts: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    features: Counter[str] = Counter()
    waits: defaultdict[str, list[float]] = defaultdict(list)
    services: defaultdict[str, list[float]] = defaultdict(list)
    errors: list[float] = []

    left: Counter[str] = Counter()
    """Items that left the queue in the span, each once, by how: what became of one later does not count again."""

    def inside(moment: datetime | None) -> bool:
        return moment is not None and start <= moment < end

    for item in items:
        feature = item.source_feature
        if inside(item.created_at):
            counts["created"] += 1
            features[feature] += 1
        for name in ("started", "finished", "abandoned", "refunded", "settled"):
            counts[name] += inside(getattr(item, f"{name}_at"))
        how, when = _end_of(item)
        left[how] += inside(when)
        if inside(item.settled_at):
            tokens["settled"] += item.settled_tokens or 0
        # A split returns its part when it settles, everything else when it is refunded.
        if inside(item.settled_at or item.refunded_at):
            tokens["refunded"] += item.refunded_tokens or 0
        if item.pass_through_mode or item.started_at is None:
            continue
        if inside(item.started_at):
            wait = (item.started_at - item.created_at).total_seconds()
            waits[feature].append(wait)
            if item.quoted_wait_seconds is not None:
                errors.append(wait - item.quoted_wait_seconds)
        if inside(item.finished_at):
            services[feature].append(item.clock_used_seconds)
    ended = left.total()
    return {
        "performerId": performer_id,
        "from": start,
        "to": end,
        "counts": {
            "created": counts["created"],
            "started": counts["started"],
            "finished": counts["finished"],
            "abandoned": counts["abandoned"],
            "refunded": counts["refunded"],
            "settled": counts["settled"],
        },
        "abandonRate": left["abandoned"] / ended if ended else None,
        "refundRate": left["refunded"] / ended if ended else None,
        "tokens": {"settled": tokens["settled"], "refunded": tokens["refunded"]},
        "waitSeconds": _percentiles([wait for each in waits.values() for wait in each]),
        "serviceSeconds": _percentiles([service for each in services.values() for service in each]),
        "estimateError": _estimate_error(errors),
        "features": [
            _feature(feature, features[feature], waits[feature], services[feature])
            for feature in sorted({*features, *waits, *services})
        ],
    }


def _end_of(item: AnalysedItem) -> tuple[str, datetime | None]:
    """How an item left the queue, and when: an abandoned or finished one may have been refunded afterwards."""
    if item.abandoned_at is not None:
        return "abandoned", item.abandoned_at
    if item.finished_at is not None:
        return "finished", item.finished_at
    return "refunded", item.refunded_at


def _feature(name: str, count: int, waits: Sequence[float], services: Sequence[float]) -> FeatureFigures:
    return {
        "sourceFeature": name,
        "count": count,
        "waitSeconds": _percentiles(waits),
        "serviceSeconds": _percentiles(services),
    }


def _percentiles(seconds: Sequence[float]) -> Percentiles:
    if not seconds:
        return {"p50": None, "p90": None}
    if len(seconds) == 1:
        return {"p50": seconds[0], "p90": seconds[0]}
    tenths = quantiles(seconds, n=10, method="inclusive")
    return {"p50": round(tenths[4], 3), "p90": round(tenths[8], 3)}


def _estimate_error(errors: Sequence[float]) -> EstimateError:
    """How far the waits told on arrival were from what came: positive means longer than told."""
    if not errors:
        return {"count": 0, "meanAbsoluteSeconds": None, "biasSeconds": None}
    return {
        "count": len(errors),
        "meanAbsoluteSeconds": round(fmean(map(abs, errors)), 3),
        "biasSeconds": round(fmean(errors), 3),
    }


def by_ahead(told: ToldWaits) -> EstimateByAhead:
    return {
        "aheadFrom": told.ahead_from,
        "aheadTo": told.ahead_to,
        "count": told.count,
        "meanAbsoluteSeconds": _rounded(told.mean_absolute_seconds),
        "biasSeconds": _rounded(told.bias_seconds),
        "rangeRate": told.ranged / told.count if told.count else None,
        "insideRate": told.inside / told.ranged if told.ranged else None,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
