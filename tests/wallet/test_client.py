import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2
import orjson
import pytest
from starlette.responses import JSONResponse, Response

from app.domain.operation import OperationKind, Receipt
from app.wallet.answers import Conflict, Escrow, EscrowStatus, NoEscrow, Rejected, Retry, Succeeded
from app.wallet.client import Wallet
from tests.support.builders import API_TOKEN, QUEUE_SECRET
from tests.support.ports import free_port
from tests.support.stores import HandClock
from tests.support.stream_server import listening, port_of
from tests.support.strict_wallet import StrictWallet, build_operation

pytestmark = pytest.mark.anyio

KINDS = list(OperationKind)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def theirs(clock: HandClock) -> StrictWallet:
    return StrictWallet(clock)


@pytest.fixture
async def wallet(theirs: StrictWallet, clock: HandClock) -> AsyncIterator[Wallet]:
    async with build_wallet("http://wallet.test", clock, transport=theirs.transport()) as wallet:
        yield wallet
    assert not theirs.violations


def build_wallet(base_url: str, clock: HandClock, **options: Any) -> Wallet:
    values: dict[str, Any] = {"api_token": API_TOKEN, "queue_secret": QUEUE_SECRET, "timeout_seconds": 30.0, **options}
    return Wallet(base_url=base_url, clock=clock, **values)


async def test_a_settlement_is_sent_as_the_interface_says(wallet: Wallet, theirs: StrictWallet) -> None:
    outcome = await wallet.execute(build_operation(OperationKind.SETTLE))
    assert outcome == Succeeded(receipt=Receipt(transaction_id="tx-1", settled_tokens=100, refunded_tokens=0))
    (seen,) = theirs.seen
    assert (seen.method, seen.target) == ("POST", "/wallets/escrow/escrow-1/settle")
    assert seen.headers["x-idempotency-key"] == "queue-0000000a-0000-7000-8000-000000000000-settle"
    assert seen.fields == {
        "modelId": "star",
        "amount": 100,
        "queueItemId": "0000000a-0000-7000-8000-000000000000",
        "reason": "performance_completed",
        "metadata": {"operationId": "operation-1"},
    }


async def test_a_refund_is_sent_as_the_interface_says(wallet: Wallet, theirs: StrictWallet) -> None:
    outcome = await wallet.execute(build_operation(OperationKind.REFUND, reason="user_cancelled"))
    assert outcome == Succeeded(receipt=Receipt(transaction_id="tx-1", settled_tokens=0, refunded_tokens=100))
    (seen,) = theirs.seen
    assert (seen.method, seen.target) == ("POST", "/wallets/escrow/escrow-1/refund")
    assert seen.headers["x-idempotency-key"] == "queue-0000000a-0000-7000-8000-000000000000-refund"
    assert seen.fields == {
        "userId": "viewer-1",
        "amount": 100,
        "queueItemId": "0000000a-0000-7000-8000-000000000000",
        "reason": "user_cancelled",
        "metadata": {"operationId": "operation-1"},
    }


