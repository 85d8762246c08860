"""The estimate: the contract's formula with nothing learnt, and what it makes of what has happened."""

from datetime import datetime
from math import exp, log
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.estimate import NOTHING_LEARNT, History, Wait, Waits, learn
from app.domain.item import Clock, Item, Reason, Status
from tests.support.builders import Stage, build_item, moment

DEFAULT = 60


def started(elapsed: float = 0, number: int = 1, **fields: object) -> Item:
    """An item that has been in service so long at noon."""
    clock = Clock(used_seconds=elapsed, since=moment(0))
    return build_item(number, status=Status.STARTED, clock=clock, started_at=moment(-elapsed), **fields)


def finished(number: int, *, begin: float, service: float, arrived: float | None = None, **fields: object) -> Item:
    """A finished item that was in service from `begin` on."""
    return build_item(
        number,
        status=Status.FINISHED,
        created_at=moment(begin if arrived is None else arrived),
        started_at=moment(begin),
        finished_at=moment(begin + service),
        clock=Clock(used_seconds=service),
        **fields,
    )


def finished_in_a_row(count: int, *, service: float, gap: float = 0, **fields: object) -> list[Item]:
    """So many items that all waited from the start and were then served one after the other."""
    step = service + gap
    return [
        finished(number, begin=number * step, service=service, arrived=-1, **fields) for number in range(1, count + 1)
    ]


def seconds(items: list[Item], history: History = NOTHING_LEARNT, now: datetime | None = None) -> list[float]:
    return [wait.seconds for wait in Waits(items, history, now or moment(), DEFAULT)]


class TestWithNothingLearnt:
    def test_each_waits_for_the_durations_ahead_of_it_sixty_where_unknown(self) -> None:
        items = [
            build_item(1, duration_seconds=30),
            build_item(2),
            build_item(3, duration_seconds=200),
            build_item(4),
        ]
        assert seconds(items) == [0, 30, 90, 290]

    def test_what_the_started_one_has_already_used_is_taken_off(self) -> None:
        items = [started(25, duration_seconds=40), build_item(2, duration_seconds=10), build_item(3)]
        assert seconds(items) == [0, 15, 25]
        assert seconds(items, now=moment(5)) == [0, 10, 20]

    def test_a_started_item_over_its_time_counts_nothing_and_never_less(self) -> None:
        assert seconds([started(500), build_item(2), build_item(3)]) == [0, 0, 60]

    def test_a_paused_item_uses_no_time(self) -> None:
        paused = build_item(1, status=Status.STARTED, paused=True, clock=Clock(used_seconds=20))
        assert seconds([paused, build_item(2)], now=moment(1000)) == [0, 40]

    def test_nobody_waits_in_an_empty_queue(self) -> None:
        assert list(Waits([], NOTHING_LEARNT, moment(), DEFAULT)) == []

    def test_no_range_is_claimed(self) -> None:
        queue = [started(), *(build_item(number) for number in range(2, 12))]
        assert all(wait.range_seconds is None for wait in Waits(queue, NOTHING_LEARNT, moment(), DEFAULT))


