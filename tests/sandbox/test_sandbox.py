import asyncio
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import httpx2
import jwt
import orjson
import pytest
from sqlalchemy import Engine
from starlette.applications import Starlette

from app.domain.operation import Operation, OperationKind
from app.sandbox import create_sandbox
from app.sandbox.faults import FaultKind, FaultRates, Faults
from app.sandbox.ledger_audit import audit, read_totals
from app.wallet.answers import (
    Conflict,
    Escrow,
    EscrowStatus,
    NoEscrow,
    Rejected,
    Retry,
    Succeeded,
    WalletAnswer,
    classify_escrow,
)
from app.wallet.client import Wallet, authorisation, order_body
from tests.support.builders import API_TOKEN, NOON, QUEUE_SECRET
from tests.support.sandbox_audit import memory_engine
from tests.support.stores import HandClock
from tests.support.strict_wallet import build_operation

pytestmark = pytest.mark.anyio

KINDS = list(OperationKind)
ENDPOINTS = {OperationKind.SETTLE: "settle", OperationKind.REFUND: "refund", OperationKind.PARTIAL: "partial-settle"}


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = memory_engine()
    yield engine
    assert audit(engine) == []
    assert read_totals(engine).balanced
    engine.dispose()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def faults() -> Faults:
    return Faults(Random(11))


@pytest.fixture
def app(engine: Engine, clock: HandClock, faults: Faults) -> Starlette:
    return create_sandbox(engine, queue_secret=QUEUE_SECRET, api_token=API_TOKEN, clock=clock, faults=faults)


@pytest.fixture
async def http(app: Starlette) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app),
        base_url="http://sandbox.test",
        headers={"Authorization": f"Bearer {API_TOKEN}"},
    ) as client:
        await client.post(
            "/grants", json={"userId": "viewer-1", "amount": 1000}, headers={"X-Idempotency-Key": "grant-1"}
        )
        yield client


@pytest.fixture
async def wallet(app: Starlette, clock: HandClock, http: httpx2.AsyncClient) -> AsyncIterator[Wallet]:
    """The service's own client, in front of the sandbox, after the grant."""
    async with Wallet(
        base_url="http://sandbox.test",
        api_token=API_TOKEN,
        queue_secret=QUEUE_SECRET,
        timeout_seconds=30,
        clock=clock,
        transport=httpx2.ASGITransport(app=app),
    ) as wallet:
        yield wallet


async def held(http: httpx2.AsyncClient, amount: int = 100, *, key: str = "spin-1") -> str:
    """The id of an escrow that the wallet holds for viewer-1."""
    response = await http.post(
        "/wallets/viewer-1/escrow/hold",
        json={"amount": amount, "reason": "a spin", "queueItemId": "q-1", "featureType": "wheel"},
        headers={"X-Idempotency-Key": key},
    )
    assert response.status_code == 201
    return str(response.json()["escrowId"])


async def send(
    http: httpx2.AsyncClient,
    operation: Operation,
    *,
    claims: dict[str, Any] | None = None,
    secret: str = QUEUE_SECRET,
    body: dict[str, Any] | bytes | None = None,
    headers: dict[str, str | None] | None = None,
) -> httpx2.Response:
    """Send the operation's request, with the changes that a test wants. A header of None is left out."""
    token = authorisation(operation, QUEUE_SECRET, NOON)
    if claims is not None or secret != QUEUE_SECRET:
        honest = jwt.decode(token, options={"verify_signature": False})
        changed = {name: value for name, value in (honest | (claims or {})).items() if value is not None}
        token = jwt.encode(changed, secret, algorithm="HS256")
    content = order_body(operation)
    if isinstance(body, dict):
        merged = {name: value for name, value in (orjson.loads(content) | body).items() if value is not ...}
        content = orjson.dumps(merged)
    elif body is not None:
        content = body
    sent = {"X-Queue-Auth-Token": token, "X-Idempotency-Key": operation.idempotency_key, **(headers or {})}
    return await http.post(
        f"/wallets/escrow/{operation.escrow_transaction_id}/{ENDPOINTS[operation.kind]}",
        content=content,
        headers={name: value for name, value in sent.items() if value is not None},
    )


