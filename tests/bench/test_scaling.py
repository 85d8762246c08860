"""The reckoning of how far the service goes: everybody is somewhere, everything is paid for, and it can be repeated."""

import json
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest
import typer

from tests.bench.scaling import Costs, Limits, Placement, Simulation, Site, place, settle
from tests.bench.scenarios.scaling import DATABASE, NAME, PROCESS, SHARED, WORK, WRITTEN

SITE = Site(
    viewers=5_000,
    viewers_a_room=50,
    tail=1.2,
    items_a_minute=60,
    room_items_a_minute=30,
    stay_minutes=10,
    most_viewers=1_000,
    busy=0.6,
    seconds=20,
    seed=1,
)
FREE = Costs(**{known.name: 0.0 for known in fields(Costs)})


@pytest.mark.parametrize("placement", Placement)
def test_every_viewer_is_on_one_process_in_their_room(placement: Placement) -> None:
    placed = place(SITE, 7, placement)
    assert [sum(watchers.values()) for watchers in placed] == SITE.rooms
    assert sum(SITE.rooms) == pytest.approx(SITE.viewers, rel=0.02)
    assert {process for watchers in placed for process in watchers} == set(range(7))


def test_a_few_rooms_have_many_of_the_viewers() -> None:
    rooms = sorted(SITE.rooms, reverse=True)
    assert sum(rooms[: len(rooms) // 10]) > 0.3 * sum(rooms)


def test_by_performer_a_room_is_on_few_processes_and_none_has_more_than_a_quarter_over_its_share() -> None:
    near, far = (place(SITE, 7, placement) for placement in (Placement.PERFORMER, Placement.RANDOM))
    assert sum(map(len, near)) < len(near) + 7 < sum(map(len, far))
    load = Counter[int]()
    for watchers in near:
        load.update(watchers)
    assert max(load.values()) <= 1.25 * sum(SITE.rooms) / 7 + 1


def test_a_performer_does_not_do_more_items_than_there_is_time_for() -> None:
    eager = replace(SITE, items_a_minute=1e6)
    assert eager.events_a_second == [pytest.approx(2.0)] * len(eager.rooms)


@pytest.mark.parametrize("placement", Placement)
def test_the_same_seed_comes_to_the_same_and_another_one_does_not(placement: Placement) -> None:
    costs = Costs()
    once, again = (Simulation(SITE, costs, 5, placement).run() for _ in range(2))
    assert once == again
    assert Simulation(replace(SITE, seed=2), costs, 5, placement).run() != once


def test_every_event_goes_over_redis_once_for_each_process_that_watches() -> None:
    near = Simulation(SITE, FREE, 5, Placement.PERFORMER).run()
    far = Simulation(SITE, FREE, 5, Placement.RANDOM).run()
    for outcome in (near, far):
        assert outcome.redis_in == outcome.events == pytest.approx(sum(SITE.events_a_second), rel=0.15)
    assert near.redis_in <= near.redis_out < 1.5 * near.redis_in
    assert far.redis_out > 2 * far.redis_in


def test_the_cost_of_a_site_is_the_sum_of_its_parts() -> None:
    deliveries = Simulation(SITE, replace(FREE, delivery_us=10.0), 5, Placement.RANDOM).run()
    assert deliveries.cores == pytest.approx(deliveries.deliveries * 10e-6)
    items = Simulation(SITE, replace(FREE, life_us=8000.0, database_life_us=2000.0), 5, Placement.RANDOM).run()
    assert items.cores == pytest.approx(items.items * 8000e-6)
    assert items.database_cores == pytest.approx(items.items * 2000e-6)
    resting = Simulation(SITE, replace(FREE, viewer_us=100.0, idle_ms=10.0), 5, Placement.PERFORMER).run()
    assert resting.cores == pytest.approx(sum(SITE.rooms) * 100e-6 + 5 * 10e-3)
    assert resting.busiest < 1.3 * resting.cores / 5


@pytest.mark.parametrize("placement", Placement)
def test_processes_are_added_until_the_busiest_has_room_to_spare(placement: Placement) -> None:
    costs = replace(FREE, viewer_us=500.0)
    outcome = settle(SITE, costs, placement)
    assert outcome.processes >= 5
    assert outcome.busiest <= SITE.busy
    assert Simulation(SITE, costs, outcome.processes // 2, placement).run().busiest > SITE.busy


def test_a_process_that_is_busy_by_itself_is_said_to_be_too_much() -> None:
    with pytest.raises(typer.BadParameter, match="more than one process can serve"):
        settle(SITE, replace(FREE, idle_ms=700.0), Placement.RANDOM)


def test_the_resource_that_is_used_up_first_is_named() -> None:
    outcome = Simulation(SITE, replace(FREE, database_idle_ms=1000.0), 4, Placement.RANDOM).run()
    assert Limits(database_cores=8, connections=1000).bottleneck(outcome) == ("PostgreSQL's cores", 0.5)
    assert Limits(database_cores=16, connections=64).bottleneck(outcome) == ("PostgreSQL's connections", 0.5)


def test_costs_are_read_from_the_benchmarks_own_report(tmp_path: Path) -> None:
    measured = {column.measure for _, columns in (PROCESS, WORK, DATABASE, WRITTEN) for column in columns}
    assert {known.name for known in fields(Costs)} <= measured
    subjects = {SHARED: {measure: {"middle": 7.5} for measure in measured}}
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"cases": {"all": {"scenario": NAME, "subjects": subjects}}}))
    assert Costs.of(report) == Costs(**{known.name: 7.5 for known in fields(Costs)})
