"""The history of a run, by the runner's monotonic clock: calls and their answers, faults, and processes at rest."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

Json = dict[str, Any]


@dataclass(eq=False, kw_only=True)
class Call:
    """One attempt of a command: a request over HTTP, or a frame over a socket."""

    client: str
    operation: str
    key: str
    """The same for all attempts of a command."""
    node: int
    began: float
    ended: float | None = None
    status: int | None = None
    """None: no answer came."""
    body: Json = field(default_factory=dict)
    problem: str = ""
    """Why no answer came, or what is wrong with it."""

    @property
    def is_acknowledged(self) -> bool:
        return self.status in (200, 201)


@dataclass(eq=False, kw_only=True)
class Fault:
    """An injected fault, from its beginning to its end."""

    kind: str
    detail: str
    began: float
    ended: float | None = None


@dataclass(eq=False, kw_only=True)
class Rest:
    """A time in which a process could not answer, because it was stopped, suspended or not ready yet."""

    node: int
    began: float
    ended: float | None = None


@dataclass(eq=False)
class History:
    began: float = field(default_factory=monotonic)
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    rests: list[Rest] = field(default_factory=list)
    lags: list[tuple[float, float]] = field(default_factory=list)
    """When the runner itself was late, and by how many seconds."""
    wrong: list[tuple[float, str]] = field(default_factory=list)
    """A violation, and when it was seen."""

    def see(self, what: str) -> None:
        self.wrong.append((monotonic(), what))

    def call(self, client: str, operation: str, key: str, node: int) -> Call:
        """A call that begins now."""
        made = Call(client=client, operation=operation, key=key, node=node, began=monotonic())
        self.calls.append(made)
        return made

    @contextmanager
    def fault(self, kind: str) -> Iterator[Fault]:
        made = Fault(kind=kind, detail="", began=monotonic())
        self.faults.append(made)
        try:
            yield made
        finally:
            made.ended = monotonic()

    @contextmanager
    def rest(self, node: int) -> Iterator[None]:
        made = Rest(node=node, began=monotonic())
        self.rests.append(made)
        try:
            yield
        finally:
            made.ended = monotonic()

    def was_at_rest(self, node: int, began: float, ended: float, slack: float) -> bool:
        return any(
            rest.node == node and rest.began <= ended and began <= (rest.ended or ended) + slack for rest in self.rests
        )

    def lag(self, began: float, ended: float) -> float:
        """The sum of the runner's delays in this time, in seconds."""
        return sum(seconds for at, seconds in self.lags if began - seconds <= at <= ended)

    def outage(self, fault: Fault) -> float:
        """The longest time without an acknowledged command that overlaps the fault, in seconds."""
        end = fault.ended or monotonic()
        return max(
            (later - earlier for earlier, later in self._silences if later >= fault.began and earlier <= end), default=0
        )

    @cached_property
    def _silences(self) -> list[tuple[float, float]]:
        """The times between two acknowledged commands."""
        times = sorted(call.ended for call in self.calls if call.is_acknowledged and call.ended is not None)
        return list(pairwise([self.began, *times]))

    def at_fault(self, moment: float) -> str:
        """The kind of the fault that began last before a moment; "none" if there was none yet."""
        before = [fault for fault in self.faults if fault.began <= moment]
        return before[-1].kind if before else "none"

    def write(self, path: Path) -> None:
        """Write one JSON object per line, in order of time."""
        records = [
            *(("fault", fault.began, asdict(fault)) for fault in self.faults),
            *(("rest", rest.began, asdict(rest)) for rest in self.rests),
            *(("call", call.began, asdict(call)) for call in self.calls),
        ]
        with path.open("w") as file:
            for kind, began, record in sorted(records, key=lambda each: each[1]):
                file.write(json.dumps({"what": kind, "at": round(began - self.began, 3), **record}) + "\n")
