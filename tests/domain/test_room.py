"""A room's state: order, positions, notices, clocks, presence and deadlines; and how events fold."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from app.domain import command as do
from app.domain.command import KEEP, Mode
from app.domain.errors import QueueError
from app.domain.estimate import History
from app.domain.event import DEFAULT_SETTINGS, Event, EventName, PauseReason, RoomSettings, notice_template
from app.domain.item import STOPPED, Clock, Item, Reason, Status
from app.domain.operation import OperationKind
from app.domain.recorder import Decision
from app.domain.room import Policy, Room, apply
from tests.support.builders import FEATURE, NOON, PERFORMER, Stage, build_room, item_of, moment, order_of

MILLISECOND = timedelta(milliseconds=1)


def stage_of(waiting: int, policy: Policy | None = None) -> tuple[Stage, list[Item]]:
    """A room with this many waiting items, which arrived one second apart, at the time of the last arrival."""
    stage = Stage(room=build_room(policy))
    items = []
    for number in range(waiting):
        stage.wait(1 if number else 0)
        items.append(stage.intake())
    return stage, items


def ids(room: Room) -> list[str]:
    return [item.item_id for item in room.items]


def event(version: int, **fields: object) -> Event:
    values: dict[str, object] = {"name": EventName.ROOM_CHANGED, "at": moment(), "actor": PERFORMER, **fields}
    return Event(performer_id=PERFORMER.id, version=version, **values)  # type: ignore[arg-type]


class TestOrder:
    def test_items_wait_in_order_of_arrival(self) -> None:
        stage, items = stage_of(4)
        assert ids(stage.room) == [item.item_id for item in items]

    def test_positions_count_from_one_without_a_gap(self) -> None:
        stage, items = stage_of(3)
        assert [stage.room.position(item.item_id) for item in items] == [1, 2, 3]

    def test_an_unknown_or_ended_item_has_position_zero(self) -> None:
        stage, items = stage_of(2)
        stage.abandon(items[0])
        assert stage.room.position(items[0].item_id) == 0
        assert stage.room.position("nobody") == 0
        assert stage.room.find("nobody") is None

    def test_the_started_item_is_first_whenever_it_arrived(self) -> None:
        stage, items = stage_of(3)
        stage.start(items[2])
        assert [stage.room.position(item.item_id) for item in items] == [2, 3, 1]
        assert stage.room.started == stage.of(items[2])
        assert stage.room.head == stage.of(items[0])

    def test_everybody_moves_up_when_an_item_ends(self) -> None:
        stage, items = stage_of(3)
        stage.refund(items[1])
        assert [stage.room.position(item.item_id) for item in items] == [1, 0, 2]

    def test_within_one_millisecond_a_smaller_id_does_not_overtake(self) -> None:
        stage = Stage()
        items = [stage.intake(number=number) for number in (9, 4, 4000, 1)]
        assert ids(stage.room) == [item.item_id for item in items]
        assert ids(stage.room) == [item.item_id for item in sorted(items, key=lambda item: item.order)]
        assert [item.created_at for item in items] == [
            NOON,
            NOON + MILLISECOND,
            NOON + MILLISECOND,
            NOON + 2 * MILLISECOND,
        ]

    def test_arrival_order_holds_when_the_clock_is_set_back(self) -> None:
        stage, items = stage_of(2)
        stage.wait(-3600)
        items.append(stage.intake(number=0))
        assert ids(stage.room) == [item.item_id for item in items]
        assert items[2].created_at == items[1].created_at + MILLISECOND

    def test_an_empty_room_has_nobody_started_and_nobody_next(self) -> None:
        room = build_room()
        assert (room.started, room.head, room.depth) == (None, None, 0)

    def test_nobody_is_next_while_the_only_item_is_started(self) -> None:
        stage, items = stage_of(1)
        stage.start(items[0])
        assert stage.room.head is None


class TestWaitOfTheNext:
    def test_nobody_waits_in_an_empty_room(self) -> None:
        assert build_room().wait_of_next(moment()) == 0

    def test_it_is_for_all_the_others(self) -> None:
        stage = Stage(room=build_room())
        first = stage.intake(duration_seconds=40)
        stage.intake(duration_seconds=5)
        stage.intake()
        assert stage.room.wait_of_next(moment()) == 105
        stage.start(first)
        assert stage.room.wait_of_next(moment()) == 105
        assert stage.room.wait_of_next(moment(30)) == 75

    def test_the_sum_kept_by_an_intake_is_computed_again_after_any_other_command(self) -> None:
        stage, items = stage_of(3)
        stage.refund(items[1])
        assert stage.room.wait_of_next(moment()) == 120
        stage.intake(duration_seconds=10)
        assert stage.room.wait_of_next(moment()) == 130


class TestDefaults:
    def test_a_room_without_choices_of_its_own_follows_the_policy(self) -> None:
        room = build_room(Policy(max_depth=7, notify_positions=(5, 2)))
        assert (room.max_depth, room.notify_positions) == (7, (5, 2))

    def test_a_rooms_own_choices_win(self) -> None:
        settings = RoomSettings(max_depth=4, notify_positions=())
        room = build_room(Policy(max_depth=7), settings=settings)
        assert (room.max_depth, room.notify_positions) == (4, ())

    def test_a_cap_lowered_by_the_operator_holds_for_rooms_that_had_chosen_more(self) -> None:
        room = build_room(Policy(max_depth=7), settings=RoomSettings(max_depth=40))
        assert room.max_depth == 7


def test_rooms_differ_by_what_they_hold_and_not_by_what_they_have_learnt() -> None:
    room = build_room()
    for same in (replace(room), replace(room, history=History(pace=0.5)), replace(room, backlog_seconds=7.0)):
        assert room == same
        assert not room != same  # noqa: SIM202
    for other in (replace(room, version=1), replace(room, settings=RoomSettings(paused=True)), None):
        assert room != other
        assert not room == other  # noqa: SIM201


class TestFolding:
    def test_events_are_folded_in_order_each_once(self) -> None:
        room = apply(build_room(), event(1, settings=DEFAULT_SETTINGS))
        assert room.version == 1
        for version in (0, 1, 3):
            with pytest.raises(ValueError, match="does not follow"):
                apply(room, event(version, settings=DEFAULT_SETTINGS))

    def test_folding_leaves_the_room_before_untouched(self) -> None:
        stage, _ = stage_of(2)
        before, copy = stage.room, replace(stage.room)
        apply(before, event(before.version + 1, at=moment(9), settings=RoomSettings(paused=True)))
        assert before == copy

    def test_the_events_alone_give_the_room_again(self) -> None:
        stage, items = stage_of(4)
        stage.start(items[1])
        stage.pause(items[1])
        stage.wait(5)
        stage.presence(online=True)
        stage.presence(online=False)
        stage.complete(items[1], refund_tokens=10)
        stage.confirm(items[1])
        stage.change(announcement="Back soon", notify_positions=(2,))
        replayed = build_room()
        for happened in stage.events:
            replayed = apply(replayed, happened)
        assert replayed == stage.room
        assert replayed.history == stage.room.history

    def test_an_event_about_an_ended_item_changes_no_place(self) -> None:
        stage, items = stage_of(3)
        stage.abandon(items[0])
        before = stage.room.items
        stage.confirm(items[0])
        assert stage.room.items == before


class TestNotices:
    """`notified` holds the milestones that have been notified; the edges turn a new entry into one notice."""

    def test_each_milestone_is_noted_when_it_is_reached(self) -> None:
        stage, items = stage_of(4)
        assert [stage.of(item).notified for item in items] == [(1,), (), (3,), ()]
        stage.refund(items[1])
        assert [stage.of(item).notified for item in items[2:]] == [(3,), (3,)]

    def test_a_milestone_is_noted_once_in_an_items_life(self) -> None:
        stage, items = stage_of(2)
        stage.start(items[1])
        stage.complete(items[1])
        assert stage.of(items[0]).notified == (1,)

    def test_the_item_behind_the_one_on_stage_is_next_up_and_notified_once(self) -> None:
        stage, items = stage_of(3)
        assert stage.of(items[1]).notified == ()
        stage.start(items[0])
        assert [stage.of(item).notified for item in items[1:]] == [(1,), (3,)]
        stage.complete(items[0])
        assert [stage.of(item).notified for item in items[1:]] == [(1,), (3,)]

    def test_an_item_that_arrives_behind_the_one_on_stage_is_next_up_at_once(self) -> None:
        stage, items = stage_of(1)
        stage.start(items[0])
        assert stage.of(stage.intake()).notified == (1,)

    def test_a_room_may_notify_of_the_second_place_and_of_being_next_up(self) -> None:
        stage, items = stage_of(2, Policy(notify_positions=(2, 1)))
        assert stage.of(items[1]).notified == (2,)
        stage.start(items[0])
        assert stage.of(items[1]).notified == (2, 1)

    def test_starting_out_of_order_notifies_the_overtaken_and_not_the_started_one(self) -> None:
        stage, items = stage_of(3)
        stage.start(items[2])
        assert [stage.of(item).notified for item in items] == [(1,), (3,), (3,)]

    def test_a_room_chooses_its_own_milestones(self) -> None:
        stage, items = stage_of(3)
        stage.change(notify_positions=(2, 5))
        assert [stage.of(item).notified for item in items] == [(1,), (2,), (3,)]
        stage.change(notify_positions=())
        later = stage.intake()
        stage.refund(items[0])
        assert stage.of(later).notified == ()

    def test_a_milestone_beyond_the_queue_waits_for_it(self) -> None:
        stage, _ = stage_of(1, Policy(notify_positions=(40, 2)))
        assert stage.of(stage.intake()).notified == (2,)

    def test_the_message_key_follows_the_position(self) -> None:
        assert notice_template(1) == "queue.item.next_up_notice"
        assert notice_template(3) == "queue.item.third_position_notice"
        assert notice_template(2) == notice_template(7) == "queue.item.position_notice"


ROPE = Policy(rope_drop_seconds=100, started_timeout_seconds=1000, disconnect_grace_seconds=30)


class TestRopeDrop:
    def test_the_next_item_must_be_started_in_time(self) -> None:
        stage, items = stage_of(1, ROPE)
        assert stage.room.deadline(stage.of(items[0])) == (moment(100), Reason.TIMEOUT)

    def test_only_the_next_item_is_on_the_clock(self) -> None:
        stage, items = stage_of(3, ROPE)
        assert [stage.room.deadline(item) is None for item in stage.room.items] == [False, True, True]
        stage.wait(10)
        stage.refund(items[0])
        assert stage.room.deadline(stage.of(items[1])) == (moment(112), Reason.TIMEOUT)

    def test_it_stands_while_another_is_performed_and_goes_on_after(self) -> None:
        stage, items = stage_of(2, ROPE)
        stage.wait(39)
        stage.start(items[1])
        assert stage.room.deadline(stage.of(items[0])) is None
        stage.wait(500)
        stage.complete(items[1])
        assert stage.room.deadline(stage.of(items[0])) == (moment(540 + 60), Reason.TIMEOUT)

    def test_it_stands_while_the_room_is_paused(self) -> None:
        stage, items = stage_of(1, ROPE)
        stage.wait(40)
        stage.change(paused=True)
        assert stage.room.deadline(stage.of(items[0])) is None
        stage.wait(1000)
        stage.change(paused=False)
        assert stage.room.deadline(stage.of(items[0])) == (moment(1040 + 60), Reason.TIMEOUT)

    def test_an_item_that_comes_into_a_paused_room_waits_for_it(self) -> None:
        stage = Stage(room=build_room(ROPE))
        stage.change(paused=True)
        assert stage.room.deadline(stage.intake()) is None

    def test_zero_switches_it_off(self) -> None:
        stage, items = stage_of(1, replace(ROPE, rope_drop_seconds=0))
        assert stage.room.deadline(stage.of(items[0])) is None


class TestServiceClock:
    """The public clock: time in service without pauses. Every event that stops or starts it carries the item."""

    def test_nothing_is_counted_until_the_item_is_started(self) -> None:
        stage, items = stage_of(1)
        stage.wait(30)
        assert stage.of(items[0]).service_clock == STOPPED
        started = stage.start(items[0])
        assert started.service_clock == Clock(since=stage.now)
        assert stage.events[-1].item == started

    def test_pausing_and_resuming_the_item_stop_and_start_it(self) -> None:
        stage, items = stage_of(1)
        stage.start(items[0])
        stage.wait(10)
        stage.pause(items[0])
        assert carried(stage) == Clock(used_seconds=10)
        stage.wait(5)
        stage.resume(items[0])
        assert carried(stage) == Clock(used_seconds=10, since=stage.now)
        stage.wait(1)
        stage.complete(items[0])
        assert carried(stage) == Clock(used_seconds=11)

    def test_a_break_in_the_room_and_its_end_carry_the_item_on_stage(self) -> None:
        stage, items = stage_of(2)
        stage.start(items[0])
        stage.wait(10)
        stage.change(paused=True)
        assert (stage.events[-1].name, carried(stage)) == (EventName.ROOM_CHANGED, Clock(used_seconds=10))
        assert (stage.events[-1].position, stage.events[-1].from_status) == (1, Status.STARTED)
        stage.wait(5)
        stage.change(paused=False)
        assert carried(stage) == Clock(used_seconds=10, since=stage.now)

    def test_a_disconnect_and_the_return_carry_the_item_on_stage(self) -> None:
        stage, items = stage_of(1)
        stage.presence(online=True)
        stage.start(items[0])
        stage.wait(10)
        stage.presence(online=False)
        assert (stage.events[-1].name, carried(stage)) == (EventName.PERFORMER_OFFLINE, Clock(used_seconds=10))
        stage.wait(5)
        stage.presence(online=True)
        assert (stage.events[-1].name, carried(stage)) == (
            EventName.PERFORMER_ONLINE,
            Clock(used_seconds=10, since=stage.now),
        )

    def test_a_setting_that_stops_no_clock_carries_no_item(self) -> None:
        stage, items = stage_of(2)
        stage.change(paused=True)
        stage.change(paused=False)
        assert [logged.item for logged in stage.events[-2:]] == [None, None]
        stage.start(items[0])
        stage.change(announcement="Tea break")
        assert stage.events[-1].item is None

    def test_the_events_alone_give_the_clocks_again(self) -> None:
        stage, items = stage_of(2)
        stage.start(items[0])
        stage.wait(3)
        stage.change(paused=True)
        stage.wait(3)
        stage.change(paused=False)
        folded = build_room()
        for logged in stage.events:
            folded = apply(folded, logged)
        assert folded == stage.room


@pytest.mark.parametrize(("last", "at"), [(None, 0), (-1, 0), (0, 0), (1, 1), (60, 60), (60.001, 0), (3600, 0)])
def test_the_next_event_is_not_before_the_last_unless_that_is_more_than_a_minute_ahead(
    last: float | None, at: float
) -> None:
    room = build_room(last_at=None if last is None else moment(last))
    assert room.time(moment()) == moment(at)


class TestRestartOfTheClocks:
    """While no process serves a room its clocks stand, and setting the clock changes no item's time."""

    @staticmethod
    def restart(stage: Stage, *, away: float) -> Decision:
        """No process runs for this many seconds; negative: the clock is set back."""
        stopped_at = stage.now
        stage.wait(away)
        return stage.send(do.RestartClocks(stopped_at=stopped_at))

    @pytest.mark.parametrize("away", [4, 100_000, -3600])
    def test_the_next_item_has_what_was_left_to_it(self, away: float) -> None:
        stage, items = stage_of(2, ROPE)
        stage.wait(39)
        self.restart(stage, away=away)
        assert stage.room.deadline(stage.of(items[0])) == (stage.now + timedelta(seconds=60), Reason.TIMEOUT)
        assert stage.expire(items[0]).events == ()
        stage.wait(60)
        assert item_of(stage.expire(items[0])).status is Status.ABANDONED

    @pytest.mark.parametrize("away", [4, 100_000, -30, -3600])
    def test_the_item_on_stage_has_used_no_more_than_its_time_in_service(self, away: float) -> None:
        stage, items = stage_of(1, ROPE)
        stage.start(items[0])
        stage.wait(10)
        self.restart(stage, away=away)
        assert carried(stage) == Clock(used_seconds=10, since=stage.now)
        assert (stage.events[-1].name, stage.events[-1].at) == (EventName.ROOM_CHANGED, stage.now)
        stage.wait(5)
        assert stage.complete(items[0]).clock == Clock(used_seconds=15)

    def test_the_grace_of_an_absent_performer_begins_anew(self) -> None:
        stage, items = stage_of(2, ROPE)
        stage.presence(online=True)
        stage.presence(online=False)
        stage.wait(29)
        self.restart(stage, away=100_000)
        for item in items:
            assert stage.expire(item).events == ()
        stage.wait(30)
        assert item_of(stage.expire(items[0])).abandon_reason is Reason.PERFORMER_DISCONNECTED

    @pytest.mark.parametrize(
        ("began", "used"),
        [
            (-1800, 1800),  # before the clock was set back
            (-3600, 3600),
            (-3700, 3700),
            (-3598, 5),  # by its time within the last seconds, as if it had been started since
            (-3596.0, 3.0),
            (-3593, 0),
        ],
    )
    def test_a_clock_set_back_has_counted_what_was_counted_before(self, began: float, used: float) -> None:
        stopped_at = NOON
        now = NOON - timedelta(seconds=3600 - 7)
        clock = Clock(since=NOON + timedelta(seconds=began))
        assert clock.restart(stopped_at, now, now - timedelta(seconds=5)) == Clock(used_seconds=used, since=now)

    def test_clocks_that_stand_already_are_left_alone(self) -> None:
        assert Clock(used_seconds=3).restart(NOON, moment(10)) == Clock(used_seconds=3)
        stage, items = stage_of(1, ROPE)
        stage.start(items[0])
        stage.pause(items[0])
        assert self.restart(stage, away=100).events == ()
        stage.complete(items[0])
        assert self.restart(stage, away=100).events == ()

    def test_a_second_restart_takes_nothing_away(self) -> None:
        """Two processes of a cluster may both find the downtime."""
        stage, items = stage_of(1, ROPE)
        stage.start(items[0])
        stage.wait(10)
        stopped_at = stage.now
        stage.wait(500)
        for _ in range(2):
            stage.send(do.RestartClocks(stopped_at=stopped_at))
        assert stage.of(items[0]).clock == Clock(used_seconds=10, since=stage.now)

    def test_the_events_alone_give_the_room_again(self) -> None:
        stage, items = stage_of(2, ROPE)
        self.restart(stage, away=3600)
        stage.start(items[0])
        self.restart(stage, away=-3600)
        stage.presence(online=True)
        stage.presence(online=False)
        self.restart(stage, away=7)
        folded = build_room(ROPE)
        for logged in stage.events:
            folded = apply(folded, logged)
        assert folded == stage.room


