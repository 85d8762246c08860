"""How much of everything: a quick look, the default, and the full thing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    rounds: int
    crowds: tuple[int, ...]
    """Viewers of one room in the fan-out."""
    single_events: int
    bursts: int
    """Of eight events each."""
    payload_bytes: int
    crowd_for_latency: int
    crowd_for_memory: int
    updates_for_memory: int
    stalled: int
    """And as many that read."""
    rooms: int
    viewers_a_room: int
    idle_rooms: int
    seconds_of_calls: float
    callers: int
    history_events: int
    """In `growth` and `retention`."""
    seconds_of_retention: float
    items_of_a_day: int
    """In `analytics`."""
    rooms_at_start: int
    reconnecting: int
    performers: int
    """Of each kind in a round of `waits`, three nights each."""


DEFAULT = Scale(
    rounds=5,
    crowds=(1_000,),
    single_events=60,
    bursts=24,
    payload_bytes=250,
    crowd_for_latency=2_000,
    crowd_for_memory=2_000,
    updates_for_memory=1_200,
    stalled=1_000,
    rooms=2_000,
    viewers_a_room=5,
    idle_rooms=5_000,
    seconds_of_calls=3.0,
    callers=64,
    history_events=200_000,
    seconds_of_retention=20.0,
    items_of_a_day=1_000_000,
    rooms_at_start=10_000,
    reconnecting=2_000,
    performers=2,
)

QUICK = Scale(
    rounds=2,
    crowds=(200,),
    single_events=20,
    bursts=8,
    payload_bytes=250,
    crowd_for_latency=500,
    crowd_for_memory=500,
    updates_for_memory=240,
    stalled=200,
    rooms=200,
    viewers_a_room=5,
    idle_rooms=1_000,
    seconds_of_calls=1.0,
    callers=64,
    history_events=20_000,
    seconds_of_retention=5.0,
    items_of_a_day=50_000,
    rooms_at_start=1_000,
    reconnecting=500,
    performers=1,
)

FULL = Scale(
    rounds=7,
    crowds=(1_000, 10_000),
    single_events=60,
    bursts=24,
    payload_bytes=250,
    crowd_for_latency=10_000,
    crowd_for_memory=10_000,
    updates_for_memory=3_600,
    stalled=1_000,
    rooms=2_000,
    viewers_a_room=5,
    idle_rooms=10_000,
    seconds_of_calls=5.0,
    callers=64,
    history_events=10_000_000,
    seconds_of_retention=120.0,
    items_of_a_day=1_000_000,
    rooms_at_start=10_000,
    reconnecting=10_000,
    performers=4,
)