class TestLearningServiceTimes:
    def test_the_declared_duration_weighs_as_much_as_five_observations(self) -> None:
        history = History(services={"wheel": (120.0,) * 5})
        assert history.service_seconds(build_item(duration_seconds=60), DEFAULT) == 90

    @pytest.mark.parametrize("actual", [10, 240])
    def test_the_estimate_moves_towards_what_is_observed(self, actual: float) -> None:
        expected = [
            learn(finished_in_a_row(count, service=actual), DEFAULT).service_seconds(build_item(), DEFAULT)
            for count in (0, 1, 3, 10, 30)
        ]
        distances = [abs(estimate - actual) for estimate in expected]
        assert expected[0] == DEFAULT
        assert distances[0] > distances[1] > distances[2]
        assert max(distances[3:]) < distances[0] / 3

    def test_each_feature_is_learnt_apart(self) -> None:
        history = learn(finished_in_a_row(10, service=300, source_feature="dare"), DEFAULT)
        assert list(history.services) == ["dare"]
        usual = history.service_seconds(build_item(source_feature="song"), DEFAULT)
        assert usual < history.service_seconds(build_item(source_feature="dare"), DEFAULT)

    def test_only_the_last_thirty_are_remembered(self) -> None:
        history = learn(finished_in_a_row(40, service=10), DEFAULT)
        assert history.services["wheel"] == (10,) * 30

    def test_the_pace_follows_how_a_session_differs_from_the_usual_by_fifteen_percent_each_time(self) -> None:
        one, two = learn(finished_in_a_row(1, service=120), DEFAULT), learn(finished_in_a_row(2, service=120), DEFAULT)
        assert one.pace == pytest.approx(0.15 * log(120 / 60))
        assert two.pace == pytest.approx(0.85 * one.pace + 0.15 * log(120 / 70))
        assert one.service_seconds(build_item(), DEFAULT) == pytest.approx(70 * exp(one.pace))

    def test_the_pace_of_a_session_stays_within_its_limits(self) -> None:
        assert learn(finished_in_a_row(30, service=86_400), DEFAULT).pace <= 1
        assert learn(finished_in_a_row(30, service=0), DEFAULT).pace >= -1

    def test_an_item_finished_at_once_still_counts_as_a_second(self) -> None:
        assert learn(finished_in_a_row(1, service=0), DEFAULT).services["wheel"] == (1.0,)

    def test_abandoned_and_refunded_items_teach_nothing_about_service_time(self) -> None:
        ended = [
            build_item(1, status=Status.ABANDONED, started_at=moment(0), abandoned_at=moment(5)),
            build_item(2, status=Status.REFUNDED, started_at=moment(6), refunded_at=moment(9)),
            build_item(3, status=Status.ABANDONED, abandoned_at=moment(12)),
        ]
        history = learn(ended, DEFAULT)
        assert (history.services, history.pace, history.last_end_at) == ({}, 0, moment(9))

    def test_a_finished_item_that_was_refunded_later_still_taught(self) -> None:
        item = finished(1, begin=0, service=20, refunded_at=moment(500))
        assert learn([item], DEFAULT).services == {"wheel": (20,)}
        assert learn([item], DEFAULT).last_end_at == moment(20)

    def test_a_pass_through_item_teaches_nothing(self) -> None:
        assert learn([finished(1, begin=0, service=0, pass_through_mode=True)], DEFAULT) == NOTHING_LEARNT


class TestTheRestOfTheStartedOne:
    def test_it_is_what_longer_ones_took_on_average_from_here(self) -> None:
        history = History(services={"wheel": (10.0, 100.0, 110.0, 120.0, 130.0, 140.0)})
        assert history.rest_seconds(started(50), moment(), DEFAULT) == 70

    def test_it_is_never_less_than_a_quarter_of_the_usual(self) -> None:
        history = History(services={"wheel": (60.0,) * 10})
        assert history.rest_seconds(started(59), moment(), DEFAULT) == 15
        assert history.rest_seconds(started(5000), moment(), DEFAULT) == 15


class TestGaps:
    def test_the_pause_between_two_items_is_added_for_each_ahead(self) -> None:
        history = History(gaps=(20.0,) * 5)
        assert history.gap_seconds() == 10
        assert seconds([started(), build_item(2), build_item(3)], history) == [0, 70, 140]

    def test_nobody_started_nobody_to_wait_for(self) -> None:
        assert seconds([build_item(1), build_item(2)], History(gaps=(20.0,) * 5)) == [0, 70]

    def test_it_is_measured_while_somebody_waited(self) -> None:
        history = learn(finished_in_a_row(3, service=10, gap=7), DEFAULT)
        assert history.gaps == (7, 7)

    def test_only_the_last_thirty_are_remembered(self) -> None:
        assert learn(finished_in_a_row(40, service=10, gap=7), DEFAULT).gaps == (7,) * 30

    def test_idling_in_an_empty_room_is_no_gap(self) -> None:
        ended = [finished(1, begin=0, service=10), finished(2, begin=100, service=10, arrived=90)]
        assert learn(ended, DEFAULT).gaps == ()

    def test_a_long_pause_starts_a_new_session(self) -> None:
        ended = finished_in_a_row(5, service=200)
        history = learn(ended, DEFAULT)
        assert history.pace > 0
        end = 6 * 200
        again = history.started(build_item(9, created_at=moment(-1)), moment(end + 1800))
        assert (again.pace, len(again.gaps)) == (history.pace, len(history.gaps) + 1)
        anew = history.started(build_item(9, created_at=moment(-1)), moment(end + 1801))
        assert (anew.pace, anew.gaps, anew.services) == (0, history.gaps, history.services)