def carried(stage: Stage) -> Clock:
    """The service clock of the item in the last event, which is the clock of that item in the room."""
    item = stage.events[-1].item
    assert item is not None
    assert item == (stage.room.find(item.item_id) or item)
    return item.service_clock


class TestStartedTimeout:
    def test_a_started_item_has_its_duration_and_the_timeout(self) -> None:
        stage = Stage(room=build_room(ROPE))
        item = stage.start(stage.intake(duration_seconds=200))
        assert stage.room.deadline(item) == (moment(1200), Reason.TIMEOUT)

    def test_an_item_without_a_duration_has_the_default(self) -> None:
        stage = Stage(room=build_room(replace(ROPE, default_duration_seconds=45)))
        assert stage.room.deadline(stage.start(stage.intake())) == (moment(1045), Reason.TIMEOUT)

    def test_time_spent_waiting_does_not_count(self) -> None:
        stage, items = stage_of(1, ROPE)
        stage.wait(99)
        assert stage.room.deadline(stage.start(items[0])) == (moment(99 + 1060), Reason.TIMEOUT)

    def test_pausing_the_item_stops_it_and_resuming_lets_it_go_on(self) -> None:
        stage = Stage(room=build_room(ROPE))
        item = stage.start(stage.intake())
        stage.wait(60)
        assert stage.room.deadline(stage.pause(item)) is None
        stage.wait(5000)
        assert stage.room.deadline(stage.resume(item)) == (moment(5060 + 1000), Reason.TIMEOUT)

    def test_a_paused_item_stays_stopped_when_the_room_is_resumed(self) -> None:
        stage = Stage(room=build_room(ROPE))
        item = stage.pause(stage.start(stage.intake()))
        stage.change(paused=True)
        stage.change(paused=False)
        assert stage.room.deadline(stage.of(item)) is None

    def test_a_paused_room_stays_stopped_when_the_item_is_resumed(self) -> None:
        stage = Stage(room=build_room(ROPE))
        item = stage.pause(stage.start(stage.intake()))
        stage.change(paused=True)
        assert stage.room.deadline(stage.resume(item)) is None

    def test_zero_switches_it_off(self) -> None:
        stage = Stage(room=build_room(replace(ROPE, started_timeout_seconds=0)))
        assert stage.room.deadline(stage.start(stage.intake())) is None


