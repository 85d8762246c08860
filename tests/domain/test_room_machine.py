"""A room under random commands, step by step against a model of lists and numbers written from the contract alone."""

import pickle
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from app.domain import command as do
from app.domain.command import Actor, Command, Mode
from app.domain.errors import (
    AlreadyProcessing,
    Forbidden,
    InvalidRequest,
    InvalidTransition,
    OutOfOrder,
    QueueClosed,
    QueueEmpty,
    QueueError,
    QueueFull,
    UserLimitReached,
)
from app.domain.item import Reason, Status
from app.domain.operation import Operation, OperationStatus, Receipt
from app.domain.room import Policy, Room, apply
from tests.support.builders import ADMIN, FEATURE, NOON, PERFORMER, VIEWER, Stage, build_item, build_room

POLICY = Policy(
    max_depth=5,
    default_duration_seconds=10,
    rope_drop_seconds=20,
    started_timeout_seconds=30,
    disconnect_grace_seconds=15,
    settle_delay_seconds=5,
)


@dataclass(eq=False)
class Request:
    """One item in the model. All times are in milliseconds."""

    item_id: str
    tokens: int
    duration: int
    arrived: int
    user: str
    status: str = "created"
    paused: bool = False
    counted: int = 0
    notified: set[int] = field(default_factory=set)
    to_performer: int = 0
    wallet: str = "none"
    sent: bool = False
    orders: int = 0


class Model:
    """A model of the room from the contract: a list of items, one of them perhaps started, and a stopwatch for each."""

    def __init__(self) -> None:
        self.waiting: list[Request] = []
        self.performing: Request | None = None
        self.all: dict[str, Request] = {}
        self.exists = False
        self.time = 0
        self.online = False
        self.offline_since: int | None = None
        self.pause: str | None = None
        self.choices: dict[str, Any] = {
            "mode": "on",
            "accepting": True,
            "strict_fifo": False,
            "max_depth": None,
            "max_per_user": None,
            "max_wait_seconds": None,
            "notify_positions": None,
        }

    @property
    def line(self) -> list[Request]:
        return ([self.performing] if self.performing else []) + self.waiting

    @property
    def on_the_clock(self) -> Request | None:
        first = self.line[0] if self.line else None
        return None if first is None or first.paused or self.pause else first

    def due(self, request: Request) -> int | None:
        """The item's deadline if nothing else happens before."""
        if request not in self.line:
            return None
        if self.offline_since is not None:
            return max(self.offline_since, request.arrived) + 15_000
        if request is not self.on_the_clock:
            return None
        limit = 30_000 + request.duration if request is self.performing else 20_000
        return self.time + max(0, limit - request.counted)

    def pass_time(self, at: int) -> None:
        if self.on_the_clock:
            self.on_the_clock.counted += at - self.time
        self.time = at
        self.exists = True

    def serve(self, request: Request) -> None:
        self.waiting.remove(request)
        self.performing = request
        request.status, request.counted = "started", 0

    def leave(self, request: Request, status: str, *, to_performer: int) -> None:
        if request is self.performing:
            self.performing = None
        elif request in self.waiting:
            self.waiting.remove(request)
        request.status, request.paused = status, False
        request.orders += 1
        request.wallet, request.to_performer = "pending", to_performer

    def notify(self) -> None:
        chosen = self.choices["notify_positions"]
        milestones = (3, 1) if chosen is None else chosen
        for position, request in enumerate(self.line, start=1):
            if request is not self.performing and position in milestones:
                request.notified.add(position)
        if self.waiting and 1 in milestones:
            self.waiting[0].notified.add(1)


Refusal = type[QueueError] | None
WHICH = st.integers(min_value=0, max_value=11)
somebody_came = precondition(lambda machine: bool(machine.model.all))
somebody_performs = precondition(lambda machine: machine.model.performing is not None)
FIRST_MOSTLY = st.sampled_from([0, 0, 0, 0, 1, 2, 5, 7])
REASONS = st.sampled_from(Reason)
TOKENS = st.sampled_from([1, 2, 40, 100])


