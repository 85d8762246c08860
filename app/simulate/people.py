"""The people of a live site: features that post purchases, performers at their panels, viewers who watch.

They use the public contract as real ones do, and decide at random. Refusals are normal: they are counted and ignored.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from random import Random
from typing import Any
from uuid import uuid4

from app.domain.command import Role
from app.simulate.catalogue import ANNOUNCEMENTS, Request
from app.simulate.escrow_client import Hold
from app.simulate.live import LiveSocket
from app.simulate.site import Answer, Site, Unreachable, item_path, room_path
from app.simulate.tally import Acknowledged, Tally

INTAKE_ATTEMPTS = 4
SENT_TWICE = 0.02
"""The share of answered intakes that a feature sends again, as after a crash of its own process."""
USUAL_SECONDS = 15
"""The duration of a request that declares none."""


class Features:
    """Every feature of the host site."""

    def __init__(self, site: Site, tally: Tally, hold: Hold, random: Random) -> None:
        self._site = site
        self._tally = tally
        self._hold = hold
        self._random = random

    async def ask(self, request: Request) -> str | None:
        """Hold tokens and post the intake; returns the id of the item, None if it was not queued."""
        escrow = await self._hold(request)
        return None if escrow is None else await self.post(request, escrow)

    async def post(self, request: Request, escrow: str) -> str | None:
        """Post the intake, with one idempotency key until it is answered; returns as `ask`."""
        token = self._site.token(Role.FEATURE, request.catalogue.feature)
        event = f"{request.catalogue.event}-{uuid4().hex}"
        body: dict[str, Any] = {
            "idempotencyKey": event,
            "sourceFeature": request.catalogue.feature,
            "sourceEventId": event,
            "performerId": request.performer_id,
            "userId": request.user_id,
            "escrowTransactionId": escrow,
            "tokens": request.tokens,
            "title": request.title,
            "description": request.description,
            "durationSeconds": request.seconds,
            "metadata": dict(request.metadata),
        }
        if request.passes_through:
            body["queueMode"] = "off"
        for attempt in range(INTAKE_ATTEMPTS):
            try:
                answer = await self._site.call("POST", "/v1/queue/items", token=token, body=body)
            except Unreachable:
                await asyncio.sleep(self._random.uniform(0, 0.2 * 2**attempt))
                continue
            if answer.status != 503:
                return await self._answered(answer, token, body)
            await asyncio.sleep(self._random.uniform(0.2, 1))
        self._tally.intakes["failed"] += 1
        return None

    async def _answered(self, answer: Answer, token: str, body: Mapping[str, Any]) -> str | None:
        self._tally.intake_latency.add(answer.seconds)
        if not answer.ok:
            self._tally.intakes[answer.code] += 1
            return None
        item_id = str(answer.body["itemId"])
        self._tally.intakes["replayed" if answer.replayed else "accepted"] += 1
        self._tally.acknowledge(Acknowledged(item_id=item_id, source_feature=body["sourceFeature"], body=body))
        if self._random.random() < SENT_TWICE:
            await self._send_again(token, body, item_id)
        return item_id

    async def _send_again(self, token: str, body: Mapping[str, Any], item_id: str) -> None:
        try:
            answer = await self._site.call("POST", "/v1/queue/items", token=token, body=body)
        except Unreachable:
            return
        if answer.status == 503:
            return
        self._tally.intakes["replayed"] += 1
        same = answer.replayed and answer.status == 200 and answer.body.get("itemId") == item_id
        self._tally.compared("an intake sent twice", [] if same else [f"{item_id} was not given again"])


class Performer:
    """A performer at a panel. `speed`: by which factor performances are shorter than declared."""

    def __init__(self, site: Site, tally: Tally, performer_id: str, *, random: Random, speed: float) -> None:
        self.performer_id = performer_id
        self.socket = LiveSocket(
            site, tally, performer_id, token=site.token(Role.PERFORMER, performer_id), random=random
        )
        self._site = site
        self._tally = tally
        self._random = random
        self._speed = speed
        self._last_ended: str | None = None

    async def work(self) -> None:
        """Perform the queue's items until cancelled. Another person may use the same panel."""
        while True:
            try:
                await self._next()
            except Unreachable:
                await asyncio.sleep(self._random.uniform(0.5, 1.5))

    async def _next(self) -> None:
        if not self.socket.is_live:
            await self._wait(0.5)
            return
        room = self.socket.view.room or {}
        if room.get("pauseReason") == "requested" or not room.get("accepting", True):
            # Settings that an earlier run left behind when it ended during a break.
            await self._do("settings", paused=False, accepting=True)
        item = self._on_stage() or await self._start()
        if item is None:
            await self._wait(1.0)
        else:
            await self._perform(item)
            await self._between()

    def _on_stage(self) -> Mapping[str, Any] | None:
        """The started item, unless its end was just acknowledged: the update may come after the ack."""
        item = self.socket.view.on_stage
        return None if item is None or item["itemId"] == self._last_ended else item

    async def _start(self) -> Mapping[str, Any] | None:
        waiting = [item for item in self.socket.view.queue if item["status"] == "created"]
        if not waiting:
            return None
        dice = self._random.random()
        if len(waiting) > 2 and dice < 0.06:
            return await self._do("start", waiting[self._random.randint(1, 2)]["itemId"])
        if len(waiting) > 2 and dice < 0.11:
            await self._do("abandon", waiting[1]["itemId"], reason="performer_declined")
        return await self._do("start-next")

    async def _perform(self, item: Mapping[str, Any]) -> None:
        item_id = item["itemId"]
        seconds = (item["durationSeconds"] or USUAL_SECONDS) * self._random.uniform(0.75, 1.3)
        if item["paused"]:
            await self._do("resume", item_id)
        elif self._random.random() < 0.12:
            if not await self._stays(item_id, seconds / 2):
                return
            await self._do("pause", item_id)
            await self._stays(item_id, self._random.uniform(4, 7))
            await self._do("resume", item_id)
            seconds /= 2
        if await self._stays(item_id, seconds):
            await self._end(item)

    async def _end(self, item: Mapping[str, Any]) -> None:
        item_id, tokens = item["itemId"], item["tokens"]
        dice = self._random.random()
        if dice < 0.08 and tokens > 1:
            await self._do("complete", item_id, refundTokens=max(1, round(tokens * self._random.uniform(0.2, 0.6))))
        elif dice < 0.13:
            await self._do("abandon", item_id, reason=self._random.choice(("performer_declined", "technical_error")))
        elif dice < 0.16:
            await self._do("refund", item_id, reason="technical_error")
        else:
            await self._do("complete", item_id)

    async def _between(self) -> None:
        """Pause between two items, and sometimes change a setting or leave."""
        await asyncio.sleep(self._random.uniform(1, 4) / self._speed)
        if self._random.random() > 0.25:
            return
        match self._random.choice(("announce", "announce", "be quiet", "break", "close", "fifo", "leave")):
            case "announce":
                await self._do("settings", announcement=self._random.choice(ANNOUNCEMENTS))
            case "be quiet":
                await self._do("settings", announcement=None)
            case "break":
                await self._for_a_while(5, 8, {"paused": True}, {"paused": False})
            case "close":
                await self._for_a_while(4, 7, {"accepting": False}, {"accepting": True})
            case "fifo":
                await self._do("settings", strictFifo=not (self.socket.view.room or {}).get("strictFifo", False))
            case "leave":
                await self.socket.leave(self._random.uniform(3, 6) / self._speed)

    async def _for_a_while(self, least: float, most: float, first: Mapping[str, Any], then: Mapping[str, Any]) -> None:
        await self._do("settings", **first)
        try:
            await asyncio.sleep(self._random.uniform(least, most) / self._speed)
        finally:
            # Also when the run ends, so that the room does not stay closed.
            with suppress(Unreachable):
                await self._do("settings", **then)

    async def _stays(self, item_id: str, seconds: float) -> bool:
        """Wait for the time of a performance; returns False as soon as another person has ended it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds / self._speed
        seen = False
        while (left := until - loop.time()) > 0:
            await self._wait(left)
            stage = self.socket.view.on_stage
            here = stage is not None and stage["itemId"] == item_id
            if seen and not here:
                return False
            # As in _on_stage: the update that shows the start may come after the ack.
            seen = seen or here
        return True

    async def _wait(self, seconds: float) -> None:
        """Wait until the view changes, `seconds` at most."""
        self.socket.news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self.socket.news.wait()
        except TimeoutError:
            return

    async def _do(self, name: str, item_id: str | None = None, **fields: Any) -> Mapping[str, Any] | None:
        """Send a command over the panel's socket, or over HTTP if the socket may not send another frame this minute.

        Returns the item after the command, None if it was refused. Raises Unreachable.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self.socket.is_live and self.socket.may_send:
            about = {} if item_id is None else {"itemId": item_id}
            frame = await self.socket.command(name, {**about, **fields})
            code, item = (None, frame["item"]) if frame["type"] == "ack" else (frame["code"], None)
        else:
            answer = await self._over_http(name, item_id, fields)
            code, item = (None, answer.body) if answer.ok else (answer.code, None)
        self._tally.command_latency.add(loop.time() - began)
        if code is not None:
            self._tally.refusals[code] += 1
            return None
        self._tally.commands[name] += 1
        if name in ("complete", "abandon", "refund") and item_id is not None:
            self._last_ended = item_id
            self._tally.acknowledge_end(item_id)
        return item

    async def _over_http(self, name: str, item_id: str | None, fields: Mapping[str, Any]) -> Answer:
        token = self._site.token(Role.PERFORMER, self.performer_id)
        room = room_path(self.performer_id)
        if name == "settings":
            return await self._site.call("PATCH", room, token=token, body=fields)
        path = f"{room}/start-next" if item_id is None else f"{item_path(item_id)}/{name}"
        return await self._site.call("POST", path, token=token, body=fields, key=uuid4().hex)


