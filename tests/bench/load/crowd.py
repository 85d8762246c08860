"""Driving a crowd of viewers: the compiled `viewers.c`, or `viewers.py` where there is no compiler."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import machine

HERE = Path(__file__).parent
COMPILE_SECONDS = 120
CONNECT_SECONDS = 300


class CrowdError(Exception):
    """The viewers could not execute a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The deliveries since the last reset. `least` and `most`: deliveries of the worst and the best served viewer."""

    open: int
    deliveries: int
    frames: int
    bytes: int
    gaps: int
    repeats: int
    snapshots: int
    closed: int
    least: int
    most: int
    oldest: int
    newest: int
    cpu: float
    """Seconds the client itself has used since it began."""

    def is_complete(self, *, viewers: int, events: int) -> bool:
        """Whether every viewer got every event, in order and once."""
        whole = self.least == self.most == events
        return whole and self.open == viewers and not (self.gaps or self.repeats or self.closed)


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def compiled(source: Path, cache: Path) -> Path | None:
    """The program of a C file, or None without a compiler. Compiled anew when the source is newer."""
    cc = compiler()
    if cc is None:
        return None
    cache.mkdir(parents=True, exist_ok=True)
    program = cache / source.stem
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run([cc, "-O2", "-o", program, source], check=True, capture_output=True, timeout=COMPILE_SECONDS)
    return program


def viewer_command(cache: Path) -> list[str]:
    program = compiled(HERE / "viewers.c", cache)
    return [str(program)] if program else [sys.executable, str(HERE / "viewers.py")]


class Crowd:
    """One process full of viewers."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise CrowdError(f"the viewers' process ended at: {line}")
        return answer

    def connect(
        self,
        port: int,
        path: str,
        count: int,
        *,
        host: str = "127.0.0.1",
        per_room: int | None = None,
        at_once: int = 128,
        receive_buffer: int = 0,
    ) -> float:
        """Open sockets and wait until each has what it needs; returns the seconds it took.

        `%d` in the path becomes the room's number. Raises CrowdError unless all of them got in.
        """
        answer = self._ask(
            f"connect {host} {port} {count} {per_room or count} {at_once} {receive_buffer} {path}"
        ).split()
        if answer[:3] != ["connected", str(count), "0"]:
            raise CrowdError(f"{count} viewers wanted, got: {' '.join(answer)}")
        return float(answer[3])

    def wait(self, deliveries: int, *, seconds: float = 60.0) -> int:
        """Wait until there were this many deliveries since the reset; returns the time of the last one
        (CLOCK_MONOTONIC, ns)."""
        word, came, last_ns = self._ask(f"wait {deliveries} {round(seconds * 1000)}").split()
        if word != "reached":
            raise CrowdError(f"{deliveries} deliveries wanted, {came} came in {seconds:.0f} s")
        return int(last_ns)

    def report(self) -> Report:
        return Report(**json.loads(self._ask("report")))

    def reset(self) -> None:
        self._tell("reset")

    def pause(self) -> None:
        """Stop reading: a crowd of stalled clients."""
        self._tell("pause")

    def resume(self) -> None:
        self._tell("resume")

    def close(self) -> None:
        self._tell("close")

    def _tell(self, word: str) -> None:
        if (answer := self._ask(word).strip()) != "ok":
            raise CrowdError(f"{word}: {answer}")


@contextmanager
def crowd(command: list[str], core: int, *, flavour: str = "live") -> Iterator[Crowd]:
    """Viewers on a core. `flavour`: "live", "deflated" (ours: in once the snapshot has come), "plain",
    "socketio", "centrifuge"."""
    with machine.born_on(core):
        process = subprocess.Popen(
            [*command, flavour], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
    try:
        yield Crowd(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
