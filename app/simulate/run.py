"""One run: people connect, cause load for a while and stop; then all answers are compared with the server's state.

The plan bounds the load in count and time, CHECK_SECONDS the check afterwards. `screen` shows a run.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import Any

from app.domain.command import Role
from app.simulate.catalogue import draw_request, performer_name, user_name
from app.simulate.escrow_client import EscrowClient, Hold, made_up
from app.simulate.live import LiveSocket
from app.simulate.people import Features, Performer, Viewer
from app.simulate.site import Sign, Site, Unreachable, item_path, room_path
from app.simulate.tally import Acknowledged, Tally

INTAKES_AT_ONCE = 128
SOCKETS_A_SECOND = 400
"""How fast the people connect."""
ARRIVAL_SECONDS = 30.0
CALM_SECONDS = 15.0
"""How long intakes under way may take once the load has ended."""
CHECK_SECONDS = 30.0
CHECKS_AT_ONCE = 32
AFTERWARDS_SECONDS = 600
"""How long tokens must stay valid after the load."""
OWNERS = 0.6
"""The share of viewers with a token, who watch their own requests."""
OWN_INTAKES_A_MINUTE = 20
"""The most requests of one of these viewers, on average."""


class Refused(Exception):
    """The run cannot begin; `str()` is one line that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    url: str
    performers: int
    viewers: int
    rate: float
    """Intakes a second, over all rooms."""
    seconds: float
    speed: float
    """By which factor performances are shorter than declared."""
    seed: int


