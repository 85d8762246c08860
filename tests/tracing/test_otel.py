"""Spans over OTLP: to a collector that answers, and to one that is away."""

import logging
from pathlib import Path
from time import monotonic

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.tracing.otel import open_tracer
from tests.support.cluster import until
from tests.support.recording_http import Received, Recording, recording
from tests.support.server import fresh, serving

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def taken(received: Received) -> tuple[int, bytes]:
    return 200, b""


def spans_of(collector: Recording) -> dict[str, str]:
    """The names of all received spans, and their traces."""
    found: dict[str, str] = {}
    for received in collector.received:
        request = ExportTraceServiceRequest.FromString(received.body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                found |= {span.name: span.trace_id.hex() for span in scope.spans}
    return found


async def test_a_collector_gets_the_spans_of_the_service_by_otlp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with recording(taken) as collector:
        with serving(tmp_path, traces_url=f"{collector.url}/v1/traces") as server:
            async with server.api() as api:
                await api.intake(fresh("mira"))
                await until(lambda: "POST /v1/queue/items" in spans_of(collector))
        assert {received.path for received in collector.received} == {"/v1/traces"}
        request = ExportTraceServiceRequest.FromString(collector.received[0].body)
        resource = {each.key: each.value.string_value for each in request.resource_spans[0].resource.attributes}
        assert resource["service.name"] == "performance-queue"
        assert {"lane Intake", "batch", "commit"} <= set(spans_of(collector))


def test_the_last_spans_are_sent_when_the_process_ends() -> None:
    with recording(taken) as collector:
        tracer = open_tracer(f"{collector.url}/v1/traces", version="1")
        tracer.begin("the last one", parent=CALLER).end()
        tracer.close()
        assert spans_of(collector) == {"the last one": CALLER[3:35]}


def test_a_trace_that_the_caller_has_not_sampled_is_passed_on_and_not_sent() -> None:
    with recording(taken) as collector:
        tracer = open_tracer(f"{collector.url}/v1/traces", version="1")
        span = tracer.begin("quiet", parent=CALLER[:-1] + "0")
        span.end()
        tracer.close()
        assert span.traceparent.startswith(CALLER[:36])
        assert span.traceparent.endswith("-00")
        assert collector.received == []


def test_a_collector_that_is_away_is_said_once_and_holds_up_no_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with recording(lambda received: (400, b"")) as refusing, caplog.at_level(logging.INFO):
        tracer = open_tracer(f"{refusing.url}/v1/traces", version="1")
        for number in range(3):
            tracer.begin(f"lost {number}").end()
            while len(refusing.received) <= number:
                pass
        began = monotonic()
        tracer.close()
        assert monotonic() - began < 5
    assert [record.getMessage() for record in caplog.records] == [
        "traces cannot be sent; they are lost until the collector answers again"
    ]