class TestPresence:
    def test_a_room_whose_performer_never_came_is_not_offline_but_unknown(self) -> None:
        stage, items = stage_of(2, ROPE)
        assert stage.presence(online=False).events == ()
        assert not stage.room.settings.paused
        assert stage.room.deadline(stage.of(items[0])) == (moment(101 - 1), Reason.TIMEOUT)

    def test_a_panel_that_only_waits_for_a_room_does_not_make_one(self) -> None:
        stage = Stage()
        assert stage.presence(online=True).events == ()
        assert stage.room == build_room()

    def test_coming_and_going_are_one_event_each(self) -> None:
        stage, _ = stage_of(1)
        assert [logged.name for logged in stage.presence(online=True).events] == [EventName.PERFORMER_ONLINE]
        assert stage.presence(online=True).events == ()
        assert [logged.name for logged in stage.presence(online=False).events] == [EventName.PERFORMER_OFFLINE]
        assert stage.presence(online=False).events == ()

    def test_leaving_pauses_the_room_and_says_why(self) -> None:
        stage, _ = stage_of(1)
        stage.presence(online=True)
        stage.wait(8)
        stage.presence(online=False)
        settings = stage.room.settings
        assert (settings.paused, settings.pause_reason) == (True, PauseReason.PERFORMER_DISCONNECTED)
        assert (settings.performer_online, settings.offline_since) == (False, moment(8))

    def test_coming_back_resumes_where_the_clocks_stood(self) -> None:
        stage, items = stage_of(1, ROPE)
        stage.presence(online=True)
        item = stage.start(items[0])
        stage.wait(50)
        stage.presence(online=False)
        stage.wait(20)
        stage.presence(online=True)
        settings = stage.room.settings
        assert (settings.paused, settings.pause_reason, settings.offline_since) == (False, None, None)
        assert stage.room.deadline(stage.of(item)) == (moment(70 + 1010), Reason.TIMEOUT)

    def test_a_pause_by_request_outlives_the_absence(self) -> None:
        stage, _ = stage_of(1)
        stage.presence(online=True)
        stage.change(paused=True)
        stage.presence(online=False)
        assert stage.room.settings.pause_reason is PauseReason.REQUESTED
        stage.presence(online=True)
        assert stage.room.settings.paused

    def test_a_pause_asked_for_during_the_absence_outlives_it(self) -> None:
        stage, _ = stage_of(1)
        stage.presence(online=True)
        stage.presence(online=False)
        stage.change(paused=True)
        stage.presence(online=True)
        assert (stage.room.settings.paused, stage.room.settings.pause_reason) == (True, PauseReason.REQUESTED)

    def test_every_active_item_has_the_grace(self) -> None:
        stage, items = stage_of(2, ROPE)
        stage.presence(online=True)
        stage.start(items[1])
        stage.wait(5)
        stage.presence(online=False)
        due = (moment(36), Reason.PERFORMER_DISCONNECTED)
        assert [stage.room.deadline(stage.of(item)) for item in items] == [due, due]

    def test_an_item_that_comes_during_the_absence_has_a_grace_of_its_own(self) -> None:
        stage, _ = stage_of(1, ROPE)
        stage.presence(online=True)
        stage.presence(online=False)
        stage.wait(20)
        assert stage.room.deadline(stage.intake()) == (moment(50), Reason.PERFORMER_DISCONNECTED)

    def test_without_a_grace_an_absence_only_stops_the_clocks(self) -> None:
        stage, items = stage_of(1, replace(ROPE, disconnect_grace_seconds=0))
        stage.presence(online=True)
        stage.presence(online=False)
        assert stage.room.deadline(stage.of(items[0])) is None

    def test_without_a_grace_a_room_resumed_by_hand_keeps_its_other_clocks(self) -> None:
        stage, items = stage_of(1, replace(ROPE, disconnect_grace_seconds=0))
        stage.presence(online=True)
        stage.presence(online=False)
        stage.wait(10)
        stage.change(paused=False)
        assert stage.room.deadline(stage.of(items[0])) == (moment(110), Reason.TIMEOUT)


