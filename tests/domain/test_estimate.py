"""The estimate: the contract's formula without a history, and the effects of a history."""

from datetime import datetime
from itertools import pairwise
from math import erfc, exp, log, sqrt
from random import Random
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.domain.estimate import NOTHING_LEARNT, History, Wait, Waits, learn, thinned
from app.domain.fit import NO_FIT, Fit
from app.domain.item import Clock, Item, Reason, Status
from tests.support.builders import VIEWER, Stage, build_item, build_room, moment

DEFAULT = 60


def started(elapsed: float = 0, number: int = 1, **fields: object) -> Item:
    """An item that has been in service for this long at noon."""
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
    """This many items that all waited from the start and were served one after the other."""
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

    def test_the_used_time_of_the_started_item_is_subtracted(self) -> None:
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
    @pytest.mark.parametrize("actual", [10, 240])
    def test_the_estimate_moves_from_the_declared_duration_towards_what_is_observed(self, actual: float) -> None:
        expected = [
            learn(finished_in_a_row(count, service=actual), DEFAULT).service_seconds(build_item(), DEFAULT)
            for count in (0, 1, 3, 10, 30, 100)
        ]
        distances = [abs(log(estimate / actual)) for estimate in expected]
        assert expected[0] == DEFAULT
        assert distances == sorted(distances, reverse=True)
        assert expected[-1] == pytest.approx(actual, rel=0.2)

    def test_the_declared_duration_is_worth_three_observations(self) -> None:
        fit = NO_FIT
        for _ in range(2):
            fit = fit.with_service(60, 120)
        weight = 1 + 0.97
        assert fit.service_seconds(60) == pytest.approx(60 * 2 ** (weight / (weight + 3)))

    def test_each_feature_and_the_undeclared_are_learnt_apart(self) -> None:
        history = learn(finished_in_a_row(10, service=300, source_feature="dare"), DEFAULT)
        slow = history.service_seconds(build_item(source_feature="dare"), DEFAULT)
        assert history.service_seconds(build_item(source_feature="song"), DEFAULT) < slow / 2
        declared = build_item(source_feature="dare", duration_seconds=DEFAULT)
        assert history.service_seconds(declared, DEFAULT) < slow / 2

    def test_a_declaration_keeps_what_it_says_about_its_own_item(self) -> None:
        ended = [
            finished(number, begin=1000 * number, service=declared * 1.5, duration_seconds=declared)
            for number, declared in enumerate([30, 60, 120, 240] * 10)
        ]
        history = learn(ended, DEFAULT)
        short, long = (history.service_seconds(build_item(duration_seconds=each), DEFAULT) for each in (30, 240))
        assert short == pytest.approx(45, rel=0.2)
        assert long == pytest.approx(360, rel=0.2)

    def test_declarations_that_say_nothing_are_soon_not_believed(self) -> None:
        random, ended = Random(7), []
        for number in range(60):
            declared = random.choice([20, 60, 180, 540])
            ended.append(finished(number, begin=1000 * number, service=100, duration_seconds=declared))
        history = learn(ended, DEFAULT)
        short, long = (history.service_seconds(build_item(duration_seconds=each), DEFAULT) for each in (20, 540))
        assert short == pytest.approx(100, rel=0.35)
        assert long == pytest.approx(100, rel=0.35)

    def test_the_mean_of_uneven_services_is_expected_and_not_their_median(self) -> None:
        random = Random(3)
        services = [random.lognormvariate(log(60), 0.7) for _ in range(200)]
        ended = [finished(number, begin=1e4 * number, service=service) for number, service in enumerate(services)]
        expected = learn(ended, DEFAULT).service_seconds(build_item(), DEFAULT)
        assert expected == pytest.approx(60 * exp(0.7**2 / 2), rel=0.25)

    def test_the_pace_follows_how_a_session_differs_from_the_usual_by_a_twentieth_each_time(self) -> None:
        one = learn(finished_in_a_row(1, service=120), DEFAULT)
        assert one.pace == pytest.approx(0.05 * log(2))
        usual = one.fits["wheel", False].log_service(DEFAULT)
        two = learn(finished_in_a_row(2, service=120), DEFAULT)
        assert two.pace == pytest.approx(0.95 * one.pace + 0.05 * (log(120) - usual))

    def test_the_pace_of_a_session_stays_within_its_limits(self) -> None:
        assert learn(finished_in_a_row(30, service=86_400), DEFAULT).pace <= 1
        assert learn(finished_in_a_row(30, service=0), DEFAULT).pace >= -1

    def test_an_item_finished_at_once_counts_as_a_second(self) -> None:
        at_once = learn(finished_in_a_row(1, service=0), DEFAULT)
        assert at_once.fits["wheel", False] == NO_FIT.with_service(DEFAULT, 1)

    def test_abandoned_and_refunded_items_teach_nothing_about_service_time(self) -> None:
        ended = [
            build_item(1, status=Status.ABANDONED, started_at=moment(0), abandoned_at=moment(5)),
            build_item(2, status=Status.REFUNDED, started_at=moment(6), refunded_at=moment(9)),
            build_item(3, status=Status.ABANDONED, abandoned_at=moment(12)),
        ]
        history = learn(ended, DEFAULT)
        assert (history.fits, history.pace, history.last_end_at) == ({}, 0, moment(9))

    def test_a_finished_item_that_was_refunded_later_still_taught(self) -> None:
        item = finished(1, begin=0, service=20, refunded_at=moment(500))
        assert learn([item], DEFAULT).fits["wheel", False] == NO_FIT.with_service(DEFAULT, 20)
        assert learn([item], DEFAULT).last_end_at == moment(20)

    def test_a_pass_through_item_teaches_nothing(self) -> None:
        assert learn([finished(1, begin=0, service=0, pass_through_mode=True)], DEFAULT) == NOTHING_LEARNT


