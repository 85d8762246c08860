"""The lanes: commands wait in a lane's mailbox; its writer decides them in memory and commits them together.

A room belongs to one lane, by the hash of its id. A lane is one thread with one connection. It takes all waiting
commands, has them decided and written in one transaction (group commit: one fsync serves up to LARGEST_BATCH commands,
and a single command does not wait for more), answers the callers and publishes the outcomes. A command in the mailbox
runs even if its caller has gone.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic, sleep, time_ns
from types import TracebackType
from typing import Any, TypeVar
from zlib import crc32

from sqlalchemy import Connection

from app.domain.command import Command
from app.domain.errors import QueueError, Unavailable
from app.domain.room import Room
from app.engine.batch_trace import Times, trace_batch
from app.engine.deadline import Deadline
from app.engine.jobs import DatabaseTask, Envelope, Idempotency, Job, Outcome, not_carried_out, perhaps_carried_out
from app.engine.writer import Later, Writer
from app.store import Store
from app.tracing import Tracer, current

log = logging.getLogger(__name__)

LARGEST_BATCH = 256
COMMAND_SECONDS = 5.0
"""The time within which a command is answered."""
HURRIED_SECONDS = 1.5
"""The same once the process is stopping."""
LONGEST_ATTEMPT_SECONDS = 1.0
"""While the database is in trouble, a job is not begun in this last part of its time. One attempt waits half a second
for a lock."""
ANSWER_SECONDS = 0.3
"""A caller without an answer is refused this long before the deadline, so that the refusal arrives in time."""
COMMIT_SECONDS = 0.5
"""The time that a commit takes, with a margin, while the database works normally."""
LOOK_SECONDS = 0.1
"""Between two looks for callers whose time is up."""
SHORTEST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.1
"""The pause doubles between these, before jobs that could not be committed are tried again."""
MAILBOX_LIMIT = 10_000
"""The most jobs that wait in one lane, so that memory stays bounded; further commands are refused."""

T = TypeVar("T")

Publish = Callable[[Sequence[Outcome]], None]
Measure = Callable[[int, float, Sequence[tuple[str, str]]], None]
"""Called once for each batch with the number of jobs, its seconds, and each command's kind and result."""


