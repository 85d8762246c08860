"""Four real processes race for one thing, thousands of times: exactly one wins, and the others are refused.

A race is one request to each process, all written before any is answered. Many rooms race at once, so that processes
also meet in the middle of each other's batches. Afterwards the books of all of them are looked at.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import pytest

from tests.bench.load.requests import get, post
from tests.support.cluster import Node, environment_of, faults, nodes, peaks, unlike_the_wallet, unresolved, until
from tests.support.cluster import database_url_fixture as database_url_fixture
from tests.support.server import Json, Server, fresh, intake_body

RACES = int(os.environ.get("CLUSTER_RACES", "2000"))
"""In all; the kinds of race have a like share of them."""
KINDS = 7
PROCESSES = 4
STAGES = 20
"""Racing at the same time."""
ROUNDS = -(-RACES // KINDS // STAGES)
"""Races of one kind on one stage."""
FULL = 50
ROOM_ROUNDS = 20
"""Rounds in one room where each leaves an item there."""
ANSWER_SECONDS = 30.0

ITEMS = "/v1/queue/items"


@pytest.fixture(scope="module")
def cluster(database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(PROCESSES, environment_of(database_url, redis_url), tmp_path_factory.mktemp("cluster")) as started:
        yield started


class Answer(NamedTuple):
    process: int
    status: int
    body: Json


@dataclass(eq=False)
class Stage:
    """A low-level connection to each process, so that the requests of a race follow each other directly."""

    server: Server
    lines: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    turns: Iterator[int] = field(default_factory=count)
    won: Counter[int] = field(default_factory=Counter)
    """Races by the process that said so."""

    async def race(self, *requests: bytes) -> list[Answer]:
        """Send one request to each process, and return the answers in their order. Each race begins with another
        process."""
        first = next(self.turns)
        asked = [(first + number) % PROCESSES for number in range(len(requests))]
        for process, request in zip(asked, requests, strict=True):
            self.lines[process][1].write(request)
        return [await self._answer(process) for process in asked]

    async def ask(self, request: bytes) -> Json:
        """Send a request, which must succeed, to the next process."""
        (answer,) = await self.race(request)
        assert 200 <= answer.status < 300, answer
        return answer.body

    async def _answer(self, process: int) -> Answer:
        async with asyncio.timeout(ANSWER_SECONDS):
            head = (await self.lines[process][0].readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await self.lines[process][0].readexactly(length)
        return Answer(process, int(head.split(maxsplit=2)[1]), json.loads(body))

    def winner(self, answers: Sequence[Answer], status: int, *refusals: str) -> Json:
        """The item of the request that won; all others must be refused with 409 and one of these codes."""
        won = [answer for answer in answers if answer.status == status]
        lost = [answer for answer in answers if answer.status != status]
        assert len(won) == 1, answers
        assert {answer.status for answer in lost} == {409}, answers
        assert {answer.body["code"] for answer in lost} <= set(refusals), answers
        self.won[won[0].process] += 1
        return won[0].body

    def intake(self, body: Json) -> bytes:
        return post(ITEMS, json.dumps(body).encode(), bearer=self.server.feature(body["sourceFeature"]))

    def command(self, word: str, performer_id: str, item_id: str) -> bytes:
        body = b'{"reason": "technical_error"}' if word == "refund" else b""
        return post(f"{ITEMS}/{item_id}/{word}", body, bearer=self.server.performer(performer_id))

    def start_next(self, performer_id: str) -> bytes:
        return post(f"/v1/performers/{performer_id}/queue/start-next", b"", bearer=self.server.performer(performer_id))

    async def status_of(self, item_id: str) -> str:
        found = await self.ask(get(f"{ITEMS}/{item_id}", bearer=self.server.admin))
        return str(found["status"])


@pytest.fixture
async def stages(cluster: list[Node], database_url: str) -> AsyncIterator[list[Stage]]:
    """Connections to all processes; after every test the records must be consistent."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(stage(cluster)) for _ in range(STAGES)]
        yield made
    assert faults(database_url) == []
    deepest, on_stage = peaks(database_url)
    assert deepest <= FULL
    assert on_stage <= 1


@asynccontextmanager
async def stage(cluster: Sequence[Node]) -> AsyncIterator[Stage]:
    lines = [await asyncio.open_connection("127.0.0.1", node.port) for node in cluster]
    yield Stage(cluster[0].server, lines)
    for _, writer in lines:
        writer.close()
        await writer.wait_closed()


