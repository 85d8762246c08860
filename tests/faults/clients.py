"""The clients of a run: features, viewers, panels over HTTP and over sockets, watchers, an administrator.

A command is repeated with its key until it is answered for good, by whichever process, as a careful site does.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from time import monotonic
from typing import Any

import httpx2
from websockets.exceptions import WebSocketException

from app.access import auth
from app.domain.command import Role
from app.parts import utc_now
from tests.faults.history import Call, History, Json
from tests.faults.scene import COMMAND_SECONDS, Scene
from tests.support.live_socket import LiveSocket, connected

ITEMS = "/v1/queue/items"
OPERATIONS = "/v1/admin/wallet-operations"
ANSWER_SECONDS = COMMAND_SECONDS + 5
"""After which a caller no longer waits for an answer."""
PAUSE_SECONDS = 0.2
"""Before a command is tried again."""
ENDS = (("complete", None), ("complete", "split"), ("abandon", None), ("refund", {"reason": "technical_error"}))
END_WEIGHTS = (60, 15, 15, 10)


@dataclass(eq=False)
class Watcher:
    """A socket in a room, at one process; it reconnects and resumes."""

    room: str
    node: int
    token: str | None
    live: LiveSocket | None = None
    resumed: int = 0
    final: Json | None = None
    """The room as it shows it when all is calm."""


@dataclass(eq=False)
class Site:
    scene: Scene
    history: History
    random: Random
    http: httpx2.AsyncClient
    rooms: list[str]
    tokens: dict[tuple[str, str], str]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """No new commands; those under way are brought to their end."""
    calm: asyncio.Event = field(default_factory=asyncio.Event)
    """All is done: watchers may look for the last time."""
    escrows: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By id: whose and how much, of every escrow that was held."""

    def node(self) -> int:
        return self.random.choice(sorted(self.scene.up) or list(range(len(self.scene.nodes))))

    def url(self, node: int, path: str) -> str:
        return f"http://127.0.0.1:{self.scene.nodes[node].port}{path}"

    async def ask(
        self, client: str, operation: str, path: str, token: str, body: Any, key: str, *, give_up: float = 30.0
    ) -> Call | None:
        """The answer to a command; None if there was none until `give_up` seconds after the end."""
        until: float | None = None
        while True:
            call = await self._attempt(client, operation, path, token, body, key)
            if call.status is not None and call.status < 500:
                return call
            if self.stopping.is_set():
                until = until or monotonic() + give_up
                if monotonic() > until:
                    self.history.see(f"{operation} {key} was never answered")
                    return None
            await asyncio.sleep(PAUSE_SECONDS)

    async def _attempt(self, client: str, operation: str, path: str, token: str, body: Any, key: str) -> Call:
        call = self.history.call(client, operation, key, self.node())
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self.http.post(self.url(call.node, path), json=body, headers=headers)
        except (httpx2.HTTPError, OSError, TimeoutError) as error:
            call.problem = type(error).__name__
        else:
            call.status = response.status_code
            self._read(call, response)
        call.ended = monotonic()
        return call

    def _read(self, call: Call, response: httpx2.Response) -> None:
        try:
            call.body = response.json()
        except ValueError:
            call.problem = "no JSON"
        if call.status == 503 and not response.headers.get("Retry-After", "").isdigit():
            call.problem = "503 without Retry-After"

    async def get(self, node: int, path: str, token: str | None) -> Json:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        response = await self.http.get(self.url(node, path), headers=headers)
        response.raise_for_status()
        document: Json = response.json()
        return document

    def token(self, role: str, sub: str) -> str:
        if (role, sub) not in self.tokens:
            self.tokens[role, sub] = long_token(self.scene, role, sub)
        return self.tokens[role, sub]

    async def pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()


def long_token(scene: Scene, role: str, sub: str) -> str:
    """A token that stays valid whatever the clocks are set to."""
    now = utc_now() - timedelta(days=2)
    return auth.sign(scene.server.settings.auth_secret, Role(role), sub, now=now, ttl_seconds=30 * 86400)


# Features and viewers


async def feature(site: Site, name: str, seconds_between: float) -> None:
    number = 0
    while not site.stopping.is_set():
        number += 1
        await _request(site, name, number)
        await site.pause(site.random.expovariate(1 / seconds_between))


async def _request(site: Site, name: str, number: int) -> None:
    random, key = site.random, f"{name}-{number}"
    user, tokens = f"viewer-{random.randrange(40)}", random.randint(2, 500)
    escrow_id = await asyncio.to_thread(site.scene.wallet.hold, user, tokens)
    site.escrows[escrow_id] = (user, tokens)
    body = {
        "sourceFeature": name,
        "sourceEventId": key,
        "performerId": random.choice(site.rooms),
        "userId": user,
        "escrowTransactionId": escrow_id,
        "tokens": tokens,
        "title": f"Request {key}",
        "description": "A song",
    }
    token = site.token("feature", name)
    call = await site.ask(name, "intake", ITEMS, token, body, key)
    if call is None or not call.is_acknowledged:
        if call is not None and call.body.get("code") != "QUEUE_FULL":
            site.history.see(f"intake {key} was refused with {call.status} {call.body.get('code')}")
        return
    chance = random.random()
    if chance < 0.1:
        again = await site.ask(name, "replay", ITEMS, token, body, key)
        if again is not None and (again.status, again.body.get("itemId")) != (200, call.body["itemId"]):
            site.history.see(f"intake {key} was answered otherwise when repeated: {again.status}")
    elif chance < 0.2:
        twice = await site.ask(name, "same escrow", ITEMS, token, body, f"{key}-twice")
        if twice is not None and (twice.status, twice.body.get("code")) != (409, "ESCROW_ALREADY_QUEUED"):
            site.history.see(f"escrow {escrow_id} was queued twice: {twice.status}")
    elif chance < 0.3:
        path, reason = f"{ITEMS}/{call.body['itemId']}/refund", {"reason": "user_cancelled"}
        cancelled = await site.ask(user, "cancel", path, site.token("viewer", user), reason, f"{key}-cancel")
        if cancelled is not None and cancelled.status not in (200, 403, 409):
            site.history.see(f"cancelling {key} was answered with {cancelled.status}")