async def test_a_split_is_sent_as_the_interface_says(wallet: Wallet, theirs: StrictWallet) -> None:
    outcome = await wallet.execute(build_operation(OperationKind.PARTIAL))
    assert outcome == Succeeded(receipt=Receipt(transaction_id="tx-1", settled_tokens=70, refunded_tokens=30))
    (seen,) = theirs.seen
    assert (seen.method, seen.target) == ("POST", "/wallets/escrow/escrow-1/partial-settle")
    assert seen.headers["x-idempotency-key"] == "queue-0000000a-0000-7000-8000-000000000000-partial"
    assert seen.fields == {
        "userId": "viewer-1",
        "modelId": "star",
        "refundAmount": 30,
        "settleAmount": 70,
        "queueItemId": "0000000a-0000-7000-8000-000000000000",
        "reason": "partial_performance",
        "metadata": {"operationId": "operation-1"},
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_the_authorisation_token_names_the_whole_decision(
    wallet: Wallet, theirs: StrictWallet, clock: HandClock, kind: OperationKind
) -> None:
    operation = build_operation(kind)
    await wallet.execute(operation)
    issued = int(clock().timestamp())
    assert theirs.seen[0].claims == {
        "sub": "queue_service",
        "role": "queue_service",
        "type": {"settle": "queue_settlement", "refund": "queue_refund", "partial": "queue_partial_settlement"}[kind],
        "queueItemId": operation.item_id,
        "escrowId": "escrow-1",
        "modelId": "star",
        "amount": 100,
        "reason": operation.reason,
        "iat": issued,
        "exp": issued + 300,
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_an_attempt_repeats_key_and_body_with_a_token_of_its_own(
    wallet: Wallet, theirs: StrictWallet, clock: HandClock, kind: OperationKind
) -> None:
    operation = build_operation(kind)
    for _ in range(3):
        await wallet.execute(operation)
        clock.wait(400)
    assert len({seen.body for seen in theirs.seen}) == 1
    assert len({seen.headers["x-idempotency-key"] for seen in theirs.seen}) == 1
    assert len({seen.headers["x-queue-auth-token"] for seen in theirs.seen}) == 3
    assert len({seen.headers["x-request-id"] for seen in theirs.seen}) == 3


async def test_the_status_of_an_escrow_is_looked_up_under_its_user(wallet: Wallet, theirs: StrictWallet) -> None:
    found = await wallet.escrow("viewer-1", "escrow-1", idempotency_key="queue-x-settle")
    assert found == Escrow(escrow_id="escrow-1", user_id="viewer-1", amount=100, status=EscrowStatus.HELD)
    (seen,) = theirs.seen
    assert (seen.method, seen.target) == ("GET", "/wallets/viewer-1/escrow/escrow-1")
    assert seen.headers["x-idempotency-key"] == "queue-x-settle"


async def test_a_wallet_that_wants_uuids_gets_the_uuid_of_each_key(theirs: StrictWallet, clock: HandClock) -> None:
    theirs.wants_uuid_keys = True
    async with build_wallet("http://wallet.test", clock, transport=theirs.transport(), uuid_keys=True) as wallet:
        assert isinstance(await wallet.execute(build_operation(OperationKind.REFUND)), Succeeded)
        await wallet.escrow(
            "viewer-1", "escrow-1", idempotency_key=build_operation(OperationKind.REFUND).idempotency_key
        )
    assert not theirs.violations
    order, look_up = (UUID(seen.headers["x-idempotency-key"]) for seen in theirs.seen)
    assert order == look_up
    assert order.version == 5


async def test_a_base_url_keeps_its_path(theirs: StrictWallet, clock: HandClock) -> None:
    paths = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["raw_path"])
        await Response(status_code=503)(scope, receive, send)

    transport = httpx2.ASGITransport(app=app)
    async with build_wallet("https://pay.test/api/v2/", clock, transport=transport) as wallet:
        await wallet.execute(build_operation())
    assert paths == [b"/api/v2/wallets/escrow/escrow-1/settle"]


async def test_an_id_cannot_leave_its_place_in_the_path(wallet: Wallet, theirs: StrictWallet) -> None:
    escrow_id = "a/../b?c=d#e %41é"
    await wallet.execute(build_operation(escrow_transaction_id=escrow_id))
    await wallet.escrow("viewer-1", escrow_id)
    escaped = "a%2F..%2Fb%3Fc%3Dd%23e%20%2541%C3%A9"
    assert [seen.target for seen in theirs.seen] == [
        f"/wallets/escrow/{escaped}/settle",
        f"/wallets/viewer-1/escrow/{escaped}",
    ]
    assert theirs.seen[0].claims["escrowId"] == escrow_id


@pytest.mark.parametrize("escrow_id", [".", "..", ""])
async def test_an_id_that_no_path_can_carry_is_not_sent(wallet: Wallet, theirs: StrictWallet, escrow_id: str) -> None:
    assert isinstance(await wallet.execute(build_operation(escrow_transaction_id=escrow_id)), Rejected)
    assert isinstance(await wallet.escrow("viewer-1", escrow_id), NoEscrow)
    assert isinstance(await wallet.escrow("..", "escrow-1"), NoEscrow)
    assert not theirs.seen


async def test_without_an_api_token_there_is_no_authorisation_header(clock: HandClock) -> None:
    headers: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers.extend(name for name, _ in scope["headers"])
        await Response(status_code=401)(scope, receive, send)

    transport = httpx2.ASGITransport(app=app)
    async with build_wallet("http://wallet.test", clock, api_token=None, transport=transport) as wallet:
        await wallet.execute(build_operation())
    assert b"x-queue-auth-token" in headers
    assert b"authorization" not in headers


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (Response(status_code=400), Rejected),
        (Response(status_code=401), Rejected),
        (Response(status_code=403), Rejected),
        (Response(status_code=404), Rejected),
        (Response(status_code=409), Conflict),
        (Response(status_code=422), Rejected),
        (Response(status_code=429), Retry),
        (Response(status_code=500), Retry),
        (Response(status_code=503), Retry),
        (Response("<html>", 200), Retry),
        (JSONResponse({"transactionId": "tx", "settledAmount": 99}), Retry),
        (JSONResponse({"transactionId": "tx", "settledAmount": 100}), Succeeded),
    ],
    ids=lambda value: str(getattr(value, "status_code", getattr(value, "__name__", value))),
)
async def test_an_answer_meets_its_class(
    wallet: Wallet, theirs: StrictWallet, answer: Response, result: type[object]
) -> None:
    theirs.script.append(answer)
    assert isinstance(await wallet.execute(build_operation()), result)


