"""A client that applies every frame always equals a fresh snapshot, and no client is sent data that it may not see:
both during long runs of random commands, for every audience."""

import asyncio
import json
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest

from tests.support.live_socket import LiveSocket
from tests.support.server import PUBLIC_FIELDS, WHOLE_FIELDS, Api, Json, Server, fresh, intake_body

USERS = ("ada", "bob", "cy")
REASONS = ("performer_declined", "technical_error", "timeout", "admin_refund")


class Director:
    """Sends random commands into one room, possible or not, and ignores their results."""

    def __init__(self, api: Api, performer_id: str, random: Random, prefix: str) -> None:
        self.api = api
        self.performer_id = performer_id
        self.random = random
        self.users = [f"{prefix}-{user}" for user in USERS]
        self.item_ids: list[str] = []
        self.answers: dict[int, int] = {}

    async def act(self) -> None:
        performer = self.api.server.performer(self.performer_id)
        choice = self.random.random()
        room = f"/v1/performers/{self.performer_id}/queue"
        if choice < 0.35 or not self.item_ids:
            body = intake_body(self.performer_id, userId=self.random.choice(self.users), **self._oddities())
            response = await self.api.post("/v1/queue/items", self.api.server.feature(), body)
            if response.status_code == 201:
                self.item_ids.append(response.json()["itemId"])
        elif choice < 0.55:
            response = await self.api.post(f"{room}/start-next", performer)
        elif choice < 0.65:
            response = await self.api.send("PATCH", room, performer, self._settings())
        else:
            # Mostly about recent items, which are likely to be active.
            item_id = self.item_ids[-1 - min(int(self.random.expovariate(0.2)), len(self.item_ids) - 1)]
            name, command = self._command()
            response = await self.api.post(f"/v1/queue/items/{item_id}/{name}", performer, command)
        self.answers[response.status_code] = self.answers.get(response.status_code, 0) + 1

    def _oddities(self) -> Json:
        random = self.random
        fields: Json = {"tokens": random.choice((1, 50, 10**12)), "title": random.choice(("A", "é" * 200, "<b>&</b>"))}
        if random.random() < 0.3:
            fields["durationSeconds"] = random.randint(1, 600)
        if random.random() < 0.1:
            fields["queueMode"] = "off"
        return fields

    def _settings(self) -> Json:
        return self.random.choice(
            [
                {"mode": self.random.choice(("on", "on", "off"))},
                {"accepting": self.random.random() < 0.9},
                {"paused": self.random.random() < 0.5},
                {"strictFifo": self.random.random() < 0.3},
                {"maxDepth": self.random.choice((3, 10, None))},
                {"notifyPositions": self.random.choice(([1, 2], [3], [], None))},
                {"announcement": self.random.choice(("Hello", "", None))},
            ]
        )

    def _command(self) -> tuple[str, Json | None]:
        reason = self.random.choice(REASONS)
        return self.random.choice(
            [
                ("start", None),
                ("complete", None),
                ("complete", None),
                ("complete", {"refundTokens": 7}),
                ("abandon", {"reason": reason}),
                ("refund", {"reason": reason}),
                ("pause", None),
                ("resume", None),
            ]
        )


def token_of(server: Server, audience: str, director: Director) -> str | None:
    return {
        "anonymous": None,
        "owner": server.viewer(director.users[0]),
        "feature": server.feature(),
        "performer": server.performer(director.performer_id),
        "moderator": server.token("moderator", "max", director.performer_id),
        "admin": server.admin,
    }[audience]


AUDIENCES = ("anonymous", "owner", "feature", "performer", "moderator", "admin")
STAYS, COMES_BACK = "stays", "comes back"


