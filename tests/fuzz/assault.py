"""Sends cases to a server, many at a time, and looks at what comes back."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.fuzz.answers import Answer, NotHttp, answers_of, faults
from tests.fuzz.grammar import case
from tests.fuzz.reading import End, Reading, read

TOGETHER = 64
LISTEN_SECONDS = 0.05
"""How long a connection that the server need not end is listened to once everything is answered."""
WAIT_SECONDS = 30.0
"""How long the server may take for an answer or an end that it owes."""


@dataclass
class Report:
    cases: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    """By status."""
    failures: list[str] = field(default_factory=list)


async def assault(port: int, token: str, seeds: Iterable[int]) -> Report:
    """Try these cases. `token`: an administrator's, for the requests that have one."""
    report, left = Report(), iter(seeds)

    async def work() -> None:
        for seed in left:
            await _one(port, token, seed, report)

    await asyncio.gather(*(work() for _ in range(TOGETHER)))
    return report


async def _one(port: int, token: str, seed: int, report: Report) -> None:
    report.cases += 1
    pieces = case(seed, token)
    reading = read(b"".join(pieces))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sending = asyncio.create_task(_send(writer, pieces))
    try:
        answers, rest, ended = await _listen(reader, reading)
    except NotHttp as wrong:
        report.failures.append(f"seed {seed}: {wrong}")
        return
    finally:
        sending.cancel()
        writer.transport.abort()
        await asyncio.gather(sending, return_exceptions=True)
    report.answers.update(answer.status for answer in answers)
    report.failures += [f"seed {seed}: {fault}" for fault in faults(reading, answers, rest, ended=ended)]


async def _send(writer: asyncio.StreamWriter, pieces: list[bytes]) -> None:
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)


async def _listen(reader: asyncio.StreamReader, reading: Reading) -> tuple[list[Answer], bytes, bool]:
    """The answers, what else came, and whether the server has closed the connection. Raises NotHttp."""
    came, answers, rest = b"", list[Answer](), b""
    owed = sum(asked.is_whole or reading.end is End.UPGRADED for asked in reading.requests)
    while True:
        is_owed = reading.end in (End.CLOSED, End.REFUSED) or len(answers) < owed
        try:
            async with asyncio.timeout(WAIT_SECONDS if is_owed else LISTEN_SECONDS):
                piece = await reader.read(65536)
        except TimeoutError:
            return answers, rest, False
        except ConnectionError:
            piece = b""
        if not piece:
            return answers, rest, True
        came += piece
        answers, rest = answers_of(came, reading)
