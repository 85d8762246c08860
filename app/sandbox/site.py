"""The sandbox wallet: the wallet service's whole interface over HTTP, on a ledger of play tokens, for demos and tests.

Owns the routes, the threads for the database work, requests that get no answer, and some endpoints beside `/wallets`:
grants, balances, sums, audit and fault rates. `wallet_handlers` checks requests, `ledger` moves tokens, `faults`
chooses the faults.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

import anyio
import anyio.to_thread
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.faults import FaultKind, FaultRates, Faults, Reply, deliver, error_reply
from app.sandbox.ledger import Ledger
from app.sandbox.ledger_audit import audit, read_totals
from app.sandbox.wallet_handlers import Refused, WalletHandlers, read_object

MAX_BODY_BYTES: Final = 64 * 1024
HANG_SECONDS: Final = 60.0
"""How long a request that gets no answer is kept open for a caller that never gives up."""
THREADS: Final[Mapping[str, int]] = {"sqlite": 1, "postgresql": 2}
"""Threads for database work: SQLite has one writer anyway, and the connections are shared with the service."""


def create_sandbox(
    engine: Engine,
    *,
    queue_secret: str,
    api_token: str | None,
    clock: Callable[[], datetime],
    faults: Faults,
    adopts_unknown_escrows: bool = False,
) -> Starlette:
    """The sandbox as an ASGI app over `engine`, whose database has the `sandbox_` tables.

    `adopts_unknown_escrows` lets a developer use invented escrow ids: a correctly signed order for an unknown escrow
    mints its tokens and holds them first. Before such an order a look-up of the escrow answers 404.
    """
    app = Starlette(routes=_ROUTES, exception_handlers={HTTPException: _http_error})
    ledger = Ledger(engine, clock=clock, adopts_unknown_escrows=adopts_unknown_escrows)
    app.state.handlers = WalletHandlers(ledger, queue_secret=queue_secret, api_token=api_token, clock=clock)
    app.state.ledger = ledger
    app.state.engine = engine
    app.state.faults = faults
    app.state.threads = anyio.CapacityLimiter(THREADS[engine.dialect.name])
    return app


async def _settle(request: Request) -> Response:
    return await _resolve(request, request.app.state.handlers.settle)


async def _refund(request: Request) -> Response:
    return await _resolve(request, request.app.state.handlers.refund)


async def _partial_settle(request: Request) -> Response:
    return await _resolve(request, request.app.state.handlers.partial_settle)


async def _resolve(request: Request, resolve: Callable[[str, Mapping[str, str], bytes], Reply]) -> Response:
    body = await _body(request)
    return await _faulty(request, lambda: resolve(request.path_params["escrow_id"], request.headers, body))


async def _hold(request: Request) -> Response:
    body = await _body(request)
    handlers: WalletHandlers = request.app.state.handlers
    return await _faulty(request, lambda: handlers.hold(request.path_params["user_id"], request.headers, body))


async def _escrow(request: Request) -> Response:
    handlers: WalletHandlers = request.app.state.handlers
    ids = request.path_params
    return await _faulty(request, lambda: handlers.escrow(ids["user_id"], ids["escrow_id"], request.headers))


async def _grant(request: Request) -> Response:
    body = await _body(request)
    handlers: WalletHandlers = request.app.state.handlers
    return _response(request, await _in_thread(request, lambda: handlers.grant(request.headers, body)))


async def _user(request: Request) -> Response:
    user_id = request.path_params["user_id"]
    ledger: Ledger = request.app.state.ledger
    return await _report(request, lambda: {"userId": user_id, "availableBalance": ledger.available(user_id)})


async def _model(request: Request) -> Response:
    model_id = request.path_params["model_id"]
    ledger: Ledger = request.app.state.ledger
    return await _report(request, lambda: {"modelId": model_id, "earnedBalance": ledger.earned(model_id)})


async def _books(request: Request) -> Response:
    def read() -> Mapping[str, object]:
        totals = read_totals(request.app.state.engine)
        return {**asdict(totals), "balanced": totals.balanced}

    return await _report(request, read)


async def _audit(request: Request) -> Response:
    return await _report(request, lambda: {"contradictions": audit(request.app.state.engine)})


async def _faults(request: Request) -> Response:
    """Report the fault rates; PUT first changes those that the body names."""
    faults: Faults = request.app.state.faults
    body = await _body(request) if request.method == "PUT" else None

    def read() -> Mapping[str, object]:
        if body is not None:
            faults.rates = _changed(faults.rates, body)
        rates = {name: getattr(faults.rates, field) for name, field in _RATE_FIELDS.items()}
        return {**rates, "injected": {kind.value: faults.injected[kind] for kind in FaultKind}}

    # Not in a thread: the rates are used on the event loop.
    return _response(request, request.app.state.handlers.report(request.headers, read))


_ROUTES: Final = [
    # An escrow id may hold a slash; it arrives decoded.
    Route("/wallets/escrow/{escrow_id:path}/settle", _settle, methods=["POST"]),
    Route("/wallets/escrow/{escrow_id:path}/refund", _refund, methods=["POST"]),
    Route("/wallets/escrow/{escrow_id:path}/partial-settle", _partial_settle, methods=["POST"]),
    Route("/wallets/{user_id}/escrow/hold", _hold, methods=["POST"]),
    Route("/wallets/{user_id}/escrow/{escrow_id:path}", _escrow, methods=["GET"]),
    Route("/grants", _grant, methods=["POST"]),
    Route("/users/{user_id}", _user, methods=["GET"]),
    Route("/models/{model_id}", _model, methods=["GET"]),
    Route("/books", _books, methods=["GET"]),
    Route("/audit", _audit, methods=["GET"]),
    Route("/faults", _faults, methods=["GET", "PUT"]),
]


async def _faulty(request: Request, work: Callable[[], Reply]) -> Response:
    faults: Faults = request.app.state.faults
    await anyio.sleep(faults.delay_seconds())
    fault = faults.draw()
    reply = await _in_thread(request, lambda: deliver(work, fault))
    if reply is not None:
        return _response(request, reply)
    with anyio.move_on_after(HANG_SECONDS):
        while (await request.receive())["type"] != "http.disconnect":
            pass
    return Response(status_code=504)


async def _report(request: Request, read: Callable[[], Mapping[str, object]]) -> Response:
    handlers: WalletHandlers = request.app.state.handlers
    return _response(request, await _in_thread(request, lambda: handlers.report(request.headers, read)))


async def _in_thread(request: Request, work: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(work, limiter=request.app.state.threads)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413)
    return bytes(body)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer unknown paths, wrong methods and long bodies in the shape of every other error."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _response(request, error_reply(status, HTTPStatus(status).phrase))


def _response(request: Request, reply: Reply) -> Response:
    response = Response(reply.body, reply.status, media_type=reply.content_type)
    if reply.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(reply.retry_after_seconds)
    if "x-request-id" in request.headers:
        response.headers["X-Request-ID"] = request.headers["x-request-id"]
    return response


_RATE_FIELDS: Final[Mapping[str, str]] = {
    "latencySeconds": "latency_seconds",
    "errorRate": "error",
    "conflictRate": "conflict",
    "timeoutBeforeRate": "timeout_before",
    "timeoutAfterRate": "timeout_after",
    "lostAnswerRate": "lost_answer",
    "duplicateRate": "duplicate",
    "wrongAnswerRate": "wrong_answer",
}


def _changed(rates: FaultRates, body: bytes) -> FaultRates:
    fields = read_object(body)
    if unknown := sorted(fields.keys() - _RATE_FIELDS.keys()):
        raise Refused(422, f"unknown fields: {', '.join(unknown)}")
    try:
        return replace(rates, **{_RATE_FIELDS[name]: value for name, value in fields.items()})
    except ValueError as error:
        raise Refused(422, str(error)) from None