class Viewer:
    """A viewer of a room's page; `user_id` None: an anonymous one."""

    def __init__(
        self,
        site: Site,
        tally: Tally,
        performer_id: str,
        *,
        user_id: str | None,
        random: Random,
        by_frame: bool = False,
    ) -> None:
        self.performer_id = performer_id
        self.user_id = user_id
        token = None if user_id is None else site.token(Role.VIEWER, user_id)
        self.socket = LiveSocket(site, tally, performer_id, token=token, random=random, by_frame=by_frame)
        self._site = site
        self._tally = tally
        self._random = random

    async def fidget(self, every_seconds: float) -> None:
        """At random times until cancelled: compare the view with a snapshot, disconnect, or cancel a request."""
        while True:
            await asyncio.sleep(self._random.expovariate(1 / every_seconds))
            dice = self._random.random()
            try:
                if dice < 0.15:
                    await self.socket.leave(self._random.uniform(0, 2))
                elif dice < 0.3 and self.user_id is not None:
                    await self._cancel()
                elif self.socket.is_live:
                    await self.socket.check()
            except Unreachable:
                continue

    async def _cancel(self) -> None:
        waiting = sorted(item_id for item_id, own in self.socket.view.mine.items() if own["status"] == "created")
        if not waiting or self.user_id is None:
            return
        item_id = self._random.choice(waiting)
        answer = await self._site.call(
            "POST",
            f"{item_path(item_id)}/refund",
            token=self._site.token(Role.VIEWER, self.user_id),
            body={"reason": "user_cancelled"},
            key=uuid4().hex,
        )
        if answer.ok:
            self._tally.commands["cancel"] += 1
            self._tally.acknowledge_end(item_id)
        else:
            self._tally.refusals[answer.code] += 1
