import asyncio
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.wallet.breaker import Breaker, BreakerState, Permit
from tests.support.builders import NOON


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def state_of(breaker: Breaker) -> BreakerState:
    """The state, read again each time: mypy would treat the attribute as unchanged."""
    return breaker.state


def admitted(breaker: Breaker, seconds: float = 0) -> Permit:
    permit = breaker.admit(at(seconds))
    assert permit is not None
    return permit


def opened(**options: float) -> Breaker:
    """A breaker that three failures in a row have opened at noon."""
    breaker = Breaker(threshold=3, **{"pause_seconds": 10.0, "max_pause_seconds": 35.0, **options})
    for _ in range(3):
        breaker.failed(admitted(breaker), at(0))
    assert state_of(breaker) is BreakerState.OPEN
    return breaker


def test_a_closed_breaker_admits_everybody() -> None:
    breaker = Breaker()
    assert state_of(breaker) is BreakerState.CLOSED
    assert all(breaker.admit(at(0)) for _ in range(100))


def test_a_run_of_failures_opens_it() -> None:
    breaker = Breaker(threshold=3)
    for expected in (1, 2):
        breaker.failed(admitted(breaker), at(0))
        assert state_of(breaker) is BreakerState.CLOSED
        assert breaker.failures == expected
    breaker.failed(admitted(breaker), at(0))
    assert state_of(breaker) is BreakerState.OPEN
    assert breaker.admit(at(0)) is None
    assert breaker.opened_count == 1


def test_a_success_ends_the_run() -> None:
    breaker = Breaker(threshold=3)
    for _ in range(5):
        breaker.failed(admitted(breaker), at(0))
        breaker.failed(admitted(breaker), at(0))
        breaker.succeeded(admitted(breaker))
    assert state_of(breaker) is BreakerState.CLOSED
    assert breaker.failures == 0


def test_nobody_is_admitted_before_the_pause_is_over() -> None:
    breaker = opened()
    assert breaker.admit(at(9.999)) is None
    assert breaker.admit(at(10)) is not None
    assert state_of(breaker) is BreakerState.HALF_OPEN


def test_half_open_admits_exactly_one_probe() -> None:
    breaker = opened()
    assert sum(breaker.admit(at(10)) is not None for _ in range(50)) == 1
    assert breaker.admit(at(10_000)) is None


@pytest.mark.anyio
async def test_of_many_concurrent_callers_one_probes_and_its_success_lets_the_rest_in() -> None:
    breaker = opened()
    probing, answer = asyncio.Event(), asyncio.Event()
    calls = 0

    async def call() -> bool:
        nonlocal calls
        permit = breaker.admit(at(10))
        if permit is None:
            return False
        calls += 1
        probing.set()
        await answer.wait()
        breaker.succeeded(permit)
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call()) for _ in range(50)]
        await probing.wait()
        assert calls == 1
        answer.set()
    assert [task.result() for task in tasks].count(True) == 1
    assert state_of(breaker) is BreakerState.CLOSED
    assert all(await asyncio.gather(*(call() for _ in range(50))))


def test_a_failed_probe_lengthens_the_pause_up_to_the_cap() -> None:
    breaker = opened()
    now = 0.0
    for pause in (10, 20, 35, 35, 35):
        assert breaker.admit(at(now + pause - 0.001)) is None
        now += pause
        permit = admitted(breaker, now)
        breaker.failed(permit, at(now))
    assert breaker.opened_count == 6


def test_the_pause_counts_from_when_the_probe_failed() -> None:
    breaker = opened()
    breaker.failed(admitted(breaker, 10), at(14))
    assert breaker.admit(at(33.999)) is None
    assert breaker.admit(at(34)) is not None


def test_a_success_makes_the_next_pause_short_again() -> None:
    breaker = opened()
    breaker.failed(admitted(breaker, 10), at(10))
    breaker.succeeded(admitted(breaker, 30))
    assert breaker.failures == 0
    for _ in range(3):
        breaker.failed(admitted(breaker, 40), at(40))
    assert breaker.admit(at(49.999)) is None
    assert breaker.admit(at(50)) is not None


def test_a_cancelled_probe_leaves_its_place_to_the_next_caller() -> None:
    breaker = opened()
    breaker.cancelled(admitted(breaker, 10))
    assert state_of(breaker) is BreakerState.OPEN
    breaker.succeeded(admitted(breaker, 10))
    assert state_of(breaker) is BreakerState.CLOSED


def test_a_call_cancelled_while_closed_counts_as_nothing() -> None:
    breaker = Breaker(threshold=1)
    breaker.cancelled(admitted(breaker))
    assert state_of(breaker) is BreakerState.CLOSED
    assert breaker.failures == 0


def test_reports_of_calls_from_an_earlier_state_are_ignored() -> None:
    breaker = Breaker(threshold=3, pause_seconds=10)
    late = [admitted(breaker) for _ in range(20)]
    for permit in late[:3]:
        breaker.failed(permit, at(0))
    breaker.succeeded(late[3])
    assert state_of(breaker) is BreakerState.OPEN, "a success from before must not close it"
    breaker.failed(late[4], at(9))
    probe = breaker.admit(at(10))
    assert probe is not None, "a failure from before must not lengthen the pause"
    breaker.failed(late[5], at(10))
    breaker.cancelled(late[6])
    breaker.succeeded(late[7])
    assert state_of(breaker) is BreakerState.HALF_OPEN, "only the probe decides"
    breaker.succeeded(probe)
    breaker.failed(late[8], at(11))
    assert breaker.failures == 0


def test_a_clock_set_back_does_not_keep_it_open() -> None:
    assert opened().admit(at(-3600)) is not None


@given(st.lists(st.tuples(st.sampled_from(["admit", "succeed", "fail", "cancel", "wait"]), st.integers(0, 9))))
def test_whatever_happens_one_probe_at_a_time_and_a_bounded_pause(steps: list[tuple[str, int]]) -> None:
    breaker = Breaker(threshold=2, pause_seconds=1, max_pause_seconds=8)
    now = NOON
    out: list[tuple[Permit, BreakerState]] = []
    for step, number in steps:
        if step == "wait":
            now += timedelta(seconds=number)
        elif step == "admit":
            permit = breaker.admit(now)
            if permit is not None:
                out.append((permit, state_of(breaker)))
        elif out:
            permit, _ = out.pop(number % len(out))
            match step:
                case "succeed":
                    breaker.succeeded(permit)
                case "fail":
                    breaker.failed(permit, now)
                case "cancel":
                    breaker.cancelled(permit)
        assert sum(admitted_in is BreakerState.HALF_OPEN for _, admitted_in in out) <= 1
    if state_of(breaker) is BreakerState.OPEN:
        assert breaker.admit(now + timedelta(seconds=8)) is not None, "it never stays shut"
