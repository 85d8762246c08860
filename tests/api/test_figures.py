"""Figures over a span: each event counts at its time, and a figure without observations is null."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from app.api import analytics
from app.domain.activity import Life
from app.domain.item import Clock, Item, Status
from app.store.tables import milliseconds
from app.wire.report_shapes import Analytics, EstimateByAhead
from tests.support.builders import build_item, moment

START, END = moment(1000), moment(2000)


def analyse(items: Iterable[Item], start: datetime, end: datetime, performer_id: str | None) -> Analytics:
    """The figures over items, each with the columns that the store reads of it."""
    total = analytics.total_of(map(life_of, items), start, end)
    return analytics.report(total, start, end, performer_id)


def life_of(item: Item) -> Life:
    values = {name: getattr(item, name) for name in Life._fields if name != "clock_used_seconds"}
    times = {name: milliseconds(value) for name, value in values.items() if name.endswith("_at")}
    return Life(**{**values, **times}, clock_used_seconds=item.clock.used_seconds)


def served(number: int, *, came: float, started: float, finished: float, **fields: Any) -> Item:
    """An item that came, started and finished at these seconds, and whose service took what lies between."""
    item = build_item(
        number,
        created_at=moment(came),
        started_at=moment(started),
        finished_at=moment(finished),
        status=Status.FINISHED,
        **fields,
    )
    return replace(item, clock=Clock(used_seconds=finished - started))


def test_an_event_counts_in_the_span_of_its_time_and_the_end_of_a_span_is_exclusive() -> None:
    before = served(1, came=990, started=1000, finished=2000)
    figures = analyse([before], START, END, "mira")
    assert figures["counts"] == {
        "created": 0,
        "started": 1,
        "finished": 0,
        "abandoned": 0,
        "refunded": 0,
        "settled": 0,
    }
    following = analyse([before], END, END + timedelta(seconds=1), "mira")
    assert following["counts"]["finished"] == 1


def test_waits_and_services_are_reported_as_percentiles_over_all_and_by_feature() -> None:
    wheel = [
        served(n, came=1000, started=1000 + 10 * n, finished=1100 + 10 * n, source_feature="wheel")
        for n in range(1, 12)
    ]
    dice = served(20, came=1000, started=1500, finished=1501, source_feature="dice")
    figures = analyse([*wheel, dice], START, END, None)
    by_feature = {each["sourceFeature"]: each for each in figures["features"]}
    assert by_feature["wheel"] == {
        "sourceFeature": "wheel",
        "count": 11,
        "waitSeconds": {"p50": 60, "p90": 100},
        "serviceSeconds": {"p50": 100, "p90": 100},
    }
    assert by_feature["dice"]["waitSeconds"] == {"p50": 500, "p90": 500}
    assert figures["waitSeconds"]["p50"] == 65


def test_without_observations_a_figure_is_null_and_not_zero() -> None:
    figures = analyse([], START, END, None)
    assert figures["abandonRate"] is None
    assert figures["refundRate"] is None
    assert figures["waitSeconds"] == {"p50": None, "p90": None}
    assert figures["estimateError"] == {"count": 0, "meanAbsoluteSeconds": None, "biasSeconds": None}
    assert figures["features"] == []


def test_the_error_of_the_estimate_is_the_actual_wait_less_the_quoted_one() -> None:
    late = served(1, came=1000, started=1100, finished=1200, quoted_wait_seconds=60.0)
    early = served(2, came=1000, started=1100, finished=1200, quoted_wait_seconds=120.0)
    unquoted = served(3, came=1000, started=1900, finished=1950)
    figures = analyse([late, early, unquoted], START, END, None)
    assert figures["estimateError"] == {"count": 2, "meanAbsoluteSeconds": 30, "biasSeconds": 10}
    assert figures["counts"]["started"] == 3
    assert figures["waitSeconds"] == {"p50": 100, "p90": 740}
    # Where they stood is not known of items that came before it was kept.
    assert sum(each["count"] for each in figures["estimateByAhead"]) == 0


def test_items_that_passed_through_have_no_wait_and_no_service_time() -> None:
    item = served(1, came=1000, started=1000, finished=1000, pass_through_mode=True)
    figures = analyse([item], START, END, None)
    assert (figures["counts"]["started"], figures["counts"]["finished"]) == (1, 1)
    assert figures["waitSeconds"]["p50"] is None
    assert figures["serviceSeconds"]["p50"] is None


def test_tokens_count_when_the_money_moved_and_a_split_counts_on_both_sides() -> None:
    split = replace(
        served(1, came=900, started=950, finished=990),
        settled_at=moment(1500),
        settled_tokens=70,
        refunded_tokens=30,
    )
    refunded = replace(
        build_item(2, created_at=moment(900), status=Status.REFUNDED), refunded_at=moment(1600), refunded_tokens=50
    )
    unconfirmed = replace(build_item(3, created_at=moment(900), status=Status.REFUNDED), refunded_at=moment(1600))
    figures = analyse([split, refunded, unconfirmed], START, END, None)
    assert figures["tokens"] == {"settled": 70, "refunded": 80}
    assert figures["counts"]["refunded"] == 2


def test_each_amount_counts_once_and_only_those_of_durations_and_of_places_have_a_number() -> None:
    passed = served(1, came=1000, started=1000, finished=1000, pass_through_mode=True)
    split = replace(
        served(2, came=1000, started=1100, finished=1200, quoted_wait_seconds=60.0, quoted_position=3),
        settled_at=moment(1500),
        settled_tokens=70,
        refunded_tokens=30,
    )
    waiting = build_item(3, created_at=moment(1000))
    cancelled = replace(waiting, refunded_at=moment(1600), refunded_tokens=50)
    abandoned = replace(cancelled, abandoned_at=moment(1500))
    untold = served(4, came=1000, started=1100, finished=1200)
    total = analytics.total_of(map(life_of, [passed, split, cancelled, abandoned, untold]), START, END)
    numbered = {kind for _, kind, number in total if number != 0}
    assert numbered == {"wait", "service", "estimates", "estimate_error", "estimate_error_size"}
    assert {number for _, kind, number in total if kind == "estimates"} == {2}
    sums: Counter[str] = Counter()
    for (_, kind, _), value in total.items():
        sums[kind] += value
    assert sums == {
        "created": 5,
        "started": 3,
        "wait": 2,
        "estimates": 1,
        "estimate_error": 40_000,
        "estimate_error_size": 40_000,
        "finished": 3,
        "left_finished": 3,
        "service": 2,
        "abandoned": 1,
        "left_abandoned": 1,
        "refunded": 2,
        "left_refunded": 1,
        "settled": 1,
        "settled_tokens": 70,
        "refunded_tokens": 130,
    }


def test_rates_are_shares_of_what_ended_in_the_span() -> None:
    ended = [
        served(1, came=1000, started=1100, finished=1200),
        served(2, came=1000, started=1000, finished=1000, pass_through_mode=True),
    ]
    abandoned = replace(build_item(3, created_at=moment(1000), status=Status.ABANDONED), abandoned_at=moment(1300))
    refunded = replace(build_item(4, created_at=moment(1000), status=Status.REFUNDED), refunded_at=moment(1300))
    figures = analyse([*ended, abandoned, refunded], START, END, None)
    assert (figures["abandonRate"], figures["refundRate"]) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("end", "rates"),
    [
        ({"finished_at": moment(1300)}, (0, 0)),
        ({"finished_at": moment(1300), "refunded_at": moment(1400)}, (0, 0)),
        ({"abandoned_at": moment(1300)}, (1, 0)),
        ({"abandoned_at": moment(1300), "refunded_at": moment(1400)}, (1, 0)),
        ({"refunded_at": moment(1300)}, (0, 1)),
        ({"started_at": moment(1200), "refunded_at": moment(1300)}, (0, 1)),
        ({"started_at": moment(1200), "abandoned_at": moment(1300), "refunded_at": moment(2500)}, (1, 0)),
        ({"abandoned_at": moment(900), "refunded_at": moment(1400)}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_an_item_counts_once_in_the_rates_by_how_it_left_the_queue(
    end: dict[str, Any], rates: tuple[float | None, float | None]
) -> None:
    figures = analyse([replace(build_item(1, created_at=moment(800)), **end)], START, END, None)
    assert (figures["abandonRate"], figures["refundRate"]) == rates


def waited(number: int, seconds: float, *, ahead: int, estimate: float, **fields: Any) -> Item:
    """An item that came at the start of the span and then waited for so long."""
    item = served(number, came=1000, started=1000 + seconds, finished=1010 + seconds, quoted_wait_seconds=estimate)
    return replace(item, quoted_position=ahead + 1, **fields)


def by_ahead(items: Iterable[Item]) -> list[EstimateByAhead]:
    return analyse(items, START, END, None)["estimateByAhead"]


def test_without_shown_waits_nothing_is_known_for_any_number_ahead() -> None:
    places = [(0, 0), (1, 1), (2, 3), (4, 6), (7, 10), (11, None)]
    assert [(each["aheadFrom"], each["aheadTo"]) for each in by_ahead([])] == places
    assert {(each["count"], each["biasSeconds"], each["rangeRate"]) for each in by_ahead([])} == {(0, None, None)}


def test_waits_are_counted_where_their_item_stood_when_it_came() -> None:
    places = [0, 1, 2, 3, 4, 6, 7, 10, 11, 49]
    items = [waited(number, 100, ahead=ahead, estimate=90) for number, ahead in enumerate(places, 1)]
    assert [each["count"] for each in by_ahead(items)] == [1, 1, 2, 2, 2, 2]


def test_error_bias_and_range_are_those_of_the_shown_waits() -> None:
    low_high = {"quoted_low_seconds": 80.0, "quoted_high_seconds": 130.0}
    items = [
        waited(1, 100, ahead=1, estimate=90, **low_high),
        waited(2, 100, ahead=1, estimate=130),
        waited(3, 200, ahead=1, estimate=170, **low_high),
    ]
    assert by_ahead(items)[1] == {
        "aheadFrom": 1,
        "aheadTo": 1,
        "count": 3,
        "meanAbsoluteSeconds": 23.333,
        "biasSeconds": 3.333,
        "rangeRate": 2 / 3,
        "insideRate": 1 / 2,
    }


@pytest.mark.parametrize(
    ("low", "high", "range_rate", "inside_rate"),
    [
        (100.0, 100.0, 1, 1),
        (100.001, 200.0, 1, 0),
        (50.0, 99.999, 1, 0),
        (None, 100.0, 0, None),
        (100.0, None, 0, None),
    ],
)
def test_a_wait_lies_within_a_range_of_two_ends_and_on_them(
    low: float | None, high: float | None, range_rate: float, inside_rate: float | None
) -> None:
    item = waited(1, 100, ahead=0, estimate=90, quoted_low_seconds=low, quoted_high_seconds=high)
    (figures, *_) = by_ahead([item])
    assert (figures["rangeRate"], figures["insideRate"]) == (range_rate, inside_rate)


def test_only_starts_of_the_span_are_judged_and_only_items_that_were_shown_a_wait() -> None:
    items = [
        waited(1, 100, ahead=1, estimate=90),
        waited(2, 1000, ahead=1, estimate=90),  # the end of a span is the next one's
        waited(3, 0, ahead=0, estimate=0, pass_through_mode=True),
        waited(4, 200, ahead=1, estimate=100, finished_at=None, status=Status.STARTED),
    ]
    assert sum(each["count"] for each in by_ahead(items)) == 2
