"""The spans of the outbox's attempts: one for each, in the trace of the command that ordered the operation."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from app.tracing import within
from app.tracing.otel import OtelTracer
from tests.support.outbox_harness import RETRY_BASE_SECONDS, stage_on
from tests.support.scripted_wallet import ScriptedWallet, answer
from tests.support.stores import Database, HandClock, sqlite_database_fixture  # noqa: F401 - a fixture

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"


async def test_each_attempt_has_a_span_with_its_number_in_the_trace_of_the_order(sqlite_database: Database) -> None:
    exporter, wallet = InMemorySpanExporter(), ScriptedWallet()
    tracer = OtelTracer(exporter, version="1")
    async with stage_on(sqlite_database.open(), HandClock(), wallet, tracer=tracer) as stage:
        with within(CALLER):
            item = await stage.finished()
        wallet.script.append(answer(500))
        async with stage.running():
            await stage.attempted()
            stage.later(RETRY_BASE_SECONDS)
            await stage.attempted()
    tracer.close()
    spans = exporter.get_finished_spans()
    attempts = [span for span in spans if span.name == "wallet settle"]
    assert [_attributes(span)["queue.attempt"] for span in attempts] == [1, 2]
    for span in attempts:
        assert (f"{span.context.trace_id:032x}", span.kind) == (TRACE, SpanKind.CLIENT)
        assert _attributes(span)["queue.performer_id"] == item.performer_id
        assert _attributes(span)["queue.item_id"] == item.item_id
        assert _attributes(span)["queue.operation_id"] == stage.row(item).operation_id
    # The outcomes' commands belong to the attempts.
    (reported,) = [span for span in spans if span.name == "lane Report"]
    (confirmed,) = [span for span in spans if span.name == "lane Confirm"]
    assert [span.parent and span.parent.span_id for span in (reported, confirmed)] == [
        span.context.span_id for span in attempts
    ]


def _attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})
