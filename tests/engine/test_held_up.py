"""Rooms that another connection keeps locked are skipped for a limited time."""

from app.engine.held_up import FORGOTTEN_SECONDS, HELD_UP_SECONDS, HeldUpRooms


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_room_is_left_alone_for_a_moment() -> None:
    time = Time()
    rooms = HeldUpRooms(time)
    rooms.add("mira")
    assert rooms.retry_at("mira") == HELD_UP_SECONDS
    assert rooms.retry_at("nova") is None
    rooms.drop("mira")
    assert (rooms.retry_at("mira"), len(rooms)) == (None, 0)


def test_rooms_that_nobody_asks_for_again_are_forgotten() -> None:
    time = Time()
    rooms = HeldUpRooms(time)
    for number in range(10_000):
        time.now += 1
        rooms.add(f"room-{number}")
        rooms.add("always-locked")
        assert len(rooms) <= FORGOTTEN_SECONDS + 3
    assert rooms.retry_at("always-locked") == time.now + HELD_UP_SECONDS
