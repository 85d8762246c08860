"""Our WebSocket protocol class, where it differs from uvicorn's: frames, close codes, buffers, and oversized
handshakes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from app.server.admission import Admission
from app.server.limits import Limits
from app.server.request_head import handshake
from app.server.websocket_protocol import QueueSocketProtocol
from app.wire.websocket import CloseCode, text_frame
from tests.support.live_socket import LiveSocket
from tests.support.raw_socket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, raw_live, tcp, upgrade
from tests.support.server import Api, Server, serving

LARGEST = 64 * 1024


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70000, 2_000_000])
def test_a_frame_is_read_as_one_by_any_client(length: int) -> None:
    payload = b"x" * length
    reader = StreamReader()
    reader.feed_data(text_frame(payload))
    parsing = Frame.parse(reader.read_exact, mask=False, max_size=None)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    frame = done.value.value
    assert (frame.opcode, frame.fin, frame.rsv1, bytes(frame.data)) == (Opcode.TEXT, True, False, payload)
    assert not reader.buffer


async def begun(raw: RawSocket) -> None:
    assert (await raw.next_json())["type"] == "welcome"
    assert (await raw.next_json())["type"] == "snapshot"


# Codes


@pytest.mark.parametrize(
    "payload", [b'{"type": "ping", "id": "\xff"}', b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98"], ids=repr
)
async def test_text_that_is_not_utf_8_is_a_bad_frame(server: Server, performer_id: str, payload: bytes) -> None:
    async with raw_live(server.port, performer_id) as raw:
        await begun(raw)
        await raw.send(TEXT, payload)
        assert await raw.close_code() == CloseCode.BAD_FRAME


async def test_a_frame_that_announces_too_much_is_refused_before_it_comes(server: Server, performer_id: str) -> None:
    async with raw_live(server.port, performer_id) as raw:
        await begun(raw)
        await raw.send_bytes(b"\x81\xff" + (2**62).to_bytes(8, "big") + b"mask")
        assert await raw.close_code() == CloseCode.BAD_FRAME


async def test_pieces_that_are_too_much_together_are_refused(server: Server, performer_id: str) -> None:
    async with raw_live(server.port, performer_id) as raw:
        await begun(raw)
        await raw.send(TEXT, b"x" * 40_000, final=False)
        await raw.send(CONTINUATION, b"x" * 40_000, final=False)
        assert await raw.close_code() == CloseCode.BAD_FRAME


async def test_a_binary_message_in_pieces_is_a_bad_frame(server: Server, performer_id: str) -> None:
    async with raw_live(server.port, performer_id) as raw:
        await begun(raw)
        await raw.send(BINARY, b"{", final=False)
        await raw.send(CONTINUATION, b"}")
        assert await raw.close_code() == CloseCode.BAD_FRAME


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param((TEXT, b"{}", {"masked": False}), id="unmasked"),
        pytest.param((CONTINUATION, b"{}", {}), id="a continuation of nothing"),
        pytest.param((3, b"{}", {}), id="an unknown opcode"),
        pytest.param((PING, b"x" * 126, {}), id="a ping too long"),
        pytest.param((PING, b"x", {"final": False}), id="a ping in pieces"),
        pytest.param((CLOSE, b"x", {}), id="half a close code"),
    ],
)
async def test_breaking_the_protocol_itself_has_its_own_code(
    server: Server, performer_id: str, broken: tuple[int, bytes, dict[str, bool]]
) -> None:
    opcode, payload, options = broken
    async with raw_live(server.port, performer_id) as raw:
        await begun(raw)
        await raw.send(opcode, payload, **options)
        assert await raw.close_code() == 1002


async def test_a_close_is_answered_with_its_own_code(server: Server, performer_id: str) -> None:
    async with raw_live(server.port, performer_id) as raw:
        await begun(raw)
        await raw.send(CLOSE, (1001).to_bytes(2, "big"))
        assert await raw.close_code() == 1001
        assert await raw.frame() is None


async def test_a_ping_is_answered_with_its_payload_even_between_pieces(server: Server, performer_id: str) -> None:
    async with raw_live(server.port, performer_id) as raw:
        await begun(raw)
        await raw.send(TEXT, b'{"type":', final=False)
        await raw.send(PING, b"are you there")
        pong = await raw.frame()
        assert pong is not None
        assert (pong.opcode, pong.payload) == (PONG, b"are you there")
        await raw.send(CONTINUATION, b' "ping"}')
        assert (await raw.next_json())["type"] == "pong"


async def test_frames_that_come_byte_by_byte_or_all_at_once_are_the_same(server: Server, performer_id: str) -> None:
    async with raw_live(server.port, performer_id) as raw:
        await begun(raw)
        frame = b"\x81\x90\0\0\0\0" + b'{"type": "ping"}'
        for at in range(len(frame)):
            await raw.send_bytes(frame[at : at + 1])
        assert (await raw.next_json())["type"] == "pong"
        await raw.send_bytes(frame * 10)
        for _ in range(10):
            assert (await raw.next_json())["type"] == "pong"


# Pings of ours


async def test_a_client_that_answers_no_ping_is_dropped_and_one_that_does_is_kept(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    limits = Limits(close_seconds=0.2)
    with serving(tmp_path_factory.mktemp("pings"), limits=limits, ping_seconds=0.15) as server:
        async with server.live("mira") as kept, raw_live(server.port, "mira", server.performer("mira")) as raw:
            await kept.until("snapshot")
            assert await raw.close_code() == 4003
            await kept.settled()


async def test_a_client_that_answers_no_ping_and_reads_nothing_is_dropped_too(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    limits = Limits(close_seconds=0.2)
    with serving(
        tmp_path_factory.mktemp("pings"), limits=limits, ping_seconds=0.3, disconnect_grace_seconds=0
    ) as server:
        async with server.api() as api, server.live("mira") as live:
            for _ in range(20):
                await api.intake("mira", description="é" * 2000, metadata={"a": "x" * 8000})
            async with raw_live(server.port, "mira", server.performer("mira")) as raw:
                with suppress(ConnectionError):  # on a slow machine it is dropped before it has sent them all
                    for _ in range(20):
                        await raw.send_json({"type": "resync"})
                await live.until_state(lambda live: bool(live.room.get("performerOnline")))
                await live.until_state(lambda live: not live.room["performerOnline"])


# Handshakes


async def test_an_upgrade_request_that_is_too_much_is_answered_and_forgotten(server: Server, performer_id: str) -> None:
    too_much = {
        upgrade(performer_id, None, "Cookie: " + "x" * 9000): (431, "HEADERS_TOO_LARGE"),
        upgrade(performer_id, None, *(f"X-{number}: x" for number in range(200))): (431, "HEADERS_TOO_LARGE"),
        upgrade(performer_id, None, "Sec-WebSocket-Extensions: a" + ";a" * 2000): (431, "HEADERS_TOO_LARGE"),
        upgrade(performer_id).replace(b"/live ", b"/live?x=" + b"x" * 9000 + b" "): (414, "URI_TOO_LONG"),
    }
    for request, refusal in too_much.items():
        async with tcp(server.port) as raw:
            await raw.send_bytes(request)
            (await raw.answer()).problem(*refusal)
            assert await raw.ended()
    async with server.live(performer_id) as live:
        await live.until("snapshot")


VERSION, KEY = b"Sec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (VERSION, b"Sec-WebSocket-Version: 8\r\n"),
        (VERSION, b""),
        (VERSION, VERSION + VERSION),
        (KEY, b"Sec-WebSocket-Key: short\r\n"),
        (KEY, b""),
        (KEY, KEY + KEY),
        (b"Host: test\r\n", b""),
        (b"Host: test\r\n", b"Host: test\r\nHost: other\r\n"),
        (KEY, KEY + b"Content-Length: 4\r\n"),
        (KEY, KEY + b"Transfer-Encoding: chunked\r\n"),
        (b"/live ", b"/live?name=\xc3\xbc "),
        (KEY, KEY + b"X-Name: a\x01b\r\n"),
        (KEY, KEY + b"X-N\xc3\xa4me: a\r\n"),
        (KEY, KEY + b"X-Name : a\r\n"),
        (KEY, KEY + b" folded: a\r\n"),
    ],
)
async def test_a_handshake_that_is_none_is_refused(server: Server, performer_id: str, old: bytes, new: bytes) -> None:
    request = upgrade(performer_id).replace(old, new)
    async with tcp(server.port) as raw:
        await raw.send_bytes(request.replace(b"Host: test", b"Host: test\r\nX-Request-ID: mine"))
        answer = await raw.answer()
        answer.problem(400, "BAD_REQUEST")
        if old not in (b"Host: test\r\n", b"/live "):
            assert answer.headers["x-request-id"] == "mine"
        if old == VERSION:
            assert answer.headers["sec-websocket-version"] == "13"
        assert await raw.ended()


async def test_a_header_of_a_handshake_may_hold_any_text(server: Server, performer_id: str) -> None:
    async with tcp(server.port) as raw:
        await raw.send_bytes(upgrade(performer_id, None, "Cookie: name=M\u00fcller"))
        assert (await raw.head()).startswith(b"HTTP/1.1 101")


async def test_an_offer_over_http_1_0_is_no_offer(server: Server, performer_id: str) -> None:
    async with tcp(server.port) as raw:
        await raw.send_bytes(upgrade(performer_id).replace(b"HTTP/1.1", b"HTTP/1.0"))
        (await raw.answer()).problem(404, "NOT_FOUND")


async def test_frames_that_come_with_the_handshake_are_not_lost(server: Server, performer_id: str) -> None:
    async with tcp(server.port) as raw:
        await raw.send_bytes(upgrade(performer_id) + b"\x81\x90\0\0\0\0" + b'{"type": "ping"}')
        assert (await raw.head()).startswith(b"HTTP/1.1 101")
        seen: list[str] = []
        while not seen or seen[-1] != "pong":
            seen.append((await raw.next_json())["type"])
        assert seen == ["welcome", "snapshot", "pong"]


async def test_an_upgrade_at_another_path_is_no_socket(server: Server) -> None:
    async with tcp(server.port) as raw:
        await raw.send_bytes(upgrade("star").replace(b"/queue/live", b"/queue/lives"))
        head = await raw.head()
        assert head.startswith(b"HTTP/1.1 404")
        assert b"content-type: application/problem+json" in head.lower()


async def test_a_handshake_answer_carries_its_request_id(server: Server, performer_id: str) -> None:
    async with tcp(server.port) as raw:
        await raw.send_bytes(upgrade(performer_id, None, "X-Request-ID: trace-me"))
        head = await raw.head()
        assert head.startswith(b"HTTP/1.1 101")
        assert b"x-request-id: trace-me" in head.lower()


# Frames and the connection's own


async def test_everybody_of_one_audience_is_sent_the_same_bytes(api: Api, server: Server, performer_id: str) -> None:
    async def watch(live: LiveSocket) -> str:
        await live.until("update")
        return live.texts[-1]

    async with (
        server.live(performer_id) as one,
        server.live(performer_id) as two,
        server.live(performer_id, server.viewer("ada")) as three,
    ):
        for live in (one, two, three):
            await live.until("snapshot")
        await api.intake(performer_id)
        assert len({await watch(live) for live in (one, two, three)}) == 1


async def test_a_connection_that_is_cut_by_the_network_is_forgotten(
    api: Api, server: Server, performer_id: str
) -> None:
    await api.change(performer_id, accepting=True)
    async with server.live(performer_id) as live:
        async with raw_live(server.port, performer_id, server.performer(performer_id)) as raw:
            await live.until_state(lambda live: bool(live.room.get("performerOnline")))
            raw.reset()
        await live.until_state(lambda live: not live.room["performerOnline"])


@pytest.mark.parametrize(
    "last_words",
    [(TEXT, b"\xff"), (TEXT, b"{}"), (CLOSE, b"\x03\xe8")],
    ids=["by the parser", "by us", "by the client"],
)
async def test_nothing_follows_a_close_frame_however_it_came_about(
    api: Api, server: Server, performer_id: str, last_words: tuple[int, bytes]
) -> None:
    async with raw_live(server.port, performer_id) as raw:
        await begun(raw)
        await raw.send(*last_words)
        # The connection still exists for a while: the peer has not answered, or has not got the close frame yet.
        for _ in range(3):
            await api.intake(performer_id)
        kinds = []
        while (frame := await raw.frame()) is not None:
            kinds.append(frame.opcode)
    assert kinds.count(CLOSE) == 1
    assert kinds[-1] == CLOSE


# The state that a broadcast looks at


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Accepting:
    """An application that accepts every socket and closes it after the first message."""

    def __init__(self) -> None:
        self.state = SimpleNamespace(admission=Admission(Limits(), now=time.monotonic))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.close", "code": 1000})


CLIENT_CLOSE = bytes([0x88, 0x82, 0, 0, 0, 0, 3, 0xE8])
CLIENT_HELLO = bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi"
ENDS: dict[str, Callable[[QueueSocketProtocol], None]] = {
    "the client closes": lambda protocol: protocol.data_received(CLIENT_CLOSE),
    "the client hangs up": lambda protocol: protocol.eof_received(),
    "the connection breaks": lambda protocol: protocol.connection_lost(OSError()),
    "a frame breaks the protocol": lambda protocol: protocol.data_received(b"\x83\x80\0\0\0\0"),
    "we cut it off": lambda protocol: protocol.cut_off(4000, "too slow"),
    "no pong comes": lambda protocol: protocol.keepalive_timeout(),
    "the server shuts down": lambda protocol: protocol.shutdown(),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_a_connection_takes_frames_from_its_handshake_until_its_end_begins(
    end: Callable[[QueueSocketProtocol], None],
) -> None:
    async with handshaken() as protocol:
        protocol.pause_writing()
        assert protocol.is_lagging
        protocol.resume_writing()
        assert not protocol.is_lagging
        end(protocol)
        # At once: a broadcast may come to it before anything else runs.
        assert not protocol.is_open


async def test_a_connection_takes_no_frames_once_the_application_has_closed_it() -> None:
    async with handshaken() as protocol:
        protocol.data_received(CLIENT_HELLO)
        await settled()
        assert not protocol.is_open


@asynccontextmanager
async def handshaken() -> AsyncIterator[QueueSocketProtocol]:
    config = uvicorn.Config(Accepting(), proxy_headers=False, ws_ping_interval=None, log_config=None)
    config.load()
    protocol = QueueSocketProtocol(config, ServerState(), {})
    _, *lines = upgrade("star").decode().strip().split("\r\n")
    headers = [(name.lower().encode(), value.encode()) for name, _, value in (line.partition(": ") for line in lines)]
    request = handshake(b"/v1/performers/star/queue/live", headers)
    protocol.take_over(FakeTransport(), request, b"", {"client": ("192.0.2.1", 0), "scheme": "http"})
    assert not protocol.is_open
    await settled()
    assert protocol.is_open
    yield protocol
    await settled()
    if protocol in protocol.connections:
        protocol.connection_lost(None)
    await settled()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