def rest_of_log_normal(mean: float, spread: float, elapsed: float) -> float:
    """The mean of what a log-normal duration exceeds `elapsed` by, if it does: the sum of its survival from there."""

    def survival(duration: float) -> float:
        return erfc((log(duration / mean) / spread + spread / 2) / sqrt(2))

    steps = 20_000
    factor = float(max(1, mean / elapsed) * exp(9 * spread)) ** (1 / steps)
    durations = [elapsed * factor**step for step in range(steps + 1)]
    areas = ((b - a) * (survival(a) + survival(b)) / 2 for a, b in pairwise(durations))
    return float(sum(areas) / survival(elapsed))


class TestTheRestOfTheStartedOne:
    def test_services_that_vary_leave_more_the_longer_one_lasts(self) -> None:
        random = Random(5)
        services = [random.lognormvariate(log(60), 0.8) for _ in range(300)]
        history = learn([finished(n, begin=1e4 * n, service=each) for n, each in enumerate(services)], DEFAULT)
        for elapsed in (30, 90, 200):
            longer = [each - elapsed for each in services if each > elapsed]
            rest = history.rest_seconds(started(elapsed), moment(), DEFAULT)
            assert rest == pytest.approx(sum(longer) / len(longer), rel=0.4)

    @pytest.mark.parametrize(
        ("usual", "spread", "elapsed", "tolerance"),
        [
            *((60, 0.8, elapsed, 0.001) for elapsed in (10, 30, 60, 240, 6_000)),
            *((2, 0.8, elapsed, 0.001) for elapsed in (0.5, 1, 2, 8, 200)),
            (2, 0.1, 2, 0.001),
            (60, 0.8, 120_000, 0.1),  # so far beyond that hardly one service lasts so long
            (2, 0.1, 20, 0.1),
        ],
    )
    def test_it_is_that_of_a_log_normal_with_the_mean_and_the_spread_learnt(
        self, usual: float, spread: float, elapsed: float, tolerance: float
    ) -> None:
        random = Random(5)
        services = [max(1, random.lognormvariate(log(usual), spread)) for _ in range(300)]
        history = learn([finished(n, begin=1e4 * n, service=each) for n, each in enumerate(services)], DEFAULT)
        mean = history.service_seconds(build_item(), DEFAULT)
        expected = rest_of_log_normal(mean, history.fits["wheel", False].spread, elapsed)
        assert history.rest_seconds(started(elapsed), moment(), DEFAULT) == pytest.approx(expected, rel=tolerance)

    def test_it_is_never_negative_however_long_it_lasts(self) -> None:
        history = learn(finished_in_a_row(10, service=60), DEFAULT)
        assert all(
            history.rest_seconds(started(elapsed), moment(), DEFAULT) >= 0 for elapsed in (0, 5e-324, 59, 61, 1e4, 1e9)
        )