async def same_as_fresh(live: LiveSocket, server: Server, performer_id: str, token: str | None) -> None:
    """Compare the state of a socket with a fresh snapshot of the same version."""
    for _ in range(20):
        async with server.live(performer_id, token) as fresh_one:
            snapshot = await fresh_one.until("snapshot")
        await live.reach(snapshot["version"])
        await live.settled()
        if live.version == snapshot["version"]:
            break
    view = live.view()
    # The contents and the order, to the last field.
    assert json.dumps(view["items"]) == json.dumps(snapshot["items"])
    assert json.dumps(view["room"]) == json.dumps(snapshot["room"])
    assert (view["epoch"], view["version"]) == (snapshot["epoch"], snapshot["version"])
    sent = {item_id: frame for item_id, frame in live.positions.items() if frame["position"]}
    for item in snapshot["mine"]:
        # A position is sent when it changes: by a snapshot at first, from then on by itself.
        known = sent.pop(item["itemId"], live.mine.get(item["itemId"], {}))
        assert {name: known[name] for name in ("position", "ahead", "status")} == {
            name: item[name] for name in ("position", "ahead", "status")
        }
    assert sent == {}


@pytest.mark.parametrize("seed", range(3))
async def test_a_snapshot_and_its_updates_equal_a_fresh_snapshot_for_every_audience(
    api: Api, server: Server, performer_id: str, seed: int
) -> None:
    random = Random(f"{seed} {api.server.settings.port}")
    director = Director(api, performer_id, random, fresh("user"))
    async with AsyncExitStack() as stack:
        # One socket of each audience stays, another leaves at random moments and resumes where it was.
        sockets: dict[tuple[str, str], tuple[LiveSocket, AsyncExitStack]] = {}

        async def come(audience: str, habit: str, before: LiveSocket | None = None) -> None:
            query = f"?epoch={before.epoch}&since={before.version}" if before else ""
            own = await stack.enter_async_context(AsyncExitStack())
            live = await own.enter_async_context(
                server.live(performer_id, token_of(server, audience, director), query=query)
            )
            if before is not None:
                live.continue_from(before)
            await live.until(lambda frame: frame["type"] in ("snapshot", "update"))
            if before is not None:
                assert live.frames[-1].get("recovered") is True
            sockets[audience, habit] = live, own

        for audience in AUDIENCES:
            for habit in (STAYS, COMES_BACK):
                await come(audience, habit)
        for turn in range(250):
            await director.act()
            if random.random() < 0.05:
                audience = random.choice(AUDIENCES)
                live, own = sockets[audience, COMES_BACK]
                if random.random() < 0.7:
                    await live.settled()
                await own.aclose()
                for _ in range(random.randrange(3)):
                    await director.act()
                await come(audience, COMES_BACK, live)
            if turn in (100, 249):
                for (audience, _), (live, _) in sockets.items():
                    await same_as_fresh(live, server, performer_id, token_of(server, audience, director))
        assert all(live.gaps == 0 for live, _ in sockets.values())
        for (audience, _), (live, _) in sockets.items():
            whole = audience in ("performer", "moderator", "admin")
            fields = {frozenset(item) for item in live.items.values()}
            assert fields <= {frozenset(WHOLE_FIELDS if whole else PUBLIC_FIELDS)}
    # The run has been one: a good part of the commands was possible, a good part was not.
    assert min(director.answers[status] for status in (200, 201, 409)) > 15


async def test_concurrent_commands_leave_no_gap(api: Api, server: Server, performer_id: str) -> None:
    director = Director(api, performer_id, Random("concurrent"), fresh("user"))
    async with server.live(performer_id) as live, server.live(performer_id, server.performer(performer_id)) as panel:
        await live.until("snapshot")
        await panel.until("snapshot")
        for _ in range(10):
            await asyncio.gather(*(director.act() for _ in range(20)))
        for one, token in ((live, None), (panel, server.performer(performer_id))):
            await same_as_fresh(one, server, performer_id, token)
            assert one.gaps == 0


# Privacy


