"""One trace from a request or a frame through lane, batch and commit to the last socket and the wallet."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from app.tracing import traceparent_of
from app.tracing.otel import OtelTracer
from tests.support.cluster import until
from tests.support.recording_http import Received, Recording, recording
from tests.support.server import Api, Server, fresh, intake_body, ok, problem, serving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"
OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c"


class Traced:
    """A service that is traced into memory, with a wallet that records the headers of requests."""

    def __init__(self, server: Server, api: Api, wallet: Recording, exporter: InMemorySpanExporter) -> None:
        self.server = server
        self.api = api
        self.wallet = wallet
        self._exporter = exporter

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str, trace: str | None = None) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name and trace in (None, trace_of(span))]

    async def one(self, name: str, trace: str | None = None) -> ReadableSpan:
        """The span of this name, once it has ended and been exported."""
        await until(lambda: len(self.named(name, trace)) == 1)
        return self.named(name, trace)[0]

    async def intake(self, performer_id: str, traceparent: str | None = CALLER, **fields: Any) -> dict[str, Any]:
        body = intake_body(performer_id, **fields)
        headers = {} if traceparent is None else {"traceparent": traceparent}
        answer = await self.api.send(
            "POST", "/v1/queue/items", self.server.feature(body["sourceFeature"]), body, headers=headers
        )
        return ok(answer, 201)


def honest(received: Received) -> tuple[int, bytes]:
    """The receipt of a refund."""
    order = json.loads(received.body)
    receipt = {
        "transactionId": "tx-1",
        "timestamp": "2026-01-31T12:00:00.000Z",
        "refundedAmount": order["amount"],
        "userAvailableBalance": 1,
    }
    return 200, json.dumps(receipt).encode()


@pytest.fixture
async def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Traced]:
    async with service(tmp_path, monkeypatch) as running:
        yield running


@asynccontextmanager
async def service(folder: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[Traced]:
    patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    exporter = InMemorySpanExporter()
    with (
        recording(honest) as wallet,
        serving(
            folder,
            tracer=OtelTracer(exporter, version="1"),
            wallet_url=wallet.url,
            wallet_api_token="a-token-for-the-tests",
            settle_delay_seconds=0,
        ) as server,
    ):
        async with server.api() as api:
            yield Traced(server, api, wallet, exporter)


def trace_of(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


def id_of(span: ReadableSpan) -> str:
    return f"{span.context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_request_goes_on_with_its_callers_trace_to_the_last_socket(traced: Traced) -> None:
    performer_id = fresh("mira")
    async with traced.server.live(performer_id) as first, traced.server.live(performer_id) as second:
        await first.until("snapshot")
        await second.until("snapshot")
        item = await traced.intake(performer_id)
        await first.until("update")
        await second.until("update")
    request = await traced.one("POST /v1/queue/items")
    assert (trace_of(request), parent_of(request), request.kind) == (TRACE, "00f067aa0ba902b7", SpanKind.SERVER)
    assert attributes_of(request)["http.response.status_code"] == 201
    lane = await traced.one("lane Intake")
    assert parent_of(lane) == id_of(request)
    assert attributes_of(lane) == {
        "queue.performer_id": performer_id,
        "queue.item_id": item["itemId"],
        "queue.version": 1,
    }
    batch = await traced.one("batch", TRACE)
    assert parent_of(batch) == id_of(lane)
    commit = await traced.one("commit", TRACE)
    assert parent_of(commit) == id_of(batch)
    broadcast = await traced.one("broadcast")
    assert (trace_of(broadcast), parent_of(broadcast)) == (TRACE, id_of(request))
    assert attributes_of(broadcast)["queue.sockets"] == 2
    for inner, outer in ((lane, request), (batch, lane), (commit, batch)):
        assert outer.start_time is not None
        assert inner.start_time is not None
        assert inner.end_time is not None
        assert outer.end_time is not None
        assert outer.start_time - 20_000_000 <= inner.start_time <= inner.end_time <= outer.end_time + 20_000_000


async def test_the_wallet_gets_the_trace_of_the_request_that_caused_its_order(traced: Traced) -> None:
    item = await traced.intake(fresh("mira"), traceparent=None)
    other = CALLER.replace(TRACE, OTHER_TRACE)
    refund = await traced.api.send(
        "POST",
        f"/v1/queue/items/{item['itemId']}/refund",
        traced.server.admin,
        {"reason": "technical_error"},
        headers={"traceparent": other},
    )
    assert refund.status_code == 200
    order = await traced.one("wallet refund")
    assert (trace_of(order), order.kind) == (OTHER_TRACE, SpanKind.CLIENT)
    assert attributes_of(order)["queue.item_id"] == item["itemId"]
    (received,) = traced.wallet.received
    assert received.headers["traceparent"] == f"00-{OTHER_TRACE}-{id_of(order)}-01"
    confirmed = await traced.one("lane Confirm")
    assert parent_of(confirmed) == id_of(order)


async def test_an_order_keeps_its_trace_over_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(
        tmp_path,
        tracer=OtelTracer(InMemorySpanExporter(), version="1"),
        wallet_url="http://127.0.0.1:9",
        wallet_api_token="a-token-for-the-tests",
        wallet_retry_base_seconds=0.01,
        wallet_retry_max_seconds=0.05,
    ) as server:
        async with server.api() as api:
            item = ok(
                await api.send(
                    "POST", "/v1/queue/items", server.feature(), intake_body(fresh("mira"), sourceFeature="wheel")
                ),
                201,
            )
            await api.send(
                "POST",
                f"/v1/queue/items/{item['itemId']}/refund",
                server.admin,
                {"reason": "technical_error"},
                headers={"traceparent": CALLER},
            )
    async with service(tmp_path, monkeypatch) as traced:
        assert trace_of(await traced.one("wallet refund")) == TRACE


async def test_a_frame_begins_a_trace_linked_to_that_of_its_connection(traced: Traced) -> None:
    performer_id = fresh("mira")
    item = await traced.intake(performer_id, traceparent=None)
    token = traced.server.performer(performer_id)
    async with traced.server.live(performer_id, token, headers={"traceparent": CALLER}) as panel:
        await panel.until("snapshot")
        await panel.command("start", itemId=item["itemId"])
        await panel.command("start", itemId=item["itemId"])
    await until(lambda: len(traced.named("frame start")) == 2)
    first, second = traced.named("frame start")
    assert first.parent is None
    assert [f"{link.context.trace_id:032x}" for link in first.links] == [TRACE]
    assert first.status.status_code is not StatusCode.ERROR
    assert (second.status.status_code, second.status.description) == (StatusCode.ERROR, "INVALID_STATE_TRANSITION")
    lane = await traced.one("lane Start", trace_of(first))
    assert parent_of(lane) == id_of(first)
    assert trace_of(await traced.one("broadcast", trace_of(first))) == trace_of(first)


async def test_a_refusal_is_the_lanes_and_no_failure_of_the_request(traced: Traced) -> None:
    performer_id = fresh("mira")
    item = await traced.intake(performer_id, traceparent=None)
    refused = await traced.api.send(
        "POST",
        f"/v1/queue/items/{item['itemId']}/complete",
        traced.server.performer(performer_id),
        {},
        headers={"traceparent": CALLER},
    )
    problem(refused, 409, "INVALID_STATE_TRANSITION")
    lane = await traced.one("lane Complete")
    assert lane.status.description == "INVALID_STATE_TRANSITION"
    request = await traced.one("POST /v1/queue/items/{itemId}/complete")
    assert request.status.status_code is StatusCode.UNSET
    assert attributes_of(request)["http.response.status_code"] == 409


async def test_no_span_holds_a_token_a_body_or_a_name(traced: Traced) -> None:
    secrets: dict[str, Any] = {
        "title": "A-title-of-somebody",
        "description": "A-description-of-somebody",
        "userId": "a-user-of-somebody",
        "metadata": {"note": "a-note-of-somebody"},
        "escrowTransactionId": fresh("an-escrow-of-somebody"),
    }
    performer_id = fresh("mira")
    async with traced.server.live(performer_id) as viewer:
        await viewer.until("snapshot")
        item = await traced.intake(performer_id, **secrets)
        await viewer.until("update")
        await traced.api.command("refund", item, {"reason": "technical_error"})
    await traced.one("wallet refund")
    await traced.one("lane Confirm")
    said = "\n".join(span.to_json() for span in traced.spans)
    assert "of-somebody" not in said
    assert "Bearer" not in said
    assert traced.server.feature(item["sourceFeature"]) not in said


async def test_probes_and_scrapes_have_no_span(traced: Traced) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        await traced.api.get(path)
    await traced.intake(fresh("mira"))
    await traced.one("POST /v1/queue/items")
    assert [span.name for span in traced.spans if span.name.startswith("GET")] == []


VALID = [CALLER, CALLER.replace("00-", "cc-", 1), "01" + CALLER[2:] + "-what-comes-later"]
INVALID = [
    "",
    "ff" + CALLER[2:],
    CALLER + "-more",
    CALLER.upper(),
    CALLER.replace(TRACE, "0" * 32),
    CALLER.replace("00f067aa0ba902b7", "0" * 16),
    CALLER[:-1],
]


@pytest.mark.parametrize("text", VALID)
def test_a_valid_traceparent_is_taken(text: str) -> None:
    assert traceparent_of([(b"host", b"x"), (b"traceparent", text.encode())]) == text[:55]


@pytest.mark.parametrize("text", INVALID)
def test_an_invalid_traceparent_counts_as_absent(text: str) -> None:
    assert traceparent_of([(b"traceparent", text.encode())]) is None


def test_two_traceparents_count_as_absent() -> None:
    assert traceparent_of([(b"traceparent", CALLER.encode())] * 2) is None


async def test_without_a_tracer_nothing_of_a_callers_trace_is_passed_on(tmp_path: Path) -> None:
    with recording(honest) as wallet:
        with serving(tmp_path, wallet_url=wallet.url, wallet_api_token="a-token-for-the-tests") as server:
            async with server.api() as api:
                item = await api.intake(fresh("mira"))
                await api.send(
                    "POST",
                    f"/v1/queue/items/{item['itemId']}/refund",
                    server.admin,
                    {"reason": "technical_error"},
                    headers={"traceparent": CALLER},
                )
                await until(lambda: len(wallet.received) == 1)
        assert "traceparent" not in wallet.received[0].headers
