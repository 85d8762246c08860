"""The results of each command: events and a wallet operation, or a refusal that changes nothing."""

import pickle
from collections.abc import Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from app.domain import command as do
from app.domain.command import Command, Mode
from app.domain.decision import decide
from app.domain.errors import (
    AlreadyProcessing,
    Forbidden,
    InvalidRequest,
    InvalidTransition,
    ItemNotFound,
    OutOfOrder,
    QueueClosed,
    QueueEmpty,
    QueueError,
    QueueFull,
    UserLimitReached,
)
from app.domain.event import EventName
from app.domain.item import Item, Reason, Status, WalletStatus
from app.domain.operation import Operation, OperationKind, OperationStatus, Resolution
from app.domain.recorder import Decision
from app.domain.room import Policy
from tests.support.builders import (
    ADMIN,
    FEATURE,
    MODERATOR,
    NOON,
    PERFORMER,
    VIEWER,
    Stage,
    build_item,
    build_room,
    item_of,
    moment,
    order_of,
)


def refused(stage: Stage, command: Command, refusal: type[QueueError]) -> QueueError:
    """The refusal of a command; checks that the room and everything around it are unchanged."""
    before = pickle.dumps(stage)
    with pytest.raises(refusal) as caught:
        stage.send(command)
    assert pickle.dumps(stage) == before
    return caught.value


ABOUT_ITEM: dict[str, Callable[[Item], Command]] = {
    "start": lambda item: do.Start(actor=PERFORMER, item_id=item.item_id),
    "complete": lambda item: do.Complete(actor=PERFORMER, item_id=item.item_id),
    "split": lambda item: do.Complete(actor=PERFORMER, item_id=item.item_id, refund_tokens=1),
    "abandon": lambda item: do.Abandon(actor=PERFORMER, item_id=item.item_id),
    "refund": lambda item: do.Refund(actor=ADMIN, item_id=item.item_id, reason=Reason.ADMIN_REFUND),
    "pause": lambda item: do.Pause(actor=PERFORMER, item_id=item.item_id),
    "resume": lambda item: do.Resume(actor=PERFORMER, item_id=item.item_id),
}

# The contract once more, now with the pause: what becomes of an item and its pause, and the event that says so.
WHATEVER_HAPPENS = """
                  start     complete   split      abandon     refund     pause      resume
created           started   -          -          abandoned   refunded   -          -
started           -         finished   finished   abandoned   refunded   paused     -
started+paused    -         finished   finished   abandoned   refunded   -          resumed
finished          -         -          -          -           refunded   -          -
abandoned         -         -          -          -           refunded   -          -
refunded          -         -          -          -           -          -          -
"""


def whatever_happens() -> list[tuple[str, str, str]]:
    names, *rows = [line.split() for line in WHATEVER_HAPPENS.strip().splitlines()]
    return [(state, name, outcome) for state, *cells in rows for name, outcome in zip(names, cells, strict=True)]


@pytest.mark.parametrize(("state", "name", "outcome"), whatever_happens())
def test_every_command_in_every_status(state: str, name: str, outcome: str) -> None:
    status, _, paused = state.partition("+")
    stage = Stage()
    bystander = stage.intake()
    item = stage.in_status(Status(status), paused=bool(paused))
    stage.wait(5)
    command = ABOUT_ITEM[name](item)
    if outcome == "-":
        assert refused(stage, command, InvalidTransition).item_id == item.item_id
        return
    decision = stage.send(command)
    assert [event.name for event in decision.events] == [f"queue.item.{outcome}"]
    assert decision.events[0].from_status == status
    changed = item_of(decision)
    assert changed.status == {"paused": "started", "resumed": "started"}.get(outcome, outcome)
    assert changed.paused is (outcome == "paused")
    assert changed.updated_at == moment(5)
    assert (stage.room.find(item.item_id) == changed) is changed.is_active
    assert stage.of(bystander).status is Status.CREATED


@pytest.mark.parametrize("name", ABOUT_ITEM)
def test_a_command_about_an_unknown_item_is_refused(name: str) -> None:
    refused(Stage(), ABOUT_ITEM[name](build_item(99)), ItemNotFound)


def test_a_refused_pause_says_which_of_the_two_was_asked_for_and_why_not() -> None:
    stage = Stage()
    waiting = stage.intake()
    playing = stage.start(stage.intake())

    def says(name: str, item: Item) -> str:
        return str(refused(stage, ABOUT_ITEM[name](item), InvalidTransition))

    assert says("pause", waiting).startswith("Cannot pause an item that is created")
    assert says("resume", waiting).startswith("Cannot resume an item that is created")
    assert says("resume", playing) == "This item is not paused."
    stage.pause(playing)
    assert says("pause", playing) == "This item is paused already."


