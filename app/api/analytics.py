"""Analytics of a span of time, for one performer or for all: intakes, endings and durations.

Each moment of an item's life counts in the span in which it lies: an item that was created before the span and ended in
it counts as ended only. Pure arithmetic over the values that `store.activity` has read.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import accumulate

from app.domain import activity
from app.domain.activity import Life
from app.store.tables import milliseconds
from app.wire.report_shapes import Analytics, EstimateByAhead, EstimateError, FeatureFigures, Percentiles

Key = tuple[str, str, int]
"""Feature, kind, number."""


def total_of(lives: Iterable[Life], start: datetime, end: datetime) -> Counter[Key]:
    """The numbers of these items from `start` up to but not including `end`."""
    first, behind = milliseconds(start), milliseconds(end)
    features: defaultdict[str, defaultdict[tuple[str, int], int]] = defaultdict(lambda: defaultdict(int))
    for life in lives:
        numbers = features[life.source_feature]
        for amounts in activity.OF_ITEM:
            for at, kind, number, value in amounts(life):
                if first <= at < behind:
                    numbers[kind, number] += value
    return Counter({(feature, *key): value for feature, numbers in features.items() for key, value in numbers.items()})


def report(total: Mapping[Key, int], start: datetime, end: datetime, performer_id: str | None) -> Analytics:
    """The analytics from `start` to `end`, made of the numbers in `total`. `performer_id`: None for all performers."""
    counts: Counter[str] = Counter()
    by_place: defaultdict[int, Counter[str]] = defaultdict(Counter)
    features: Counter[str] = Counter()
    durations: defaultdict[str, defaultdict[str, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    """By kind and feature: the number of items with each duration in milliseconds."""
    overall: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for (feature, kind, number), value in total.items():
        if kind in activity.DURATIONS:
            durations[kind][feature][number] += value
            overall[kind][number] += value
            continue
        counts[kind] += value
        if kind in activity.BY_PLACE:
            by_place[number][kind] += value
        if kind == activity.CREATED:
            features[feature] += value
    waits, services = durations[activity.WAIT], durations[activity.SERVICE]
    abandoned, refunded = counts[activity.LEFT_ABANDONED], counts[activity.LEFT_REFUNDED]
    ended = abandoned + refunded + counts[activity.LEFT_FINISHED]
    return {
        "performerId": performer_id,
        "from": start,
        "to": end,
        "counts": {
            "created": counts[activity.CREATED],
            "started": counts[activity.STARTED],
            "finished": counts[activity.FINISHED],
            "abandoned": counts[activity.ABANDONED],
            "refunded": counts[activity.REFUNDED],
            "settled": counts[activity.SETTLED],
        },
        "abandonRate": abandoned / ended if ended else None,
        "refundRate": refunded / ended if ended else None,
        "tokens": {"settled": counts[activity.SETTLED_TOKENS], "refunded": counts[activity.REFUNDED_TOKENS]},
        "waitSeconds": _percentiles(overall[activity.WAIT]),
        "serviceSeconds": _percentiles(overall[activity.SERVICE]),
        "estimateError": _estimate_error(counts),
        "features": [
            _feature(feature, features[feature], waits[feature], services[feature])
            for feature in sorted({*features, *waits, *services})
        ],
        "estimateByAhead": [
            _by_ahead(first, last, by_place[number]) for number, (first, last) in enumerate(activity.PLACES_AHEAD)
        ],
    }


def _feature(name: str, count: int, waits: Counter[int], services: Counter[int]) -> FeatureFigures:
    return {
        "sourceFeature": name,
        "count": count,
        "waitSeconds": _percentiles(waits),
        "serviceSeconds": _percentiles(services),
    }


def _percentiles(durations: Counter[int]) -> Percentiles:
    """The percentiles, in seconds, of durations in milliseconds with their counts; interpolated linearly."""
    if not durations:
        return {"p50": None, "p90": None}
    values = sorted(durations)
    ends = list(accumulate(durations[value] for value in values))

    def at(tenths: int) -> float:
        place, between = divmod((ends[-1] - 1) * tenths, 10)
        low = values[bisect_right(ends, place)]
        high = values[bisect_right(ends, min(place + 1, ends[-1] - 1))]
        return round((low * (10 - between) + high * between) / 10_000, 3)

    return {"p50": at(5), "p90": at(9)}


def _estimate_error(counts: Mapping[str, int]) -> EstimateError:
    """The error of the waits quoted on arrival: positive means that the actual wait was longer."""
    count = counts[activity.ESTIMATES]
    if not count:
        return {"count": 0, "meanAbsoluteSeconds": None, "biasSeconds": None}
    return {
        "count": count,
        "meanAbsoluteSeconds": round(counts[activity.ESTIMATE_ERROR_SIZE] / count / 1000, 3),
        "biasSeconds": round(counts[activity.ESTIMATE_ERROR] / count / 1000, 3),
    }


def _by_ahead(ahead_from: int, ahead_to: int | None, counts: Mapping[str, int]) -> EstimateByAhead:
    quoted, ranged = counts[activity.ESTIMATES], counts[activity.RANGED]
    error = _estimate_error(counts)
    return {
        "aheadFrom": ahead_from,
        "aheadTo": ahead_to,
        "count": quoted,
        "meanAbsoluteSeconds": error["meanAbsoluteSeconds"],
        "biasSeconds": error["biasSeconds"],
        "rangeRate": ranged / quoted if quoted else None,
        "insideRate": counts[activity.INSIDE] / ranged if ranged else None,
    }
