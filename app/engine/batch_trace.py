"""Makes the spans of a batch: one for each traced command's time in its lane, and one for the shared transaction.

They are made after the batch, from its times, so that nothing is recorded without a tracer. The span of the batch
belongs to the trace of its first traced command, and is linked to the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from app.domain.errors import QueueError
from app.engine.jobs import Envelope, Job, Outcome
from app.engine.writer import Later
from app.tracing import Span, Tracer


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Nanoseconds since 1970."""

    began: int
    commit_began: int
    ended: int


def trace_batch(
    tracer: Tracer, batch: Sequence[Job], results: Sequence[Any], posted: Sequence[int], times: Times
) -> list[Any]:
    """Makes the spans of the jobs that are done. `posted`: when each job was posted, in nanoseconds since 1970. Returns
    the results; outcomes of traced commands then have their traceparent."""
    done = [
        (job, result, at)
        for job, result, at in zip(batch, results, posted, strict=True)
        if isinstance(job, Envelope) and job.traceparent is not None and not isinstance(result, Later)
    ]
    if not done:
        return list(results)
    first, *others = done
    lanes = [_lane_span(tracer, *first)]
    links = [job.traceparent for job, _, _ in others if job.traceparent is not None]
    span = tracer.begin(
        "batch", parent=lanes[0].traceparent, links=links, at=times.began, queue__batch__commands=len(batch)
    )
    commit = tracer.begin("commit", parent=span.traceparent, at=max(times.began, times.commit_began))
    commit.end(at=times.ended)
    span.end(at=times.ended)
    lanes += [_lane_span(tracer, *each, links=[span.traceparent]) for each in others]
    for lane, (_, result, _) in zip(lanes, done, strict=True):
        lane.end(at=times.ended, problem=_problem(result))
    return [
        replace(result, traceparent=job.traceparent)
        if isinstance(result, Outcome) and isinstance(job, Envelope)
        else result
        for job, result in zip(batch, results, strict=True)
    ]


def _lane_span(tracer: Tracer, job: Envelope, result: Any, posted: int, links: Sequence[str] = ()) -> Span:
    item = result.item if isinstance(result, Outcome) else None
    return tracer.begin(
        f"lane {type(job.command).__name__}",
        parent=job.traceparent,
        links=links,
        at=posted,
        queue__performer_id=job.performer_id,
        queue__item_id=item.item_id if item is not None else None,
        queue__version=result.room.version if isinstance(result, Outcome) else None,
    )


def _problem(result: Any) -> str | None:
    if not isinstance(result, Exception):
        return None
    return result.code if isinstance(result, QueueError) else type(result).__name__