async def test_retry_after_reaches_the_caller(wallet: Wallet, theirs: StrictWallet) -> None:
    theirs.script.append(Response(status_code=429, headers={"Retry-After": "17"}))
    outcome = await wallet.execute(build_operation())
    assert isinstance(outcome, Retry)
    assert outcome.retry_after_seconds == 17.0
    theirs.script.append(Response(status_code=503, headers={"Retry-After": "Sat, 31 Jan 2026 12:01:00 GMT"}))
    outcome = await wallet.execute(build_operation())
    assert isinstance(outcome, Retry)
    assert outcome.retry_after_seconds == 60.0


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Response(status_code=404), NoEscrow),
        (Response(status_code=403), Rejected),
        (Response(status_code=503), Retry),
        (Response(status_code=409), Retry),
        (Response("<html>", 200), Retry),
        (JSONResponse({"escrowId": "another", "userId": "viewer-1", "amount": 100, "status": "held"}), Retry),
        (JSONResponse({"escrowId": "escrow-1", "userId": "another", "amount": 100, "status": "held"}), Retry),
        (JSONResponse({"escrowId": "escrow-1", "userId": "viewer-1", "amount": 100, "status": "odd"}), Retry),
    ],
)
async def test_a_look_up_that_fails_says_how(
    wallet: Wallet, theirs: StrictWallet, answer: Response, found: type[object]
) -> None:
    theirs.script.append(answer)
    assert isinstance(await wallet.escrow("viewer-1", "escrow-1"), found)


async def test_a_redirect_is_not_followed(wallet: Wallet, theirs: StrictWallet) -> None:
    theirs.script.append(Response(status_code=307, headers={"Location": "http://elsewhere.test/"}))
    assert isinstance(await wallet.execute(build_operation()), Retry)
    assert len(theirs.seen) == 1


async def test_cookies_are_not_kept(wallet: Wallet, theirs: StrictWallet) -> None:
    theirs.script.append(Response(status_code=503, headers={"Set-Cookie": "pod=7; Path=/"}))
    await wallet.execute(build_operation())
    await wallet.execute(build_operation())
    assert not any("cookie" in seen.headers for seen in theirs.seen)


async def test_a_compressed_answer_is_not_unpacked(wallet: Wallet, theirs: StrictWallet) -> None:
    packed = gzip.compress(orjson.dumps({"transactionId": "tx", "settledAmount": 100}))
    theirs.script.append(Response(packed, headers={"Content-Encoding": "gzip"}))
    assert isinstance(await wallet.execute(build_operation()), Retry)
    assert theirs.seen[0].headers["accept-encoding"] == "identity"


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Loopback:
    """A minimal server on a real socket, for failures that an ASGI app cannot make."""

    url: str = ""
    connections: int = 0
    listener: Any = None


@pytest.fixture
def serve() -> Callable[[Talk], AbstractAsyncContextManager[Loopback]]:
    @asynccontextmanager
    async def running(talk: Talk) -> AsyncIterator[Loopback]:
        loopback = Loopback()

        async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            loopback.connections += 1
            await talk(reader, writer)

        async with listening(counted) as loopback.listener:
            loopback.url = f"http://127.0.0.1:{port_of(loopback.listener)}"
            yield loopback

    return running


Serve = Callable[[Talk], AbstractAsyncContextManager[Loopback]]


async def read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    await reader.readexactly(length)


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


RECEIPT = http(orjson.dumps({"transactionId": "tx-1", "settledAmount": 100}))


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(RECEIPT)
        await writer.drain()


async def test_connections_are_kept_and_used_again(serve: Serve, clock: HandClock) -> None:
    async with serve(answer_all) as server, build_wallet(server.url, clock) as wallet:
        for _ in range(20):
            assert isinstance(await wallet.execute(build_operation()), Succeeded)
        assert server.connections == 1


async def test_connections_are_bounded(serve: Serve, clock: HandClock) -> None:
    async with serve(answer_all) as server, build_wallet(server.url, clock, connections=3) as wallet:
        outcomes = await asyncio.gather(*(wallet.execute(build_operation()) for _ in range(40)))
        assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
        assert server.connections <= 3


async def test_a_wallet_that_is_not_there_is_tried_again(clock: HandClock) -> None:
    async with build_wallet(f"http://127.0.0.1:{free_port()}", clock) as wallet:
        outcome = await wallet.execute(build_operation())
        found = await wallet.escrow("viewer-1", "escrow-1")
    assert outcome == found == Retry(problem="the wallet could not be reached", reached=False)