class TestGaps:
    def test_the_pause_between_two_items_is_added_for_each_ahead(self) -> None:
        history = History(gaps=(20.0,) * 5)
        assert history.gap_seconds() == 10
        assert seconds([started(), build_item(2), build_item(3)], history) == [0, 70, 140]

    def test_with_nobody_on_stage_the_rest_of_the_gap_is_part_of_the_wait(self) -> None:
        history = History(gaps=(10.0, 15.0, 20.0, 30.0, 40.0, 50.0), last_end_at=moment(-15))
        queue = [build_item(number, created_at=moment(-50)) for number in (1, 2)]
        (first, second) = seconds(queue, history, moment())
        assert first == 35 - 15, "35 s is the median of the gaps that were longer than 15 s"
        assert second == first + DEFAULT + history.gap_seconds()

    def test_a_gap_that_is_longer_than_any_before_promises_nothing(self) -> None:
        history = History(gaps=(10.0, 20.0), last_end_at=moment(-600))
        assert seconds([build_item(1, created_at=moment(-700))], history) == [0]

    def test_it_is_measured_while_somebody_waited_and_nobody_was_on_stage(self) -> None:
        assert learn(finished_in_a_row(3, service=10, gap=7), DEFAULT).gaps == (7, 7)
        idle = [finished(1, begin=0, service=10), finished(2, begin=100, service=10, arrived=90)]
        assert learn(idle, DEFAULT).gaps == (10,)

    def test_an_item_that_is_started_at_once_had_no_gap(self) -> None:
        assert learn(finished_in_a_row(3, service=10), DEFAULT).gaps == (0, 0)

    def test_pauses_on_stage_count_into_it(self) -> None:
        first = finished(1, begin=0, service=10, arrived=-1)
        paused = build_item(
            2,
            status=Status.FINISHED,
            created_at=moment(-1),
            started_at=moment(15),
            finished_at=moment(45),
            clock=Clock(used_seconds=20),
        )
        last = finished(3, begin=50, service=10, arrived=-1)
        assert learn([first, paused, last], DEFAULT).gaps == (5, 15)

    def test_only_the_last_hundred_and_twenty_are_remembered(self) -> None:
        assert learn(finished_in_a_row(130, service=10, gap=7), DEFAULT).gaps == (7,) * 120

    def test_a_long_pause_starts_a_new_session(self) -> None:
        history = learn(finished_in_a_row(5, service=200), DEFAULT)
        assert history.pace > 0
        end = 6 * 200
        again = history.started(build_item(9, created_at=moment(end + 1790)), moment(end + 1800))
        assert (again.pace, len(again.gaps)) == (history.pace, len(history.gaps) + 1)
        anew = history.started(build_item(9, created_at=moment(end + 1790)), moment(end + 1801))
        assert (anew.pace, anew.fits) == (0, history.fits)

    def test_a_gap_counts_up_to_half_an_hour_and_a_session_goes_on_while_somebody_waits(self) -> None:
        history = learn(finished_in_a_row(5, service=200), DEFAULT)
        end = 6 * 200
        for arrived in (-1, end):
            waiting = build_item(9, created_at=moment(arrived))
            assert history.started(waiting, moment(end + 1800)).gaps == (*history.gaps, 1800)
            endless = history.started(waiting, moment(end + 1801))
            assert (endless.gaps, endless.pace) == (history.gaps, history.pace)


class TestLeaving:
    def test_where_nobody_leaves_turns_add_up(self) -> None:
        assert thinned(40, 600, 0) == 640

    def test_some_of_those_ahead_will_be_gone(self) -> None:
        assert thinned(0, 600, 1 / 600) == pytest.approx(600 * log(2))
        assert thinned(40, 600, 1 / 600) < 640
        assert thinned(1e6, 600, 1 / 600) == pytest.approx(1e6), "hardly anybody waits so long"

    def test_the_rate_is_of_unserved_leavers_per_second_waited(self) -> None:
        ended = [build_item(n, status=Status.REFUNDED, refunded_at=moment(100)) for n in range(1, 11)]
        history = learn(ended, DEFAULT)
        faded = sum(0.99**n for n in range(10))
        assert history.leaving_rate == pytest.approx(faded / (100 * faded + 3600))
        assert seconds([build_item(n) for n in range(1, 4)], history)[2] < 120

    def test_one_or_two_who_leave_may_be_chance(self) -> None:
        ended = [build_item(n, status=Status.REFUNDED, refunded_at=moment(100)) for n in range(1, 4)]
        assert [learn(ended[:count], DEFAULT).leaving_rate > 0 for count in (1, 2, 3)] == [False, False, True]

    def test_a_rate_is_computed_from_two_leavers_on(self) -> None:
        assert History(leavers=2.0, waited_seconds=400).leaving_rate == 2 / 4000
        assert History(leavers=1.99, waited_seconds=400).leaving_rate == 0

    @pytest.mark.parametrize("at", [0, -5])
    def test_an_item_that_is_started_at_once_or_by_a_skewed_clock_has_not_waited(self, at: float) -> None:
        assert NOTHING_LEARNT.started(build_item(), moment(at)).waited_seconds == 0

    def test_a_performer_who_vanishes_says_nothing_about_who_waits(self) -> None:
        reason = Reason.PERFORMER_DISCONNECTED
        gone = build_item(1, status=Status.ABANDONED, abandoned_at=moment(9), abandon_reason=reason)
        assert learn([gone], DEFAULT) == NOTHING_LEARNT

    def test_waits_that_ended_on_stage_count_as_waited_only(self) -> None:
        history = learn(finished_in_a_row(3, service=10), DEFAULT)
        assert history.leaving_rate == 0
        assert history.waited_seconds > 0