class RoomMachine(RuleBasedStateMachine):
    """In each rule the model first predicts the result; then the room decides, and the model follows."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(room=build_room(POLICY))
        self.model = Model()
        self.replayed: Room = build_room(POLICY)
        self.folded = 0
        self.arrivals = 0
        self.orders: dict[str, list[Operation]] = {}

    def at(self) -> int:
        """The expected time of the next event: the clock's, but a room's time never goes back."""
        return max(self.now(), self.model.time) if self.model.exists else self.now()

    def now(self) -> int:
        return round((self.stage.now - NOON) / timedelta(milliseconds=1))

    def some(self, which: int) -> Request:
        """A waiting item, or one of the last that have left."""
        line = self.model.line
        candidates = [*line, *[request for request in self.model.all.values() if request not in line][-4:]]
        return candidates[which % len(candidates)]

    def send(
        self, command: Command, refusal: type[QueueError] | None, *, events: int = 1, at: int | None = None
    ) -> bool:
        """Send a command; returns whether it succeeded. A refusal must be the predicted one and change nothing."""
        if refusal is not None:
            before = pickle.dumps(self.stage)
            with pytest.raises(refusal) as caught:
                self.stage.send(command)
            assert caught.type is refusal
            assert pickle.dumps(self.stage) == before
            return False
        at = self.at() if at is None else at
        decision = self.stage.send(command)
        assert [event.at for event in decision.events] == [NOON + timedelta(milliseconds=at)] * events
        if events:
            self.model.pass_time(at)
        if decision.operation is not None and decision.operation.status is OperationStatus.PENDING:
            self.orders.setdefault(decision.operation.escrow_transaction_id, []).append(decision.operation)
        return True

    @rule(milliseconds=st.sampled_from([0, 1, 900, 5_000, 11_000, -1, -3_000]))
    def time_passes(self, milliseconds: int) -> None:
        """Move the clock, also back: another process with another clock may send the next command."""
        self.stage.now += timedelta(milliseconds=milliseconds)
        # By how much clocks can differ. One that is set is a rule of its own.
        self.stage.now = max(self.stage.now, NOON + timedelta(milliseconds=self.model.time - 59_000))

    @somebody_came
    @rule(which=FIRST_MOSTLY, late=st.sampled_from([None, -1, 0, 0, 1, 700]), ago=st.sampled_from([0, 0, 0, 1, 3000]))
    def a_timer_asks(self, which: int, late: int | None, ago: int) -> None:
        """A timer expires: at any time (`late` None), or `late` milliseconds after the deadline; it read the clock
        `ago` milliseconds earlier."""
        request = self.some(which)
        due = self.model.due(request)
        if due is not None and late is not None:
            self.stage.now = max(self.stage.now, NOON + timedelta(milliseconds=due + late))
        if due is not None and due <= self.model.time:
            ago = 0  # it is overdue since before the last event; the model does not say since when
        overdue = due is not None and self.at() - ago >= due
        looked_at = NOON + timedelta(milliseconds=self.at() - ago)
        expire = do.Expire(item_id=request.item_id, at=looked_at)
        if self.send(expire, None, events=int(overdue)) and overdue:
            self.model.leave(request, "abandoned", to_performer=0)

    @rule(hours=st.sampled_from([0, 1, -1]), seconds=st.sampled_from([0, 4, 300]))
    def the_service_stands_still_or_its_clock_is_set(self, hours: int, seconds: int) -> None:
        """The time since the last heartbeat does not count, nor does the time by which the clock is set."""
        model, stopped_at = self.model, self.now()
        self.stage.now += timedelta(hours=hours, seconds=seconds)
        now = self.now()
        first = model.on_the_clock
        counted = max(0, stopped_at - model.time) + (first.counted if first is not None else 0)
        moves = model.exists and (first is not None or model.offline_since not in (None, now))
        command = do.RestartClocks(stopped_at=NOON + timedelta(milliseconds=stopped_at))
        self.send(command, None, events=int(moves), at=now)
        if moves:
            if first is not None:
                first.counted = counted
            if model.offline_since is not None:
                model.offline_since = now
        elif hours < 0:
            # No clock runs, so that nothing need be corrected; but the room's time is an hour ahead. Wait for it.
            self.stage.now += timedelta(hours=-hours)

    @rule(tokens=TOKENS, seconds=st.sampled_from([None, 3, 60]), small_id=st.booleans())
    def intake(self, tokens: int, seconds: int | None, small_id: bool) -> None:
        self.arrive(tokens, seconds, None, small_id)

    @rule(tokens=TOKENS)
    def the_same_user_asks_again(self, tokens: int) -> None:
        self.arrive(tokens, None, None, False, user="regular")

    @rule(tokens=TOKENS, mode=st.sampled_from(Mode))
    def intake_in_a_mode(self, tokens: int, mode: Mode) -> None:
        self.arrive(tokens, None, mode, False)

    @initialize(tokens=st.lists(TOKENS, max_size=3))
    def some_are_here_at_the_start(self, tokens: list[int]) -> None:
        self.a_crowd_arrives(tokens)

    @precondition(lambda machine: len(machine.model.line) < 2)
    @rule(tokens=st.lists(TOKENS, min_size=2, max_size=5))
    def a_crowd_arrives(self, tokens: list[int]) -> None:
        for hold in tokens:
            self.arrive(hold, None, None, False)

    def arrive(
        self, tokens: int, seconds: int | None, mode: Mode | None, small_id: bool, *, user: str | None = None
    ) -> None:
        model, at = self.model, self.at()
        self.arrivals += 1
        number = 5000 - self.arrivals if small_id else 5000 + self.arrivals
        user = user or f"viewer-{number}"
        draft = build_item(number, tokens=tokens, duration_seconds=seconds, user_id=user)
        off = (mode or model.choices["mode"]) == "off"
        refusal: Refusal = None
        if not model.choices["accepting"]:
            refusal = QueueClosed
        elif not off and len(model.line) >= (model.choices["max_depth"] or 5):
            refusal = QueueFull
        elif not off and sum(one.user == user for one in model.line) >= (model.choices["max_per_user"] or 99):
            refusal = UserLimitReached
        arrived = at
        last = model.waiting[-1] if model.waiting and not off else None
        if last is not None and last.arrived > at:
            arrived = last.arrived + 1  # the clock has been set back; nobody overtakes by that
        elif last is not None and last.arrived == at and last.item_id > draft.item_id:
            arrived = at = at + 1  # or its smaller id would let it overtake
        if refusal is None and not off and (longest := model.choices["max_wait_seconds"]) is not None:
            # How long the wait is estimated is tested elsewhere.
            estimated = self.stage.room.wait_of_next(NOON + timedelta(milliseconds=at))
            refusal = QueueFull if estimated > longest else None
        command = do.Intake(actor=FEATURE, item=draft, queue_mode=mode)
        if self.send(command, refusal, events=3 if off else 1, at=at):
            request = Request(draft.item_id, tokens, 1000 * (seconds or 10), arrived, user)
            model.all[draft.item_id] = request
            if off:
                model.leave(request, "finished", to_performer=tokens)
            else:
                model.waiting.append(request)

    @somebody_came
    @rule(which=WHICH)
    def start(self, which: int) -> None:
        model, request = self.model, self.some(which)
        refusal: Refusal = None
        if request.status != "created":
            refusal = InvalidTransition
        elif model.performing:
            refusal = AlreadyProcessing
        elif model.choices["strict_fifo"] and request is not model.waiting[0]:
            refusal = OutOfOrder
        if self.send(do.Start(actor=PERFORMER, item_id=request.item_id), refusal):
            model.serve(request)

    @precondition(lambda machine: machine.model.all and not machine.model.performing)
    @rule()
    def start_next(self) -> None:
        model = self.model
        if self.send(do.StartNext(actor=PERFORMER), None if model.waiting else QueueEmpty):
            model.serve(model.waiting[0])

    @somebody_performs
    @rule(which=FIRST_MOSTLY, back=st.sampled_from([None, None, 0, 1, 40, 100]))
    def complete(self, which: int, back: int | None) -> None:
        request = self.some(which)
        refusal: Refusal = None
        if request.status != "started":
            refusal = InvalidTransition
        elif back is not None and not 1 <= back <= request.tokens - 1:
            refusal = InvalidRequest
        command = do.Complete(actor=PERFORMER, item_id=request.item_id, refund_tokens=back)
        if self.send(command, refusal):
            self.model.leave(request, "finished", to_performer=request.tokens - (back or 0))

    @somebody_came
    @rule(which=WHICH, reason=REASONS)
    def abandon(self, which: int, reason: Reason) -> None:
        request = self.some(which)
        refusal: Refusal = None
        if request not in self.model.line:
            refusal = InvalidTransition
        command = do.Abandon(actor=PERFORMER, item_id=request.item_id, reason=reason)
        if self.send(command, refusal):
            self.model.leave(request, "abandoned", to_performer=0)

    @somebody_came
    @rule(which=WHICH, reason=REASONS, actor=st.sampled_from([ADMIN, VIEWER]))
    def refund(self, which: int, reason: Reason, actor: Actor) -> None:
        self.ask_back(self.some(which), reason, actor)

    def ask_back(self, request: Request, reason: Reason, actor: Actor) -> None:
        refusal: Refusal = None
        if request.status == "refunded":
            refusal = InvalidTransition
        elif actor is VIEWER and request.status != "created":
            refusal = Forbidden
        elif request.status == "finished" and request.sent:
            refusal = InvalidTransition
        if self.send(do.Refund(actor=actor, item_id=request.item_id, reason=reason), refusal):
            if request.status == "abandoned":
                request.status = "refunded"
            else:
                self.model.leave(request, "refunded", to_performer=0)

    @somebody_performs
    @rule(which=FIRST_MOSTLY, paused=st.booleans())
    def pause_or_resume(self, which: int, paused: bool) -> None:
        request = self.some(which)
        refusal: Refusal = None
        if request.status != "started" or request.paused is paused:
            refusal = InvalidTransition
        verb = do.Pause if paused else do.Resume
        if self.send(verb(actor=PERFORMER, item_id=request.item_id), refusal):
            request.paused = paused

    @rule(
        changes=st.lists(
            st.sampled_from(
                [
                    ("mode", Mode.ON),
                    ("mode", Mode.OFF),
                    ("accepting", True),
                    ("accepting", False),
                    ("paused", True),
                    ("paused", False),
                    ("strict_fifo", True),
                    ("strict_fifo", False),
                    ("max_depth", None),
                    ("max_depth", 2),
                    ("max_depth", 5),
                    ("max_depth", 6),
                    ("max_per_user", None),
                    ("max_per_user", 1),
                    ("max_per_user", 2),
                    ("max_wait_seconds", None),
                    ("max_wait_seconds", 15),
                    ("notify_positions", None),
                    ("notify_positions", ()),
                    ("notify_positions", (2,)),
                    ("notify_positions", (1, 2, 4, 9)),
                ]
            ),
            max_size=2,
        )
    )
    def change_settings(self, changes: list[tuple[str, Any]]) -> None:
        model, wanted = self.model, dict(changes)
        choices = {**model.choices, **wanted}
        paused = choices.pop("paused", None)
        pause = model.pause if paused is None else "requested" if paused else None
        news = (choices, pause) != (model.choices, model.pause) or not model.exists
        refusal = InvalidRequest if choices["max_depth"] == 6 else None
        if self.send(do.ChangeSettings(actor=PERFORMER, **wanted), refusal, events=int(news)):
            model.choices, model.pause = choices, pause

    @somebody_came
    @rule(online=st.booleans())
    def presence(self, online: bool) -> None:
        model = self.model
        changes = model.exists and online is not model.online
        self.send(do.SetPresence(online=online), None, events=int(changes))
        if changes:
            model.online = online
            model.offline_since = None if online else model.time
            if not online and model.pause is None:
                model.pause = "performer_disconnected"
            elif online and model.pause == "performer_disconnected":
                model.pause = None

    def ordered(self, which: int, *, sent: bool) -> Request | None:
        """One of the last items with a wallet operation."""
        known = [one for one in self.model.all.values() if one.wallet != "none" and one.sent is sent][-6:]
        return known[which % len(known)] if known else None

    @rule(which=WHICH)
    def the_outbox_takes_an_operation_up(self, which: int) -> None:
        if request := self.ordered(which, sent=False):
            request.sent = True
            self.stage.claimed.add(request.item_id)

    @rule(which=WHICH)
    def a_refund_is_asked_for_when_the_wallet_is_at_it(self, which: int) -> None:
        if request := self.ordered(which, sent=True):
            self.ask_back(request, Reason.ADMIN_REFUND, ADMIN)

    @rule(which=WHICH)
    def the_wallet_confirms(self, which: int) -> None:
        if request := self.ordered(which, sent=True):
            operation = self.stage.operations[request.item_id]
            receipt = Receipt(
                transaction_id="tx", settled_tokens=operation.settle_tokens, refunded_tokens=operation.refund_tokens
            )
            done = replace(operation, status=OperationStatus.DONE)
            command = do.Confirm(item_id=request.item_id, operation=done, receipt=receipt)
            self.send(command, None, events=int(request.wallet != "done"))
            request.wallet = "done"
            if request.status == "abandoned":
                request.status = "refunded"

    @rule(which=WHICH, status=st.sampled_from([OperationStatus.RETRYING, OperationStatus.DEAD]))
    def an_attempt_fails(self, which: int, status: OperationStatus) -> None:
        if request := self.ordered(which, sent=True):
            operation = replace(self.stage.operations[request.item_id], status=status, attempts=3)
            news = request.wallet not in ("done", status)
            self.send(do.Report(item_id=request.item_id, operation=operation), None, events=int(news))
            if news:
                request.wallet = status

    @invariant()
    def the_room_is_the_models(self) -> None:
        model, room = self.model, self.stage.room
        model.notify()
        assert [item.item_id for item in room.items] == [request.item_id for request in model.line]
        assert [room.position(request.item_id) for request in model.line] == list(range(1, room.depth + 1))
        assert sum(item.status is Status.STARTED for item in room.items) == (model.performing is not None)
        assert list(room.items) == sorted(
            room.items, key=lambda item: (item.status is not Status.STARTED, item.created_at, item.item_id)
        )
        for item, request in zip(room.items, model.line, strict=True):
            assert set(item.notified) == request.notified
            assert len(item.notified) == len(request.notified)
            counted = item.clock.elapsed(NOON + timedelta(milliseconds=model.time))
            assert counted == pytest.approx(request.counted / 1000)
            assert (item.clock.since is not None) is (request is model.on_the_clock)
        settings = room.settings
        assert {name: getattr(settings, name) for name in model.choices} == model.choices
        assert (settings.paused, settings.pause_reason) == (model.pause is not None, model.pause)
        assert settings.performer_online is model.online

    @invariant()
    def what_intakes_have_added_up_is_what_everybody_waits_for(self) -> None:
        room, now = self.stage.room, self.stage.now
        afresh = replace(room, backlog_seconds=None)
        assert room.wait_of_next(now) == pytest.approx(afresh.wait_of_next(now))

    @invariant()
    def every_item_is_where_the_model_has_it(self) -> None:
        for request in self.model.all.values():
            item = self.stage.items[request.item_id]
            assert (item.status, item.paused, item.wallet_status) == (request.status, request.paused, request.wallet)
            confirmed = request.wallet == "done"
            assert item.settled is (confirmed and request.to_performer > 0)
            assert (item.settled_tokens or 0) == (request.to_performer if confirmed else 0)
            to_user = request.tokens - request.to_performer
            assert (item.refunded_tokens or 0) == (to_user if confirmed else 0)

    @invariant()
    def every_escrow_has_one_resolution_once_its_item_has_ended(self) -> None:
        for request in self.model.all.values():
            orders = self.orders.get(self.stage.items[request.item_id].escrow_transaction_id, [])
            assert bool(orders) is (request not in self.model.line)
            assert len(orders) == request.orders
            assert len({order.operation_id for order in orders}) <= 1
            assert all(order.tokens == request.tokens for order in orders)
            if orders:
                assert orders[-1].settle_tokens == request.to_performer

    @invariant()
    def the_events_alone_give_the_room(self) -> None:
        events = self.stage.events
        assert [event.version for event in events[self.folded :]] == list(range(self.folded + 1, len(events) + 1))
        for event in events[self.folded :]:
            self.replayed = apply(self.replayed, event)
        self.folded = len(events)
        assert self.replayed == self.stage.room
        assert self.replayed.history == self.stage.room.history


TestRoomMachine = RoomMachine.TestCase
TestRoomMachine.settings = settings(
    max_examples=100,
    stateful_step_count=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
