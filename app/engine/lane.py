"""The lanes: commands wait in a lane's mailbox, are decided in memory and committed together by its writer.

A room belongs to one lane, by hash. A lane is one thread with one connection: it drains whatever is waiting, has it
decided and written in one transaction (group commit: under load one fsync serves hundreds of commands, idle a command
waits for nobody), then answers every caller and hands the events on. What is in the mailbox runs, whether or not its
caller still waits.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from queue import SimpleQueue
from time import perf_counter, sleep
from types import TracebackType
from typing import Any, TypeVar
from zlib import crc32

from sqlalchemy import Connection

from app.domain.command import Command
from app.domain.errors import QueueError, Unavailable
from app.domain.room import Room
from app.engine.writer import DatabaseTask, Envelope, Idempotency, Job, Outcome, Writer
from app.store import Store

LARGEST_BATCH = 256
MAILBOX_LIMIT = 10_000
"""Commands waiting in one lane; beyond it a caller is told to come back, so that memory stays bounded."""

T = TypeVar("T")

Publish = Callable[[Sequence[Outcome]], None]
Measure = Callable[[int, float, Sequence[tuple[str, str]]], None]
"""Called once a batch with the number of jobs, the seconds it took, and each command's kind and result."""


class Lane:
    """One mailbox and its thread."""

    def __init__(self, writer: Writer, publish: Publish, measure: Measure | None, name: str) -> None:
        self.writer = writer
        self._publish = publish
        self._measure = measure
        self._mailbox: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Finish what is in the mailbox, then end the thread."""
        self._stopping = True
        self._mailbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def post(self, job: Job) -> None:
        if self._stopping:
            raise Unavailable("This process is shutting down; try again.", retry_after_seconds=1)
        if self._mailbox.qsize() >= MAILBOX_LIMIT:
            raise Unavailable("Too many commands are waiting; try again shortly.", retry_after_seconds=1)
        self._mailbox.put(job)

    @property
    def waiting(self) -> int:
        return self._mailbox.qsize()

    def _run(self) -> None:
        running = True
        while running:
            batch: list[Job] = []
            job = self._mailbox.get()
            while job is not None:
                batch.append(job)
                if len(batch) >= LARGEST_BATCH or self._mailbox.empty():
                    break
                job = self._mailbox.get()
            running = job is not None
            if batch:
                began = perf_counter()
                results = self.writer.process(batch)
                seconds = perf_counter() - began
                assert self._loop is not None  # noqa: S101 - start() precedes
                self._loop.call_soon_threadsafe(self._deliver, batch, results, seconds)
                # The event loop's turn: on a busy process it hands in what else has come, and the next batch is larger
                # by half, for one fsync.
                sleep(0)

    def _deliver(self, batch: Sequence[Job], results: Sequence[Any], seconds: float) -> None:
        """On the event loop: answer the callers, then let everybody else know."""
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
    ) -> None:
        self._lanes = [
            Lane(Writer(store, clock, new_id), publish, measure, f"lane-{number}") for number in range(count)
        ]

    async def __aenter__(self) -> "Lanes":
        for lane in self._lanes:
            lane.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            await lane.stop()

    def _lane(self, performer_id: str) -> Lane:
        return self._lanes[crc32(performer_id.encode()) % len(self._lanes)]

    def peek(self, performer_id: str) -> Room | None:
        return self._lane(performer_id).writer.peek(performer_id)

    @property
    def waiting(self) -> int:
        return sum(lane.waiting for lane in self._lanes)

    async def send(self, performer_id: str, command: Command, idempotency: Idempotency | None = None) -> Outcome:
        """Have a command decided and committed. Raises its refusal; cancelling the caller does not cancel it."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._lane(performer_id).post(
            Envelope(performer_id=performer_id, command=command, idempotency=idempotency, future=future)
        )
        return await future

    async def run(self, task: Callable[[Connection], T]) -> T:
        """Run other writing work in a lane's transaction, between commands."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._lanes[0].post(DatabaseTask(run=task, future=future))
        return await future