class TestRanges:
    def scored(self, count: int, *, position: int = 2, ratio: float | None = None) -> History:
        """A history with estimates of ten seconds at one position, whose outcomes have this ratio, or 0.1, 0.2, 0.3 and
        so on."""
        history = NOTHING_LEARNT
        for number in range(1, count + 1):
            item = build_item(number, quoted_wait_seconds=10.0, quoted_position=position)
            history = history.started(item, moment(number if ratio is None else 10 * ratio))
        return history

    def test_a_range_is_given_from_twenty_scores_on_at_every_place(self) -> None:
        queue = [started(), *(build_item(number) for number in range(2, 12))]
        before = list(Waits(queue, self.scored(19), moment(), DEFAULT))
        after = list(Waits(queue, self.scored(20), moment(), DEFAULT))
        assert all(wait.range_seconds is None for wait in before)
        assert all(wait.range_seconds is not None for wait in after[1:])

    def test_it_reaches_from_the_first_to_the_last_tenth_of_the_scores(self) -> None:
        deciles = [exp(decile) for decile in quantiles([log(number / 10) for number in range(1, 31)], n=10)]
        wait = Waits([started(), build_item(2)], self.scored(30), moment(), DEFAULT)[1]
        assert wait.range_seconds == pytest.approx((wait.seconds * deciles[0], wait.seconds * deciles[-1]), rel=1e-4)

    def test_it_is_relatively_narrower_the_more_are_ahead(self) -> None:
        queue = [started(), *(build_item(number) for number in range(2, 12))]
        waits = list(Waits(queue, self.scored(30), moment(), DEFAULT))[1:]
        widths = [high / low for low, high in (wait.range_seconds for wait in waits if wait.range_seconds)]
        assert len(widths) == 10
        assert widths == sorted(widths, reverse=True)

    def test_a_promise_to_the_first_is_no_promise(self) -> None:
        assert self.scored(30, position=1).scores == ()

    def test_the_range_of_the_first_comes_from_past_gaps(self) -> None:
        history = History(gaps=tuple(map(float, range(1, 41))), last_end_at=moment(-10))
        (wait,) = Waits([build_item(1, created_at=moment(-50))], history, moment(), DEFAULT)
        assert wait.range_seconds is not None
        low, high = wait.range_seconds
        assert 0 < low < wait.seconds < high < 31
        few = History(gaps=(20.0,) * 9)
        assert next(iter(Waits([build_item(1)], few, moment(), DEFAULT))).range_seconds is None
        enough = History(gaps=(0.5,) * 10)
        assert next(iter(Waits([build_item(1)], enough, moment(), DEFAULT))).range_seconds == (0.5, 0.5)

    def test_only_gaps_that_were_longer_count_for_the_range_of_the_first(self) -> None:
        queue = [build_item(1, created_at=moment(-15))]
        longer = tuple(map(float, range(16, 26)))
        (wait,) = Waits(queue, History(gaps=(15.0, *longer)), moment(), DEFAULT)
        assert wait.range_seconds == pytest.approx((1.1, 9.9))

    def test_the_wait_quoted_on_arrival_is_the_wait_of_the_item_in_its_place(self) -> None:
        history = replace(self.scored(30), gaps=tuple(map(float, range(1, 41))))
        for queue in ([], [build_item(1)], [started()], [started(), build_item(2)]):
            quote = build_room(items=tuple(queue), history=history).quote(moment())
            arrived = build_room(items=(*queue, build_item(9, created_at=moment())), history=history)
            told = arrived.waits(moment())[len(queue)]
            assert quote.seconds == pytest.approx(told.seconds)
            assert quote.range_seconds == pytest.approx(told.range_seconds)

    def test_the_started_item_has_no_range(self) -> None:
        history = History(scores=(1.0,) * 20, gaps=(1.0,) * 20)
        assert list(Waits([started()], history, moment(), DEFAULT)) == [Wait(seconds=0)]

    def test_only_the_last_hundred_and_twenty_scores_are_kept(self) -> None:
        assert self.scored(130, ratio=2).scores == (round(log(2), 4),) * 120

    def test_a_promise_of_no_wait_is_scored_as_if_it_were_a_second(self) -> None:
        item = build_item(quoted_wait_seconds=0.0, quoted_position=2)
        assert NOTHING_LEARNT.started(item, moment(7)).scores == (round(log(7), 4),)

    def test_a_start_without_a_wait_is_scored_as_one_after_a_second(self) -> None:
        item = build_item(quoted_wait_seconds=5.0, quoted_position=2)
        assert NOTHING_LEARNT.started(item, moment(0)).scores == (round(log(1 / 5), 4),)

    def test_errors_count_for_more_behind_more_items_by_the_number_ahead_to_the_power_of_three_tenths(self) -> None:
        assert self.scored(1, position=9, ratio=2).scores == (round(log(2) * 8**0.3, 4),)


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
    assert stage.room.history.gaps == (12, 12, 12)
    leaver = stage.intake()
    stage.wait(60)
    ended.append(stage.refund(leaver, Reason.USER_CANCELLED, VIEWER))
    assert learn(ended, DEFAULT) == stage.room.history
    assert stage.room.history.leavers == 1


