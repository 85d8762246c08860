"""permessage-deflate: which offers are accepted, both directions, and that a frame is compressed once."""

import json
import zlib

import pytest

from app.domain.view import View
from tests.support.hub_harness import COMPRESSED as COMPRESSED_TEXT
from tests.support.hub_harness import PLAIN, FakeConnection, World, rest
from tests.support.raw_socket import COMPRESSED, CONTINUATION, TEXT, RawFrame, RawSocket, raw_live, tcp, upgrade
from tests.support.server import Api, Json, Server

BOTH = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
OFFER = "Sec-WebSocket-Extensions: permessage-deflate"


def deflate(payload: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflate(frame: RawFrame, *, window_bits: int = 12) -> bytes:
    """Inflate each message by itself, without context takeover."""
    assert frame.is_compressed
    return zlib.decompressobj(-window_bits).decompress(frame.payload + b"\x00\x00\xff\xff")


async def compressed(raw: RawSocket, kind: str) -> RawFrame:
    """The next compressed frame of a type."""
    while (frame := await raw.frame()) is not None:
        if frame.is_compressed and json.loads(inflate(frame))["type"] == kind:
            return frame
    raise EOFError("the connection has ended")


# Negotiation


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        (["permessage-deflate"], BOTH),
        (["permessage-deflate; client_max_window_bits"], BOTH),
        (["permessage-deflate; client_no_context_takeover; server_no_context_takeover"], BOTH),
        (["permessage-deflate; server_max_window_bits=15"], f"{BOTH}; server_max_window_bits=15"),
        (["permessage-deflate; server_max_window_bits=12"], f"{BOTH}; server_max_window_bits=12"),
        (["permessage-deflate; client_max_window_bits=10"], f"{BOTH}; client_max_window_bits=10"),
        (["permessage-deflate; server_max_window_bits=11"], None),
        (["permessage-deflate; server_max_window_bits=8"], None),
        (["permessage-deflate; server_max_window_bits=9, permessage-deflate"], BOTH),
        (["permessage-deflate; server_max_window_bits=9", "permessage-deflate"], BOTH),
        (["permessage-deflate, permessage-deflate"], BOTH),
        (["permessage-deflate; server_max_window_bits=99"], None),
        (["permessage-deflate; unheard_of"], None),
        (["permessage-brotli"], None),
        ([], None),
    ],
)
async def test_an_offer_is_accepted_if_frames_made_once_for_everybody_satisfy_it(
    server: Server, performer_id: str, offered: list[str], answer: str | None
) -> None:
    async with tcp(server.port) as raw:
        lines = [f"Sec-WebSocket-Extensions: {each}" for each in offered]
        await raw.send_bytes(upgrade(performer_id, None, *lines))
        head = (await raw.head()).decode()
        assert head.startswith("HTTP/1.1 101")
        answers = [line for line in head.split("\r\n") if line.lower().startswith("sec-websocket-extensions:")]
        assert [line.partition(":")[2].strip() for line in answers] == ([answer] if answer else [])


async def test_only_one_who_has_offered_it_is_sent_compressed_frames(
    api: Api, server: Server, performer_id: str
) -> None:
    async with raw_live(server.port, performer_id) as plain, raw_live(server.port, performer_id, None, OFFER) as small:
        for raw in (plain, small):
            assert (await raw.next_json())["type"] == "welcome"
        assert (await plain.next_json())["type"] == "snapshot"
        await compressed(small, "snapshot")
        await api.intake(performer_id, title="é" * 60)
        update = await plain.frame()
        assert update is not None
        assert not update.is_compressed
        shorter = await compressed(small, "update")
        assert inflate(shorter) == update.payload
        assert len(shorter.payload) < 0.65 * len(update.payload)