def test_a_refused_value_is_named_by_its_field() -> None:
    stage = Stage(room=build_room(Policy(max_depth=5)))
    item = stage.start(stage.intake())
    split = do.Complete(actor=PERFORMER, item_id=item.item_id, refund_tokens=100)
    deeper = do.ChangeSettings(actor=PERFORMER, max_depth=6)
    assert [error.field for error in refused(stage, split, InvalidRequest).errors] == ["refundTokens"]
    assert [error.field for error in refused(stage, deeper, InvalidRequest).errors] == ["maxDepth"]


@pytest.mark.parametrize("status", Status)
def test_the_time_of_each_step_stands_on_the_item(status: Status) -> None:
    stage = Stage()
    stage.wait(3)
    item = stage.in_status(status)
    reached = {
        Status.CREATED: {"created_at"},
        Status.STARTED: {"created_at", "started_at"},
        Status.FINISHED: {"created_at", "started_at", "finished_at"},
        Status.ABANDONED: {"created_at", "abandoned_at"},
        Status.REFUNDED: {"created_at", "refunded_at"},
    }[status]
    times = ("created_at", "started_at", "finished_at", "abandoned_at", "refunded_at", "settled_at")
    assert {name for name in times if getattr(item, name) is not None} == reached
    assert all(getattr(item, name) == moment(3) for name in reached)


class TestIntake:
    def test_a_new_item_waits_at_the_end(self) -> None:
        stage = Stage()
        stage.intake()
        decision = stage.send(do.Intake(actor=FEATURE, item=build_item(7)))
        (event,) = decision.events
        assert (event.name, event.version, event.from_status, event.actor) == (
            EventName.ITEM_CREATED,
            2,
            None,
            FEATURE,
        )
        assert event.position == 2
        assert event.params == {"title": "Request 7", "tokens": 100, "sourceFeature": "wheel", "position": 2}
        assert decision.operation is None
        assert item_of(decision).wallet_status is WalletStatus.NONE

    def test_its_times_are_the_rooms_and_not_the_drafts(self) -> None:
        stage = Stage(now=moment(77))
        item = stage.intake(created_at=moment(-1000), updated_at=moment(9999))
        assert (item.created_at, item.updated_at) == (moment(77), moment(77))

    def test_the_queue_takes_as_many_as_it_may_and_no_more(self) -> None:
        stage = Stage(room=build_room(Policy(max_depth=3)))
        for _ in range(3):
            stage.intake()
        refused(stage, do.Intake(actor=FEATURE, item=build_item(4)), QueueFull)

    def test_only_active_items_take_a_place(self) -> None:
        stage = Stage(room=build_room(Policy(max_depth=2)))
        for status in (Status.FINISHED, Status.ABANDONED, Status.REFUNDED, Status.STARTED, Status.CREATED):
            stage.in_status(status)
        refused(stage, do.Intake(actor=FEATURE, item=build_item(99)), QueueFull)
        stage.refund(stage.room.items[1])
        assert stage.intake().status is Status.CREATED

    def test_a_room_may_choose_a_smaller_depth_but_not_a_larger_one(self) -> None:
        stage = Stage(room=build_room(Policy(max_depth=3)))
        stage.change(max_depth=1)
        stage.intake()
        refused(stage, do.Intake(actor=FEATURE, item=build_item(9)), QueueFull)
        stage.change(max_depth=3)
        refused(stage, do.ChangeSettings(actor=PERFORMER, max_depth=4), InvalidRequest)

    def test_a_depth_lowered_below_the_queue_sends_nobody_away(self) -> None:
        stage = Stage()
        for _ in range(3):
            stage.intake()
        stage.change(max_depth=1)
        assert stage.room.depth == 3
        refused(stage, do.Intake(actor=FEATURE, item=build_item(9)), QueueFull)

    def test_a_room_that_does_not_accept_refuses_in_either_mode(self) -> None:
        stage = Stage()
        stage.change(accepting=False)
        for mode in (None, Mode.ON, Mode.OFF):
            refused(stage, do.Intake(actor=FEATURE, item=build_item(1), queue_mode=mode), QueueClosed)

    def test_a_user_has_as_many_active_items_as_the_room_allows_and_no_more(self) -> None:
        stage = Stage()
        stage.change(max_per_user=2)
        first = stage.intake(user_id="ada")
        stage.intake(user_id="ada")
        stage.intake(user_id="bob")
        refusal = refused(stage, do.Intake(actor=FEATURE, item=build_item(9, user_id="ada")), UserLimitReached)
        assert "2" in refusal.detail
        stage.refund(first)
        stage.intake(user_id="ada")
        refused(stage, do.Intake(actor=FEATURE, item=build_item(9, user_id="ada")), UserLimitReached)
        # An item that passes through takes no place.
        stage.intake(user_id="ada", number=10, queue_mode=Mode.OFF)

    def test_nobody_is_taken_beyond_the_wait_that_the_room_allows(self) -> None:
        stage = Stage()
        stage.change(max_wait_seconds=120)
        items = [stage.intake(duration_seconds=60) for _ in range(3)]
        assert [item.quoted_wait_seconds for item in items] == [0, 60, 120]
        refusal = refused(stage, do.Intake(actor=FEATURE, item=build_item(9)), QueueFull)
        assert "180" in refusal.detail
        assert "120" in refusal.detail
        stage.intake(number=10, queue_mode=Mode.OFF)
        stage.refund(items[0])
        stage.intake(duration_seconds=60)
        refused(stage, do.Intake(actor=FEATURE, item=build_item(9)), QueueFull)

    def test_a_paused_room_still_accepts(self) -> None:
        stage = Stage()
        stage.change(paused=True)
        assert stage.intake().status is Status.CREATED

    @pytest.mark.parametrize("room_mode", Mode)
    @pytest.mark.parametrize("asked", [None, Mode.ON, Mode.OFF])
    def test_an_item_may_choose_its_mode_else_it_is_the_rooms(self, room_mode: Mode, asked: Mode | None) -> None:
        stage = Stage()
        stage.change(mode=room_mode)
        item = stage.intake(queue_mode=asked)
        effective = asked or room_mode
        assert item.queue_mode == effective
        assert item.pass_through_mode is (effective is Mode.OFF)
        assert item.status is (Status.FINISHED if effective is Mode.OFF else Status.CREATED)

    def test_the_wait_that_was_promised_is_kept_with_the_item(self) -> None:
        stage = Stage()
        stage.intake(duration_seconds=30)
        stage.intake()
        item = stage.intake()
        assert (item.quoted_wait_seconds, item.quoted_position) == (90, 3)


