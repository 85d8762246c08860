"""The transition table, the clock and the order of items."""

import pytest
from msgspec.structs import replace

from app.domain.errors import InvalidTransition
from app.domain.item import ACTIVE, STOPPED, TRANSITIONS, Clock, Move, Status, after
from tests.support.builders import build_item, item_id_of, moment

# Written from the contract, not from the code: what each command makes of an item in each status. A dash: refused.
EXPECTED = """
             start     complete   abandon     refund     pause     resume
created      started   -          abandoned   refunded   -         -
started      -         finished   abandoned   refunded   started   started
finished     -         -          -           refunded   -         -
abandoned    -         -          -           refunded   -         -
refunded     -         -          -           -          -         -
"""


def expected_table() -> dict[tuple[str, str], str]:
    moves, *rows = [line.split() for line in EXPECTED.strip().splitlines()]
    return {(status, move): target for status, *targets in rows for move, target in zip(moves, targets, strict=True)}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("move", Move)
def test_every_move_from_every_status_leads_where_the_contract_says(status: Status, move: Move) -> None:
    item = build_item(status=status)
    target = expected_table()[status, move]
    if target == "-":
        with pytest.raises(InvalidTransition):
            after(item, move)
    else:
        assert after(item, move) == target
    assert item == build_item(status=status)


def test_the_expected_table_and_the_code_name_the_same_statuses_and_moves() -> None:
    assert set(expected_table()) == {(status, move) for status in Status for move in Move}
    assert set(TRANSITIONS) == set(Status)


def test_nothing_leads_back_to_created_and_nothing_leads_out_of_refunded() -> None:
    assert all(Status.CREATED not in moves.values() for moves in TRANSITIONS.values())
    assert not TRANSITIONS[Status.REFUNDED]


def test_an_ended_item_never_becomes_active_again() -> None:
    for status in set(Status) - ACTIVE:
        assert not ACTIVE & set(TRANSITIONS[status].values())


def test_a_refusal_names_the_item_the_move_and_what_is_possible() -> None:
    with pytest.raises(InvalidTransition) as refusal:
        after(build_item(status=Status.CREATED), Move.COMPLETE)
    assert refusal.value.item_id == item_id_of(1)
    assert "complete" in refusal.value.detail
    assert "created" in refusal.value.detail
    assert "start, abandon, refund" in refusal.value.detail


def test_a_refusal_at_the_end_of_the_road_says_that_nothing_is_possible() -> None:
    with pytest.raises(InvalidTransition, match=r"possible from here: nothing\.$"):
        after(build_item(status=Status.REFUNDED), Move.REFUND)


def test_only_created_and_started_items_are_active() -> None:
    assert {status for status in Status if build_item(status=status).is_active} == {Status.CREATED, Status.STARTED}


def test_an_item_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        build_item().status = Status.STARTED  # type: ignore[misc]


def test_the_started_item_comes_first_then_arrival_then_the_id() -> None:
    started = build_item(9, status=Status.STARTED, created_at=moment(50))
    early = build_item(5, created_at=moment(1))
    tied, tied_later = build_item(2, created_at=moment(2)), build_item(3, created_at=moment(2))
    shuffled = [tied_later, early, started, tied]
    assert sorted(shuffled, key=lambda item: item.order) == [started, early, tied, tied_later]


def test_a_clock_counts_only_while_it_runs() -> None:
    clock = STOPPED.start(moment(0))
    assert clock.elapsed(moment(7)) == 7
    clock = clock.stop(moment(10))
    assert clock.elapsed(moment(100)) == 10
    assert clock.start(moment(100)).elapsed(moment(105)) == 15


def test_starting_a_running_clock_or_stopping_a_standing_one_changes_nothing() -> None:
    running = STOPPED.start(moment(0))
    assert running.start(moment(5)) is running
    standing = running.stop(moment(5))
    assert standing.stop(moment(9)) is standing


def test_a_clock_never_counts_backwards() -> None:
    clock = Clock(used_seconds=3, since=moment(10))
    assert clock.elapsed(moment(4)) == 3
    assert clock.stop(moment(4)).used_seconds == 3


def test_a_clock_knows_when_its_limit_is_reached_only_while_it_runs() -> None:
    clock = STOPPED.start(moment(0)).stop(moment(4))
    assert clock.due(10) is None
    assert clock.start(moment(20)).due(10) == moment(26)


def test_a_limit_that_was_used_up_already_is_due_at_once_and_not_in_the_past() -> None:
    assert Clock(used_seconds=30, since=moment(5)).due(10) == moment(5)


def test_items_with_the_same_fields_are_equal() -> None:
    assert build_item() == build_item()
    assert build_item() != replace(build_item(), paused=True)
