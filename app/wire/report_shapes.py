"""The JSON of analytics."""

from datetime import datetime

# pydantic, which makes the JSON Schemas, reads the inheritance of typing.TypedDict only from Python 3.12 on.
from typing_extensions import TypedDict


class Percentiles(TypedDict):
    p50: float | None
    p90: float | None


class Counts(TypedDict):
    created: int
    started: int
    finished: int
    abandoned: int
    refunded: int
    settled: int


class Tokens(TypedDict):
    settled: int
    refunded: int


class EstimateError(TypedDict):
    """The error of the waits quoted on arrival; a positive bias means that the actual waits were longer."""

    count: int
    meanAbsoluteSeconds: float | None
    biasSeconds: float | None


class FeatureFigures(TypedDict):
    sourceFeature: str
    count: int
    waitSeconds: Percentiles
    serviceSeconds: Percentiles


class EstimateByAhead(TypedDict):
    """The accuracy of the waits quoted on arrival, for items with `aheadFrom` to `aheadTo` items ahead of them."""

    aheadFrom: int
    aheadTo: int | None
    count: int
    meanAbsoluteSeconds: float | None
    biasSeconds: float | None
    rangeRate: float | None
    insideRate: float | None


Analytics = TypedDict(
    "Analytics",
    {
        "performerId": str | None,
        "from": datetime,
        "to": datetime,
        "counts": Counts,
        "abandonRate": float | None,
        "refundRate": float | None,
        "tokens": Tokens,
        "waitSeconds": Percentiles,
        "serviceSeconds": Percentiles,
        "estimateError": EstimateError,
        "features": list[FeatureFigures],
        "estimateByAhead": list[EstimateByAhead],
    },
)
"""Rates are shares of the items that ended in the span; null if there are none. `rangeRate` is the share of the quoted
waits that had a range, `insideRate` the share of the actual waits within such a range, which is meant to be 0.8."""
