"""A grammar of commands: what the callers of one room might send, over HTTP and the socket, in any order.

Each seed is one session. Every step makes sense by itself; its order, its target or one of its values may not. Whatever
it is, the answer has the shape that the contract promises.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx2
from websockets.exceptions import ConnectionClosed

from app.domain.command import Role
from app.wire.commands import COMMANDS, CommandSpec
from app.wire.websocket import CloseCode
from tests.support.live_socket import LiveSocket
from tests.support.server import Api, Server, fresh, intake_body

Json = dict[str, Any]

STEPS = 25
UNKNOWN = "01a22494-3361-72c4-8198-7a2aa583c94e"
ODD: list[Any] = [None, -1, 0, 1, 2.0, 1e300, 2**63, True, "", "x", "x" * 300, "\x00", "\ud83c\udfa4", [], {}, [[]]]
FIELDS = {
    "complete": {"refundTokens": [1, 60, 99, 100, *ODD]},
    "abandon": {"reason": ["technical_error", "performer_declined", *ODD]},
    "refund": {"reason": ["admin_refund", "user_cancelled", "timeout", *ODD]},
    "settings": {
        "mode": ["on", "off", *ODD],
        "accepting": [True, True, *ODD],
        "paused": [True, False, *ODD],
        "strictFifo": [True, False, *ODD],
        "maxDepth": [3, *ODD],
        "maxPerUser": [2, *ODD],
        "maxWaitSeconds": [600, *ODD],
        "notifyPositions": [[3, 1], *ODD],
        "announcement": ["Back in a minute", *ODD],
    },
}


@dataclass
class Report:
    steps: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """By status, by frame type with its code, and by close code."""
    failures: list[str] = field(default_factory=list)


class Session:
    def __init__(self, server: Server, api: Api, seed: int, report: Report) -> None:
        self._server, self._api, self._seed, self._report = server, api, seed, report
        self._random = Random(seed)
        self._room = fresh(f"fuzz-{seed}")
        self._items: list[str] = []
        self._keys = [f"key-{self._room}-{number}" for number in range(4)]
        self._live: LiveSocket | None = None
        performer = server.performer(self._room)
        self._tokens: list[str | None] = [
            *[performer] * 6,
            server.admin,
            server.token(Role.MODERATOR, "mod", self._room),
            server.viewer("ada"),
            server.feature(),
            server.performer("somebody-else"),
            "x.y.z",
            None,
        ]

    async def run(self) -> None:
        for _ in range(self._random.choice([1, 2])):
            token = self._random.choice([token for token in self._tokens if token != "x.y.z"])
            async with self._server.live(self._room, token) as self._live:
                try:
                    await self._live.until("snapshot")
                    for _ in range(STEPS):
                        await self._step()
                except ConnectionClosed as end:
                    self._closed(end.rcvd.code if end.rcvd is not None else None)

    async def _step(self) -> None:
        self._report.steps += 1
        match self._random.randrange(8):
            case 0 | 1:
                await self._intake()
            case 2 | 3 | 4:
                await self._over_http(self._random.choice(list(COMMANDS.values())))
            case 5 | 6:
                await self._over_socket(self._random.choice(list(COMMANDS.values())))
            case _:
                await self._look()

    async def _intake(self) -> None:
        body = intake_body(self._room, userId=self._random.choice(["ada", "bob"]))
        if self._random.random() < 0.4:
            name = self._random.choice([*body, "queueMode", "unknown"])
            body[name] = self._random.choice(ODD)
        if self._random.random() < 0.2:
            body["idempotencyKey"] = self._random.choice(self._keys)
        response = await self._send("POST", "/v1/queue/items", body)
        if response.status_code == 201:
            self._items.append(response.json()["itemId"])

    async def _over_http(self, spec: CommandSpec) -> None:
        path = spec.path.replace("{itemId}", self._item()).replace("{performerId}", self._room)
        await self._send(spec.method, path, self._fields(spec.name))

    async def _over_socket(self, spec: CommandSpec) -> None:
        assert self._live is not None
        frame = {**self._fields(spec.name), "type": spec.name, "id": self._random.choice([*self._keys, "a", "b"])}
        if spec.is_about_item:
            frame["itemId"] = self._item()
        await self._live.send(frame)
        answer = await self._live.until(lambda came: came["type"] in ("ack", "error"))
        if answer["id"] != frame["id"]:
            self._fail(f"{frame} was answered as {answer['id']}")
        if answer["type"] == "error":
            self._problem(answer["problem"], f"frame {frame}")
        self._report.outcomes[answer["type"]] += 1

    async def _look(self) -> None:
        assert self._live is not None
        room, item = f"/v1/performers/{self._room}/queue", f"/v1/queue/items/{self._item()}"
        match self._random.randrange(4):
            case 0:
                await self._live.send({"type": "resync"})
                await self._live.until("snapshot")
            case 1:
                await self._live.send({"type": "ping"})
                await self._live.until("pong")
            case _:
                paths = [room, f"{room}/depth", f"{room}?version=1", f"{room}/history", f"{room}/analytics", item]
                paths += [f"{item}/position", f"{item}/transitions", "/v1/events?limit=3", "/v1/users/ada/queue/items"]
                await self._send("GET", self._random.choice(paths), None)

    def _item(self) -> str:
        return self._random.choice([*self._items[-4:], *self._items[-2:], UNKNOWN, "x"])

    def _fields(self, name: str) -> Json:
        known = FIELDS.get(name, {})
        chosen = [field for field in known if self._random.random() < 1 / len(known)]
        fields = {field: self._random.choice(known[field]) for field in chosen}
        if self._random.random() < 0.05:
            fields["unknown"] = self._random.choice(ODD)
        return fields

    async def _send(self, method: str, path: str, body: Json | None) -> httpx2.Response:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if method == "POST" and self._random.random() < 0.3:
            headers["Idempotency-Key"] = self._random.choice(self._keys)
        # By hand, because the client takes no lone surrogates.
        content = json.dumps(body) if body is not None else None
        response = await self._api.send(
            method, path, self._random.choice(self._tokens), headers=headers, content=content
        )
        about = f"{method} {path} {body}"
        self._report.outcomes[str(response.status_code)] += 1
        if response.status_code >= 500:
            self._fail(f"{about}: {response.status_code}")
        if not response.headers.get("X-Request-ID"):
            self._fail(f"{about}: no X-Request-ID")
        if response.status_code >= 400:
            if response.headers["Content-Type"] != "application/problem+json":
                self._fail(f"{about}: {response.headers['Content-Type']}")
            self._problem(response.json(), about, response.status_code)
        return response

    def _problem(self, problem: Json, about: str, status: int | None = None) -> None:
        is_whole = {"type", "title", "status", "detail", "code"} <= set(problem)
        if not is_whole or problem["status"] >= 500 or status not in (None, problem["status"]):
            self._fail(f"{about}: {problem}")
        else:
            self._report.outcomes[problem["code"]] += 1

    def _closed(self, code: int | None) -> None:
        self._report.outcomes[f"closed {code}"] += 1
        if code not in (CloseCode.BAD_TOKEN, CloseCode.TOO_MANY_FRAMES, CloseCode.BAD_FRAME):
            self._fail(f"closed with {code}")

    def _fail(self, what: str) -> None:
        self._report.failures.append(f"seed {self._seed}: {what[:300]}")


async def play(server: Server, api: Api, seeds: range, report: Report) -> None:
    """The sessions one after the other."""
    for seed in seeds:
        await Session(server, api, seed, report).run()