class TestPassThrough:
    def test_mode_off_creates_starts_and_finishes_in_one_step(self) -> None:
        stage = Stage()
        decision = stage.send(do.Intake(actor=FEATURE, item=build_item(), queue_mode=Mode.OFF))
        assert [(event.name, event.from_status, event.version, event.position) for event in decision.events] == [
            (EventName.ITEM_CREATED, None, 1, 0),
            (EventName.ITEM_STARTED, Status.CREATED, 2, 0),
            (EventName.ITEM_FINISHED, Status.STARTED, 3, 0),
        ]
        item = item_of(decision)
        assert (item.status, item.created_at, item.started_at, item.finished_at) == (
            Status.FINISHED,
            NOON,
            NOON,
            NOON,
        )

    def test_its_settlement_follows(self) -> None:
        stage = Stage(room=build_room(Policy(settle_delay_seconds=60)))
        decision = stage.send(do.Intake(actor=FEATURE, item=build_item(), queue_mode=Mode.OFF))
        order = order_of(decision, OperationKind.SETTLE)
        assert (order.settle_tokens, order.refund_tokens, order.next_attempt_at) == (100, 0, moment(60))
        assert item_of(decision).wallet_status is WalletStatus.PENDING

    def test_it_takes_no_place_and_knows_no_depth_limit(self) -> None:
        stage = Stage(room=build_room(Policy(max_depth=1)))
        waiting = stage.intake()
        stage.intake(queue_mode=Mode.OFF)
        assert stage.room.items == (stage.of(waiting),)

    def test_it_passes_a_started_item_without_disturbing_it(self) -> None:
        stage = Stage()
        started = stage.start(stage.intake())
        stage.wait(5)
        stage.intake(queue_mode=Mode.OFF)
        assert stage.room.started == started

    def test_it_teaches_the_estimate_nothing(self) -> None:
        stage = Stage()
        stage.complete(stage.start(stage.intake()))
        before = stage.room.history
        stage.intake(queue_mode=Mode.OFF)
        assert stage.room.history == before