class Lane:
    """One mailbox and its thread."""

    def __init__(
        self,
        writer: Writer,
        publish: Publish,
        measure: Measure | None,
        name: str,
        *,
        seconds: float = COMMAND_SECONDS,
        limit: Callable[[], int] = lambda: MAILBOX_LIMIT,
        largest_batch: int = LARGEST_BATCH,
        tracer: Tracer | None = None,
    ) -> None:
        """`seconds`: the time within which every job is answered. `limit`: the most jobs that may wait.
        `largest_batch`: the most jobs that are committed together."""
        self.writer = writer
        self._publish = publish
        self._measure = measure
        self._seconds = seconds
        self._limit = limit
        self._largest_batch = largest_batch
        self._tracer = tracer
        self._mailbox: SimpleQueue[Job | None] = SimpleQueue()
        self._later: list[Job] = []
        """Jobs that were begun and are to be tried again. Only the thread changes it."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._ended = asyncio.Event()
        self._unanswered: deque[Job] = deque()
        """In order of their deadlines. Answered jobs stay until the next look."""
        self._look: asyncio.TimerHandle | None = None
        self._busy_since = inf
        """When the thread began its batch, by `monotonic`; infinite between batches."""

    def start(self) -> None:
        """Start the thread. Callers are answered on the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    # On the event loop

    def post(self, job: Job, deadline: Deadline | None = None) -> None:
        """Put a job into the mailbox. `deadline`: the caller's, used if it is earlier than the lane's own. Raises
        Unavailable if the lane is full or stopping."""
        if self._stopping:
            raise Unavailable("This process is shutting down; try again.", retry_after_seconds=1)
        if self.waiting >= self._limit():
            raise Unavailable("Too many commands are waiting; try again shortly.", retry_after_seconds=1)
        job.posted_at = monotonic()
        job.deadline = job.posted_at + self._seconds
        if deadline is not None:
            job.deadline = min(job.deadline, deadline.at)
        self._mailbox.put(job)
        if self._loop is not None:
            at = len(self._unanswered)
            while at and self._unanswered[at - 1].deadline > job.deadline:
                at -= 1
            self._unanswered.insert(at, job)
            if self._look is None:
                self._look = self._loop.call_later(LOOK_SECONDS, self._answer_overdue)

    @property
    def waiting(self) -> int:
        return self._mailbox.qsize() + len(self._later)

    @property
    def wait_seconds(self) -> float:
        """Seconds since the oldest unanswered job was posted; 0 if there is none."""
        # Jobs are in order of their deadlines, which is not the order in which they were posted.
        posted = (job.posted_at for job in self._unanswered if job.future is not None and not job.future.done())
        return max(0.0, monotonic() - min(posted, default=inf))

    def hurry(self) -> None:
        """Limit all deadlines, also of later jobs, to HURRIED_SECONDS, because the process is stopping."""
        self._seconds = min(self._seconds, HURRIED_SECONDS)
        latest = monotonic() + self._seconds
        for job in self._unanswered:
            job.deadline = min(job.deadline, latest)

    def close(self) -> None:
        """Refuse new jobs, and let the thread end once those in the mailbox are done."""
        self._stopping = True
        self.hurry()
        self._mailbox.put(None)

    async def stop(self) -> None:
        """Wait for the end of the thread, after `close`: 2 * HURRIED_SECONDS at most, even if the database hangs."""
        for _ in range(2):
            try:
                async with asyncio.timeout(HURRIED_SECONDS):
                    await self._ended.wait()
                break
            except TimeoutError:
                # The thread waits for a database that does not answer.
                self.writer.store.engines.interrupt()
        else:
            log.error("a lane has not ended: the database does not answer")
        if self._look is not None:
            self._look.cancel()
        for job in self._unanswered:
            self._refuse(job)

    def _answer_overdue(self) -> None:
        """Refuse the callers whose time is up. This runs on the event loop, as the thread may be stuck in the
        database."""
        now, jobs = monotonic(), self._unanswered
        latest = now + min(ANSWER_SECONDS, self._seconds / 4)
        while jobs and (jobs[0].future is None or jobs[0].future.done() or jobs[0].deadline <= latest):
            self._refuse(jobs.popleft())
        if now - self._busy_since > self._seconds:
            log.error("a lane is stuck: the database does not answer; its connections are cut")
            self._busy_since = now
            self.writer.store.engines.interrupt()
        self._look = None
        if self._loop is not None and (jobs or self._busy_since < inf):
            self._look = self._loop.call_later(LOOK_SECONDS, self._answer_overdue)

    def _refuse(self, job: Job) -> None:
        if job.future is not None and not job.future.done():
            job.future.set_exception(not_carried_out() if job.claim() else perhaps_carried_out())

    # In the thread

    def _run(self) -> None:
        assert self._loop is not None  # noqa: S101 - start() precedes
        pause, is_open = SHORTEST_PAUSE_SECONDS, True
        while is_open or self._later:
            batch, is_open = self._next_batch(pause, is_open)
            if not batch:
                continue
            self._busy_since = began = monotonic()
            results = self._results_of(batch)
            seconds, self._busy_since = monotonic() - began, inf
            if self._tracer is not None:
                results = self._trace(self._tracer, batch, results, seconds)
            done = [(job, result) for job, result in zip(batch, results, strict=True) if not isinstance(result, Later)]
            self._later = [job for job, result in zip(batch, results, strict=True) if isinstance(result, Later)]
            if done:
                jobs, answers = [job for job, _ in done], [answer for _, answer in done]
                self._loop.call_soon_threadsafe(self._deliver, jobs, answers, seconds)
            pause = SHORTEST_PAUSE_SECONDS if done else min(2 * pause, LONGEST_PAUSE_SECONDS)
            # The event loop's turn: in a busy process it posts further jobs meanwhile, and one commit serves more of
            # them. Saves 5 % of an intake's CPU (`bench --without pause`).
            sleep(pause if Later.TROUBLE in results else 0)
        self._loop.call_soon_threadsafe(self._ended.set)

    def _next_batch(self, pause: float, is_open: bool) -> tuple[list[Job], bool]:
        """The jobs of the next batch, those to try again first; and whether the mailbox is still open.

        Waits for a job, but only `pause` seconds if there are jobs to try again.
        """
        batch = list(self._later)
        timeout = pause if batch else None
        for _ in range(self._largest_batch - (len(batch) if self.writer.in_trouble else 0)):
            try:
                job = self._mailbox.get(timeout=timeout)
            except Empty:
                break
            if job is None:
                return batch, False
            if job.claim():
                batch.append(job)
            timeout = 0
        return batch, is_open

    def _results_of(self, batch: Sequence[Job]) -> list[Any]:
        """One result for each job. Overdue jobs are given up: an attempt that began now could end too late."""
        longest = LONGEST_ATTEMPT_SECONDS if self.writer.in_trouble else ANSWER_SECONDS
        latest = monotonic() + min(longest, self._seconds / 4)
        is_due = [job.deadline <= latest for job in batch]
        attempted = iter(self.writer.attempt([job for job, due in zip(batch, is_due, strict=True) if not due]))
        return [not_carried_out() if due else next(attempted) for due in is_due]

    def _trace(self, tracer: Tracer, batch: Sequence[Job], results: Sequence[Any], seconds: float) -> list[Any]:
        ended, now = time_ns(), monotonic()
        posted = [ended - int((now - job.posted_at) * 1e9) for job in batch]
        times = Times(began=ended - int(seconds * 1e9), commit_began=self.writer.commit_began, ended=ended)
        return trace_batch(tracer, batch, results, posted, times)

    def _deliver(self, batch: Sequence[Job], results: Sequence[Any], seconds: float) -> None:
        """On the event loop: answer the callers, then publish the outcomes."""
        for job, result in zip(batch, results, strict=True):
            future = job.future
            if future is None or future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._publish([result for result in results if isinstance(result, Outcome) and result.events])
        if self._measure is not None:
            self._measure(len(batch), seconds, _results_by_kind(batch, results))