async def test_a_hold_answers_201_with_the_escrow(http: httpx2.AsyncClient) -> None:
    response = await http.post(
        "/wallets/viewer-1/escrow/hold",
        json={"amount": 100, "reason": "a spin", "queueItemId": "q-1", "featureType": "wheel", "metadata": {}},
        headers={"X-Idempotency-Key": "spin-1"},
    )
    assert response.status_code == 201
    body = response.json()
    status = await http.get(f"/wallets/viewer-1/escrow/{body['escrowId']}")
    assert status.status_code == 200
    assert status.json() == {
        "escrowId": body["escrowId"],
        "userId": "viewer-1",
        "amount": 100,
        "status": "held",
        "queueItemId": "q-1",
        "featureType": "wheel",
        "reason": "a spin",
        "createdAt": "2026-01-31T12:00:00.000Z",
        "settledAmount": None,
        "refundedAmount": None,
        "resolvedAt": None,
    }
    assert body == {
        "transactionId": body["transactionId"],
        "escrowId": body["escrowId"],
        "previousBalance": 1000,
        "newAvailableBalance": 900,
        "escrowBalance": 100,
        "timestamp": "2026-01-31T12:00:00.000Z",
    }
    await held(http, 50, key="spin-2")
    await send(http, build_operation(escrow_transaction_id=body["escrowId"]))
    third = await http.post(
        "/wallets/viewer-1/escrow/hold",
        json={"amount": 25, "reason": "a spin", "queueItemId": "q-3", "featureType": "wheel"},
        headers={"X-Idempotency-Key": "spin-3"},
    )
    assert (third.json()["previousBalance"], third.json()["escrowBalance"]) == (850, 75)


async def test_a_hold_without_its_item_is_refused_with_a_message(http: httpx2.AsyncClient) -> None:
    response = await http.post(
        "/wallets/viewer-1/escrow/hold",
        json={"amount": 100, "reason": "a spin", "featureType": "wheel"},
        headers={"X-Idempotency-Key": "spin-1"},
    )
    assert response.status_code == 422
    assert "queueItemId" in response.json()["message"]


async def test_a_hold_beyond_the_balance_is_402(http: httpx2.AsyncClient) -> None:
    response = await http.post(
        "/wallets/viewer-1/escrow/hold",
        json={"amount": 1001, "reason": "a spin", "queueItemId": "q-1", "featureType": "wheel"},
        headers={"X-Idempotency-Key": "spin-1"},
    )
    assert response.status_code == 402


ANSWERS: dict[OperationKind, dict[str, Any]] = {
    OperationKind.SETTLE: {"settledAmount": 100, "modelEarnedBalance": 100},
    OperationKind.REFUND: {"refundedAmount": 100, "userAvailableBalance": 1000},
    OperationKind.PARTIAL: {
        "settledAmount": 70,
        "refundedAmount": 30,
        "userAvailableBalance": 930,
        "modelEarnedBalance": 70,
    },
}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_operation_answers_as_the_interface_says_and_again_for_its_key(
    http: httpx2.AsyncClient, wallet: Wallet, kind: OperationKind
) -> None:
    operation = build_operation(kind, escrow_transaction_id=await held(http))
    first, again = await send(http, operation), await send(http, operation)
    assert (first.status_code, again.status_code) == (200, 200)
    body = first.json()
    assert body.pop("transactionId")
    assert body.pop("timestamp") == "2026-01-31T12:00:00.000Z"
    assert body == ANSWERS[kind]
    assert again.json() == first.json()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_service_s_own_client_is_understood(
    http: httpx2.AsyncClient, wallet: Wallet, clock: HandClock, engine: Engine, kind: OperationKind
) -> None:
    operation = build_operation(kind, escrow_transaction_id=await held(http))
    outcome = await wallet.execute(operation)
    assert isinstance(outcome, Succeeded)
    clock.wait(3600)
    assert await wallet.execute(operation) == outcome
    books = read_totals(engine)
    assert (books.available, books.escrow, books.earned) == (
        900 + operation.refund_tokens,
        0,
        operation.settle_tokens,
    )