async def on_all(stages: Sequence[Stage], play: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for each in stages:
            group.create_task(play(each))
    winners = {process for each in stages for process in each.won}
    assert winners == set(range(PROCESSES)), "no process always wins, and none never"


async def queued(each: Stage, performer_id: str, count: int) -> list[str]:
    """The ids of items that all processes queue into a room at once; at first the room does not exist."""
    found = []
    for start in range(0, count, PROCESSES):
        some = range(start, min(start + PROCESSES, count))
        answers = await each.race(*(each.intake(intake_body(performer_id)) for _ in some))
        assert {answer.status for answer in answers} == {201}, answers
        found += [str(answer.body["itemId"]) for answer in answers]
    return found


async def test_the_fiftieth_place_goes_to_exactly_one_and_nobody_is_the_fifty_first(stages: list[Stage]) -> None:
    async def play(each: Stage) -> None:
        performer_id = fresh("star")
        await queued(each, performer_id, FULL - 1)
        for _ in range(ROUNDS):
            answers = await each.race(*(each.intake(intake_body(performer_id)) for _ in range(PROCESSES)))
            item = each.winner(answers, 201, "QUEUE_FULL")
            assert item["position"] == FULL
            await each.ask(each.command("abandon", performer_id, item["itemId"]))

    await on_all(stages, play)


async def test_of_simultaneous_starts_one_wins_and_an_item_ends_once(stages: list[Stage], database_url: str) -> None:
    ends = [["complete"] * 4, ["complete", "abandon"] * 2, ["abandon"] * 4, ["refund"] * 4]

    async def play(each: Stage) -> None:
        performer_id = fresh("star")
        waiting = await queued(each, performer_id, 2 * PROCESSES)
        for number in range(ROUNDS):
            one, two, *_ = waiting
            answers = await each.race(
                each.command("start", performer_id, one),
                each.start_next(performer_id),
                each.command("start", performer_id, two),
                each.start_next(performer_id),
            )
            item_id = each.winner(answers, 200, "ALREADY_PROCESSING", "INVALID_STATE_TRANSITION")["itemId"]
            words = ends[number % len(ends)]
            answers = await each.race(*(each.command(word, performer_id, item_id) for word in words))
            each.winner(answers, 200, "INVALID_STATE_TRANSITION")
            waiting.remove(item_id)
            waiting += await queued(each, performer_id, 1)

    await on_all(stages, play)
    await all_resolved(database_url)


async def test_a_refund_against_a_completion_leaves_one_of_them(stages: list[Stage], database_url: str) -> None:
    """Both may succeed one after the other: a finished item can be refunded until its settlement is claimed."""
    ends = [["complete", "refund"] * 2, ["complete", "complete", "complete", "refund"]]

    async def play(each: Stage) -> None:
        performer_id = fresh("star")
        for number in range(ROUNDS):
            item_id = await performed(each, performer_id)
            words = ends[number % len(ends)]
            answers = await each.race(*(each.command(word, performer_id, item_id) for word in words))
            await ended_once(each, item_id, list(zip(words, answers, strict=True)))

    await on_all(stages, play)
    await all_resolved(database_url)


async def test_a_refund_meets_the_settlement_at_any_moment_and_leaves_one_of_them(
    stages: list[Stage], database_url: str
) -> None:
    """One process completes, and its outbox claims the settlement; the others refund a little later each time."""

    loop = asyncio.get_running_loop()

    async def play(each: Stage) -> None:
        performer_id, took = fresh("star"), 0.0
        for number in range(ROUNDS):
            item_id = await performed(each, performer_id)
            began = loop.time()
            completion = asyncio.create_task(each.race(each.command("complete", performer_id, item_id)))
            # By what the last ones took, however busy the machine is.
            await asyncio.sleep(took * number / ROUNDS)
            (completed,), refunds = await asyncio.gather(
                completion, each.race(*(each.command("refund", performer_id, item_id) for _ in range(PROCESSES - 1)))
            )
            took = loop.time() - began
            await ended_once(each, item_id, [("complete", completed), *(("refund", answer) for answer in refunds)])

    await on_all(stages, play)
    await all_resolved(database_url)


async def performed(each: Stage, performer_id: str) -> str:
    """The id of a started item."""
    (item_id,) = await queued(each, performer_id, 1)
    await each.ask(each.start_next(performer_id))
    return item_id


async def ended_once(each: Stage, item_id: str, asked: Sequence[tuple[str, Answer]]) -> None:
    """Check that there is at most one completion and one refund, and that the item's status is that of the last one."""
    assert {answer.status for _, answer in asked} == {200, 409}, asked
    assert {answer.body["code"] for _, answer in asked if answer.status == 409} == {"INVALID_STATE_TRANSITION"}
    done = Counter(word for word, answer in asked if answer.status == 200)
    assert done in (Counter(complete=1), Counter(refund=1), Counter(complete=1, refund=1)), asked
    assert await each.status_of(item_id) == ("refunded" if done["refund"] else "finished")
    each.won.update(answer.process for _, answer in asked if answer.status == 200)


async def test_one_key_sent_to_every_process_queues_one_item(stages: list[Stage]) -> None:
    async def play(each: Stage) -> None:
        performer_id = ""
        for number in range(ROUNDS):
            if number % ROOM_ROUNDS == 0:
                performer_id = fresh("star")
            body = intake_body(performer_id)
            other = {**body, "tokens": body["tokens"] + number % 2}
            bodies = [body, other] * 2
            answers = await each.race(*(each.intake(sent) for sent in bodies))
            (won,) = (answer for answer in answers if answer.status == 201)
            for sent, answer in zip(bodies, answers, strict=True):
                if sent["tokens"] != won.body["tokens"]:
                    assert (answer.status, answer.body["code"]) == (422, "DUPLICATE_IDEMPOTENCY_KEY")
                elif answer is not won:
                    assert (answer.status, answer.body) == (200, won.body)
            each.won[won.process] += 1

    await on_all(stages, play)


async def test_one_escrow_sent_to_every_process_is_held_by_one_item(stages: list[Stage]) -> None:
    async def play(each: Stage) -> None:
        stars: list[str] = []
        for number in range(ROUNDS):
            if number % ROOM_ROUNDS == 0:
                stars = [fresh("star") for _ in range(PROCESSES)]
            escrow = fresh("escrow")
            # Not even the room is the same.
            answers = await each.race(
                *(each.intake(intake_body(performer_id, escrowTransactionId=escrow)) for performer_id in stars)
            )
            each.winner(answers, 201, "ESCROW_ALREADY_QUEUED")

    await on_all(stages, play)


async def all_resolved(database_url: str) -> None:
    """Wait until every escrow is resolved, by one order, and the wallet agrees with the item."""
    await until(lambda: unresolved(database_url) == 0, 60)
    assert unlike_the_wallet(database_url) == 0