class Run:
    """The run of one plan. `tally` and `phase` can be read at any time."""

    def __init__(self, plan: Plan, sign: Sign, escrow_client: Callable[[Tally], EscrowClient] | None = None) -> None:
        """`escrow_client` makes the client that features hold tokens with; without one escrow ids are made up."""
        self.plan = plan
        self.tally = Tally()
        self.phase = "starting"
        self.load_seconds = 0.0
        self.ended_early = False
        self._sign = sign
        self._escrow_client = escrow_client
        # The same seed gives the same people and requests; the network's timing still differs.
        self._random = Random(plan.seed)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End the load now; the results so far are still checked and reported."""
        self.ended_early = True
        self._stop.set()

    async def run(self) -> dict[str, Any]:
        """Run to the end and return the report. Raises Refused."""
        async with AsyncExitStack() as stack:
            site = await stack.enter_async_context(Site(self.plan.url, self._sign))
            everybody_may_watch = await self._look(site)
            hold: Hold = made_up
            if self._escrow_client is not None:
                hold = (await stack.enter_async_context(self._escrow_client(self.tally))).hold
            performers = [
                Performer(site, self.tally, performer_name(number), random=self._child(), speed=self.plan.speed)
                for number in range(self.plan.performers)
            ]
            viewers = [self._viewer(site, number, everybody_may_watch) for number in range(self.plan.viewers)]
            await self._live(site, Features(site, self.tally, hold, self._child()), performers, viewers)
        self.phase = "done"
        return {
            "plan": {
                "url": self.plan.url,
                "performers": self.plan.performers,
                "viewers": self.plan.viewers,
                "rate": self.plan.rate,
                "seconds": self.plan.seconds,
                "speed": self.plan.speed,
                "seed": self.plan.seed,
            },
            "endedEarly": self.ended_early,
            **self.tally.report(seconds=self.load_seconds),
        }

    def _child(self) -> Random:
        return Random(self._random.getrandbits(64))

    def _viewer(self, site: Site, number: int, everybody_may_watch: bool) -> Viewer:
        random = self._child()
        owner = not everybody_may_watch or random.random() < OWNERS
        return Viewer(
            site,
            self.tally,
            performer_name(number % self.plan.performers),
            user_id=user_name(number) if owner else None,
            random=random,
            by_frame=random.random() < 0.5,
        )

    async def _look(self, site: Site) -> bool:
        """Check that the server answers and accepts our tokens; returns whether anonymous viewers may watch.

        Raises Refused.
        """
        try:
            alive = await site.call("GET", "/healthz")
            known = await site.call("GET", "/v1/users/nobody/queue/items", token=site.token(Role.VIEWER, "nobody"))
            depth = await site.call("GET", f"{room_path(performer_name(0))}/depth")
        except Unreachable as problem:
            raise Refused(f"{self.plan.url} cannot be reached ({problem}).") from None
        if not alive.ok:
            raise Refused(f"{self.plan.url} does not answer like this service (status {alive.status}).")
        if known.status == 401:
            raise Refused("The server does not accept our tokens: AUTH_SECRET must be the server's.")
        return depth.status != 401

    # The load

    async def _live(self, site: Site, features: Features, performers: list[Performer], viewers: list[Viewer]) -> None:
        sockets = _sockets(performers, viewers)
        connections: list[asyncio.Task[None]] = []
        try:
            self.phase = "arriving"
            for number, socket in enumerate(sockets):
                connections.append(asyncio.create_task(socket.run()))
                if number % 20 == 19:
                    await asyncio.sleep(20 / SOCKETS_A_SECOND)
            await self._arrived(sockets)
            self.phase = "load"
            await self._load(features, performers, viewers)
            self.phase = "checking"
            await self._verify_items(site)
            await self._verify_views(site, performers, viewers)
        finally:
            await _cancel(connections)

    async def _load(self, features: Features, performers: list[Performer], viewers: list[Viewer]) -> None:
        # All viewers together act about a hundred times a second at most.
        every = max(20 / self.plan.speed, 1.0, len(viewers) / 100)
        people = [
            *(asyncio.create_task(performer.work()) for performer in performers),
            *(asyncio.create_task(viewer.fidget(every)) for viewer in viewers),
        ]
        intakes: set[asyncio.Task[str | None]] = set()
        began = time.monotonic()
        arrivals = asyncio.create_task(self._arrivals(features, viewers, intakes))
        try:
            async with asyncio.timeout(self.plan.seconds):
                await self._stop.wait()
        except TimeoutError:
            pass
        finally:
            self.load_seconds = time.monotonic() - began
            self.phase = "calming"
            await _cancel([arrivals, *people])
            if intakes:
                _, late = await asyncio.wait(intakes, timeout=CALM_SECONDS)
                await _cancel(late)

    async def _arrivals(
        self, features: Features, viewers: list[Viewer], intakes: set[asyncio.Task[str | None]]
    ) -> None:
        """Send intakes as a Poisson process. The next one waits while INTAKES_AT_ONCE are unanswered."""
        random = self._child()
        room = asyncio.Semaphore(INTAKES_AT_ONCE)
        loop = asyncio.get_running_loop()
        owners: dict[str, list[str]] = {}
        for viewer in viewers:
            if viewer.user_id is not None:
                owners.setdefault(viewer.performer_id, []).append(viewer.user_id)
        # Most requests come from viewers who watch, but each viewer stays below the service's rate limit.
        watchers = sum(map(len, owners.values()))
        from_watchers = min(0.8, watchers * OWN_INTAKES_A_MINUTE / 60 / self.plan.rate)
        others = max(500, round(self.plan.rate * 60))
        due = loop.time()
        while True:
            due = max(due + random.expovariate(self.plan.rate), loop.time() - 1)
            await asyncio.sleep(max(0.0, due - loop.time()))
            await room.acquire()
            performer_id = performer_name(random.randrange(self.plan.performers))
            watching = owners.get(performer_id)
            known = watching and random.random() < from_watchers
            user_id = random.choice(watching) if watching and known else user_name(random.randrange(others))
            task = asyncio.create_task(features.ask(draw_request(random, performer_id, user_id)))
            intakes.add(task)
            task.add_done_callback(intakes.discard)
            task.add_done_callback(lambda _: room.release())

    async def _arrived(self, sockets: list[LiveSocket]) -> None:
        """Wait until every socket has its first snapshot, ARRIVAL_SECONDS at most."""
        waits: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(asyncio.gather(*(socket.arrived.wait() for socket in sockets))),
            asyncio.ensure_future(self._stop.wait()),
        ]
        await asyncio.wait(waits, timeout=ARRIVAL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        await _cancel(waits)

    # The checks

    async def _verify_items(self, site: Site) -> None:
        async def verify(item: Acknowledged) -> None:
            token = site.token(Role.FEATURE, item.source_feature)
            try:
                answer = await site.call("GET", item_path(item.item_id), token=token)
            except Unreachable:
                self.tally.unverified += 1
                return
            if answer.status == 404:
                self.tally.missing.append(item.item_id)
            elif not answer.ok:
                self.tally.unverified += 1
            else:
                self.tally.verified += 1
                self.tally.compared(f"item {item.item_id}", self._wrong_in(item, answer.body))

        await _all(verify, self.tally.acknowledged.values())

    def _wrong_in(self, item: Acknowledged, found: Any) -> list[str]:
        wrong = [f"{name} is not what was asked for" for name, value in item.body.items() if found.get(name) != value]
        if item.item_id in self.tally.ended and found.get("status") in ("created", "started"):
            wrong.append("its end was acknowledged, and it is still active")
        return wrong

    async def _verify_views(self, site: Site, performers: list[Performer], viewers: list[Viewer]) -> None:
        sockets = _sockets(performers, viewers)
        end = time.monotonic() + CHECK_SECONDS

        async def check(socket: LiveSocket) -> None:
            while not await socket.check():
                if time.monotonic() > end:
                    self.tally.unverified += 1
                    return
                await asyncio.sleep(0.2)

        await _all(check, sockets)
        whole = {performer.performer_id: performer.socket for performer in performers}
        for performer_id, panel in whole.items():
            await self._against_http(site, performer_id, site.token(Role.PERFORMER, performer_id), [panel], end)
            public = [viewer.socket for viewer in viewers if viewer.performer_id == performer_id]
            token = site.token(Role.VIEWER, "nobody")
            await self._against_http(site, performer_id, token, public, end, may_stay_behind=True)

    async def _against_http(
        self,
        site: Site,
        performer_id: str,
        token: str,
        sockets: list[LiveSocket],
        end: float,
        *,
        may_stay_behind: bool = False,
    ) -> None:
        """Compare views with the queue read over HTTP. The room may still change, so a view is compared when its
        version is equal.

        `may_stay_behind`: the views of viewers, who do not get the events that they may not see. Such a view may have
        an older version if it is otherwise equal.
        """
        waiting = [socket for socket in sockets if socket.view.version]
        version = None
        while waiting and time.monotonic() < end:
            try:
                truth = await site.call("GET", room_path(performer_id), token=token)
            except Unreachable:
                await asyncio.sleep(0.2)
                continue
            if not truth.ok:
                break
            version = truth.body["room"]["version"]
            for socket in [*waiting]:
                wrong = socket.view.differences_at_own_version(truth.body)
                if socket.view.version == version or (may_stay_behind and not wrong):
                    self.tally.compared(f"{socket} over HTTP", wrong)
                    waiting.remove(socket)
            if waiting:
                await asyncio.sleep(0.05)
        for socket in waiting:
            if socket.is_live and version is not None:
                self.tally.compared(str(socket), [f"stays at version {socket.view.version}, the room is at {version}"])
            else:
                self.tally.unverified += 1


def _sockets(performers: list[Performer], viewers: list[Viewer]) -> list[LiveSocket]:
    return [*(performer.socket for performer in performers), *(viewer.socket for viewer in viewers)]


async def _all(work: Callable[[Any], Awaitable[None]], things: Iterable[Any]) -> None:
    """Run `work` for all things, CHECKS_AT_ONCE at a time."""
    limit = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def one(thing: Any) -> None:
        async with limit:
            await work(thing)

    await asyncio.gather(*(one(thing) for thing in things))


async def _cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