async def test_an_escrow_id_with_a_slash_is_found_where_it_is(wallet: Wallet) -> None:
    assert isinstance(await wallet.execute(build_operation(escrow_transaction_id="a/b c")), Rejected)
    assert isinstance(await wallet.escrow("viewer-1", "a/b c"), NoEscrow)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unknown_escrow_is_404(http: httpx2.AsyncClient, kind: OperationKind) -> None:
    assert (await send(http, build_operation(kind))).status_code == 404
    assert (await http.get("/wallets/viewer-1/escrow/escrow-1")).status_code == 404


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lenient_sandbox_carries_out_orders_for_made_up_escrows_but_only_signed_ones(
    engine: Engine, clock: HandClock, faults: Faults, kind: OperationKind
) -> None:
    app = create_sandbox(
        engine,
        queue_secret=QUEUE_SECRET,
        api_token=None,
        clock=clock,
        faults=faults,
        adopts_unknown_escrows=True,
    )
    operation = build_operation(kind)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://sandbox.test") as http:
        refused = await send(http, operation, secret="another-queue-secret-of-enough-bytes!!")
        assert refused.status_code == 401
        assert read_totals(engine).granted == 0
        assert (await http.get("/wallets/viewer-1/escrow/escrow-1")).status_code == 404
        assert (await send(http, operation)).status_code == 200
    books = read_totals(engine)
    assert (books.granted, books.escrow) == (100, 0)
    assert (books.available, books.earned) == (operation.refund_tokens, operation.settle_tokens)


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
async def test_another_operation_on_a_resolved_escrow_is_409_and_its_status_says_why(
    http: httpx2.AsyncClient, wallet: Wallet, first: OperationKind, second: OperationKind
) -> None:
    escrow_id = await held(http)
    done = build_operation(first, escrow_transaction_id=escrow_id)
    assert isinstance(await wallet.execute(done), Succeeded)
    late = build_operation(second, escrow_transaction_id=escrow_id, item_id="0000000b-0000-7000-8000-000000000000")
    assert isinstance(await wallet.execute(late), Conflict)
    fate = classify_escrow(late, await wallet.escrow("viewer-1", escrow_id))
    # The sandbox states the amounts, so a split is not mistaken for a settlement.
    assert isinstance(fate, Succeeded if first is second else Rejected)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_key_with_another_body_is_422(
    http: httpx2.AsyncClient, wallet: Wallet, kind: OperationKind
) -> None:
    operation = build_operation(kind, escrow_transaction_id=await held(http))
    assert (await send(http, operation)).status_code == 200
    response = await send(http, operation, body={"reason": "another"}, claims={"reason": "another"})
    assert response.status_code == 422


@pytest.mark.parametrize("header", [None, "Bearer wrong", API_TOKEN, "Basic " + API_TOKEN])
async def test_without_the_bearer_token_everything_is_401(
    app: Starlette, http: httpx2.AsyncClient, wallet: Wallet, header: str | None
) -> None:
    operation = build_operation(escrow_transaction_id=await held(http))
    del http.headers["Authorization"]
    if header is not None:
        http.headers["Authorization"] = header
    responses = [
        await send(http, operation),
        await http.post("/wallets/viewer-1/escrow/hold", json={}),
        await http.get(f"/wallets/viewer-1/escrow/{operation.escrow_transaction_id}"),
        await http.post("/grants", json={"userId": "viewer-1", "amount": 1}),
        await http.get("/users/viewer-1"),
        await http.get("/models/star"),
        await http.get("/books"),
        await http.get("/audit"),
        await http.put("/faults", json={"errorRate": 1}),
    ]
    assert [response.status_code for response in responses] == [401] * len(responses)
    assert app.state.faults.rates == FaultRates()