class TestStart:
    def test_any_waiting_item_may_be_started_and_the_record_says_whom_it_overtook(self) -> None:
        stage = Stage()
        items = [stage.intake() for _ in range(3)]
        decision = stage.send(ABOUT_ITEM["start"](items[2]))
        (event,) = decision.events
        assert (event.reason, event.params["overtook"], event.position) == ("overtook 2", 2, 1)

    def test_starting_the_next_one_overtakes_nobody(self) -> None:
        stage = Stage()
        (event,) = stage.send(ABOUT_ITEM["start"](stage.intake())).events
        assert (event.reason, event.params["overtook"]) == (None, 0)

    def test_only_one_item_is_started_at_a_time(self) -> None:
        stage = Stage()
        started, waiting = stage.start(stage.intake()), stage.intake()
        refusal = refused(stage, ABOUT_ITEM["start"](waiting), AlreadyProcessing)
        assert refusal.item_id == started.item_id
        refused(stage, do.StartNext(actor=PERFORMER), AlreadyProcessing)

    def test_a_strict_room_starts_only_the_next_one(self) -> None:
        stage = Stage()
        first, second = stage.intake(), stage.intake()
        stage.change(strict_fifo=True)
        assert refused(stage, ABOUT_ITEM["start"](second), OutOfOrder).item_id == second.item_id
        assert stage.start(first).status is Status.STARTED

    def test_start_next_takes_the_head(self) -> None:
        stage = Stage()
        first, second = stage.intake(), stage.intake()
        assert stage.start_next().item_id == first.item_id
        stage.complete(first)
        assert stage.start_next().item_id == second.item_id

    def test_start_next_while_the_last_one_is_on_stage_waits_for_its_end(self) -> None:
        stage = Stage()
        item = stage.start(stage.intake())
        assert refused(stage, do.StartNext(actor=PERFORMER), AlreadyProcessing).item_id == item.item_id

    def test_start_next_in_an_empty_room_is_refused(self) -> None:
        stage = Stage()
        refused(stage, do.StartNext(actor=PERFORMER), QueueEmpty)
        stage.complete(stage.start(stage.intake()))
        refused(stage, do.StartNext(actor=PERFORMER), QueueEmpty)

    def test_a_paused_room_can_still_start(self) -> None:
        stage = Stage()
        stage.intake()
        stage.change(paused=True)
        assert stage.start_next().status is Status.STARTED


class TestComplete:
    def test_the_whole_hold_goes_to_the_performer(self) -> None:
        stage = Stage(room=build_room(Policy(settle_delay_seconds=90)))
        item = stage.start(stage.intake(tokens=250))
        stage.wait(30)
        decision = stage.send(ABOUT_ITEM["complete"](item))
        order = order_of(decision, OperationKind.SETTLE)
        assert order == Operation(
            operation_id="operation-1",
            item_id=item.item_id,
            performer_id=item.performer_id,
            user_id=item.user_id,
            escrow_transaction_id=item.escrow_transaction_id,
            kind=OperationKind.SETTLE,
            settle_tokens=250,
            refund_tokens=0,
            reason="performance_completed",
            next_attempt_at=moment(120),
            created_at=moment(30),
            updated_at=moment(30),
        )
        assert order.idempotency_key == f"queue-{item.item_id}-settle"
        finished = item_of(decision)
        assert (finished.wallet_status, finished.settled) == (WalletStatus.PENDING, False)

    @pytest.mark.parametrize("refund_tokens", [1, 40, 99])
    def test_a_split_divides_the_hold(self, refund_tokens: int) -> None:
        stage = Stage()
        item = stage.start(stage.intake(tokens=100))
        decision = stage.send(do.Complete(actor=PERFORMER, item_id=item.item_id, refund_tokens=refund_tokens))
        order = order_of(decision, OperationKind.PARTIAL)
        assert (order.settle_tokens, order.refund_tokens) == (100 - refund_tokens, refund_tokens)
        assert order.tokens == item.tokens
        assert order.reason == "partial_performance"
        assert order.idempotency_key == f"queue-{item.item_id}-partial"
        assert decision.events[0].params["refundTokens"] == refund_tokens

    @pytest.mark.parametrize("refund_tokens", [-1, 0, 100, 101])
    def test_a_split_outside_the_hold_is_refused(self, refund_tokens: int) -> None:
        stage = Stage()
        item = stage.start(stage.intake(tokens=100))
        command = do.Complete(actor=PERFORMER, item_id=item.item_id, refund_tokens=refund_tokens)
        refused(stage, command, InvalidRequest)

    def test_a_single_token_cannot_be_split(self) -> None:
        stage = Stage()
        item = stage.start(stage.intake(tokens=1))
        refused(stage, ABOUT_ITEM["split"](item), InvalidRequest)

    def test_the_next_one_may_be_started_after(self) -> None:
        stage = Stage()
        first, second = stage.intake(), stage.intake()
        stage.complete(stage.start(first))
        assert stage.start(second).status is Status.STARTED

    def test_time_on_pause_is_not_time_in_service(self) -> None:
        stage = Stage()
        item = stage.start(stage.intake())
        stage.wait(10)
        stage.pause(item)
        stage.wait(100)
        stage.resume(item)
        stage.wait(5)
        assert stage.complete(item).clock.used_seconds == 15