# Panels


async def panel(site: Site, room: str) -> None:
    """A performer over HTTP, who starts and ends the items of the queue."""
    token, number = site.token("performer", room), 0
    while not site.stopping.is_set():
        number += 1
        started = await site.ask(
            room, "start-next", f"/v1/performers/{room}/queue/start-next", token, {}, f"{room}-start-{number}"
        )
        item = _item_on_stage(started)
        if item is None:
            await site.pause(0.3)
            continue
        if site.random.random() < 0.2:
            for word in ("pause", "resume"):
                await site.ask(room, word, f"{ITEMS}/{item['itemId']}/{word}", token, {}, f"{room}-{word}-{number}")
        word, body = _end(site, item)
        await site.ask(room, word, f"{ITEMS}/{item['itemId']}/{word}", token, body, f"{room}-{word}-{number}")


def _item_on_stage(call: Call | None) -> Json | None:
    """The started item: of this command, or of an earlier one whose answer was lost."""
    if call is None:
        return None
    found = call.body if call.is_acknowledged else call.body.get("item")
    return found if found and "itemId" in found else None


def _end(site: Site, item: Json) -> tuple[str, Json]:
    word, body = site.random.choices(ENDS, END_WEIGHTS)[0]
    if body == "split":
        return word, {"refundTokens": site.random.randrange(1, item["tokens"])}
    return word, dict(body) if isinstance(body, dict) else {}


async def socket_panel(site: Site, room: str) -> None:
    """A performer over a socket; it reconnects and repeats commands without an answer."""
    number, waiting = 0, list[tuple[str, str, Json]]()
    while not site.stopping.is_set():
        node = site.node()
        try:
            async with _open(site, node, room, site.token("performer", room)) as live:
                await live.until("snapshot")
                while not site.stopping.is_set():
                    if not waiting:
                        number += 1
                        waiting.append(("start-next", f"{room}-start-{number}", {}))
                    word, key, fields = waiting[0]
                    answer = await _command(site, live, node, room, word, key, fields)
                    if answer.get("code") == "UNAVAILABLE":
                        # Sooner it would soon have sent more than a socket may.
                        await site.pause(answer.get("retryAfterSeconds", 1))
                        continue
                    waiting.pop(0)
                    item = answer.get("item")
                    if word == "start-next" and item:
                        end, more = _end(site, item)
                        waiting.append((end, f"{room}-{end}-{number}", {"itemId": item["itemId"], **more}))
                    await site.pause(0.6)
        except (OSError, TimeoutError, WebSocketException):
            await site.pause(PAUSE_SECONDS)


async def _command(site: Site, live: LiveSocket, node: int, room: str, word: str, key: str, fields: Json) -> Json:
    call = site.history.call(room, word, key, node)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            frame = await live.command(word, key, **fields)
    except (OSError, TimeoutError, WebSocketException) as error:
        call.problem = type(error).__name__
        raise
    finally:
        call.ended = monotonic()
    if frame["type"] == "ack":
        call.status, call.body = 200, frame["item"]
        return {"item": frame["item"]}
    problem: Json = frame["problem"]
    call.status, call.body = problem["status"], problem
    if call.status == 503 and "retryAfterSeconds" not in problem:
        call.problem = "503 without retryAfterSeconds"
    return problem


# Watchers


def _open(site: Site, node: int, room: str, token: str | None, query: str = "") -> Any:
    port = site.scene.nodes[node].port
    url = f"ws://127.0.0.1:{port}/v1/performers/{room}/queue/live{query}"
    return connected(url, token, open_timeout=5)


async def watch(site: Site, watcher: Watcher) -> None:
    while watcher.final is None:
        before = watcher.live
        query = "" if before is None or before.version < 0 else f"?epoch={before.epoch}&since={before.version}"
        try:
            async with _open(site, watcher.node, watcher.room, watcher.token, query) as live:
                if query and before is not None:
                    live.continue_from(before)
                    watcher.resumed += 1
                watcher.live = live
                await _follow(site, watcher, live)
        except (OSError, WebSocketException, TimeoutError):
            await asyncio.sleep(PAUSE_SECONDS)


async def _follow(site: Site, watcher: Watcher, live: LiveSocket) -> None:
    while watcher.final is None:
        if site.calm.is_set():
            # Not at the room's version: an update that holds nothing for this audience is not sent.
            await live.settled()
            watcher.final = live.view()
            return
        with suppress(TimeoutError):
            await live.next(seconds=0.5)


# The administrator


async def administrator(site: Site) -> None:
    """Retries dead operations until the end, one by one and all at once."""
    token, number = site.token("admin", "ops"), 0
    while not site.calm.is_set():
        number += 1
        try:
            dead = await site.get(site.node(), f"{OPERATIONS}?status=dead&limit=1", token)
            retrying = await site.get(site.node(), f"{OPERATIONS}?status=retrying&limit=1", token)
        except (httpx2.HTTPError, OSError):
            dead = retrying = {"operations": []}
        for found in retrying["operations"]:
            await site.ask("ops", "retry", f"{OPERATIONS}/{found['id']}/retry", token, {}, f"retry-{number}")
        if dead["operations"]:
            await site.ask("ops", "retry all", f"{OPERATIONS}/retry", token, {"status": "dead"}, f"all-{number}")
        await asyncio.sleep(1.0)