ISSUED = int(NOON.timestamp())


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"headers": {"X-Queue-Auth-Token": None}}, 401),
        ({"headers": {"X-Queue-Auth-Token": "not.a.token"}}, 401),
        ({"headers": {"X-Queue-Auth-Token": jwt.encode({"x": 1}, key="", algorithm="none")}}, 401),
        ({"secret": "another-queue-secret-of-enough-bytes!!"}, 401),
        ({"claims": {"exp": None}}, 401),
        ({"claims": {"iat": None}}, 401),
        ({"claims": {"exp": ISSUED}}, 401),
        ({"claims": {"exp": ISSUED + 301}}, 401),
        ({"claims": {"iat": ISSUED + 31, "exp": ISSUED + 300}}, 401),
        ({"claims": {"iat": ISSUED - 300, "exp": ISSUED - 1}}, 401),
        ({"claims": {"iat": float(ISSUED)}}, 401),
        ({"claims": {"queueItemId": "another"}}, 403),
        ({"claims": {"escrowId": "another"}}, 403),
        ({"claims": {"modelId": "another"}}, 403),
        ({"claims": {"amount": 99}}, 403),
        ({"claims": {"amount": "100"}}, 403),
        ({"claims": {"reason": "another"}}, 403),
        ({"claims": {"role": "admin"}}, 403),
        ({"claims": {"modelId": None}}, 403),
        ({"headers": {"X-Idempotency-Key": None}}, 400),
        ({"headers": {"X-Idempotency-Key": "queue-another-settle"}}, 400),
        ({"body": b"{"}, 400),
        ({"body": b"[]"}, 400),
        ({"body": b'{"amount": NaN}'}, 400),
        ({"body": {"modelId": ...}}, 422),
        ({"body": {"modelId": ""}}, 422),
        ({"body": {"modelId": 5}}, 422),
        ({"body": {"modelId": "nul\0"}}, 422),
        ({"body": {"modelId": "x" * 129}}, 422),
        ({"body": {"amount": "100"}}, 422),
        ({"body": {"amount": 0}}, 422),
        ({"body": {"amount": -100}}, 422),
        ({"body": {"amount": 100.0}}, 422),
        ({"body": {"amount": True}}, 422),
        ({"body": {"amount": 2**53}}, 422),
        ({"body": {"metadata": None}}, 422),
        ({"body": {"surprise": 1}}, 422),
        ({"body": {"amount": 99}, "claims": {"amount": 99}}, 422),
        ({"body": b" " * 70_000}, 413),
    ],
    ids=repr,
)
async def test_a_wrong_request_is_refused_and_moves_nothing(
    http: httpx2.AsyncClient, wallet: Wallet, engine: Engine, wrong: dict[str, Any], status: int
) -> None:
    operation = build_operation(escrow_transaction_id=await held(http))
    before = read_totals(engine)
    response = await send(http, operation, **wrong)
    assert response.status_code == status, response.text
    assert response.json()["message"]
    assert read_totals(engine) == before
    assert (await send(http, operation)).status_code == 200


async def test_a_refund_names_the_escrow_s_own_user(http: httpx2.AsyncClient, wallet: Wallet) -> None:
    escrow_id = await held(http)
    theft = build_operation(OperationKind.REFUND, escrow_transaction_id=escrow_id, user_id="thief")
    assert (await send(http, theft)).status_code == 422
    split = build_operation(OperationKind.PARTIAL, escrow_transaction_id=escrow_id, user_id="thief")
    assert (await send(http, split)).status_code == 422


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_hold_and_a_grant_need_a_sane_key(http: httpx2.AsyncClient, key: str) -> None:
    headers = {"X-Idempotency-Key": key}
    order = {"amount": 1, "reason": "a spin", "featureType": "wheel"}
    assert (await http.post("/wallets/viewer-1/escrow/hold", json=order, headers=headers)).status_code == 400
    grant = {"userId": "viewer-1", "amount": 1}
    assert (await http.post("/grants", json=grant, headers=headers)).status_code == 400


async def test_the_request_id_comes_back(http: httpx2.AsyncClient) -> None:
    response = await http.get("/books", headers={"X-Request-ID": "abc"})
    assert response.headers["x-request-id"] == "abc"