async def test_every_call_is_measured_with_its_kind_its_outcome_and_its_time(
    clock: HandClock, theirs: StrictWallet
) -> None:
    measured: list[tuple[str, str]] = []

    def observe(kind: str, outcome: str, seconds: float) -> None:
        assert 0 <= seconds < 30
        measured.append((kind, outcome))

    async with build_wallet("http://wallet.test", clock, transport=theirs.transport(), observe=observe) as wallet:
        for kind in KINDS:
            await wallet.execute(build_operation(kind))
        await wallet.execute(build_operation(escrow_transaction_id=".."))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with build_wallet(f"http://127.0.0.1:{taken.getsockname()[1]}", clock, observe=observe) as wallet:
            await wallet.execute(build_operation())
            await wallet.escrow("viewer-1", "escrow-1")
    assert measured[:3] == [(str(kind), "succeeded") for kind in KINDS]
    assert measured[3:] == [(str(build_operation().kind), "unreached"), ("escrow", "unreached")]


async def test_a_silent_wallet_is_given_up_and_does_not_use_up_the_pool(serve: Serve, clock: HandClock) -> None:
    talkative = False

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if talkative:
            await answer_all(reader, writer)
        await reader.read()

    async with (
        serve(silent) as server,
        build_wallet(server.url, clock, timeout_seconds=0.3, connections=2) as wallet,
    ):
        for _ in range(3):
            outcomes = await asyncio.gather(*(wallet.execute(build_operation()) for _ in range(2)))
            assert outcomes == [Retry(problem="the wallet did not answer in time")] * 2
        talkative = True
        # Each abandoned connection was closed: the two places of the pool are free for the wallet that speaks again.
        async with asyncio.timeout(20):
            while not isinstance(await wallet.execute(build_operation()), Succeeded):
                pass


async def test_a_dripping_answer_is_cut_off_in_total(serve: Serve, clock: HandClock) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serve(drip) as server, build_wallet(server.url, clock, timeout_seconds=0.2) as wallet:
        assert await wallet.execute(build_operation()) == Retry(problem="the wallet did not answer in time")


async def test_an_endless_answer_is_not_read_to_its_end(serve: Serve, clock: HandClock) -> None:
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    async with serve(flood) as server, build_wallet(server.url, clock) as wallet:
        outcome = await wallet.execute(build_operation())
    assert outcome == Retry(problem="the wallet answered 200 without a readable receipt")
    assert written < 50_000_000, "what the kernel buffers, and no more"


@pytest.mark.parametrize(
    "part",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", RECEIPT[:-10], b"\x00\x01 what is this\r\n\r\n"],
    ids=["nothing", "half a head", "half a body", "no http"],
)
async def test_a_connection_that_breaks_is_tried_again(serve: Serve, clock: HandClock, part: bytes) -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(part)
        await writer.drain()

    async with serve(breaking) as server, build_wallet(server.url, clock) as wallet:
        outcome = await wallet.execute(build_operation())
    assert outcome == Retry(problem="the connection to the wallet broke before it answered")


async def test_one_pooled_connection_that_breaks_is_tried_again_at_once(serve: Serve, clock: HandClock) -> None:
    async def closing_after_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(RECEIPT)
        await writer.drain()
        await read_request(reader)

    async with serve(closing_after_one) as server, build_wallet(server.url, clock) as wallet:
        for _ in range(2):
            assert isinstance(await wallet.execute(build_operation()), Succeeded)
        assert server.connections == 2


async def test_after_a_broken_connection_the_wallet_may_have_been_reached(serve: Serve, clock: HandClock) -> None:
    async def last_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        listener.close()

    async with serve(last_one) as server:
        listener = server.listener
        async with build_wallet(server.url, clock) as wallet:
            outcome = await wallet.execute(build_operation())
    assert outcome == Retry(problem="the wallet could not be reached", reached=True)


async def test_a_cancelled_attempt_is_not_swallowed(serve: Serve, clock: HandClock) -> None:
    arrived = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await reader.read()

    async with serve(silent) as server, build_wallet(server.url, clock) as wallet:
        attempt = asyncio.create_task(wallet.execute(build_operation()))
        await arrived.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt


async def test_no_problem_shows_a_token_or_a_body(wallet: Wallet, theirs: StrictWallet) -> None:
    for status in (200, 302, 400, 401, 403, 404, 409, 422, 429, 500, 503):
        theirs.script.append(Response("the body with viewer-1 in it", status))
        shown = repr(await wallet.execute(build_operation()))
        for private in (API_TOKEN, QUEUE_SECRET, "viewer-1", "the body"):
            assert private not in shown