class TestAbandonAndRefund:
    @pytest.mark.parametrize("status", [Status.CREATED, Status.STARTED])
    @pytest.mark.parametrize("reason", Reason)
    def test_an_abandoned_item_has_its_refund_ordered(self, status: Status, reason: Reason) -> None:
        stage = Stage()
        item = stage.in_status(status)
        decision = stage.send(do.Abandon(actor=PERFORMER, item_id=item.item_id, reason=reason))
        order = order_of(decision, OperationKind.REFUND)
        assert (order.settle_tokens, order.refund_tokens, order.reason) == (0, item.tokens, "performance_abandoned")
        abandoned = item_of(decision)
        assert (abandoned.abandon_reason, abandoned.refund_reason) == (reason, None)
        assert abandoned.wallet_status is WalletStatus.PENDING
        assert decision.events[0].reason == reason

    def test_abandoning_without_a_reason_means_that_the_performer_declined(self) -> None:
        stage = Stage()
        decision = stage.send(ABOUT_ITEM["abandon"](stage.intake()))
        assert item_of(decision).abandon_reason is Reason.PERFORMER_DECLINED

    @pytest.mark.parametrize("status", [Status.CREATED, Status.STARTED])
    @pytest.mark.parametrize("reason", Reason)
    def test_a_refund_asked_for_by_name_is_refunded_at_once(self, status: Status, reason: Reason) -> None:
        stage = Stage()
        item = stage.in_status(status)
        decision = stage.send(do.Refund(actor=MODERATOR, item_id=item.item_id, reason=reason))
        order = order_of(decision, OperationKind.REFUND)
        assert (order.settle_tokens, order.refund_tokens, order.reason) == (0, item.tokens, reason)
        refunded = item_of(decision)
        assert (refunded.status, refunded.refund_reason) == (Status.REFUNDED, reason)
        assert (refunded.wallet_status, refunded.refunded_tokens) == (WalletStatus.PENDING, None)

    def test_a_refund_is_not_delayed_as_a_settlement_is(self) -> None:
        stage = Stage(room=build_room(Policy(settle_delay_seconds=600)))
        item = stage.intake()
        assert order_of(stage.send(ABOUT_ITEM["refund"](item)), OperationKind.REFUND).next_attempt_at == NOON

    @pytest.mark.parametrize("refund_tokens", [None, 30])
    def test_a_finished_item_is_refunded_in_place_of_its_unsent_settlement(self, refund_tokens: int | None) -> None:
        stage = Stage(room=build_room(Policy(settle_delay_seconds=600)))
        item = stage.complete(stage.start(stage.intake()), refund_tokens)
        settlement = stage.operations[item.item_id]
        stage.wait(20)
        decision = stage.send(ABOUT_ITEM["refund"](item))
        order = order_of(decision, OperationKind.REFUND)
        assert (order.operation_id, order.created_at) == (settlement.operation_id, settlement.created_at)
        assert (order.settle_tokens, order.refund_tokens) == (0, item.tokens)
        assert (order.next_attempt_at, order.updated_at) == (moment(20), moment(20))
        assert (order.status, order.attempts) == (OperationStatus.PENDING, 0)
        refunded = item_of(decision)
        assert (refunded.status, refunded.finished_at) == (Status.REFUNDED, NOON)
        assert (refunded.settled, refunded.wallet_status) == (False, WalletStatus.PENDING)

    def test_a_finished_item_whose_settlement_was_taken_up_is_not_refunded(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)
        stage.claimed.add(item.item_id)
        refusal = refused(stage, ABOUT_ITEM["refund"](item), InvalidTransition)
        assert "already been sent" in refusal.detail

    @pytest.mark.parametrize("status", [OperationStatus.RETRYING, OperationStatus.DEAD])
    def test_a_finished_item_whose_settlement_was_tried_is_not_refunded(self, status: OperationStatus) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)
        stage.report(item, status)
        refused(stage, ABOUT_ITEM["refund"](item), InvalidTransition)

    def test_a_settled_item_is_not_refunded(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)
        stage.confirm(item)
        refused(stage, ABOUT_ITEM["refund"](item), InvalidTransition)

    def test_an_abandoned_item_refunded_by_name_keeps_the_refund_it_has(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.ABANDONED)
        decision = stage.send(ABOUT_ITEM["refund"](item))
        assert decision.operation is None
        refunded = item_of(decision)
        assert (refunded.status, refunded.refund_reason) == (Status.REFUNDED, Reason.ADMIN_REFUND)
        assert (refunded.abandon_reason, refunded.wallet_status) == (
            Reason.PERFORMER_DECLINED,
            WalletStatus.PENDING,
        )

    def test_a_viewer_may_cancel_only_while_the_item_waits(self) -> None:
        stage = Stage()
        waiting = stage.intake()
        assert stage.refund(waiting, Reason.USER_CANCELLED, VIEWER).status is Status.REFUNDED
        for status in (Status.STARTED, Status.FINISHED, Status.ABANDONED):
            item = stage.in_status(status)
            command = do.Refund(actor=VIEWER, item_id=item.item_id, reason=Reason.USER_CANCELLED)
            assert refused(stage, command, Forbidden).item_id == item.item_id
            if item.is_active:
                stage.complete(item)