async def test_nothing_private_reaches_another_viewer(api: Api, server: Server, performer_id: str) -> None:
    """Every private field has a unique value; no byte of one may reach another viewer."""
    marks: dict[str, str] = {}

    def mark(name: str) -> str:
        return marks.setdefault(name, fresh(f"private-{name}"))

    def private(turn: int) -> Json:
        return {
            "userId": mark(f"user{turn}"),
            "description": mark(f"description{turn}"),
            "metadata": {mark(f"metakey{turn}"): mark(f"metavalue{turn}")},
            "escrowTransactionId": mark(f"escrow{turn}"),
            "sourceEventId": mark(f"event{turn}"),
            "idempotencyKey": mark(f"key{turn}"),
            "tokens": 1000,
        }

    strangers: dict[str, str | None] = {
        "anonymous": None,
        "another user": server.viewer(fresh("user")),
        "another performer": server.performer(fresh("star")),
        "a feature": server.feature("dice"),
    }
    split = 123_456_789
    async with AsyncExitStack() as stack:
        live = {
            name: await stack.enter_async_context(server.live(performer_id, token)) for name, token in strangers.items()
        }
        panel = await stack.enter_async_context(server.live(performer_id, server.performer(performer_id)))
        for socket in (*live.values(), panel):
            await socket.until("snapshot")
        await api.intake(performer_id, **private(0), queueMode="off")
        items = [await api.intake(performer_id, **{**private(turn), "tokens": 2 * split}) for turn in range(1, 7)]
        epoch = (await api.queue(performer_id))["room"]["epoch"]
        await api.command("start", items[0])
        await api.command("pause", items[0])
        await api.command("resume", items[0])
        await api.command("complete", items[0], {"refundTokens": split})
        await api.command("abandon", items[1], {"reason": "technical_error"})
        await api.command("refund", items[2], {"reason": "admin_refund"})
        await api.command("start", items[4])
        version = await api.version(performer_id)
        await panel.reach(version)
        for name, token in strangers.items():
            socket = live[name]
            # Not up to the version: viewers are told nothing of the wallet's answers, which raise it as well.
            await socket.until_state(lambda each: each.items.get(items[4]["itemId"], {}).get("status") == "started")
            await socket.send({"type": "resync"})
            await socket.until("snapshot")
            for item in items:
                assert (await socket.command("start", itemId=item["itemId"]))["type"] == "error"
            again = await stack.enter_async_context(server.live(performer_id, token, query=f"?epoch={epoch}&since=0"))
            await again.until("update")
            heard = "".join((*socket.texts, *again.texts))
            heard += (await api.get(f"/v1/performers/{performer_id}/queue", token)).text
            heard += (await api.get(f"/v1/performers/{performer_id}/queue/depth", token)).text
            for private_name, value in marks.items():
                assert value not in heard, f"{name} has heard {private_name}"
            for money in (str(split), "escrow", "wallet", "settle", "refundReason", "abandonReason", "technical_error"):
                assert money not in heard, f"{name} has heard of {money}"
            assert {frozenset(item) for item in socket.items.values()} == {frozenset(PUBLIC_FIELDS)}
        # The performer has seen what the strangers have not: the marks were there to be seen.
        seen = "".join(panel.texts)
        assert all(value in seen for value in marks.values())


async def test_an_owner_sees_the_own_private_fields_and_not_anothers(
    api: Api, server: Server, performer_id: str
) -> None:
    mine: dict[str, Any] = {
        "userId": fresh("me"),
        "description": fresh("my-words"),
        "metadata": {"a": fresh("my-data")},
    }
    theirs: dict[str, Any] = {"userId": fresh("they"), "description": fresh("their-words")}
    await api.intake(performer_id, **theirs)
    await api.intake(performer_id, **mine)
    async with server.live(performer_id, server.viewer(mine["userId"])) as live:
        await live.until("snapshot")
        await api.intake(performer_id, **{**theirs, "description": fresh("more-words")})
        await api.start_next(performer_id)
        await live.reach(4)
        await live.settled()
        (own,) = live.mine.values()
        assert own["description"] == mine["description"]
        assert own["metadata"] == mine["metadata"]
        heard = "".join(live.texts)
        assert theirs["userId"] not in heard
        assert theirs["description"] not in heard
