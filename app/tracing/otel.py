"""The tracer over OpenTelemetry's SDK, with spans sent in batches by OTLP over HTTP. Needs the extra `otel`.

The SDK reads its own variables: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_BSP_* and
OTEL_EXPORTER_OTLP_*. While the collector is away, spans are lost; nothing else is affected.
"""

import logging
import os
import threading
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as SdkSpan

from app.tracing import Attribute, Kind

NAME = "performance-queue"
CLOSING_SECONDS = 2.0
"""How long a stopping process waits until its last spans are sent."""
ATTEMPT_SECONDS = 5.0

_KINDS = {Kind.INTERNAL: SpanKind.INTERNAL, Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT}

log = logging.getLogger(__name__)


class OtelSpan:
    def __init__(self, span: SdkSpan) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, **attributes: Attribute | None) -> None:
        self._span.set_attributes(_named(attributes))

    def end(self, *, at: int | None = None, problem: str | None = None) -> None:
        if problem is not None:
            self._span.set_status(StatusCode.ERROR, problem)
        self._span.end(at)


class OtelTracer:
    """Makes the spans of one process and exports them until `close`."""

    def __init__(self, exporter: SpanExporter, *, version: str) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME") or NAME
        resource = Resource.create({SERVICE_NAME: name, SERVICE_VERSION: version})
        # Not at the interpreter's exit: spans that wait for a collector would delay the end of the process.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(NAME, version)

    def begin(
        self,
        name: str,
        *,
        kind: Kind = Kind.INTERNAL,
        parent: str | None = None,
        links: Sequence[str] = (),
        at: int | None = None,
        **attributes: Attribute | None,
    ) -> OtelSpan:
        return OtelSpan(
            self._tracer.start_span(
                name,
                # Never the SDK's own current context: `parent` alone decides the span's place.
                Context() if parent is None else set_span_in_context(NonRecordingSpan(_place(parent)), Context()),
                kind=_KINDS[kind],
                attributes=_named(attributes),
                links=[Link(_place(link)) for link in links],
                start_time=at,
            )
        )

    def close(self) -> None:
        """Send the remaining spans, for CLOSING_SECONDS at most."""
        thread = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        thread.start()
        thread.join(CLOSING_SECONDS)


class SteadyExporter(SpanExporter):
    """Exports spans; logs once that they cannot be sent, and once that they are sent again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails is not self._fails:
            self._fails = fails
            if fails:
                log.warning("traces cannot be sent; they are lost until the collector answers again")
            else:
                log.info("traces are sent again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def open_tracer(url: str, *, version: str) -> OtelTracer:
    """A tracer whose spans go to `url` by OTLP over HTTP."""
    # OpenTelemetry's loggers log every failed attempt; SteadyExporter logs the first one.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    exporter = OTLPSpanExporter(endpoint=url, timeout=ATTEMPT_SECONDS)
    return OtelTracer(SteadyExporter(exporter), version=version)


def _named(attributes: Mapping[str, Attribute | None]) -> dict[str, Attribute]:
    return {name.replace("__", "."): value for name, value in attributes.items() if value is not None}


def _place(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