class TestWalletOutcomes:
    def test_an_item_is_settled_only_when_the_wallet_has_confirmed(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)
        stage.wait(4)
        decision = stage.confirm(item)
        settled = item_of(decision)
        assert (item.settled, settled.settled) == (False, True)
        assert (settled.status, settled.wallet_status) == (Status.FINISHED, WalletStatus.DONE)
        assert (settled.settled_at, settled.settled_tokens, settled.refunded_tokens) == (moment(4), 100, None)
        assert (settled.settlement_transaction_id, settled.refund_transaction_id) == (f"tx-{item.item_id}", None)
        assert [event.name for event in decision.events] == [EventName.ITEM_SETTLED]
        assert decision.operation is not None
        assert decision.operation.status is OperationStatus.DONE

    def test_a_confirmed_split_shows_both_amounts(self) -> None:
        stage = Stage()
        item = stage.complete(stage.start(stage.intake()), refund_tokens=30)
        settled = item_of(stage.confirm(item))
        assert (settled.settled, settled.settled_tokens, settled.refunded_tokens) == (True, 70, 30)
        assert settled.settlement_transaction_id == settled.refund_transaction_id == f"tx-{item.item_id}"
        assert settled.status is Status.FINISHED

    def test_an_abandoned_item_is_refunded_when_the_wallet_has_confirmed(self) -> None:
        stage = Stage()
        item = stage.abandon(stage.intake(), Reason.TIMEOUT)
        stage.wait(2)
        decision = stage.confirm(item)
        refunded = item_of(decision)
        assert (refunded.status, refunded.refunded_at, refunded.refund_reason) == (
            Status.REFUNDED,
            moment(2),
            Reason.TIMEOUT,
        )
        assert (refunded.refunded_tokens, refunded.settled, refunded.settled_tokens) == (100, False, None)
        (event,) = decision.events
        assert (event.name, event.from_status, event.reason) == (
            EventName.ITEM_REFUNDED,
            Status.ABANDONED,
            Reason.TIMEOUT,
        )

    @pytest.mark.parametrize("status", [Status.CREATED, Status.FINISHED, Status.ABANDONED])
    def test_a_refund_by_name_learns_the_wallets_side_later(self, status: Status) -> None:
        stage = Stage()
        item = stage.refund(stage.in_status(status))
        stage.wait(2)
        decision = stage.confirm(item)
        confirmed = item_of(decision)
        assert (confirmed.status, confirmed.refunded_at) == (Status.REFUNDED, NOON)
        assert (confirmed.wallet_status, confirmed.refunded_tokens) == (WalletStatus.DONE, 100)
        assert confirmed.refund_transaction_id == f"tx-{item.item_id}"
        assert confirmed.refund_reason is Reason.ADMIN_REFUND
        assert [event.name for event in decision.events] == [EventName.ITEM_WALLET_CHANGED]

    def test_a_second_confirmation_changes_nothing(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)
        settled = item_of(stage.confirm(item))
        again = stage.confirm(item)
        assert (again.events, again.item, again.operation) == ((), settled, None)

    def test_a_late_report_of_a_confirmed_operation_changes_nothing(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)
        settled = item_of(stage.confirm(item))
        late = stage.report(item, OperationStatus.DEAD)
        assert (late.events, late.item, late.operation) == ((), settled, None)

    @pytest.mark.parametrize(
        ("status", "attempts", "shown"),
        [
            (OperationStatus.RETRYING, 1, WalletStatus.RETRYING),
            (OperationStatus.DEAD, 10, WalletStatus.DEAD),
        ],
    )
    def test_a_failed_attempt_is_one_event_and_its_row_is_kept(
        self, status: OperationStatus, attempts: int, shown: WalletStatus
    ) -> None:
        stage = Stage()
        item = stage.in_status(Status.ABANDONED)
        decision = stage.report(item, status, attempts)
        assert item_of(decision).wallet_status is shown
        assert item_of(decision).status is Status.ABANDONED
        assert [event.name for event in decision.events] == [EventName.ITEM_WALLET_CHANGED]
        again = stage.report(item, status, attempts + 1)
        assert again.events == ()
        assert again.operation is not None
        assert again.operation.attempts == attempts + 1

    def test_a_dead_operation_can_be_sent_on_its_way_again_and_succeed(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)
        stage.report(item, OperationStatus.DEAD, 10)
        retried = stage.send(do.RetryOperation(item_id=item.item_id))
        assert item_of(retried).wallet_status is WalletStatus.PENDING
        assert retried.operation is not None
        assert (retried.operation.attempts, retried.operation.next_attempt_at) == (0, stage.now)
        assert item_of(stage.confirm(item)).settled

    def test_a_pending_or_done_operation_is_neither_retried_nor_resolved_by_hand(self) -> None:
        stage = Stage()
        pending, done = stage.in_status(Status.FINISHED), stage.in_status(Status.ABANDONED)
        stage.confirm(done)
        for item in (pending, done):
            refused(stage, do.RetryOperation(item_id=item.item_id), InvalidTransition)
            for resolution in Resolution:
                refused(stage, resolve(item, resolution), InvalidTransition)

    def test_a_retrying_operation_is_due_now_by_hand_unless_an_attempt_is_running(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)
        stage.report(item, OperationStatus.RETRYING, 3)
        hurried = stage.send(do.RetryOperation(item_id=item.item_id)).operation
        assert hurried is not None
        assert (hurried.status, hurried.attempts, hurried.next_attempt_at) == (OperationStatus.RETRYING, 3, stage.now)
        stage.operations[item.item_id] = replace(hurried, lease_until=stage.now + timedelta(seconds=1))
        assert stage.send(do.RetryOperation(item_id=item.item_id)).operation is None
        refused(stage, resolve(item, Resolution.REFUND), InvalidTransition)

    @pytest.mark.parametrize("resolution", Resolution)
    @pytest.mark.parametrize("status", [Status.FINISHED, Status.ABANDONED, Status.REFUNDED])
    def test_a_resolution_changes_the_order_and_not_yet_the_item(self, status: Status, resolution: Resolution) -> None:
        stage = Stage()
        item = stage.in_status(status)
        stage.report(item, OperationStatus.DEAD, 10)
        decision = stage.send(resolve(item, resolution))
        (event,) = decision.events
        assert (event.name, event.actor, event.reason) == (EventName.ITEM_WALLET_CHANGED, ADMIN, "by hand")
        assert item_of(decision).status is status
        order = decision.operation
        assert order is not None
        assert order.tokens == item.tokens
        if resolution is Resolution.WRITTEN_OFF:
            assert (order.status, item_of(decision).wallet_status) == (OperationStatus.DONE, WalletStatus.WRITTEN_OFF)
            assert stage.report(item, OperationStatus.DEAD).events == ()
            return
        assert (order.kind, order.attempts, order.status) == (str(resolution), 0, OperationStatus.PENDING)
        after = item_of(stage.confirm(item))
        assert after.wallet_status is WalletStatus.DONE
        assert after.settled is (resolution is Resolution.SETTLE)
        assert after.status is (status if resolution is Resolution.SETTLE else Status.REFUNDED)

    @pytest.mark.parametrize("status", [Status.FINISHED, Status.ABANDONED, Status.REFUNDED])
    def test_a_refund_by_hand_gives_the_wallet_the_reason_that_the_item_has(self, status: Status) -> None:
        stage = Stage()
        item = stage.intake()
        match status:
            case Status.FINISHED:
                stage.complete(stage.start(item))
            case Status.ABANDONED:
                stage.abandon(item)
            case Status.REFUNDED:
                stage.refund(item, Reason.TECHNICAL_ERROR)
        stage.report(item, OperationStatus.DEAD, 10)
        order = stage.send(resolve(item, Resolution.REFUND)).operation
        assert order is not None
        assert (order.settle_tokens, order.refund_tokens) == (0, 100)
        assert (
            order.reason
            == {
                Status.FINISHED: "admin_refund",
                Status.ABANDONED: "performance_abandoned",
                Status.REFUNDED: "technical_error",
            }[status]
        )

    def test_a_resolution_by_hand_is_an_event_that_names_it(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)
        stage.report(item, OperationStatus.RETRYING)
        (event,) = stage.send(resolve(item, Resolution.SETTLE)).events
        assert event.params["resolution"] == "settle"
        assert (event.reason, event.actor) == ("by hand", ADMIN)

    def test_an_operation_that_begins_anew_is_no_longer_refused_for_good(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)
        stage.report(item, OperationStatus.DEAD, 10)
        stage.operations[item.item_id] = replace(stage.operations[item.item_id], rejected=True)
        retried = stage.send(do.RetryOperation(item_id=item.item_id))
        assert retried.operation is not None
        assert retried.operation.rejected is False
        assert [event.reason for event in retried.events] == ["retried"]

    def test_a_refusal_by_hand_says_how_the_operation_is(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)

        def says(command: Command) -> str:
            return str(refused(stage, command, InvalidTransition)).rpartition("; ")[2]

        retry, settle = do.RetryOperation(item_id=item.item_id), resolve(item, Resolution.SETTLE)
        assert says(retry) == says(settle) == "this one is pending."
        stage.report(item, OperationStatus.RETRYING)
        under_way = replace(stage.operations[item.item_id], lease_until=stage.now + timedelta(seconds=1))
        stage.operations[item.item_id] = under_way
        assert says(settle) == "this one is under way."
        # Done operations are forgotten after a time.
        del stage.operations[item.item_id]
        assert says(retry) == says(settle) == "this one is done."

    def test_a_report_from_an_attempt_whose_lease_ran_out_changes_nothing(self) -> None:
        stage = Stage()
        item = stage.in_status(Status.FINISHED)
        operation = stage.operations[item.item_id]
        stage.operations[item.item_id] = replace(operation, lease_until=moment(60))
        late = replace(operation, lease_until=moment(30), status=OperationStatus.DEAD)
        decision = stage.send(do.Report(item_id=item.item_id, operation=late))
        assert (decision.events, decision.item, decision.operation) == ((), item, None)

    def test_an_outcome_for_an_item_nobody_knows_is_refused(self) -> None:
        stage = Stage()
        operation = stage.operations[stage.in_status(Status.FINISHED).item_id]
        command = do.Report(item_id="nobody", operation=replace(operation, item_id="nobody"))
        refused(stage, command, ItemNotFound)


def resolve(item: Item, resolution: Resolution) -> do.ResolveOperation:
    return do.ResolveOperation(actor=ADMIN, item_id=item.item_id, resolution=resolution, reason="by hand")


def test_an_ended_item_is_found_only_if_it_is_handed_in() -> None:
    stage = Stage()
    item = stage.in_status(Status.ABANDONED)
    command = ABOUT_ITEM["refund"](item)
    with pytest.raises(ItemNotFound):
        decide(stage.room, command, stage.now)
    assert item_of(decide(stage.room, command, stage.now, item=item)).status is Status.REFUNDED


def test_the_active_item_in_the_room_wins_over_a_stale_copy() -> None:
    stage = Stage()
    stale = stage.intake()
    stage.start(stale)
    decision: Decision = decide(stage.room, ABOUT_ITEM["complete"](stale), stage.now, item=stale)
    assert item_of(decision).status is Status.FINISHED


def test_versions_count_every_event_without_a_gap() -> None:
    stage = Stage()
    for mode in (Mode.ON, Mode.OFF, Mode.ON):
        stage.intake(queue_mode=mode)
    stage.complete(stage.start_next())
    assert [event.version for event in stage.events] == list(range(1, len(stage.events) + 1))
    assert stage.room.version == len(stage.events)