FITS = st.lists(st.tuples(st.floats(1, 86_400), st.floats(1, 86_400)), max_size=40)


def fit_of(services: list[tuple[float, float]]) -> Fit:
    fit = NO_FIT
    for declared, actual in services:
        fit = fit.with_service(declared, actual)
    return fit


HISTORIES = st.builds(
    History,
    fits=st.dictionaries(st.tuples(st.sampled_from(["wheel", "dare"]), st.booleans()), FITS.map(fit_of), max_size=3),
    gaps=st.lists(st.floats(0, 1800), max_size=30).map(tuple),
    pace=st.floats(-1, 1),
    leavers=st.floats(0, 100),
    waited_seconds=st.floats(0, 1e6),
    scores=st.lists(st.floats(-10, 10), max_size=40).map(tuple),
    last_end_at=st.none() | st.floats(-1e5, 0).map(moment),
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


@given(services=FITS)
def test_the_expected_logarithm_lies_between_the_declared_and_the_observed(
    services: list[tuple[float, float]],
) -> None:
    same_declaration = [(float(DEFAULT), actual) for _, actual in services]
    seen = [log(DEFAULT), *(log(actual) for _, actual in same_declaration)]
    assert min(seen) - 1e-6 <= fit_of(same_declaration).log_service(DEFAULT) <= max(seen) + 1e-6


def test_the_fit_is_the_weighted_regression_that_it_says_it_is() -> None:
    """Compared with centred sums; a service loses 3 % of its weight with each later one."""
    services = [(30.0, 45.0), (60.0, 50.0), (120.0, 200.0), (300.0, 260.0), (45.0, 90.0)]
    fit = NO_FIT
    for declared, actual in services:
        fit = fit.with_service(declared, actual)
    weights = [0.97**age for age in reversed(range(len(services)))]
    xs = [log(declared) for declared, _ in services]
    ys = [log(actual / declared) for declared, actual in services]
    total = sum(weights)
    mean_x, mean_y = (sum(w * v for w, v in zip(weights, values, strict=True)) / total for values in (xs, ys))
    rows = list(zip(weights, xs, ys, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, x, y in rows) / (
        sum(w * (x - mean_x) ** 2 for w, x, _ in rows) + 2
    )
    spread = sqrt(sum(w * (y - mean_y - slope * (x - mean_x)) ** 2 for w, x, y in rows) / total)
    trust = total / (total + 3)
    assert fit.slope == pytest.approx(slope)
    assert fit.spread == pytest.approx(spread)
    expected = log(100) + mean_y * trust + slope * (log(100) - mean_x)
    assert fit.log_service(100) == pytest.approx(expected)
    assert fit.service_seconds(100) == pytest.approx(exp(expected + trust * spread**2 / 2))


def test_a_declaration_is_at_worst_not_believed_and_at_best_taken_half_as_far_again() -> None:
    declared = [10.0, 30.0, 100.0, 300.0, 1000.0] * 4
    assert fit_of([(each, each**-3) for each in declared]).slope == -1
    assert fit_of([(each, each**3) for each in declared]).slope == 0.5


def test_absurd_services_do_not_make_the_spread_absurd() -> None:
    assert fit_of([(60.0, 1.0), (60.0, 86_400.0)] * 10).spread == 1.5