def _results_by_kind(batch: Sequence[Job], results: Sequence[Any]) -> list[tuple[str, str]]:
    """Each command's kind and its result: ok, replayed, or the code of its refusal."""
    return [
        (
            type(job.command).__name__,
            result.code if isinstance(result, QueueError) else "replayed" if result.replayed else "ok",
        )
        for job, result in zip(batch, results, strict=True)
        if isinstance(job, Envelope)
    ]


class Lanes:
    """All lanes of this process: `async with` starts and drains them."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        publish: Publish,
        *,
        count: int = 1,
        measure: Measure | None = None,
        seconds: float = COMMAND_SECONDS,
        limit: int = MAILBOX_LIMIT,
        largest_batch: int = LARGEST_BATCH,
        tracer: Tracer | None = None,
    ) -> None:
        """`seconds`: the time within which every command is answered. `limit`: the most jobs that wait in one lane.
        `largest_batch`: the most jobs that are committed together."""
        self.limit = limit
        self.seconds = seconds
        self._tracer = tracer
        self._lanes = [
            Lane(
                Writer(store, clock, new_id),
                publish,
                measure,
                f"lane-{number}",
                seconds=seconds,
                limit=lambda: self.limit,
                largest_batch=largest_batch,
                tracer=tracer,
            )
            for number in range(count)
        ]

    async def __aenter__(self) -> "Lanes":
        for lane in self._lanes:
            lane.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            lane.close()
        await asyncio.gather(*(lane.stop() for lane in self._lanes))

    def hurry(self) -> None:
        """Limit all deadlines, also of later jobs, to HURRIED_SECONDS, because the process is stopping."""
        for lane in self._lanes:
            lane.hurry()

    def _lane(self, performer_id: str) -> Lane:
        return self._lanes[crc32(performer_id.encode()) % len(self._lanes)]

    def peek(self, performer_id: str) -> Room | None:
        """The room as last committed by this process, if it is cached."""
        return self._lane(performer_id).writer.peek(performer_id)

    @property
    def waiting(self) -> int:
        """The number of jobs that wait in all lanes."""
        return sum(lane.waiting for lane in self._lanes)

    @property
    def is_disk_full(self) -> bool:
        """Whether the database's disk was full for a command in the last seconds."""
        return any(lane.writer.is_disk_full for lane in self._lanes)

    @property
    def wait_seconds(self) -> float:
        """Seconds since the oldest unanswered command or database task was posted; 0 if there is none."""
        return max(lane.wait_seconds for lane in self._lanes)

    @property
    def commit_seconds(self) -> float:
        """The seconds before its deadline at which a command should be sent. Earlier steps, such as a request to the
        wallet, may take the rest."""
        return min(COMMIT_SECONDS, self.seconds / 4)

    async def send(
        self,
        performer_id: str,
        command: Command,
        idempotency: Idempotency | None = None,
        *,
        deadline: Deadline | None = None,
    ) -> Outcome:
        """Have a command decided and committed. Raises its refusal. Cancelling the caller does not cancel the command.

        `deadline`: the caller's, if earlier steps have used a part of its time.

        Raises Unavailable if it could not be committed in time. The detail says whether it may be committed later; the
        same command with the same idempotency key then gets its outcome.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        envelope = Envelope(performer_id=performer_id, command=command, idempotency=idempotency, future=future)
        if self._tracer is not None:
            envelope.traceparent = current.get()
        self._lane(performer_id).post(envelope, deadline)
        return await future

    async def run(self, task: Callable[[Connection], T], *, deadline: Deadline | None = None) -> T:
        """Run other writing work in a lane's transaction, between commands; `deadline` as in `send`."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._lanes[0].post(DatabaseTask(run=task, future=future), deadline)
        return await future
