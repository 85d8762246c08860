"""Sends cases to a server, many at a time, and checks the answers."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

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


async def assault(port: int, token: str, seeds: Iterable[int], report: Report | None = None) -> Report:
    """Try these cases. `token`: an administrator's, for the requests that have one. `report`: filled as they go on."""
    report, left = report or Report(), iter(seeds)

    async def work() -> None:
        for seed in left:
            await _one(port, token, seed, report)

    await asyncio.gather(*(work() for _ in range(TOGETHER)))
    return report


async def _one(port: int, token: str, seed: int, report: Report) -> None:
    report.cases += 1
    pieces = case(seed, token)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sending = asyncio.create_task(_send(writer, pieces))
    try:
        heard = await _listen(reader, b"".join(pieces))
    except NotHttp as wrong:
        report.failures.append(f"seed {seed}: {wrong}")
        return
    finally:
        sending.cancel()
        writer.transport.abort()
        await asyncio.gather(sending, return_exceptions=True)
    report.answers.update(answer.status for answer in heard.answers)
    found = faults(heard.reading, heard.answers, heard.rest, ended=heard.ended, is_reset=heard.is_reset)
    report.failures += [f"seed {seed}: {fault}" for fault in found]


async def _send(writer: asyncio.StreamWriter, pieces: list[bytes]) -> None:
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)


@dataclass
class _Heard:
    reading: Reading
    """Of what was sent, as the server must have understood it."""
    answers: list[Answer] = field(default_factory=list)
    rest: bytes = b""
    ended: bool = False
    is_reset: bool = False

    @property
    def is_owed_more(self) -> bool:
        whole = sum(asked.is_whole or self.reading.end is End.UPGRADED for asked in self.reading.requests)
        return self.reading.end in (End.CLOSED, End.REFUSED) or len(self.answers) < whole


async def _listen(reader: asyncio.StreamReader, sent: bytes) -> _Heard:
    """The bytes of the answer. Raises NotHttp."""
    heard, came = _Heard(read(sent)), b""
    without_offers = read(sent, with_offers=False)
    while True:
        try:
            async with asyncio.timeout(WAIT_SECONDS if heard.is_owed_more else LISTEN_SECONDS):
                piece = await reader.read(65536)
        except TimeoutError:
            return heard
        except ConnectionError:
            piece, heard.is_reset = b"", True
        if not piece:
            heard.ended = True
            return heard
        came += piece
        heard.answers, heard.rest = answers_of(came, without_offers)
        offers = heard.reading.end is End.UPGRADED and len(heard.answers) >= len(heard.reading.requests)
        if offers and heard.answers[-1].status != HTTPStatus.SWITCHING_PROTOCOLS:
            heard.reading = without_offers