async def test_a_client_library_sees_the_same_room_compressed(api: Api, server: Server, performer_id: str) -> None:
    items = [await api.intake(performer_id) for _ in range(20)]
    for token in (None, server.performer(performer_id), server.viewer(items[3]["userId"])):
        async with server.live(performer_id, token, compression="deflate") as live, server.live(performer_id) as plain:
            assert live.connection.protocol.extensions
            await live.until("snapshot")
            await plain.until("snapshot")
            assert len(live.mine) == (1 if token == server.viewer(items[3]["userId"]) else 0)
            item = await api.intake(performer_id)
            await api.command("abandon", item)
            await live.reach(await api.version(performer_id))
            assert item["itemId"] not in live.items
            fresh = await server_view(server, performer_id, token)
            # The panel of the turn before has left, and its absence stops the clock on stage at any moment.
            while live.version != fresh["version"]:
                await live.reach(fresh["version"])
                fresh = await server_view(server, performer_id, token)
            assert live.view()["items"] == fresh["items"]
            assert await live.command("start-next") is not None
            async with server.live(
                performer_id, token, compression="deflate", query=f"?epoch={live.epoch}&since=0"
            ) as back:
                back.version = 0
                assert (await back.until("update"))["recovered"]
                await live.reach(back.version)
                assert set(back.items) == set(live.items)


async def server_view(server: Server, performer_id: str, token: str | None) -> Json:
    """A fresh, uncompressed snapshot."""
    async with server.live(performer_id, token) as fresh_one:
        return await fresh_one.until("snapshot")


# Inbound frames


async def test_compressed_frames_are_read_whole_or_in_pieces(server: Server, performer_id: str) -> None:
    async with raw_live(server.port, performer_id, None, OFFER) as raw:
        ping = deflate(b'{"type":"ping","id":"1"}')
        await raw.send(TEXT | COMPRESSED, ping)
        assert await next_kind(raw) == "pong"
        await raw.send(TEXT | COMPRESSED, ping[:5], final=False)
        await raw.send(CONTINUATION, ping[5:])
        assert await next_kind(raw) == "pong"
        await raw.send_json({"type": "ping"})
        assert await next_kind(raw) == "pong"


async def next_kind(raw: RawSocket) -> str:
    """The type of the next plain frame that is no welcome."""
    while (frame := await raw.frame()) is not None:
        if frame.opcode == TEXT and not frame.is_compressed and frame.json["type"] != "welcome":
            return str(frame.json["type"])
    raise EOFError("the connection has ended")


async def test_a_small_frame_that_inflates_beyond_the_limit_ends_the_connection(
    server: Server, performer_id: str
) -> None:
    bomb = deflate(b'{"type":"auth","token":"' + b"a" * 50_000_000 + b'"}')
    assert len(bomb) < 64 * 1024
    async with raw_live(server.port, performer_id, None, OFFER) as raw:
        await raw.send(TEXT | COMPRESSED, bomb)
        assert await raw.close_code() == 4501


async def test_a_message_that_does_not_inflate_ends_the_connection(server: Server, performer_id: str) -> None:
    async with raw_live(server.port, performer_id, None, OFFER) as raw:
        await raw.send(TEXT | COMPRESSED, b"\xff" * 40)
        assert await raw.close_code() == 1002


async def test_a_compressed_frame_that_was_not_agreed_ends_the_connection(server: Server, performer_id: str) -> None:
    async with raw_live(server.port, performer_id) as raw:
        await raw.send(TEXT | COMPRESSED, deflate(b'{"type":"ping"}'))
        assert await raw.close_code() == 1002


# Once for everybody


async def test_a_frame_is_compressed_once_for_everybody_of_an_audience() -> None:
    world = World()
    audiences = {
        (view, deflates): [FakeConnection(deflates=deflates) for _ in range(120)]
        for view in View
        for deflates in (True, False)
    }
    for (view, _), lines in audiences.items():
        for line in lines:
            await world.join(line, view=view)
    world.intake()
    world.publish()
    await rest()
    for (_, deflates), lines in audiences.items():
        assert len({id(line.written[1]) for line in lines}) == 1
        assert lines[0].written[1][0] == (COMPRESSED_TEXT if deflates else PLAIN)
    for view in View:
        (compressed_one, *_), (plain_one, *_) = audiences[view, True], audiences[view, False]
        assert compressed_one.frames == plain_one.frames


@pytest.mark.parametrize("items", [0, 1, 50])
async def test_a_snapshot_is_put_together_of_parts_that_are_compressed_once(items: int) -> None:
    world = World()
    for _ in range(items):
        world.intake(user_id="ada")
    compressed_one, plain = FakeConnection(deflates=True), FakeConnection()
    await world.join(compressed_one, sub="ada")
    await world.join(plain, sub="ada")
    assert compressed_one.frames == plain.frames
    assert len(plain.frames[0]["mine"]) == items
    assert len(compressed_one.written[0]) < len(plain.written[0])