async def test_unknown_paths_and_methods_are_answered_in_the_same_shape(http: httpx2.AsyncClient) -> None:
    missing, wrong = await http.get("/nowhere"), await http.delete("/books")
    assert (missing.status_code, missing.json()) == (404, {"error": "Not Found", "message": "Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"error": "Method Not Allowed", "message": "Method Not Allowed"})


async def test_balances_and_books_can_be_read(http: httpx2.AsyncClient, wallet: Wallet) -> None:
    await wallet.execute(build_operation(OperationKind.PARTIAL, escrow_transaction_id=await held(http)))
    await held(http, 200, key="spin-2")
    assert (await http.get("/users/viewer-1")).json() == {"userId": "viewer-1", "availableBalance": 730}
    assert (await http.get("/models/star")).json() == {"modelId": "star", "earnedBalance": 70}
    assert (await http.get("/books")).json() == {
        "granted": 1000,
        "available": 730,
        "escrow": 200,
        "earned": 70,
        "balanced": True,
    }
    assert (await http.get("/audit")).json() == {"contradictions": []}


async def test_a_busy_database_is_503_and_moves_nothing(
    http: httpx2.AsyncClient, wallet: Wallet, engine: Engine
) -> None:
    operation = build_operation(escrow_transaction_id=await held(http))
    with engine.begin():
        # The one connection of this engine is in a transaction: the sandbox cannot begin another.
        response = await send(http, operation)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert isinstance(await wallet.execute(operation), Succeeded)


async def test_the_fault_rates_are_changed_at_run_time(http: httpx2.AsyncClient, faults: Faults) -> None:
    turned = await http.put("/faults", json={"errorRate": 0.25, "latencySeconds": 0.5})
    assert turned.status_code == 200
    assert faults.rates == FaultRates(error=0.25, latency_seconds=0.5)
    await http.put("/faults", json={"errorRate": 0})
    shown = (await http.get("/faults")).json()
    assert shown == {
        "latencySeconds": 0.5,
        "errorRate": 0,
        "conflictRate": 0.0,
        "timeoutBeforeRate": 0.0,
        "timeoutAfterRate": 0.0,
        "lostAnswerRate": 0.0,
        "duplicateRate": 0.0,
        "wrongAnswerRate": 0.0,
        "injected": dict.fromkeys(map(str, FaultKind), 0),
    }


@pytest.mark.parametrize("body", [{"errorRate": 2}, {"errorRate": "x"}, {"error": 0.1}, [], {"duplicateRate": None}])
async def test_wrong_fault_rates_are_refused(http: httpx2.AsyncClient, faults: Faults, body: Any) -> None:
    assert (await http.put("/faults", json=body)).status_code in (400, 422)
    assert faults.rates == FaultRates()


ANSWERS_UNDER_FAULTS: dict[FaultKind, type[WalletAnswer]] = {
    FaultKind.ERROR: Retry,
    FaultKind.CONFLICT: Conflict,
    FaultKind.LOST_ANSWER: Retry,
    FaultKind.DUPLICATE: Succeeded,
    FaultKind.WRONG_ANSWER: Retry,
}


@pytest.mark.parametrize("kind", ANSWERS_UNDER_FAULTS)
async def test_a_fault_never_looks_like_success_unless_it_is(
    http: httpx2.AsyncClient, wallet: Wallet, faults: Faults, engine: Engine, kind: FaultKind
) -> None:
    for number in range(12):
        faults.rates = FaultRates()
        operation = build_operation(
            KINDS[number % 3],
            tokens=50,
            escrow_transaction_id=await held(http, 50, key=f"spin-{number}"),
            item_id=f"{number:08x}-0000-7000-8000-000000000000",
        )
        faults.rates = FaultRates(**{kind.value: 1})
        assert isinstance(await wallet.execute(operation), ANSWERS_UNDER_FAULTS[kind])
        faults.rates = FaultRates()
        assert isinstance(await wallet.execute(operation), Succeeded)
    assert faults.injected[kind] == 12
    assert read_totals(engine).escrow == 0


@pytest.mark.parametrize(
    ("kind", "status"),
    [(FaultKind.TIMEOUT_BEFORE, EscrowStatus.HELD), (FaultKind.TIMEOUT_AFTER, EscrowStatus.SETTLED)],
)
async def test_a_time_out_leaves_open_what_happened(
    app: Starlette,
    clock: HandClock,
    http: httpx2.AsyncClient,
    wallet: Wallet,
    faults: Faults,
    kind: FaultKind,
    status: EscrowStatus,
) -> None:
    escrow_id = await held(http)
    faults.rates = FaultRates(**{kind.value: 1})
    async with Wallet(
        base_url="http://sandbox.test",
        api_token=API_TOKEN,
        queue_secret=QUEUE_SECRET,
        timeout_seconds=0.3,
        clock=clock,
        transport=httpx2.ASGITransport(app=app),
    ) as impatient:
        outcome = await impatient.execute(build_operation(escrow_transaction_id=escrow_id))
    assert outcome == Retry(problem="the wallet did not answer in time")
    faults.rates = FaultRates()
    found = await wallet.escrow("viewer-1", escrow_id)
    assert isinstance(found, Escrow)
    assert found.status is status


async def test_concurrent_operations_are_all_done(http: httpx2.AsyncClient, wallet: Wallet, engine: Engine) -> None:
    operations = [
        build_operation(
            KINDS[number % 3],
            tokens=10,
            escrow_transaction_id=await held(http, 10, key=f"spin-{number}"),
            item_id=f"{number:08x}-0000-7000-8000-000000000000",
        )
        for number in range(30)
    ]
    outcomes = await asyncio.gather(*(wallet.execute(operation) for operation in operations * 2))
    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
    assert outcomes[:30] == outcomes[30:]
    assert read_totals(engine).escrow == 0