class TestExpiry:
    """A timer only sends a command; the room checks its deadline itself."""

    def test_an_item_is_left_alone_until_the_very_moment(self) -> None:
        stage, items = stage_of(1, ROPE)
        stage.wait(99.999)
        assert stage.expire(items[0]).events == ()
        assert stage.of(items[0]).status is Status.CREATED
        stage.wait(0.001)
        assert item_of(stage.expire(items[0])).abandon_reason is Reason.TIMEOUT

    def test_an_overdue_started_item_is_abandoned_and_its_refund_ordered(self) -> None:
        stage = Stage(room=build_room(ROPE))
        item = stage.start(stage.intake())
        stage.wait(1060)
        decision = stage.expire(item)
        assert (item_of(decision).status, item_of(decision).abandon_reason) == (Status.ABANDONED, Reason.TIMEOUT)
        assert decision.operation is not None
        assert decision.operation.refund_tokens == item.tokens
        assert decision.events[0].actor.role is do.Role.SYSTEM

    def test_only_overdue_items_are_abandoned(self) -> None:
        stage, items = stage_of(3, ROPE)
        stage.wait(500)
        for item in items[1:]:
            assert stage.expire(item).events == ()
        stage.expire(items[0])
        assert ids(stage.room) == [item.item_id for item in items[1:]]

    def test_after_the_grace_every_active_item_goes_for_the_disconnect(self) -> None:
        stage, items = stage_of(3, ROPE)
        stage.start(items[1])
        stage.presence(online=True)
        stage.presence(online=False)
        stage.wait(30)
        for item in items:
            assert item_of(stage.expire(item)).abandon_reason is Reason.PERFORMER_DISCONNECTED
        assert stage.room.depth == 0

    def test_a_performer_who_came_back_in_time_saves_the_queue(self) -> None:
        stage, items = stage_of(1, ROPE)
        stage.presence(online=True)
        stage.presence(online=False)
        stage.wait(29)
        stage.presence(online=True)
        stage.wait(2)
        assert stage.expire(items[0]).events == ()

    @pytest.mark.parametrize("status", [Status.FINISHED, Status.ABANDONED, Status.REFUNDED])
    def test_an_item_that_has_ended_meanwhile_is_left_alone(self, status: Status) -> None:
        stage = Stage(room=build_room(ROPE))
        item = stage.in_status(status)
        stage.wait(10_000)
        decision = stage.expire(item)
        assert (decision.events, decision.operation, decision.item) == ((), None, item)