class TestRanges:
    def scored(self, count: int, *, position: int = 2, ratio: float | None = None) -> History:
        """A history with so many promises of ten seconds at a position, kept by ratio or by 0.1, 0.2, 0.3 and so on."""
        history = NOTHING_LEARNT
        for number in range(1, count + 1):
            item = build_item(number, quoted_wait_seconds=10.0, quoted_position=position)
            history = history.started(item, moment(number if ratio is None else 10 * ratio))
        return history

    def test_a_range_is_given_from_twenty_scores_on(self) -> None:
        queue = [started(), build_item(2)]
        assert Waits(queue, self.scored(19), moment(), DEFAULT)[1].range_seconds is None
        assert Waits(queue, self.scored(20), moment(), DEFAULT)[1].range_seconds is not None

    def test_it_reaches_from_the_first_to_the_last_tenth_of_the_scores(self) -> None:
        queue = [started(), build_item(2)]
        deciles = quantiles([number / 10 for number in range(1, 31)], n=10)
        (_, wait) = Waits(queue, self.scored(30), moment(), DEFAULT)
        assert wait.range_seconds == pytest.approx((60 * deciles[0], 60 * deciles[-1]))

    @pytest.mark.parametrize(("position", "others"), [(2, (4, 9)), (3, (4,)), (4, (3, 9)), (8, (9,)), (9, (8,))])
    def test_scores_count_for_positions_alike(self, position: int, others: tuple[int, ...]) -> None:
        queue = [started(), *(build_item(number) for number in range(2, 12))]
        ranges = [wait.range_seconds for wait in Waits(queue, self.scored(20, position=position), moment(), DEFAULT)]
        assert ranges[position - 1] is not None
        assert all(ranges[other - 1] is None for other in others)

    def test_a_promise_to_the_first_is_no_promise(self) -> None:
        assert self.scored(30, position=1).scores == {}

    def test_the_started_item_has_no_range(self) -> None:
        history = History(scores={0: (1.0,) * 20})
        assert list(Waits([started()], history, moment(), DEFAULT)) == [Wait(seconds=0)]

    def test_only_the_last_hundred_and_twenty_scores_are_kept(self) -> None:
        history = self.scored(130, ratio=2)
        assert history.scores == {1: (2.0,) * 120}

    def test_a_promise_of_no_wait_is_scored_as_if_it_were_a_second(self) -> None:
        item = build_item(quoted_wait_seconds=0.0, quoted_position=2)
        assert NOTHING_LEARNT.started(item, moment(7)).scores == {1: (7.0,)}


def test_a_room_learns_while_it_runs_what_it_would_learn_from_its_ended_items() -> None:
    stage = Stage()
    for _ in range(4):
        stage.intake()
    ended = []
    for number, item in enumerate(list(stage.room.items)):
        stage.start(item)
        stage.pause(item)
        stage.wait(9)
        stage.resume(item)
        stage.wait(20 + number)
        ended.append(stage.abandon(item, Reason.TECHNICAL_ERROR) if number == 1 else stage.complete(item))
        stage.wait(3)
    assert learn(ended, DEFAULT) == stage.room.history
    assert stage.room.history.services == {"wheel": (20, 22, 23)}
    assert stage.room.history.gaps == (3, 3, 3)


SERVICES = st.dictionaries(
    st.sampled_from(["wheel", "dare"]), st.lists(st.floats(1, 10_000), max_size=30).map(tuple), max_size=2
)
HISTORIES = st.builds(
    History,
    services=SERVICES,
    gaps=st.lists(st.floats(0, 1800), max_size=30).map(tuple),
    pace=st.floats(-1, 1),
    scores=st.dictionaries(st.integers(0, 3), st.lists(st.floats(0, 1000), min_size=20, max_size=40).map(tuple)),
)


@given(
    history=HISTORIES,
    elapsed=st.none() | st.floats(0, 100_000),
    waiting=st.lists(st.tuples(st.sampled_from(["wheel", "dare", "song"]), st.none() | st.integers(1, 3600))),
)
def test_waits_are_never_negative_and_grow_along_the_queue(
    history: History, elapsed: float | None, waiting: list[tuple[str, int | None]]
) -> None:
    queue = [] if elapsed is None else [started(elapsed)]
    queue += [
        build_item(number, source_feature=feature, duration_seconds=duration)
        for number, (feature, duration) in enumerate(waiting, start=2)
    ]
    result = Waits(queue, history, moment(), DEFAULT)
    assert len(result) == len(queue)
    expected = [wait.seconds for wait in result]
    assert expected == sorted(expected)
    assert all(wait >= 0 for wait in expected)
    for wait in result:
        if wait.range_seconds is not None:
            low, high = wait.range_seconds
            assert 0 <= low <= high


@given(services=st.lists(st.floats(0, 100_000), max_size=40), gap=st.floats(0, 5000))
def test_whatever_is_learnt_the_usual_service_lies_between_the_declared_and_the_observed_at_that_pace(
    services: list[float], gap: float
) -> None:
    time, ended = 0.0, []
    for number, service in enumerate(services, start=1):
        ended.append(finished(number, begin=time, service=service, arrived=-1))
        time += service + gap
    history = learn(ended, DEFAULT)
    seen = [DEFAULT, *(max(1.0, service) for service in services[-30:])]
    usual = History(services=history.services).service_seconds(build_item(), DEFAULT)
    assert min(seen) - 1e-6 <= usual <= max(seen) + 1e-6
    assert -1 <= history.pace <= 1
