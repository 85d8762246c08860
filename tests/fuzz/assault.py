"""Sends cases to a server, many at a time, and looks at what comes back."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.fuzz.grammar import case

TOGETHER = 64
LISTEN_SECONDS = 0.05
"""How long a case that the server does not end is listened to before the test ends it."""

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass
class Report:
    cases: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    """By status."""
    failures: list[str] = field(default_factory=list)


async def assault(port: int, seeds: Iterable[int]) -> Report:
    report, left = Report(), iter(seeds)

    async def work() -> None:
        for seed in left:
            await _one(port, seed, report)

    await asyncio.gather(*(work() for _ in range(TOGETHER)))
    return report


async def _one(port: int, seed: int, report: Report) -> None:
    report.cases += 1
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        with suppress(ConnectionError):
            for piece in case(seed):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            with suppress(TimeoutError):
                async with asyncio.timeout(LISTEN_SECONDS):
                    while piece := await reader.read(65536):
                        answer += piece
    finally:
        writer.transport.abort()
    for status in map(int, _STATUS.findall(answer)):
        report.answers[status] += 1
        if status >= 500:
            report.failures.append(f"seed {seed}: {status}")
    if answer and not answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
        report.failures.append(f"seed {seed}: no answer but {answer[:40]!r}")