class TestTime:
    def test_a_rooms_time_does_not_run_backwards_because_clocks_differ(self) -> None:
        stage, items = stage_of(2)
        stage.wait(-50)
        started = stage.start(items[0])
        assert started.started_at == stage.room.last_at == moment(1)
        stage.wait(-5)
        stage.change(mode=Mode.OFF)
        assert stage.room.last_at == moment(1)

    def test_a_rooms_time_follows_a_clock_that_has_been_put_right(self) -> None:
        stage, items = stage_of(2)
        stage.wait(3600)
        stage.change(announcement="An hour too late")
        stage.wait(-3600)
        assert stage.start(items[0]).started_at == moment(1)

    def test_a_settlement_is_due_by_the_clock_and_not_by_the_rooms_time(self) -> None:
        stage, items = stage_of(1)
        stage.start(items[0])
        stage.wait(-40)
        decision = stage.send(do.Complete(actor=PERFORMER, item_id=items[0].item_id))
        assert order_of(decision, OperationKind.SETTLE).next_attempt_at == stage.now

    def test_a_clock_that_runs_behind_expires_nothing_early(self) -> None:
        stage, items = stage_of(1, ROPE)
        stage.wait(-50)
        assert stage.expire(items[0]).events == ()

    def test_a_refusal_does_not_move_the_rooms_time(self) -> None:
        stage, items = stage_of(1)
        stage.wait(100)
        with pytest.raises(QueueError):
            stage.complete(items[0])
        assert stage.room.last_at == moment(0)


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("mode", Mode.OFF),
            ("accepting", False),
            ("paused", True),
            ("strict_fifo", True),
            ("max_depth", 3),
            ("max_per_user", 2),
            ("max_wait_seconds", 90),
            ("notify_positions", (4,)),
            ("announcement", "Tea break"),
        ],
    )
    def test_each_setting_changes_alone_in_one_event(self, name: str, value: object) -> None:
        stage = Stage()
        stage.intake()
        decision = stage.change(**{name: value})
        expected = {name: value}
        if name == "paused":
            expected["pause_reason"] = PauseReason.REQUESTED
        assert stage.room.settings == replace(DEFAULT_SETTINGS, **expected)
        assert [(logged.name, logged.settings) for logged in decision.events] == [
            (EventName.ROOM_CHANGED, stage.room.settings)
        ]
        assert stage.change(**{name: value}).events == ()

    def test_none_goes_back_to_the_services_default(self) -> None:
        stage = Stage()
        stage.change(max_depth=3, max_per_user=1, max_wait_seconds=9, notify_positions=(9,), announcement="Hello")
        stage.change(max_depth=None, max_per_user=None, max_wait_seconds=None, notify_positions=None, announcement=None)
        assert stage.room.settings == DEFAULT_SETTINGS

    def test_keeping_everything_changes_nothing(self) -> None:
        stage = Stage()
        stage.intake()
        before = stage.room
        assert stage.change(mode=KEEP).events == ()
        assert stage.room == before

    def test_a_room_comes_to_be_with_its_first_setting(self) -> None:
        stage = Stage()
        assert [logged.version for logged in stage.change(accepting=True).events] == [1]
        assert stage.change(accepting=True).events == ()

    def test_a_resumed_room_has_no_reason_for_a_pause(self) -> None:
        stage = Stage()
        stage.change(paused=True)
        stage.change(paused=False)
        assert stage.room.settings == DEFAULT_SETTINGS

    def test_the_actor_of_a_change_is_on_record(self) -> None:
        stage = Stage()
        stage.intake()
        stage.change(paused=True)
        assert [logged.actor for logged in stage.events] == [FEATURE, PERFORMER]
